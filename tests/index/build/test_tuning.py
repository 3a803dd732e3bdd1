"""Checks which index `build_index` chooses, and whether tuning reaches its target."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from recall.config.index import IndexConfig
from recall.core.errors import DataError
from recall.index import ExactIndex, Index, ScannIndex, build_index, measure

ITEMS, DIM, CLUSTERS = 30_000, 32, 300


def clustered(rows: int, *, seed: int) -> np.ndarray:
    centres = np.random.default_rng(0).normal(size=(CLUSTERS, DIM))
    random = np.random.default_rng(seed)
    vectors = centres[random.integers(CLUSTERS, size=rows)] + 0.7 * random.normal(size=(rows, DIM))
    return (vectors * random.uniform(0.7, 1, size=(rows, 1))).astype(np.float32)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return clustered(ITEMS, seed=1)


@pytest.fixture(scope="module")
def ids() -> list[str]:
    return [str(row) for row in range(ITEMS)]


@pytest.fixture(scope="module")
def tuned(ids: list[str], vectors: np.ndarray) -> Index:
    config = IndexConfig(kind="scann", k=100, target_recall=0.95)
    return build_index(ids, vectors, config=config, sample_queries=clustered(400, seed=2))


def true_recall(index: Index, vectors: np.ndarray, queries: np.ndarray, k: int) -> float:
    truth = np.argpartition(-(queries @ vectors.T), k, axis=1)[:, :k]
    found = index.search(queries, k).rows
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(truth, found, strict=True)]))


def test_scann_reaches_the_target_on_queries_it_was_not_tuned_with(tuned, vectors):
    assert isinstance(tuned, ScannIndex)
    assert true_recall(tuned, vectors, clustered(300, seed=3), 100) >= 0.94


@pytest.mark.parametrize("k", [200, 1000])
def test_recall_holds_for_more_candidates_than_tuned_for(k, tuned, vectors):
    assert true_recall(tuned, vectors, clustered(50, seed=3), k) >= 0.85


def test_every_tuning_step_is_reported_and_the_last_kept_reaches_the_target(tuned):
    steps = tuned.report["tuning"]
    assert all(set(step) == {"leaves_to_search", "reorder", "recall", "queries_per_second"} for step in steps)
    effort = {name: tuned.settings[name] for name in ("leaves_to_search", "reorder")}
    (chosen,) = [step for step in steps if effort.items() <= step.items()]
    assert chosen["recall"] >= 0.95
    # Candidates are raised before leaves: no step has fewer leaves than the one before.
    assert all(a["leaves_to_search"] <= b["leaves_to_search"] for a, b in itertools.pairwise(steps))


def test_measured_recall_is_the_share_of_true_neighbours(tuned, vectors):
    queries = clustered(100, seed=4)
    result = measure(tuned, queries, k=100)
    assert (result.k, result.queries) == (100, 100)
    assert result.recall == pytest.approx(true_recall(tuned, vectors, queries, 100), abs=2e-4)
    assert result.microseconds > 0


def test_recall_does_not_depend_on_which_equally_good_item_is_returned():
    index = build_index([str(row) for row in range(500)], np.ones((500, 4)), config=IndexConfig(kind="scann", k=10))
    assert measure(index, np.ones((5, 4), np.float32), k=10).recall == 1


@pytest.mark.slow
def test_nearly_perfect_recall_is_reached_whatever_it_takes(ids, vectors):
    index = build_index(ids[:6000], vectors[:6000], config=IndexConfig(kind="scann", k=50, target_recall=0.999), seed=2)
    assert isinstance(index, ScannIndex)
    assert true_recall(index, vectors[:6000], clustered(100, seed=5), 50) >= 0.99


def test_small_catalogues_are_searched_exactly(ids, vectors):
    index = build_index(ids[:19_999], vectors[:19_999], config=IndexConfig(exact_below=20_000))
    assert isinstance(index, ExactIndex)
    assert index.report["reason"] == "19,999 items, fewer than index.exact_below = 20,000"


@pytest.mark.parametrize(
    ("scann_microseconds", "exact_microseconds", "kind"), [(50, 300, "scann"), (300, 50, "exact"), (50, 50, "exact")]
)
def test_larger_catalogues_get_the_faster_index(
    scann_microseconds, exact_microseconds, kind, ids, vectors, monkeypatch
):
    def clock(index, queries, k):
        return exact_microseconds if index.is_exact else scann_microseconds

    monkeypatch.setattr("recall.index.build.tuning._median_microseconds", clock)
    lines: list[str] = []
    config = IndexConfig(exact_below=5000, k=20)
    index = build_index(ids[:5000], vectors[:5000], config=config, progress=lines.append)
    assert index.kind == kind
    assert index.report["measured"]["exact"]["recall"] == 1
    assert len(lines) == 1 + len(index.report["tuning"])


def test_scann_can_be_insisted_on_where_exact_search_is_faster(ids, vectors, monkeypatch):
    monkeypatch.setattr(
        "recall.index.build.tuning._median_microseconds", lambda index, queries, k: 1 if index.is_exact else 9
    )
    assert build_index(ids[:300], vectors[:300], config=IndexConfig(kind="scann")).kind == "scann"


def test_real_sample_queries_are_used_and_checked(ids, vectors):
    config = IndexConfig(kind="scann", k=10)
    index = build_index(ids[:300], vectors[:300], config=config, sample_queries=clustered(7, seed=9))
    assert index.report["measured"]["scann"]["queries"] == 7
    with pytest.raises(DataError, match=r"sample_queries: expected 32 dimensions as the items have, found 3"):
        build_index(ids[:300], vectors[:300], config=config, sample_queries=np.ones((4, 3)))
