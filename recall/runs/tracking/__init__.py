"""Writes a run into a tracking server while it goes on: `recall run --track mlflow`.

Imports all packages up to `recall.serving`. Start at `tracked.py`, which never lets a run fail for its tracking;
`mlflow_run.py` is the only home of MLflow, `flat.py` makes flat names of settings and metrics.
"""
