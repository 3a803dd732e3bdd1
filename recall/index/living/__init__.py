"""Adds, changes and deletes items of an index while it is searched.

Imports the other modules of `recall.index`. Start at `index.py` (`LivingIndex`). A change goes through `storage.py` to
`journal.py`, then to a new `snapshot.py`, which searches see; `replay.py` does the same when an index is opened.
`drift.py` measures when a rebuild is due, `rebalancing.py` starts it, and `rebuild.py` does it.
"""
