"""Predicts the CTR of an item from its content, as the prior of its posterior.

Imports `recall.core`, `recall.config` and its siblings in `recall.data`. Start at `prior.py`; `first_exposures.py` has
the counts to learn from, `linear_ctr.py` the model, `item_priors.py` the result by item.
"""
