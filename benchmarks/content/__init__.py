"""What parts of the content side are worth, each on top of the same model; `python -m benchmarks.content --help`."""
