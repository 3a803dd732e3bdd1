"""Reads and validates the experiment file, one module a section.

Imports `recall.core`; knows neither data nor TensorFlow. Start at `experiment.py` (`load_config`), then read the
section of interest: `data.py`, `features.py`, `model.py` (with `objectives.py`), `training.py`, `index.py`,
`evaluation.py`, `content.py`. `strict.py` has the base of all settings, `values.py` their types.
"""
