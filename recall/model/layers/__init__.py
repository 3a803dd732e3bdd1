"""Holds Keras layers and tensor functions that several towers share.

Imports TensorFlow and `recall.data.features`. Start at `features.py`, which embeds encoded columns.
"""
