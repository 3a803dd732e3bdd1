"""Measures, in a finished run, what figures of the site show and no benchmark keeps: small JSON beside this file.

    make demo && python -m docs.figures.measure runs/demo

Numbers only; `concepts.py` draws them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recall.config.experiment import Config, load_config
from recall.core.artifacts import read_manifest, write_text
from recall.core.times import MS_PER_HOUR
from recall.data.fresh_evidence import decayed
from recall.index import list_versions

OUT = Path(__file__).with_name("demo.json")
_SAMPLE, _SEED = 400, 1


def measure(run: Path) -> dict[str, Any]:
    """Measure a run of `examples/demo.yaml`.

    Returns:
      `item`: one item's life by the hour; `shares`: exposures and behaviour share of a sample of items; `cold_bias`:
      the curve that chose it, on validation; `rolling`: recall@50 of the configured model by day of the test period.
    """
    config = load_config(run / "config.yaml")
    return {
        "experiment": "demo",
        "item": item_life(run, config),
        "shares": shares(run),
        "cold_bias": cold_bias(run),
        "rolling": recall_by_hours(run, config.model.structure),
    }


def item_life(run: Path, config: Config) -> dict[str, Any]:
    """Describe the item whose clicks came earliest in its life: per hour, its counts and what is left of them.

    Of items that were first shown in the first quarter of the log and clicked 50 times or more.
    """
    log = pd.read_parquet(run / "data" / "posterior_buckets.parquet")  # counts are totals up to the bucket's end
    totals = log.groupby("item")[["exposures", "clicks"]]
    log[["exposures", "clicks"]] = totals.diff().fillna(log[["exposures", "clicks"]]).astype(np.int64)
    names = pd.read_parquet(run / "data" / "items.parquet", columns=["item_id"])["item_id"]
    first, last = log["bucket"].min(), log["bucket"].max()
    by_item = log.groupby("item")
    born, clicks = by_item["bucket"].min(), by_item["clicks"].sum()
    mean_hour = (log["bucket"] * log["clicks"]).groupby(log["item"]).sum() / clicks
    candidates = (born < first + (last - first) / 4) & (clicks >= 50)
    chosen = (mean_hour - born)[candidates].idxmin()
    hours = np.arange(born[chosen], last + 1)
    rows = log[log["item"] == chosen].set_index("bucket").reindex(hours, fill_value=0)
    times = (hours * MS_PER_HOUR).astype(np.int64)
    left = {
        str(half_life): decayed(
            rows["clicks"].to_numpy(), times, np.zeros(len(times), np.int64), half_life_ms=half_life
        )
        for half_life in config.data.posterior.half_lives
    }
    return {
        "item": str(names[chosen]),
        "clicks": [int(count) for count in rows["clicks"]],
        "exposures": [int(count) for count in rows["exposures"]],
        "decayed_clicks": {name: [round(float(value), 2) for value in values] for name, values in left.items()},
    }


def shares(run: Path) -> dict[str, list[float]]:
    """Sample items: exposures at the end of the log, and the share of behaviour in their vectors."""
    table = pd.read_parquet(run / "vectors" / "vectors.parquet", columns=["exposures", "behaviour_share"])
    sample = table.sample(min(_SAMPLE, len(table)), random_state=_SEED).sort_values("exposures")
    return {
        "exposures": [int(count) for count in sample["exposures"]],
        "behaviour_share": [round(float(share), 4) for share in sample["behaviour_share"]],
    }


def cold_bias(run: Path) -> dict[str, Any]:
    """Read how recall on validation moves with the bias, and which one was chosen."""
    current = next(version for version in list_versions(run / "index") if version.is_current)
    report = read_manifest(run / "index" / "versions" / current.number, made_by="recall index")["report"]
    curve = [{name: round(value, 4) for name, value in point.items()} for point in report["cold_bias_curve"]]
    return {"chosen": round(report["cold_bias"], 4), "curve": curve}


def recall_by_hours(run: Path, model: str, *, hours: int = 6) -> list[dict[str, float]]:
    """Measure recall@50 in pieces of the test period: of vectors of its start, and of vectors made every hour."""
    ranks = pd.read_parquet(run / "ranks" / "test.parquet")
    ranks = ranks[ranks["model"] == model]
    since = (ranks["time_ms"] - ranks["time_ms"].min()) // (hours * MS_PER_HOUR)
    return [
        {
            "from_hours": int(piece) * hours,
            "clicks": len(part),
            "frozen": round(float((part["rank"] <= 50).mean()), 4),
            "rolling": round(float((part["rolling_rank"] <= 50).mean()), 4),
        }
        for piece, part in ranks.groupby(since)
    ]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("give one finished run of examples/demo.yaml: python -m docs.figures.measure runs/demo")
    parts = [f"{json.dumps(name)}: {json.dumps(part)}" for name, part in measure(Path(sys.argv[1])).items()]
    write_text(OUT, "{\n" + ",\n".join(parts) + "\n}\n")
