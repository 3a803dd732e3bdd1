"""Measures what content vectors are worth by themselves.

Imports `recall.core`, `recall.config`, `recall.data` and `recall.evaluation`. Start at `evaluation.py`.
"""
