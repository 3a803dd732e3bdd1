"""Means, intervals and paired differences over seeds."""

from __future__ import annotations

import numpy as np
import pytest

from recall.runs.loop.summary import estimate, summarise, verdict


def result(probability: float, last: float, found: float | None = 0.5) -> dict[str, object]:
    total = {"probability": probability, "last_day_probability": last, "good_new_found": found}
    return {"total": total, "days": {"probability": [probability, last]}}


def test_an_interval_is_of_students_t() -> None:
    values = [0.30, 0.32, 0.31, 0.35, 0.27]
    found = estimate(values)
    half = 2.776445 * np.std(values, ddof=1) / np.sqrt(5)  # t of four degrees of freedom, from a table
    assert found["mean"] == pytest.approx(0.31)
    assert (found["low"], found["high"]) == (pytest.approx(0.31 - half), pytest.approx(0.31 + half))
    assert found["seeds"] == values


def test_one_seed_has_no_interval_and_an_undefined_one_no_mean() -> None:
    assert estimate([0.5]) == {"mean": 0.5, "low": None, "high": None, "seeds": [0.5]}
    assert estimate([0.5, None])["mean"] is None
    assert verdict(estimate([0.5])) == "one seed"
    assert verdict(estimate([None])) == "undefined"


def test_differences_are_paired_so_that_what_seeds_share_cancels() -> None:
    seeds = {1: 0.2, 2: 0.4, 3: 0.3}
    played = {
        "gated": {seed: result(base + 0.05 + 0.001 * seed, base) for seed, base in seeds.items()},
        "single": {seed: result(base, base) for seed, base in seeds.items()},
        "oracle": {seed: result(base + 0.3, 2 * base, found=None) for seed, base in seeds.items()},
    }
    content = summarise(played)
    gated = content["arms"]["gated"]["total"]
    assert gated["probability"]["high"] - gated["probability"]["low"] > 0.2
    differences = {(one["arm"], one["against"], one["measure"]): one for one in content["differences"]}
    found = differences["gated", "single", "probability"]
    assert found["mean"] == pytest.approx(0.052)
    assert found["verdict"] == "higher"
    assert found["high"] - found["low"] < 0.01
    assert differences["single", "oracle", "probability"]["verdict"] == "lower"
    assert differences["single", "oracle", "good_new_found"]["verdict"] == "undefined"
    assert differences["gated", "single", "last_day_probability"]["verdict"] == "no difference shown"
    assert gated["share_of_oracle"]["mean"] == pytest.approx(0.5)
    assert content["arms"]["single"]["total"]["regret"]["mean"] == pytest.approx(0.3)
    assert [one["mean"] for one in content["arms"]["single"]["days"]["probability"]] == pytest.approx([0.3, 0.3])


def test_without_an_oracle_there_is_no_regret() -> None:
    content = summarise({"gated": {1: result(0.3, 0.2)}, "single": {1: result(0.2, 0.2)}})
    assert "regret" not in content["arms"]["gated"]["total"]
    assert {one["measure"] for one in content["differences"]} == {
        "probability", "last_day_probability", "good_new_found",
    }  # fmt: skip
