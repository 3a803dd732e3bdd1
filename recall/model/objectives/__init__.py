"""Holds the objectives of training, each with its own file and weight.

Imports the other modules of `recall.model`. Start at `objective.py`, then `listed.py` and `retrieval.py`; the softmax
over candidates is in `softmax.py`, its input in `ranked_queries.py`.
"""
