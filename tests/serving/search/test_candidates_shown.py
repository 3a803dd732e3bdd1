"""Tests the table as which a notebook shows lists of candidates."""

from __future__ import annotations

import numpy as np

from recall.serving.search.candidates import FALLBACK, MODEL, Candidates
from tests.core.test_html import Reader


def lists(queries: int, k: int) -> Candidates:
    ids = np.array([[f"i{row}.{place}" for place in range(k)] for row in range(queries)], object)
    scores = np.linspace(1, 0, k, dtype=np.float32)[None].repeat(queries, 0)
    return Candidates([f"u{row}" for row in range(queries)], ids, scores, titles={})


def test_ids_and_titles_are_text_and_a_query_is_named_once() -> None:
    ids = np.array([["<i>1</i>", "2"], ["2", None]], object)
    scores = np.array([[0.75, 0.5], [0.25, -np.inf]], np.float32)
    found = Candidates(["<u>", "v"], ids, scores, titles={"2": "Tom & <Jerry>"})
    assert Reader(found._repr_html_()).rows == [
        ["query", "rank", "item", "title", "score"],
        ["<u>", "1", "<i>1</i>", "", "0.750"],
        ["", "2", "2", "Tom & <Jerry>", "0.500"],
        ["v", "1", "2", "Tom & <Jerry>", "0.250"],
    ]


def test_long_answers_are_cut_and_the_table_says_so() -> None:
    text = lists(40, 1_200)._repr_html_()
    assert len(Reader(text).rows) == 1 + 5 * 10
    assert "The first 10 of 1,200 candidates of the first 5 of 40 queries; to_pandas() has all." in text
    assert "The lists of the first 5 of 6 queries; to_pandas() has all." in lists(6, 3)._repr_html_()
    assert "The first 10 of 11 candidates; to_pandas() has all." in lists(1, 11)._repr_html_()
    assert "to_pandas" not in lists(5, 10)._repr_html_()


def test_sources_are_shown_where_a_fallback_was_asked_for() -> None:
    plain = lists(2, 1)
    found = Candidates(plain.queries, plain.ids, plain.scores, {}, sources=(MODEL, FALLBACK))
    head, first, second = Reader(found._repr_html_()).rows
    assert head[-1] == "source"
    assert (first[-1], second[-1]) == ("model", "fallback")


def test_lists_without_candidates_are_a_table_without_rows() -> None:
    assert len(Reader(lists(1, 0)._repr_html_()).rows) == 1
