"""Turns batches of examples into vectors and losses.

Imports `recall.core`, `recall.config`, `recall.data` and `recall.evaluation`; TensorFlow is at home here. Start at
`recall_model.py`, which joins `batches/` (what a batch is ranked against), `towers/` (vectors) and `objectives/`
(losses).
"""
