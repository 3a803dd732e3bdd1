"""Trains a model: stages, the loop, its checkpoints and validation, and the published folder.

Imports all packages up to `recall.content`. Start at `train.py`, whose calls go down the list: `stages.py` (which
trainings follow each other), `loop.py` (one training), `checkpoint.py` and `validation.py` (after each epoch),
`published.py` (the model directory, written and read).
"""
