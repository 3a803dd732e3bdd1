"""Rolling metrics on the page: beside the frozen ones, by exposures as of the click, in a sentence, or why not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from recall.evaluation.bootstrap import Interval
from recall.runs.report.inputs import ReportInputs
from recall.runs.report.page import headline, render
from recall.runs.report.rolling import rolling_sentence, rolling_tables
from tests.helpers.reported_run import LEVELS, model_metrics, ranking, report_inputs


def rolling_inputs(**changes: Any) -> ReportInputs:
    """Inputs in which every model recalls 0.05 more when items are made again, and trending stands beside them."""
    levels = {**LEVELS, "trending": (0.1733, 0.0, 0.0)}
    test = {
        name: {**model_metrics(*values), "rolling": model_metrics(values[0] + 0.05, values[1] + 0.05, 0.0)}
        for name, values in levels.items()
    }
    test["trending"]["half_life_hours"] = 8.0
    inputs = report_inputs()
    about = {"refresh_ms": 5_400_000, "why_frozen": None}
    return replace(inputs, metrics={**inputs.metrics, "test": test, "rolling": about} | changes)


def test_rolling_metrics_stand_beside_the_frozen_ones() -> None:
    table, buckets = rolling_tables(rolling_inputs())
    shown = {row.label: dict(zip(table.columns, row.cells, strict=True)) for row in table.rows}
    assert list(shown) == ["gated", "behaviour_only", "meta_only", "popularity", "trending", "item_knn"]
    assert (shown["trending"]["recall@50 frozen"].text, shown["trending"]["recall@50 rolling"].text) == (
        "0.1733",
        "0.2233",
    )
    assert shown["gated"]["recall@50 rolling"] == ("0.2511", True)
    assert shown["meta_only"]["recall@50 of 500 cold clicks, rolling"] == ("0.1118", True)
    assert "every 90m" in table.note
    assert "half after 8 hours" in table.note
    # By exposures 10 or more: 1.1 times all clicks.
    assert buckets.columns == ["0 (500)", "1–9 (0)", "≥ 10 (3,500)"]
    assert [cell.text for cell in buckets.rows[0].cells] == ["0.1012", "–", "0.2762"]


def test_a_table_shows_how_fast_items_warm_up_that_came_after_the_training() -> None:
    inputs = rolling_inputs()
    warm_up = [{"from": 0, "to": 0, **ranking(0.05, 7)}, {"from": 1, "to": None, **ranking(0.2, 30)}]
    gated = {**inputs.test["gated"], "rolling": {**inputs.test["gated"]["rolling"], "warm_up": warm_up}}
    *_, table = rolling_tables(rolling_inputs(test={**inputs.test, "gated": gated}))
    assert "by clicks as of the click of items that came after the training" in table.caption
    assert table.columns == ["0 (7)", "≥ 1 (30)"]
    assert [cell.text for cell in table.rows[0].cells] == ["0.0500", "0.2000"]
    none = [{"from": 0, "to": None, **ranking(None, 0)}]
    gated["rolling"]["warm_up"] = none
    assert len(rolling_tables(rolling_inputs(test={**inputs.test, "gated": gated}))) == 2


def test_the_difference_to_each_model_has_its_interval() -> None:
    interval = Interval(0.0278, 0.0101, 0.0455, 0.95, 4000, 300)
    inputs = replace(rolling_inputs(), rolling_differences={"all": {"trending": interval}, "cold": {}})
    table, _ = rolling_tables(inputs)
    shown = {row.label: row.cells[-1] for row in table.rows}
    assert table.columns[-1] == "gated minus it, rolling recall@50"
    assert shown["trending"] == ("+0.0278 (+0.0101 to +0.0455)", True)
    assert (shown["gated"].text, shown["popularity"].text) == ("–", "–")
    assert "paired bootstrap" in table.note


def test_the_page_tells_of_the_rolling_evaluation() -> None:
    page = render(rolling_inputs())
    assert "All test clicks, frozen and rolling" in page
    assert "recall@50, rolling, by exposures as of the click" in page
    assert page.count('role="img"') == 7


def test_a_page_without_rolling_evaluation_says_why() -> None:
    inputs = report_inputs()
    because = {"refresh_ms": None, "why_frozen": "the log has no clock"}
    page = render(replace(inputs, metrics={**inputs.metrics, "rolling": because}))
    assert "There is no rolling evaluation: the log has no clock." in page
    assert rolling_tables(inputs) == []


def test_the_sentence_compares_with_the_best_baseline_of_the_rolling_evaluation() -> None:
    assert headline(rolling_inputs())[-1] == (
        "With items made again every 90m, as a service does: recall@50 is 0.2511, 0.0278 higher than trending, the "
        "best baseline (0.2233)."
    )


def test_without_a_baseline_the_sentence_compares_with_chance_and_without_clicks_there_is_none() -> None:
    inputs = rolling_inputs()
    alone = {"gated": inputs.test["gated"]}
    # 50 of 200 items by chance
    assert str(rolling_sentence(rolling_inputs(test=alone))).endswith("0.0011 higher than chance (0.2500).")
    nothing = {"gated": {**inputs.test["gated"], "rolling": {"all": ranking(None, 0)}}}
    assert rolling_sentence(rolling_inputs(test=nothing)) is None


@pytest.mark.parametrize("part", ["by_exposures", "ecology", "cold"])
def test_a_rolling_part_that_lacks_something_is_shown_without_it(part: str) -> None:
    inputs = rolling_inputs()
    gated = {key: value for key, value in inputs.test["gated"]["rolling"].items() if key != part}
    test = {**inputs.test, "gated": {**inputs.test["gated"], "rolling": gated}}
    assert [cell.text for cell in rolling_tables(rolling_inputs(test=test))[0].rows[0].cells][:2] == [
        "0.2011",
        "0.2511",
    ]
