"""How good the candidates are, for new items and for known ones; `python -m benchmarks.quality --help`."""
