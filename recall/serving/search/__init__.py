"""Finds candidates for query vectors, with filters, caps, exclusions and a fallback.

Imports all packages up to `recall.model`, and `recall.serving.items`; nothing of `recall.serving.users`. Start at
`options.py` (`SearchOptions`) and `search.py`; `candidates.py` has the result.
"""
