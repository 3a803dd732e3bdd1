"""Packs a finished run for other engines: one SavedModel from raw features to candidates, and plain vectors.

Imports all packages up to `recall.model`. Start at `run.py`; `features.py` encodes raw features in TensorFlow.
"""
