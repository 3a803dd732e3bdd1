"""Turns users into query vectors: users of the log by id, and users that no file knows by their features.

Imports all packages up to `recall.model`, and `recall.serving.items`; nothing of `recall.serving.search`. Start at
`asked.py` (`UserQuery`) and `queries.py`.
"""
