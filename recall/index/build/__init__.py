"""Chooses, builds and tunes an index for given vectors.

Imports the other modules of `recall.index`. Start at `build.py`; `tuning.py` finds the cheapest ScaNN settings that
reach a recall, `shard_build.py` builds an index too large for one piece.
"""
