"""Apache Beam jobs: thin shells around the pure functions of `recall`."""
