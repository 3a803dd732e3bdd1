"""Measures the quality of content vectors by themselves.

Imports all packages up to `recall.model`, and `recall.content.vectors`. Start at `evaluation.py`.
"""
