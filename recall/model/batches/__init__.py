"""Decides what the clicks of a batch are ranked against, and how items are shown.

Imports `recall.core`, `recall.config`, `recall.data`. `dataset.py` reads batches -> `targets.py` finds their clicks and
candidates -> `negatives.py` draws the negatives -> `cold_simulation.py` hides ids of items as if they were new.
"""
