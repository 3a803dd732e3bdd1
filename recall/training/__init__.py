"""Trains a model: the loop, its checkpoints, validation and stages.

Imports all packages up to `recall.model`. Start at `loop.py` (`train`).
"""
