"""Tests the report: one whole file with every number, whatever a run lacks; and its refusals."""

from __future__ import annotations

import html.parser
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recall.core.errors import ArtifactError
from recall.runs.report.inputs import RecalledItem, RecallSample, ReportInputs
from recall.runs.report.page import render, write_report
from recall.runs.report.tables import modality_table
from tests.helpers.reported_run import ITEMS, LEVELS, model_metrics, ranking, report_inputs, with_test


@pytest.fixture(scope="module")
def page() -> str:
    return render(report_inputs())


class References(html.parser.HTMLParser):
    """Collect everything that a browser would fetch or run, ids, and unclosed tags."""

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


@pytest.mark.slow
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


@pytest.mark.slow
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
    monkeypatch.setattr("recall.runs.report.plots.item_map", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(path, report_inputs())
    assert path.read_text() == "the page before"
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_place_is_one_clear_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recall.runs.report.page.render", lambda _: "page")
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
    code = "import sys, recall.runs.report.page; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
