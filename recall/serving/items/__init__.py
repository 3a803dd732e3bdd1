"""Holds the items that are served: their index, vectors, attributes, groups and posteriors, also of added items.

Imports all packages up to `recall.model`; nothing of `recall.serving.users` and `recall.serving.search`. Start at
`served.py` (`ServedItems`). `facts.py` keeps attributes and posteriors; `living.py` makes the changes.
"""
