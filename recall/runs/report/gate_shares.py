"""Plots how the gate divides items among behaviour, audience and content: `shares_by_exposures`."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from recall.runs.report.drawing import ACCENT, COLD, FULL, INK, MUTED, inline_svg, set_title
from recall.runs.report.numbers import exposure_edges


@inline_svg
def shares_by_exposures(exposures: Any, behaviour_share: Any, audience_share: Any) -> Figure | None:
    """Plot the mean shares of items of similar exposures as bars of one length; None without a gate of three.

    Args:
      exposures: int array [items].
      behaviour_share: float array [items] in [0, 1].
      audience_share: float array [items] in [0, 1]; NaN where the model reads no audiences.
    """
    behaviour, audience = (np.asarray(share, dtype=np.float64) for share in (behaviour_share, audience_share))
    known = np.isfinite(behaviour) & np.isfinite(audience)
    if not known.any():
        return None
    exposures, behaviour, audience = np.asarray(exposures, np.int64)[known], behaviour[known], audience[known]
    edges = exposure_edges(int(exposures.max(initial=1)), bins_per_decade=2)
    bins = np.searchsorted(edges, exposures, side="right") - 1
    filled = np.unique(bins)
    shares = {
        "behaviour (trained ids)": [behaviour[bins == index].mean() for index in filled],
        "audience (what the last clickers came from)": [audience[bins == index].mean() for index in filled],
        "content": [(1 - behaviour - audience)[bins == index].mean() for index in filled],
    }
    figure = Figure(figsize=FULL, layout="constrained")
    axis = figure.subplots()
    bottom = np.zeros(len(filled))
    for (label, values), colour, hatch in zip(shares.items(), (ACCENT, COLD, MUTED), ("", "//", ".."), strict=True):
        heights = np.array(values)
        axis.bar(range(len(filled)), heights, bottom=bottom, width=0.86, color=colour, alpha=0.6, hatch=hatch,
                 edgecolor=INK, linewidth=0.4, label=label)  # fmt: skip
        bottom += heights
    counts = [int((bins == index).sum()) for index in filled]
    lows = [int(edges[index]) for index in filled]
    labels = [f"{low:,}\n{n:,} {'item' if n == 1 else 'items'}" for low, n in zip(lows, counts, strict=True)]
    axis.set_xticks(range(len(filled)), labels)
    axis.set_ylim(0, 1)
    axis.set_ylabel("mean share of the item vector")
    axis.set_xlabel("exposures of the item, from")
    axis.grid(visible=False, axis="x")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, 1.13), ncols=3)
    set_title(figure, "What the gate makes items of, by exposures")
    return figure
