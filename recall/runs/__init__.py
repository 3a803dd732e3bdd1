"""Takes one experiment through its steps in one directory.

Imports all other packages and `pipelines`; only `recall.cli` imports it. Start at `run.py` (`Run`); `assessment.py`
evaluates, `report/` draws.
"""
