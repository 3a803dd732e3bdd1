"""Adds the likeness of content to the score: `space.py` fits one vector per item, `term.py` puts it into the vectors.

Imports what `recall.model` may; `space.py` is NumPy and SciPy alone.
"""
