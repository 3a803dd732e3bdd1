"""Draws a run as one self-contained page.

Imports `recall.evaluation` and the other modules of `recall.runs`. `inputs.py` reads -> `numbers.py` computes ->
`tables.py` and `plots.py` draw -> `page.py` writes.
"""
