"""What the training data job is told, as `rows/training_data.py` writes it into the experiment of the library."""

BUCKET_MS = DELAY_MS = WINDOW_MS = 3_600_000
HELD_OUT = (0.1, 0.1)
"""Shares of the events, in order of time, of validation and test."""
HISTORY = 20
STRENGTH = 20.0
MIN_COUNT = 1
"""Training clicks with which an id gets a code of its own."""
