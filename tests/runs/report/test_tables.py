"""Tests the headline of the report, and the numbers and marks of its tables."""

from __future__ import annotations

from dataclasses import replace

import pytest

from recall.evaluation.bootstrap import Interval
from recall.runs.report.page import headline
from recall.runs.report.tables import data_tables, duration, metric_tables, settings_table
from tests.helpers.reported_run import model_metrics, report_inputs, with_test


def test_headline_says_higher_than_the_best_baseline_and_names_a_better_model() -> None:
    what, everything, cold = headline(report_inputs())
    assert what == (
        "The model gated, trained on 4,500 and tested on 4,000 clicks, beside behaviour_only and meta_only, against "
        "the baselines popularity and item_knn. The catalogue has 200 items, of which 20 had neither an exposure nor "
        "a click before the test period."
    )
    # 0.2011 - 0.1523, with a standard error of sqrt((0.1607 + 0.1291) / 4000) = 0.0085
    assert everything == (
        "All test clicks (4,000): recall@50 is 0.2011, 0.0488 higher than item_knn, the best baseline (0.1523)."
    )
    assert cold == (
        "Clicks on cold items (500): recall@50 is 0.0512, 0.0488 higher than item_knn, the best baseline (0.0024); "
        "of the models trained beside it meta_only is highest (0.0618)."
    )


def test_headline_says_lower_when_it_is_lower_and_the_same_when_it_is_the_same() -> None:
    test = {
        "gated": model_metrics(0.1010, 0.03, 0.1),
        "popularity": model_metrics(0.2020, 0.03, 0.1),
    }
    _, everything, cold = headline(with_test(report_inputs(), test))
    assert everything.endswith("recall@50 is 0.1010, 0.1010 lower than popularity, the best baseline (0.2020).")
    assert cold.endswith("recall@50 is 0.0300, the same as popularity, the best baseline (0.0300).")


def test_headline_says_when_a_difference_is_within_sampling_noise() -> None:
    # 1.96 standard errors at 500 clicks: 1.96 * sqrt((0.03 * 0.97 + 0.04 * 0.96) / 500) = 0.0228 > 0.01
    test = {"gated": model_metrics(0.2, 0.03, 0.1), "popularity": model_metrics(0.1, 0.04, 0.1)}
    _, everything, cold = headline(with_test(report_inputs(), test))
    assert "noise" not in everything
    assert cold.endswith(
        "0.0100 lower than popularity, the best baseline (0.0400), a difference within sampling noise."
    )


def test_on_cold_items_the_report_compares_with_a_baseline_that_can_recall_them() -> None:
    of_clicks = {"popularity": model_metrics(0.1, 0.0, 0.1), "item_knn": model_metrics(0.15, 0.0, 0.1)}
    of_content = {
        "content_knn": model_metrics(0.12, 0.21, 0.1), "content_knn_top3": model_metrics(0.11, 0.16, 0.1)
    }  # fmt: skip
    test = {"gated": model_metrics(0.2, 0.18, 0.1), **of_clicks}
    _, everything, cold = headline(with_test(report_inputs(), {**test, **of_content}))
    assert everything.endswith("0.0500 higher than item_knn, the best baseline (0.1500).")
    assert cold.startswith("Clicks on cold items (500): recall@50 is 0.1800, 0.0300 lower than content_knn, the best")
    # Without content vectors chance is what is left: 50 of 200 items. By construction 0 is no rival.
    cold = headline(with_test(report_inputs(), test))[2]
    assert cold.endswith("0.1800, 0.0700 lower than chance (0.2500); popularity and item_knn recall none of them.")


def test_lists_of_items_like_an_item_are_judged_for_hubs() -> None:
    inputs = report_inputs()
    assert "Items like an item" not in [table.caption for table in metric_tables(inputs)]
    similar = {"by": "cosine", "queries": 200, "coverage@10": 0.97, "hub_share_10@10": 0.0211}
    measured = replace(inputs, metrics={**inputs.metrics, "similar": similar})
    (table,) = [table for table in metric_tables(measured) if table.caption == "Items like an item"]
    assert table.columns == ["coverage@10", "hub_share_10@10"]
    assert [(row.label, [cell.text for cell in row.cells]) for row in table.rows] == [
        ("by cosine", ["0.9700", "0.0211"])
    ]
    assert "200 items" in table.note


def differences(difference: float, low: float, high: float) -> dict[str, dict[str, Interval]]:
    """Give popularity and item_knn the same interval, on all clicks."""
    interval = Interval(difference, low, high, 0.95, 4000, 300)
    return {"all": {"popularity": interval, "item_knn": interval}, "cold": {}, "cold_among_cold": {}}


def test_headline_believes_the_paired_interval_rather_than_the_rule_of_thumb() -> None:
    # 0.0488 above item_knn is 5.7 standard errors of independent clicks, see above; paired by user it is not shown.
    unclear = headline(report_inputs(differences=differences(0.0488, -0.01, 0.1)))[1]
    assert unclear.endswith("the best baseline (0.1523), a difference within sampling noise.")
    assert "noise" not in headline(report_inputs(differences=differences(0.0488, 0.01, 0.09)))[1]


def test_tables_say_of_each_model_whether_the_configured_one_differs_from_it() -> None:
    for ends, word in (((0.01, 0.09), "better"), ((-0.02, 0.09), "unclear")):
        everything, cold, _, shown, _ = metric_tables(report_inputs(differences=differences(0.0488, *ends)))
        words = {row.label: row.cells[everything.columns.index("gated is")].text for row in everything.rows}
        assert words == {
            "gated": "–", "behaviour_only": "–", "meta_only": "–", "popularity": word, "item_knn": word, "chance": "–"
        }  # fmt: skip
        assert "gated is" not in cold.columns
        assert shown.columns == ["all test clicks"]
        low, high = ends
        text = f"+0.0488 ({low:+.4f} to {high:+.4f})"
        assert [(row.label, row.cells[0]) for row in shown.rows] == [
            (name, (text, word == "better")) for name in ("popularity", "item_knn")
        ]


def test_best_of_each_column_is_marked_and_the_configured_model_comes_first() -> None:
    everything, cold, among_cold, ecology = metric_tables(report_inputs())
    assert everything.rows[0].label == "gated"
    marked = {table.caption: {row.label for row in table.rows if any(cell.best for cell in row.cells)}
              for table in (everything, cold, among_cold)}  # fmt: skip
    assert list(marked.values()) == [{"gated"}, {"meta_only"}, {"meta_only"}]
    # coverage is best high and Gini best low, both gated here; a cold share has no better end
    gated = next(row for row in ecology.rows if row.label == "gated")
    assert [cell.best for cell in gated.cells] == [True, True, False, False]


def test_chance_among_cold_items_is_k_over_their_number() -> None:
    among_cold = metric_tables(report_inputs())[2]
    chance = dict(zip(among_cold.columns, (cell.text for cell in among_cold.rows[-1].cells), strict=True))
    assert chance["recall@10"] == "0.5000"  # 10 of 20 cold items
    assert chance["recall@50"] == "1.0000"
    # ndcg@10: the sum of 1 / log2(rank + 1) over ranks 1..10 is 4.5436; 20 places are equally likely
    assert chance["ndcg@10"] == "0.2272"
    assert chance["mrr"] == "0.1799"  # harmonic number H20 / 20 = 3.5977 / 20


def test_data_table_counts_rejected_rows_by_reason() -> None:
    log = data_tables(report_inputs().counts)[0]
    rows = {row.label: [cell.text for cell in row.cells] for row in log.rows}
    assert rows["rejected"] == ["40", "0.20%"]
    assert rows["time is missing"] == ["8", "0.04%"]
    assert rows["exact duplicates"] == ["164", "0.82%"]
    assert list(rows).index("click is not a number") < list(rows).index("time is missing")


def test_table_of_the_index_has_its_numbers_and_leaves_out_curves() -> None:
    index = {"cold_bias": 0.05, "measured": {"k": 100}, "cold_bias_curve": [{"bias": 0.0, "recall@50": 0.3}]}
    table = settings_table("The index", index)
    assert table is not None
    assert {row.label: row.cells[0].text for row in table.rows} == {"cold_bias": "0.0500", "measured.k": "100"}


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.34, "340 ms"), (12.34, "12.3 s"), (245, "4 min 05 s"), (7830, "2 h 10 min")]
)
def test_durations_read_like_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
