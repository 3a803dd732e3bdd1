"""Trains content vectors on clicks, before any tower reads them.

Imports `recall.core`, `recall.config` and `recall.data`; TensorFlow. Start at `training.py`; its criteria are in
`losses.py`, its result in `artifact.py`.
"""
