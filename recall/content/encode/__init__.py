"""Encodes texts and images as content vectors.

Imports `recall.core` and `recall.config`. Start at `encoders.py`, which names the encoders and what each needs.
"""
