"""Trains content vectors on clicks, before any tower reads them.

Imports all packages up to `recall.model`, and `recall.content.judge`; TensorFlow. Start at `training.py`: it collects
the training set (`crowd.py`, `tags.py`, `modalities.py`), takes steps (`trainer.py`, `losses.py`) and stops by
`criterion.py`. `artifact.py` publishes the result.
"""
