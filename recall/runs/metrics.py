"""Holds what metrics.json says, and chooses which of it a short table shows: in a notebook, or on a terminal."""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Mapping
from typing import Any

from recall.core.html import html_table

_WANTED_K = 50


class Metrics(dict[str, Any]):
    """Hold metrics.json: a dictionary, which a notebook shows as a table of models.

    Example:
      >>> metrics = recall.Run(recall.load_config("experiment.yaml"), "runs/mine").evaluate()
      >>> 0 <= metrics["test"]["gated"]["all"]["recall@10"] <= 1
      True
    """

    def _repr_html_(self) -> str:
        columns, caption = metric_columns(self, k=(k := shown_k(self)))
        rows = [[model, *metric_texts(parts, columns)] for model, parts in self["test"].items()]
        names = ["model", *columns]
        return html_table(f"Test, @{k}", names, rows, numbers=range(1, len(names)), note=f"{caption}.")


def shown_k(metrics: Mapping[str, Any]) -> int:
    """Return the length of lists nearest to 50 that was measured."""
    names = next(iter(metrics["test"].values()))["all"]
    return min((int(found[1]) for name in names if (found := re.fullmatch(r"recall@(\d+)", name))), key=_from_wanted)


def _from_wanted(k: int) -> int:
    return abs(k - _WANTED_K)


def metric_columns(metrics: Mapping[str, Any], *, k: int) -> tuple[dict[str, tuple[str, ...]], str]:
    """Choose the columns of a table of models, and describe them.

    Args:
      metrics: as metrics.json.
      k: length of the lists.

    Returns:
      The path to each column's number below a model of a split, by the column's name; and the caption.
    """
    columns: dict[str, tuple[str, ...]] = {
        "recall": ("all", f"recall@{k}"),
        "ndcg": ("all", f"ndcg@{k}"),
        "cold": ("cold", f"recall@{k}"),
        "cold/cold": ("cold_among_cold", f"recall@{k}"),
        "coverage": ("ecology", "coverage@100"),
        "cold share": ("ecology", "cold_share@100"),
    }
    caption = (
        f"recall and ndcg @{k}; cold: targets without exposure before the test period, against the whole catalogue "
        "and (cold/cold) among cold items; coverage and cold share of lists of 100"
    )
    if any("rolling" in parts for parts in metrics["test"].values()):
        columns = {"recall": columns["recall"], "rolling": ("rolling", "all", f"recall@{k}"), **columns}
        caption += "; rolling: recall of items that are made again as the test period goes on"
    elif why_frozen := (metrics.get("rolling") or {}).get("why_frozen"):
        caption += f"; no rolling evaluation: {why_frozen}"
    if any("graded" in parts for parts in metrics["test"].values()):
        columns["pnr"] = ("graded", "pnr")
        caption += "; pnr: pairs of a user's clicks in the order of their weights, over pairs in the other order"
    return columns, caption


def metric_texts(parts: Mapping[str, Any], columns: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Write the numbers of one model, one a column; a dash where a metric is undefined."""
    values = [functools.reduce(operator.getitem, path, parts) for path in columns.values()]
    return ["-" if value is None else f"{value:.4f}" for value in values]
