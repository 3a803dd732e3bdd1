"""Compares a model that is kept with a model that was trained again, on items that came after the first training.

Both are asked about the second half of the test period. The kept model is the one of the experiment; it has learned
from no event after the start of validation. The retrained one has learned from everything up to shortly before the
second half: the few clicks in between (`VALIDATION`) decide when its training stops. Both are judged rolling, from the
same exposures and clicks as of each click, with the same cold bias.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from benchmarks.common.machine import environment
from recall.config.experiment import load_config
from recall.core.errors import RecallError
from recall.data.prepared import PreparedData
from recall.evaluation.ranks import Ranks
from recall.evaluation.rolling import WARM_UP
from recall.runs.run import Run

VALIDATION = 0.02
"""Share of the events that the retrained model does not learn from."""
K, RESAMPLES = 50, 2000


class Asked(NamedTuple):
    """Hold the clicks of the second half on items that came after the first training, of one seed.

    Attributes:
      users: object [clicks].
      items: int64 [clicks], rows of the clicked items.
      clicks: int64 [clicks], of the item, known as of the click.
      learned: int64 [clicks], of the item, before the validation of the retrained model.
      kept: bool [clicks], whether the kept model has the item in its list of 50.
      retrained: bool [clicks], the same of the retrained one.
    """

    users: npt.NDArray[Any]
    items: npt.NDArray[np.int64]
    clicks: npt.NDArray[np.int64]
    learned: npt.NDArray[np.int64]
    kept: npt.NDArray[np.bool_]
    retrained: npt.NDArray[np.bool_]


def measure_warm_up(
    config: Path, out: Path, overrides: Sequence[str], *, seeds: Sequence[int], console: Console
) -> dict[str, Any]:
    """Run both models of each seed, and compare them.

    Returns:
      {"experiment", "set", "seeds", "made_with", "whole_half": recall@50 of all clicks of the second half by both,
      "young": as a bucket, of all clicks on items that came after the first training, "buckets": result of
      `bucket_results`}.

    Raises:
      RecallError: the experiment has no rolling evaluation.
    """
    found, whole = [], []
    for seed in seeds:
        chosen = [*overrides, f"seed={seed}"]
        first = load_config(config, chosen)
        if first.refresh_ms is None:
            raise RecallError(f"{config}: {first.why_frozen}; the warm-up is measured by rolling evaluation")
        kept = Run(first, out / f"seed{seed}" / "kept", console=console)
        bias = kept.all()["index"]["cold_bias"]
        later = [f"data.split.validation={VALIDATION}", f"data.split.test={first.data.split.test / 2}"]
        retrained = Run(
            load_config(config, [*chosen, *later, f"index.cold_bias={bias}"]),
            out / f"seed{seed}" / "retrained",
            console=console,
        )
        retrained.all()
        asked, recalls = asked_clicks(kept.directory, retrained.directory)
        found.append(asked)
        whole.append(recalls)
    young = Asked(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
    kept_recall, retrained_recall = np.mean(whole, axis=0).tolist()
    return {
        "experiment": config.stem,
        "set": list(overrides),
        "seeds": list(seeds),
        "made_with": environment(threads=int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))),
        "whole_half": {"kept": kept_recall, "retrained": retrained_recall},
        "young": summarise(young, np.ones(len(young.kept), bool)),
        "buckets": bucket_results(young),
    }


def asked_clicks(kept: Path, retrained: Path) -> tuple[Asked, tuple[float, float]]:
    """Read what two runs answer to the clicks of the second half, and their recall@50 of all these clicks."""
    before, after = (PreparedData.load(run / "data") for run in (kept, retrained))
    tables = []
    for run in (kept, retrained):
        ranks = Ranks.load(run)
        tables.append(ranks.rolling_table("test", ranks.configured).to_pandas())
    tables[0] = tables[0][tables[0].time_ms >= after.manifest["split"]["test_start_ms"]].reset_index(drop=True)
    first, second = tables
    if not all((first[name].astype(str) == second[name].astype(str)).all() for name in ("user", "item", "time_ms")):
        raise RecallError(f"{kept} and {retrained} were asked about different clicks; run them again")
    rows = before.rows(first["item"].astype(str))
    _, clicks = _known(before, rows, first["time_ms"].to_numpy())
    shown_before = after.posterior("test").exposures[after.rows(second["item"].astype(str))] > 0
    is_young = (before.posterior("validation").exposures[rows] == 0) & shown_before
    learned = after.posterior("validation").clicks[after.rows(second["item"].astype(str))]
    hits = [(table["rank"] <= K).to_numpy() for table in tables]
    users = first["user"].astype(str).to_numpy()
    parts = (users, rows, clicks, learned, *hits)
    return Asked(*(part[is_young] for part in parts)), (float(hits[0].mean()), float(hits[1].mean()))


def _known(prepared: PreparedData, rows: npt.NDArray[Any], times_ms: npt.NDArray[np.int64]) -> tuple[Any, Any]:
    posterior = prepared.posterior_history.as_of(rows, times_ms)
    return posterior.exposures, posterior.clicks


def bucket_results(asked: Asked) -> list[dict[str, Any]]:
    """Summarise by the clicks of the item as of the click: {"from", "to", and the entries of `summarise`}."""
    bucket = np.searchsorted(WARM_UP, asked.clicks, side="right") - 1
    upper = [*(bound - 1 for bound in WARM_UP[1:]), None]
    return [
        {"from": low, "to": high, **summarise(asked, bucket == index)}
        for index, (low, high) in enumerate(zip(WARM_UP, upper, strict=True))
    ]


def summarise(asked: Asked, chosen: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Compare both models on some clicks.

    Returns:
      {"clicks", "items", "learned": mean clicks of the item that the retrained model has learned from, "kept",
      "retrained": recall@50, "share": kept / retrained, "low", "high": 95% interval of the share, whole users
      resampled}; None where it is undefined.
    """
    kept, retrained = asked.kept[chosen], asked.retrained[chosen]
    if not len(kept):
        return {"clicks": 0, "items": 0, **dict.fromkeys(("learned", "kept", "retrained", "share", "low", "high"))}
    low, high = _interval(kept, retrained, asked.users[chosen])
    return {
        "clicks": len(kept),
        "items": len(np.unique(asked.items[chosen])),
        "learned": float(asked.learned[chosen].mean()),
        "kept": float(kept.mean()),
        "retrained": float(retrained.mean()),
        "share": float(kept.sum() / retrained.sum()) if retrained.any() else None,
        "low": low,
        "high": high,
    }


def _interval(
    kept: npt.NDArray[np.bool_], retrained: npt.NDArray[np.bool_], users: npt.NDArray[Any]
) -> tuple[float | None, float | None]:
    """Return the 95% percentile interval of the ratio; None where a resample has no click that is recalled."""
    group = np.unique(users, return_inverse=True)[1]
    sums = np.stack([np.bincount(group, kept), np.bincount(group, retrained)])  # [2, users]
    draws = np.random.default_rng(1).integers(0, sums.shape[1], (RESAMPLES, sums.shape[1]))
    above, below = sums[:, draws].sum(axis=2)  # [resamples] each
    if not below.all():
        return None, None
    low, high = np.quantile(above / below, [0.025, 0.975]).tolist()
    return low, high


def results_table(result: dict[str, Any]) -> Table:
    """Show the result in the terminal."""
    table = Table("clicks when asked", "test clicks", "learned", "kept", "retrained", "kept / retrained", "95%")
    for bucket in [*result["buckets"], {"from": 0, "to": None, **result["young"]}]:
        name = f"{bucket['from']} to {bucket['to']}" if bucket["to"] is not None else f"{bucket['from']} and more"
        numbers = [bucket[key] for key in ("learned", "kept", "retrained", "share")]
        interval = "" if bucket["low"] is None else f"{bucket['low']:.2f} to {bucket['high']:.2f}"
        table.add_row(name, str(bucket["clicks"]), *("" if n is None else f"{n:.3f}" for n in numbers), interval)
    return table
