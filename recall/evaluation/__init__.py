"""Judges scores exactly: ranks against the whole catalogue, metrics, intervals, baselines.

Imports `recall.core`, `recall.config` and `recall.data`; NumPy only. In order: `scorers.py` scores items ->
`ranking.py` ranks targets -> `metrics.py` and `graded.py` summarise ranks -> `slices.py` (`evaluate`) cuts them by
exposures -> `rolling.py` does the same with items that are made again as time goes on -> `bootstrap.py` and
`comparison.py` test a difference between two models.
"""
