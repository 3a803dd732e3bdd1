"""Names the parts of a run directory that more than one module asks for."""

from __future__ import annotations

DATA, METRICS = "data", "metrics.json"
SERVED = "model"
"""The model that is served."""
JUDGED = "evaluated"
"""The model that is judged, where that is not the one that is served."""
