"""The part of metrics.json under a model's name, recomputed slowly from the whole matrix of scores."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from recall.config.evaluation import EvaluationConfig
from recall.core.ragged import Ragged
from recall.evaluation.ranking import EvaluationSet
from recall.evaluation.scorers import EvaluationError, VectorScorer
from recall.evaluation.slices import evaluate, evaluate_examples, validation_metric

ITEMS, EXAMPLES = 240, 150


class Case:
    """Random model and data with a quarter of cold items; inner products are exact, so ties are the same everywhere."""

    def __init__(self) -> None:
        rng = np.random.default_rng(5)
        self.queries = rng.integers(-3, 4, (EXAMPLES, 8)).astype(np.float32)
        self.items = rng.integers(-3, 4, (ITEMS, 8)).astype(np.float32)
        self.exposures = np.where(rng.random(ITEMS) < 0.25, 0, rng.geometric(0.02, ITEMS)).astype(np.int64)
        self.clicks = self.exposures // 3
        self.seen = [sorted(rng.choice(ITEMS, rng.integers(0, 40), replace=False).tolist()) for _ in range(EXAMPLES)]
        lists = Ragged.from_lists(self.seen)
        users = np.array([f"u{number}" for number in range(EXAMPLES)])
        self.examples = EvaluationSet(users, rng.integers(0, ITEMS, EXAMPLES).astype(np.int32), lists, lists)
        self.config = EvaluationConfig(k=(1, 10, 50, 100), exposure_buckets=(0, 1, 10, 100, 100_000))

    def evaluate(self, **changes: Any) -> dict[str, Any]:
        settings: dict[str, Any] = {"exposures": self.exposures, "clicks": self.clicks, "config": self.config}
        return evaluate(VectorScorer(self.queries, self.items), self.examples, **settings | changes)

    def slow_ranks(self, candidates: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Ranks among the candidates, one pair at a time."""
        ranks = []
        for query, target, seen in zip(self.queries, self.examples.targets.tolist(), self.seen, strict=True):
            scores = self.items @ query
            others = [i for i in range(ITEMS) if candidates[i] and i not in seen and i != target]
            ranks.append(1 + sum(bool(scores[i] >= scores[target]) for i in others))
        return np.array(ranks)


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()


@pytest.fixture(scope="module")
def result(case: Case) -> dict[str, Any]:
    return case.evaluate()


def assert_summarises(found: dict[str, Any], ranks: npt.NDArray[np.int64]) -> None:
    assert found["examples"] == len(ranks) > 0
    for k in (1, 10, 50, 100):
        assert found[f"recall@{k}"] == found[f"hit_rate@{k}"] == pytest.approx(np.mean(ranks <= k))
        assert found[f"ndcg@{k}"] == pytest.approx(np.mean([(r <= k) / math.log2(1 + r) for r in ranks]))
    assert found["mrr"] == pytest.approx(np.mean(1 / ranks))


def test_all_is_the_whole_test_set_ranked_against_the_whole_catalogue(case: Case, result: dict[str, Any]) -> None:
    assert_summarises(result["all"], case.slow_ranks(np.ones(ITEMS, bool)))


def test_cold_is_the_targets_that_nobody_saw_before(case: Case, result: dict[str, Any]) -> None:
    cold_target = case.exposures[case.examples.targets] == 0
    assert_summarises(result["cold"], case.slow_ranks(np.ones(ITEMS, bool))[cold_target])


def test_cold_among_cold_ranks_the_same_targets_among_cold_items_only(case: Case, result: dict[str, Any]) -> None:
    cold_target = case.exposures[case.examples.targets] == 0
    ranks = case.slow_ranks(case.exposures == 0)[cold_target]
    assert_summarises(result["cold_among_cold"], ranks)
    assert result["cold_among_cold"]["recall@10"] > result["cold"]["recall@10"]


def test_ranks_of_every_example_come_with_the_metrics(case: Case, result: dict[str, Any]) -> None:
    scorer = VectorScorer(case.queries, case.items)
    found = evaluate_examples(
        scorer, case.examples, exposures=case.exposures, clicks=case.clicks, config=case.config
    )  # fmt: skip
    assert found.metrics == result
    np.testing.assert_array_equal(found.ranks, case.slow_ranks(np.ones(ITEMS, bool)))
    cold_target = case.exposures[case.examples.targets] == 0
    among_cold = np.where(cold_target, case.slow_ranks(case.exposures == 0), 0)
    np.testing.assert_array_equal(found.ranks_among_cold, among_cold)


def test_item_that_was_clicked_without_a_logged_exposure_is_not_cold(case: Case) -> None:
    clicks = case.clicks.copy()
    clicks[case.exposures == 0] = 1
    changed = case.evaluate(clicks=clicks)
    assert changed["cold"]["examples"] == changed["cold_among_cold"]["examples"] == 0
    assert changed["cold"]["recall@10"] is None
    assert changed["ecology"]["cold_share@100"] == 0.0


def test_slices_by_exposures_hold_every_example_once(case: Case, result: dict[str, Any]) -> None:
    slices = result["by_exposures"]
    bounds = [(part["from"], part["to"]) for part in slices]
    assert bounds == [(0, 0), (1, 9), (10, 99), (100, 99_999), (100_000, None)]
    assert sum(part["examples"] for part in slices) == EXAMPLES
    ranks, exposures = case.slow_ranks(np.ones(ITEMS, bool)), case.exposures[case.examples.targets]
    for part in slices[:4]:
        assert_summarises(part, ranks[(exposures >= part["from"]) & (exposures <= part["to"])])
    assert slices[4]["examples"] == 0
    assert slices[4]["recall@10"] is None


def test_ecology_describes_the_lists_of_the_first_hundred(case: Case, result: dict[str, Any]) -> None:
    shown: Counter[int] = Counter()
    for query, seen in zip(case.queries, case.seen, strict=True):
        scores = {item: score for item, score in enumerate(case.items @ query) if item not in seen}
        values = np.array(list(scores.values()))
        shown.update(item for item, score in scores.items() if np.sum(values >= score) <= 100)
    slots = sum(shown.values())
    share = {item: (case.exposures[item] + 1) / (case.exposures.sum() + ITEMS) for item in shown}
    cold = sum(count for item, count in shown.items() if case.exposures[item] == 0)
    frequencies = np.array([shown[item] for item in range(ITEMS)])
    assert result["ecology"] == {
        "coverage@100": pytest.approx(len(shown) / ITEMS),
        "gini@100": pytest.approx(np.abs(frequencies[:, None] - frequencies).mean() / (2 * frequencies.mean())),
        "hub_share_10@100": pytest.approx(sum(count for _, count in shown.most_common(10)) / slots),
        "k_occurrence_skew@100": pytest.approx(stats.skew(frequencies)),
        "cold_share@100": pytest.approx(cold / slots),
        "novelty@100": pytest.approx(sum(-math.log2(share[item]) * count for item, count in shown.items()) / slots),
    }


def test_weights_add_the_order_of_each_users_clicks_and_change_nothing_else(case: Case, result: dict[str, Any]) -> None:
    rng = np.random.default_rng(8)
    users, weights = rng.integers(0, 20, EXAMPLES).astype(str), rng.integers(1, 4, EXAMPLES).astype(np.float32)
    ranks = case.slow_ranks(np.ones(ITEMS, bool))
    orders = Counter(
        np.sign((ranks[other] - ranks[one]) * (weights[one] - weights[other]))
        for one, other in itertools.combinations(range(EXAMPLES), 2)
        if users[one] == users[other] and weights[one] != weights[other]
    )
    examples = dataclasses.replace(case.examples, users=users)
    settings = {"exposures": case.exposures, "clicks": case.clicks, "config": case.config}
    found = evaluate(VectorScorer(case.queries, case.items), examples, weights=weights, **settings)
    assert found.pop("graded") == {
        "pnr": pytest.approx(orders[1] / orders[-1]),
        "pairs": orders.total(),
        "concordant": orders[1],
        "discordant": orders[-1],
    }
    assert found == result


def test_seen_items_compete_when_they_are_not_excluded(case: Case, result: dict[str, Any]) -> None:
    everything = case.evaluate(config=case.config.model_copy(update={"exclude_seen": False}))
    assert everything["all"]["mrr"] < result["all"]["mrr"]


def test_result_is_what_the_metrics_file_holds(result: dict[str, Any]) -> None:
    assert set(result) == {"all", "cold", "by_exposures", "ecology", "cold_among_cold"}
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    for key, value in result["all"].items():
        assert key == "examples" or 0 <= value <= 1


def test_result_does_not_depend_on_the_size_of_the_blocks(case: Case, result: dict[str, Any]) -> None:
    assert case.evaluate(block_bytes=1) == result


def test_catalogue_smaller_than_the_lists_is_listed_whole() -> None:
    rng = np.random.default_rng(6)
    nothing_seen = Ragged.from_lists([[], []])
    examples = EvaluationSet(np.array(["a", "b"]), np.array([0, 3], np.int32), nothing_seen, nothing_seen)
    scorer = VectorScorer(rng.standard_normal((2, 4), np.float32), rng.standard_normal((5, 4), np.float32))
    exposures = np.array([1, 1, 1, 1, 0])
    result = evaluate(scorer, examples, exposures=exposures, clicks=0 * exposures, config=EvaluationConfig(k=(10,)))
    assert result["all"]["recall@10"] == 1.0
    assert result["ecology"]["coverage@100"] == 1.0
    assert result["ecology"]["gini@100"] == pytest.approx(0.0)
    assert result["ecology"]["cold_share@100"] == pytest.approx(1 / 5)


def test_model_that_scores_everything_equally_gets_no_credit(case: Case) -> None:
    constant = VectorScorer(np.ones((EXAMPLES, 1), np.float32), np.ones((ITEMS, 1), np.float32))
    result = evaluate(constant, case.examples, exposures=case.exposures, clicks=case.clicks, config=case.config)
    assert result["all"]["recall@100"] == 0.0
    assert result["ecology"]["coverage@100"] == 0.0


def test_posterior_of_another_catalogue_is_refused(case: Case) -> None:
    with pytest.raises(EvaluationError, match=r"exposures has shape \(239,\); the model scores 240 items"):
        case.evaluate(exposures=case.exposures[1:])


def test_validation_metric_equals_the_evaluation(case: Case, result: dict[str, Any]) -> None:
    scorer = VectorScorer(case.queries, case.items)
    assert validation_metric(scorer, case.examples, metric="recall", k=50) == result["all"]["recall@50"]
    assert validation_metric(scorer, case.examples, metric="ndcg", k=10) == result["all"]["ndcg@10"]


def test_validation_metric_by_kind_ranks_cold_targets_among_cold_items_and_others_among_the_others(
    case: Case,
) -> None:
    cold = case.exposures == 0
    ranks = np.where(cold[case.examples.targets], case.slow_ranks(cold), case.slow_ranks(~cold))
    assert (ranks != case.slow_ranks(np.ones(ITEMS, bool))).any()
    scorer = VectorScorer(case.queries, case.items)
    for block_bytes in (1, 1 << 25):
        found = {
            metric: validation_metric(
                scorer, case.examples, metric=metric, k=10, exposures=case.exposures, block_bytes=block_bytes
            )
            for metric in ("recall", "ndcg")
        }
        assert found["recall"] == pytest.approx(np.mean(ranks <= 10))
        assert found["ndcg"] == pytest.approx(np.mean([(rank <= 10) / math.log2(1 + rank) for rank in ranks]))


def test_validation_metric_by_kind_does_not_depend_on_how_both_kinds_share_a_list(case: Case) -> None:
    lifted = np.c_[case.items, np.where(case.exposures == 0, 50.0, 0.0)].astype(np.float32)
    asking = np.c_[case.queries, np.ones(EXAMPLES)].astype(np.float32)
    plain, biased = (
        validation_metric(scorer, case.examples, metric="recall", k=20, exposures=case.exposures)
        for scorer in (VectorScorer(case.queries, case.items), VectorScorer(asking, lifted))
    )
    assert plain == biased


def test_validation_metric_without_examples_is_an_error() -> None:
    nothing = Ragged.from_lists([])
    examples = EvaluationSet(np.array([], str), np.array([], np.int32), nothing, nothing)
    scorer = VectorScorer(np.empty((0, 2), np.float32), np.ones((3, 2), np.float32))
    with pytest.raises(EvaluationError, match="no validation example"):
        validation_metric(scorer, examples, metric="recall", k=10)
