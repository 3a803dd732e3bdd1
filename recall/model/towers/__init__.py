"""Turns features into vectors: item towers and query towers.

Imports `recall.config`, `recall.data`, `recall.model.layers` and `recall.model.fusion`. Start at `item.py`, whose
tokens both query towers (`query.py`) read; `gate.py` weighs behaviour against content.
"""
