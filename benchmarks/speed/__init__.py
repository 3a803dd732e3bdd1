"""How fast, how large, and how both grow, beside what others do in the same time; `python -m benchmarks --help`."""
