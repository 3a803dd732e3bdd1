"""Adds, changes and deletes items of an index while it is searched.

Imports the other modules of `recall.index`. Start at `index.py` (`LivingIndex`): a change goes to `journal.py`, then to
`recent.py`, where searches see it; `drift.py` says when a rebuild is due and `rebalancing.py` does it.
"""
