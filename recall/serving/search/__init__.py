"""Finds candidates for query vectors, with filters, caps, exclusions and a fallback.

Imports `recall.serving.items` and `recall.serving.users`. Start at `search.py`; `candidates.py` has the result.
"""
