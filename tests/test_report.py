"""The report: one whole file, every number in it, plain words, and numbers behind the plots that add up."""

from __future__ import annotations

import html.parser
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recall import report_numbers
from recall.errors import ArtifactError
from recall.report import headline, render, write_report
from recall.report_inputs import RecalledItem, RecallSample, ReportInputs
from recall.report_tables import data_tables, duration, metric_tables, modality_table, settings_table
from recall.statistics import Interval

# recall@50 on all clicks, on cold clicks, on cold clicks among cold items
LEVELS = {
    "gated": (0.2011, 0.0512, 0.1013),
    "behaviour_only": (0.1914, 0.0015, 0.0216),
    "meta_only": (0.1117, 0.0618, 0.1219),
    "popularity": (0.0921, 0.0, 0.0422),
    "item_knn": (0.1523, 0.0024, 0.0325),
}
COLD_ITEMS, ITEMS = 20, 200


def ranking(recall_50: float | None, examples: int) -> dict[str, Any]:
    shares = {10: 0.4, 50: 1.0, 100: 1.3}
    part: dict[str, Any] = {"examples": examples}
    for k, share in shares.items():
        value = None if recall_50 is None else recall_50 * share
        part |= {f"recall@{k}": value, f"hit_rate@{k}": value, f"ndcg@{k}": None if value is None else value / 3}
    return part | {"mrr": None if recall_50 is None else recall_50 / 5}


def model_metrics(everything: float, cold: float, among_cold: float) -> dict[str, Any]:
    return {
        "all": ranking(everything, 4000),
        "cold": ranking(cold, 500),
        "cold_among_cold": ranking(among_cold, 500),
        "by_exposures": [
            {"from": 0, "to": 0, **ranking(cold, 500)},
            {"from": 1, "to": 9, **ranking(None, 0)},
            {"from": 10, "to": None, **ranking(everything * 1.1, 3500)},
        ],
        "ecology": {"coverage@100": everything, "gini@100": 1 - everything, "cold_share@100": cold, "novelty@100": 9.5},
    }


def report_inputs(**changes: Any) -> ReportInputs:
    rng = np.random.default_rng(5)
    exposures = np.concatenate([np.zeros(COLD_ITEMS, int), rng.integers(1, 3000, ITEMS - COLD_ITEMS)])
    items = pd.DataFrame(
        {
            "item_id": [f"i{row}" for row in range(ITEMS)],
            "title": [f"Title {row}" for row in range(ITEMS)],
            "exposures": exposures,
            "clicks": exposures // 3,
            "behaviour_share": exposures / (exposures + 30.0),
        }
    )
    epochs = [
        {"epoch": n, "loss": 5.0 / n, "item_loss": 4.0 / n, "val_recall@50": value, "seconds": 12.0}
        for n, value in enumerate((0.1, 0.1812, 0.15), start=1)
    ]
    recalled = [RecalledItem("A cold one", 0.91, 0, True, hit=True), RecalledItem("A warm one", 0.52, 1234, False)]
    content: dict[str, Any] = {
        "title": "A run",
        "config_yaml": "seed: 1\n",
        "metrics": {
            "test": {name: model_metrics(*levels) for name, levels in LEVELS.items()},
            "validation": {"gated": {"all": ranking(0.2222, 900)}},
            "index": {"kind": "exact", "recall@100_vs_exact": 1.0},
            "timing": {"prepare": 12.3, "train": {"gated": 245.0}},
        },
        "configured": "gated",
        "training": {"gated": epochs, "meta_only": epochs[:2]},
        "items": items,
        "vectors": rng.normal(size=(ITEMS, 8)).astype(np.float32),
        "samples": [RecallSample("u7", ["First", "Second"], recalled)],
        "counts": {
            "rows_read": 20_000,
            "rejected": {"time is missing": 8, "click is not a number": 32},
            "duplicates": 164,
            "events": 19_796,
            "clicks": 9_000,
            "users": 321,
            "items": ITEMS,
            "examples": {"train": 4_500, "validation": 500, "test": 4_000},
        },
        "versions": {"tensorflow": "2.20.0"},
    }
    return ReportInputs(**(content | changes))


def with_test(inputs: ReportInputs, test: dict[str, Any]) -> ReportInputs:
    return replace(inputs, metrics={**inputs.metrics, "test": test})


@pytest.fixture(scope="module")
def page() -> str:
    return render(report_inputs())


class References(html.parser.HTMLParser):
    """Collects what a browser would fetch or run, ids, and tags that were left open."""

    VOID = frozenset({"meta", "br", "link", "img"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if (
                name in ("src", "href", "xlink:href", "data", "action")
                and value
                and not value.startswith(("#", "data:"))
            ):
                self.fetched.append(value)
            if name == "id" and value:
                self.ids.append(value)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_fetches_nothing_and_runs_nothing(page: str) -> None:
    found = References(page)
    assert found.fetched == []
    assert not {"script", "link", "iframe", "img"} & set(found.tags)
    assert "@import" not in page
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]+)\)", page))


def test_every_tag_is_closed_and_every_id_is_unique_across_the_inlined_plots(page: str) -> None:
    found = References(page)
    assert found.open == []
    assert len(found.ids) == len(set(found.ids))
    assert found.tags.count("svg") == 6  # exposures, gate, validation, loss, its terms, map


def test_same_inputs_give_the_same_page(page: str) -> None:
    assert render(report_inputs()) == page


def test_every_model_and_its_numbers_are_in_the_tables(page: str) -> None:
    for name, levels in LEVELS.items():
        assert f'<th scope="row">{name}</th>' in page
        for value in levels:
            assert f"{value:.4f}" in page, (name, value)
    for count in ("20,000", "164", "19,796", "9,000", "4,500"):
        assert f"<td>{count}</td>" in page
    assert "click is not a number" in page
    assert "4 min 05 s" in page
    assert "seed: 1" in page


def test_markup_in_titles_and_names_is_shown_and_not_interpreted() -> None:
    evil = "<script>alert(1)</script>"
    inputs = report_inputs(
        title=evil,
        config_yaml=evil,
        samples=[RecallSample(evil, [evil], [RecalledItem(evil, 0.5, 1, False)])],
        metrics={"test": {evil: model_metrics(0.1, 0.1, 0.1)}, "index": {evil: evil}},
        configured=evil,
    )
    page = render(inputs)
    assert "script" not in References(page).tags
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


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


def differences(difference: float, low: float, high: float) -> dict[str, dict[str, Interval]]:
    """The same interval for popularity and item_knn, on all clicks."""
    interval = Interval(difference, low, high, 0.95, 4000, 300)
    return {"all": {"popularity": interval, "item_knn": interval}, "cold": {}, "cold_among_cold": {}}


def test_modalities_have_their_mean_weights_over_all_and_over_cold_items() -> None:
    # The first 20 of 200 items are cold. Text: none of the first ten, alone in the next ten, a quarter of the others.
    text = np.repeat([0.0, 1.0, 0.25], [10, 10, 180])
    tags = np.repeat([1.0, 0.0, 0.75], [10, 10, 180])
    table = modality_table(report_inputs(modality_weights={"text": text, "tags": tags}))
    assert table is not None
    shown = {row.label: [cell.text for cell in row.cells] for row in table.rows}
    # Means of text: (10 + 180 / 4) / 200 = 0.275, and 10 / 20 of the cold ones; 190 of 200 have it.
    assert shown == {
        "text": ["0.2750", "0.5000", "0.9500", "0.5000"],
        "tags": ["0.7250", "0.5000", "0.9500", "0.5000"],
    }
    assert table.caption in render(report_inputs(modality_weights={"text": text, "tags": tags}))


def test_items_without_any_modality_have_no_say_in_the_means(page: str) -> None:
    weight = np.repeat([0.0, 1.0], [50, 150])
    table = modality_table(report_inputs(modality_weights={"text": weight, "tags": np.zeros(200)}))
    assert table is not None
    assert [cell.text for cell in table.rows[0].cells] == ["1.0000", "–", "1.0000", "–"]
    assert "150 items" in table.note
    assert "Modalities" not in page, "a model that weighs none has no such table"


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


def test_headline_believes_the_paired_interval_rather_than_the_rule_of_thumb() -> None:
    # 0.0488 above item_knn is 5.7 standard errors of independent clicks, see above; paired by user it is not shown.
    unclear = headline(report_inputs(differences=differences(0.0488, -0.01, 0.1)))[1]
    assert unclear.endswith("the best baseline (0.1523), a difference within sampling noise.")
    assert "noise" not in headline(report_inputs(differences=differences(0.0488, 0.01, 0.09)))[1]


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


def _no_cold_items() -> ReportInputs:
    inputs = report_inputs()
    items = inputs.items.assign(exposures=5, clicks=2)
    test = {name: {**model_metrics(*levels), "cold": ranking(None, 0), "cold_among_cold": ranking(None, 0)}
            for name, levels in LEVELS.items()}  # fmt: skip
    return with_test(replace(inputs, items=items), test)


def _nothing_but_metrics() -> ReportInputs:
    metrics = {"test": {"gated": {"all": ranking(None, 0)}}}
    items = pd.DataFrame({"exposures": [0], "clicks": [0]})
    return ReportInputs("Bare", "", metrics, "gated", items, np.zeros((1, 4), np.float32))


DEGRADED = {
    "no cold items": (_no_cold_items, "Clicks on cold items: none, so this run says nothing about them."),
    "no gate": (lambda: report_inputs(items=report_inputs().items.assign(behaviour_share=np.nan)), "has no gate"),
    "no gate column": (lambda: report_inputs(items=report_inputs().items.drop(columns="behaviour_share")), "no gate"),
    "no titles": (lambda: report_inputs(items=report_inputs().items.drop(columns="title")), "Map of the item vectors"),
    "only new items": (lambda: report_inputs(items=report_inputs().items.assign(exposures=0)), "(200 items)"),
    "one model": (lambda: with_test(report_inputs(), {"gated": model_metrics(0.2, 0.1, 0.1)}), "there is no baseline"),
    "no training": (lambda: report_inputs(training={"gated": []}), "No training history was kept."),
    "no validation": (lambda: report_inputs(training={"gated": [{"epoch": 1, "loss": 2.0}]}), "Training loss"),
    "no samples": (lambda: report_inputs(samples=[RecallSample("u", [], [])]), "No clicks before."),
    "null vectors": (lambda: report_inputs(vectors=np.full((ITEMS, 8), np.nan, np.float32)), "too few item vectors"),
    "equal vectors": (lambda: report_inputs(vectors=np.ones((ITEMS, 1), np.float32)), "Map of the item vectors"),
    "nothing but metrics": (_nothing_but_metrics, "All test clicks: none"),
}


@pytest.mark.parametrize("case", DEGRADED)
def test_page_stands_without(case: str) -> None:
    make, expected = DEGRADED[case]
    page = render(make())
    assert expected in page
    assert References(page).open == []
    assert not re.search(r">\s*(nan|None)\s*<", page)


def test_failing_plot_leaves_the_page_before_and_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    path.write_text("the page before")
    monkeypatch.setattr("recall.plots.item_map", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(path, report_inputs())
    assert path.read_text() == "the page before"
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_place_is_one_clear_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recall.report.render", lambda _: "page")
    (tmp_path / "report.html").mkdir()  # a file cannot replace a directory
    with pytest.raises(ArtifactError, match=r"report\.html: could not be written .*recall report"):
        write_report(tmp_path / "report.html", report_inputs())
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_inputs_of_different_runs_are_refused() -> None:
    with pytest.raises(ArtifactError, match=r"3 vectors for 200 items.*recall vectors"):
        report_inputs(vectors=np.zeros((3, 8), np.float32))
    with pytest.raises(ArtifactError, match=r"test has no single, only gated, .*recall evaluate"):
        report_inputs(configured="single")


def test_reading_the_module_does_not_load_matplotlib() -> None:
    code = "import sys, recall.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_gate_curve_has_the_quartiles_of_each_bin() -> None:
    exposures = [0, 0, 0, 1, 2, 3, 3, 6, 9, 100, 177, 178]
    share = [0.1, 0.2, 0.6, 0.3, 0.4, 0.5, 0.9, 0.5, 0.7, 0.8, 0.9, 1.0]
    curve = report_numbers.gate_curve([*exposures, 50], [*share, float("nan")])
    # bounds at 10^(n/4): 1 | 1.8 | 3.2 | 5.6 | 10 ... 100 | 177.8 | 316.2
    assert list(zip(curve.low, curve.high, curve.items, strict=True)) == [
        (0, 0, 3), (1, 1, 1), (2, 3, 3), (6, 9, 2), (100, 177, 2), (178, 316, 1),
    ]  # fmt: skip
    np.testing.assert_allclose(curve.exposures, [0, 1, 3, 7.5, 138.5, 178])
    np.testing.assert_allclose(curve.median, [0.2, 0.3, 0.5, 0.6, 0.85, 1.0])
    np.testing.assert_allclose(curve.lower_quartile, [0.15, 0.3, 0.45, 0.55, 0.825, 1.0])
    np.testing.assert_allclose(curve.upper_quartile, [0.4, 0.3, 0.7, 0.65, 0.875, 1.0])


@pytest.mark.parametrize("largest", [0, 1, 9, 10, 999, 1000, 123_456_789])
def test_gate_bins_hold_every_item_once(largest: int) -> None:
    exposures = np.unique(np.concatenate([[0, largest], np.random.default_rng(1).integers(0, largest + 1, 50)]))
    curve = report_numbers.gate_curve(exposures, np.full(len(exposures), 0.5))
    assert curve.items.sum() == len(exposures)
    assert curve.low[0] <= exposures[0]
    assert curve.high[-1] >= largest


def test_gate_curve_without_a_gate_is_empty() -> None:
    assert len(report_numbers.gate_curve([0, 5], [float("nan")] * 2).median) == 0


def test_wilson_interval_matches_published_values_and_skips_empty_slices() -> None:
    # Newcombe, Statistics in Medicine 1998, table I: 81/263 -> 0.2553, 0.3662; 0/20 -> 0, 0.1611
    low, high = report_numbers.wilson_interval(np.array([81 / 263, 0.0, np.nan]), np.array([263, 20, 0]))
    np.testing.assert_allclose(low, [0.2553, 0.0, np.nan], atol=5e-5)
    np.testing.assert_allclose(high, [0.3662, 0.1611, np.nan], atol=5e-5)


def test_labels_are_moved_apart_but_keep_their_order_and_centre() -> None:
    placed = report_numbers.spread([0.5, 0.0, 0.5, 0.48], gap=0.1)
    assert placed[1] == 0.0
    ordered = sorted(placed[i] for i in (0, 2, 3))
    assert ordered[0] == placed[3]
    np.testing.assert_allclose(np.diff(ordered), 0.1)
    assert math.isclose(sum(ordered) / 3, (0.5 + 0.5 + 0.48) / 3)


def test_principal_plane_finds_the_directions_of_a_stretched_cloud() -> None:
    rng = np.random.default_rng(2)
    cloud = rng.normal(size=(4000, 3)) * [3.0, 1.0, 0.1] + 7
    points, variance = report_numbers.principal_plane(cloud)
    np.testing.assert_allclose(variance, [9 / 10.01, 1 / 10.01], atol=0.02)
    assert abs(np.corrcoef(points[:, 0], cloud[:, 0])[0, 1]) > 0.999
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-9)


def test_best_epoch_is_the_first_with_the_highest_validation_metric() -> None:
    epochs: list[dict[str, Any]] = [
        {"epoch": 1, "val_loss": 9.0, "val_ndcg@50": None},
        {"epoch": 2, "val_ndcg@50": 0.3},
    ]
    epochs += [{"epoch": 3, "val_ndcg@50": 0.3}, {"epoch": 4, "val_ndcg@50": 0.1}]
    best = report_numbers.best_epoch(epochs)
    assert best is not None
    assert best["epoch"] == 2
    assert report_numbers.best_epoch([{"epoch": 1, "loss": 2.0}]) is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.34, "340 ms"), (12.34, "12.3 s"), (245, "4 min 05 s"), (7830, "2 h 10 min")]
)
def test_durations_read_like_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
