"""Takes one day after the other: from yesterday's run to today's, judged, guarded and published.

Imports `recall.runs.run` and what that imports. Start at `daily.py`: `log_files.py` finds the files of the day,
`guard.py` decides whether its model may be published, `published.py` keeps account of the runs.
"""
