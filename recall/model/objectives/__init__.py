"""Holds the losses, each an objective with a weight of its own.

Imports the other modules of `recall.model`. Start at `retrieval.py`; the softmax over candidates is in `softmax.py` and
`pooled_softmax.py`.
"""
