"""Hostile requests by the thousand: does the service go on answering, and how long does /healthz wait meanwhile?

`hostile.py` makes requests, `fuzz.py` sends them and measures, `python -m benchmarks.service_fuzz` runs both.
"""
