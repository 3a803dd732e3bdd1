"""Looks at a log, a catalogue and profiles, and guesses an experiment file for them (`recall init`).

Imports `recall.core` and `recall.config`. A table's sample (`samples.py`) gives a summary of each column (`columns.py`);
pure functions over these choose the columns of the log (`log.py`, `roles.py`, `clocks.py`) and the features
(`features.py`, `kinds.py`, `words.py`); `experiment_text.py` writes the file, and `experiment.py` puts all together.
"""
