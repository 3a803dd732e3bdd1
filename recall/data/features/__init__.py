"""Encodes item and user columns as the numbers that towers read.

Imports `recall.core` and `recall.config`. Start at `table_encoder.py`, which encodes a whole table with one encoder a
feature (`encoders.py`), from vocabularies (`vocabulary.py`), vectors (`embeddings.py`) and clusters (`clusters.py`).
"""
