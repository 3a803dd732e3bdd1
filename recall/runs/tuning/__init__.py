"""Tunes the settings of an experiment on its validation clicks.

Imports all packages up to `recall.training`, and the report's style. Start at `tune.py`: `study.py` asks for settings
(the only home of Optuna) -> `pool.py` takes the trials, here or in processes (`worker.py`) -> `trial.py` trains and
judges one -> `confirming.py` repeats the best -> `results.py` and `recall.runs.report.tuning_page` write what came of
it.
"""
