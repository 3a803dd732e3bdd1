"""Takes one day after the other: from yesterday's run to today's, judged, guarded and published."""
