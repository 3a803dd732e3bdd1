"""Tests that tables stay readable on a narrow terminal, and that each step prints a line where there is no terminal."""

from __future__ import annotations

import io
import logging
from typing import Any

import pytest
from rich.console import Console

from recall.evaluation.bootstrap import Interval
from recall.evaluation.comparison import Comparison, Slice, SliceComparison
from recall.runs.console import comparison_table, facts_table, metrics_table, silence_libraries, step_line


def printed(content: Any, *, width: int) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(content)
    return stream.getvalue()


def metrics(**cold: float | None) -> dict[str, Any]:
    return {
        "test": {
            name: {
                "all": {"recall@50": 0.1234, "ndcg@50": 0.0456},
                "cold": {"recall@50": value},
                "cold_among_cold": {"recall@50": value},
                "ecology": {"coverage@100": 0.9876, "cold_share@100": 0.0321},
            }
            for name, value in cold.items()
        }
    }


@pytest.mark.parametrize("width", [80, 120])
def test_numbers_stay_whole_on_a_narrow_terminal(width: int) -> None:
    text = printed(metrics_table(metrics(behaviour_only_trigger=0.5432), k=50), width=width)
    for number in ("0.1234", "0.0456", "0.5432", "0.9876", "0.0321"):
        assert number in text
    for word in ("recall", "ndcg", "cold/cold", "coverage", "share"):
        assert word in text
    assert max(map(len, text.splitlines())) <= width


def test_every_model_has_a_row_and_what_was_not_measured_a_dash() -> None:
    text = printed(metrics_table(metrics(gated=0.2, popularity=None), k=50), width=120)
    [gated] = [line for line in text.splitlines() if "gated" in line]
    [popularity] = [line for line in text.splitlines() if "popularity" in line]
    assert gated.count("0.2000") == 2
    assert popularity.count(" - ") == 2
    assert "against the whole catalogue" in " ".join(text.split())


def test_rolling_recall_stands_beside_the_frozen_one() -> None:
    content = metrics(gated=0.2)
    content["test"]["gated"]["rolling"] = {"all": {"recall@50": 0.4321}}
    for width in (80, 120):
        text = printed(metrics_table(content, k=50), width=width)
        [gated] = [line for line in text.splitlines() if "gated" in line]
        assert gated.split()[1:3] == ["0.1234", "0.4321"]
        assert "rolling: recall of items that are made again" in " ".join(text.split())
        assert max(map(len, text.splitlines())) <= width


def test_a_run_without_rolling_evaluation_says_why() -> None:
    content = {**metrics(gated=0.2), "rolling": {"refresh_ms": None, "why_frozen": "the log has no clock"}}
    assert "no rolling evaluation: the log has no clock" in " ".join(
        printed(metrics_table(content, k=50), width=80).split()
    )


def test_facts_are_readable_and_nested_ones_left_out() -> None:
    facts = {
        "kind": "scann",
        "is_exact": False,
        "items": 1_234_567,
        "recall": 0.98765432,
        "tuning": [1],
        "settings": {},
    }
    text = printed(facts_table("index", facts), width=80)
    for shown in ("scann", "False", "1,234,567", "0.9877"):
        assert shown in text
    assert "tuning" not in text
    assert "settings" not in text


@pytest.mark.parametrize("spinner", [True, False])
def test_a_step_is_a_line_where_there_is_no_terminal(spinner: bool) -> None:
    stream = io.StringIO()
    with step_line(Console(file=stream), "prepare", spinner=spinner):
        assert stream.getvalue() == "prepare ...\n"
    assert stream.getvalue() == "prepare ...\n"


def test_a_spinner_turns_on_a_terminal_and_an_error_ends_it() -> None:
    console = Console(file=io.StringIO(), force_terminal=True)
    with pytest.raises(ValueError, match="broken"), step_line(console, "prepare", spinner=True):
        raise ValueError("broken")
    with step_line(console, "again", spinner=True):  # a live display that had stayed open would refuse this
        pass


@pytest.mark.parametrize("width", [80, 120])
def test_intervals_stay_whole_on_a_narrow_terminal(width: int) -> None:
    interval = Interval(-0.0303, -0.1897, 0.1077, 0.95, 66_000, 900)
    parts = [
        SliceComparison(Slice("cold_among_cold"), 0.3012, 0.3315, interval),
        SliceComparison(Slice("by_exposures", 100, 999), None, None, None),
    ]
    sides = ("runs/a", "gated"), ("runs/a", "behaviour_only_trigger")
    text = printed(comparison_table(Comparison(*sides, (28, 0), parts), metric="recall@50", split="test"), width=width)
    numbers = ("66,000", "0.3012", "0.3315", "-0.0303", "-0.1897 +0.1077", "100–999")
    for whole in (*numbers, "among", "difference", "shown", "28 clicks of the first"):
        assert whole in text


def test_chatter_of_libraries_is_silenced_and_their_errors_are_not() -> None:
    levels = {name: logging.getLogger(name).level for name in ("tensorflow", "absl", "apache_beam")}
    filters = list(logging.getLogger().filters)
    try:
        silence_libraries()
        for name in levels:
            assert not logging.getLogger(name).isEnabledFor(logging.WARNING)
            assert logging.getLogger(name).isEnabledFor(logging.ERROR)
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        logging.getLogger().filters[:] = filters
