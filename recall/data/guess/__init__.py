"""Looks at a log, a catalogue and profiles, and guesses an experiment file for them (`recall init`).

Imports `recall.core` and `recall.config`. A sample of a table (`samples.py`) gives a summary of each column
(`columns.py`). Pure functions over these choose the columns of the log (`log.py`, `clocks.py`) and the features
(`tables.py`, `kinds.py`), by names (`words.py`) and by values; `experiment.py` puts the guesses together, and
`experiment_text.py` writes the file.
"""
