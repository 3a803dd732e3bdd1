"""The plots of README.md, derived from the results: latency by clients, memory over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.common.drawing import STYLE, legend_below, make_panels, save_figures

_PERCENTILES = {"p50_ms": ("p50", "#4477aa", "o"), "p99_ms": ("p99", "#ee6677", "s"), "max_ms": ("max", "#bbbbbb", "^")}
_WIDE = (7.4, 2.4)

Result = Mapping[str, Any]


def write_plots(folder: Path, results: Sequence[Result]) -> list[Path]:
    """Draws latency.svg and memory.svg if there are results; returns the files."""
    if not results:
        return []
    with rc_context(STYLE):
        return save_figures(folder, {"latency": draw_latency(results), "memory": draw_memory(results)})


def draw_latency(results: Sequence[Result]) -> Figure:
    """Milliseconds by clients, both axes logarithmic, with the requests per second at each number of clients."""
    figure, axes = make_panels(len(results), share=True)
    for axis, result in zip(axes, results, strict=True):
        clients = [phase["clients"] for phase in result["phases"]]
        for name, (label, color, marker) in _PERCENTILES.items():
            values = [phase[name] for phase in result["phases"]]
            axis.plot(clients, values, color=color, marker=marker, markersize=5, label=label)
        for phase in result["phases"]:
            axis.annotate(
                f"{phase['requests_per_second']:,.0f}/s", (phase["clients"], phase["p50_ms"]), xytext=(0, -12),
                textcoords="offset points", ha="center",
            )  # fmt: skip
        axis.set_title(result["publish"])
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xticks(clients, [f"{count}" for count in clients])
        axis.minorticks_off()
        axis.margins(x=0.15, y=0.2)
        axis.set_xlabel("clients")
    axes[0].set_ylabel("ms per request")
    legend_below(figure, axes, columns=len(_PERCENTILES))
    return figure


def draw_memory(results: Sequence[Result]) -> Figure:
    """Resident memory of the server over time; a thin line for each version that came into service."""
    figure, axes = make_panels(len(results), size=_WIDE, columns=1)
    for axis, result in zip(axes, results, strict=True):
        begin = result["phases"][0]["began"]
        minutes = [(at - begin) / 60 for at in result["memory"]["at"]]
        for number, version in enumerate(result["versions"]["loaded"]):
            label = "version taken into service" if not number else None
            axis.axvline((version["at"] - begin) / 60, color="#bbbbbb", linewidth=0.5, label=label)
        axis.plot(minutes, result["memory"]["mb"], color="#4477aa", label="resident memory of the server")
        for phase in result["phases"]:
            axis.annotate(
                f"{phase['clients']} clients", ((phase["began"] - begin) / 60, 0.04), xycoords=("data", "axes fraction")
            )
        axis.set_title(result["publish"])
        axis.set_ylim(bottom=0)
        axis.set_ylabel("MB")
        axis.set_xlabel("minutes")
    legend_below(figure, axes, columns=2)
    return figure
