"""Lets models run the feed of a simulated community for days, and compares what comes of it: the closed loop.

Imports all packages up to `recall.runs`. Start at `loop.py` (`run_loop`): `arms.py` reads what is compared ->
`worker.py` plays one arm with one seed (`play.py`: policies fill the feed from what `knowledge.py` has seen;
`learner.py` trains) -> `metrics.py` measures the log -> `summary.py` compares arms over seeds ->
`recall.runs.report.loop_page` draws.
"""
