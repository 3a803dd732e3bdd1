"""Runs the `recall` command as `python -m recall.cli`."""

from recall.cli.main import main

if __name__ == "__main__":
    main()
