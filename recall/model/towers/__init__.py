"""Turns features into vectors: the item side, and the towers that make queries.

Imports `recall.config`, `recall.data`, `recall.model.layers` and `recall.model.fusion`. Start at `item.py`, whose
tokens both query towers (`query.py`) read; `gate.py` decides between behaviour and content.
"""
