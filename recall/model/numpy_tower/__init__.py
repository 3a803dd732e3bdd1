"""Answers user queries in NumPy: for one user, calling TensorFlow costs more than the user tower itself.

Imports `recall.core` and `recall.data.prepared`, and no TensorFlow. `conversion.py` takes the weights out of a trained
model; `tower.py` stores them and computes query vectors; `head.py` is the last part of the tower.
"""
