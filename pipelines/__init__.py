"""Apache Beam jobs: thin shells around the pure functions of `recall`."""

import logging

# Beam warns on import, through the root logger, about Google Cloud clients that nothing here uses.
_disabled = logging.root.manager.disable
logging.disable(logging.WARNING)
try:
    import apache_beam as _beam  # noqa: F401
finally:
    logging.disable(_disabled)
