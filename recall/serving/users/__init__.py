"""Makes query vectors from user ids, histories or features.

Imports `recall.serving.items` and all packages up to `recall.model`. Start at `vectors.py`.
"""
