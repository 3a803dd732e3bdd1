"""Judges scores exactly: ranks against the whole catalogue, metrics, intervals, baselines.

Imports `recall.core`, `recall.config` and `recall.data`; NumPy only. In order: `ranking.py` ranks targets ->
`metrics.py` sums ranks up -> `slices.py` (`evaluate`) cuts them by exposures -> `bootstrap.py` and `comparison.py` say
what a difference is worth.
"""
