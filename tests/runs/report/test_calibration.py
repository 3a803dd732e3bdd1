"""The calibration on the page: who gets the places, in a table, a sentence and a plot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from recall.runs.report.calibration import calibration_sentence, calibration_table
from recall.runs.report.inputs import ReportInputs
from recall.runs.report.page import headline, render
from tests.helpers.reported_run import report_inputs


def bucket(first: int, last: int | None, **numbers: Any) -> dict[str, Any]:
    names = ("share_of_clicks", "share_of_places@50", "share_of_candidates", "clicked", "random", "clicked_deviation")
    return {"from": first, "to": last, "clicks": 10, **dict.fromkeys(names), **numbers}


def inputs_with(calibration: dict[str, Any] | None) -> ReportInputs:
    inputs = report_inputs()
    gated = {**inputs.test["gated"], "rolling": {"calibration": calibration} if calibration else {}}
    return replace(inputs, metrics={**inputs.metrics, "test": {**inputs.test, "gated": gated}})


TILTED = {
    "cut@50": 2.2,
    "by_exposures": [
        bucket(0, 9, **{"share_of_clicks": 0.4, "share_of_places@50": 0.11, "share_of_candidates": 0.9},
               clicked=1.5, random=-0.25, clicked_deviation=0.5),
        bucket(10, 99, **{"share_of_clicks": 0.6, "share_of_places@50": 0.89, "share_of_candidates": 0.1},
               clicked=2.4, random=1.5, clicked_deviation=0.5),
        bucket(100, None, **{"share_of_clicks": 0.0, "share_of_places@50": 0.0, "share_of_candidates": 0.0}),
    ],
}  # fmt: skip


def test_the_table_has_shares_and_scores_of_each_bucket() -> None:
    table = calibration_table(inputs_with(TILTED))
    assert table is not None
    shown = {row.label: [cell.text for cell in row.cells] for row in table.rows}
    assert shown["0–9"] == ["40.0%", "11.0%", "90.0%", "+1.50", "-0.25"]
    assert shown["≥ 100"] == ["0.0%", "0.0%", "0.0%", "–", "–"]
    assert "place 50 has +2.20" in table.note


def test_the_sentence_names_who_has_too_few_and_who_too_many_places() -> None:
    inputs = inputs_with(TILTED)
    expected = (
        "Items with 0–9 exposures get 40% of the clicks and 11% of the places in lists of 50, items with 10–99 "
        "exposures 60% and 89%."
    )
    assert calibration_sentence(inputs) == expected
    assert headline(inputs)[-1] == expected


def test_the_page_has_the_plot_and_stands_without_it() -> None:
    rolling = {"refresh_ms": 3_600_000, "why_frozen": None}
    inputs = inputs_with(TILTED)
    assert "Who gets the places: gated by exposures" in render(
        replace(inputs, metrics={**inputs.metrics, "rolling": rolling})
    )
    nothing = inputs_with(None)
    assert (calibration_sentence(nothing), calibration_table(nothing)) == (None, None)
    assert "Who gets the places" not in render(nothing)
