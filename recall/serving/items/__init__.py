"""Knows the items that are served: their vectors, attributes, groups and posteriors, also of added items.

Imports all packages up to `recall.model`. Start at `facts.py`; `living.py` takes the changes.
"""
