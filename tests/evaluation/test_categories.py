"""Do recalled lists keep to the categories of what was asked with: by hand, and through a whole evaluation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from recall.config.evaluation import EvaluationConfig
from recall.content.judge.evaluation import tag_matrices
from recall.core.errors import ConfigError
from recall.core.ragged import Ragged
from recall.data.prepared import PreparedData
from recall.evaluation.categories import AskedCategories
from recall.evaluation.ranking import EvaluationSet, top_items
from recall.evaluation.scorers import VectorScorer
from recall.evaluation.slices import evaluate
from recall.model.batches.dataset import read_examples
from recall.runs.assessment import assess_models
from tests.conftest import Experiment

# Five items over three values: item 3 has two of them, item 4 none.
ITEMS = sparse.csr_array(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 0, 0]], np.int32))


def test_an_item_agrees_if_it_shares_a_value_with_a_click() -> None:
    asked = AskedCategories.of_histories(ITEMS, Ragged.from_lists([[0], [1, 2]]))
    # The first asked with value 0: items 0 and 3 agree, 1 and 2 do not. The second with 1 and 2: 1, 2 and 3 agree.
    lists = np.array([[0, 1, 2, 3], [0, 1, 2, 3]])
    assert asked.agreement(slice(0, 2), lists) == (2 + 3, 8)
    assert asked.agreement(slice(1, 2), lists[1:]) == (3, 4)


def test_what_has_no_value_and_who_asked_with_none_are_not_counted() -> None:
    asked = AskedCategories.of_histories(ITEMS, Ragged.from_lists([[0], [], [4]]))
    # Item 4 and the empty slot are passed over; the two examples without a value too.
    assert asked.agreement(slice(0, 3), np.array([[0, 4, -1], [0, 1, 2], [0, 1, 2]])) == (1, 1)


def test_only_the_last_clicks_say_what_a_user_asks_with() -> None:
    history = [[2] + [0] * 9, [2] + [0] * 10]  # value 2 is the tenth click from the end, and the eleventh
    asked = AskedCategories.of_histories(ITEMS, Ragged.from_lists(history))
    assert asked.agreement(slice(0, 1), np.array([[2]])) == (1, 1)
    assert asked.agreement(slice(1, 2), np.array([[2]])) == (0, 1)


def test_a_trigger_asks_with_its_own_values() -> None:
    asked = AskedCategories.of_triggers(ITEMS, np.array([3, 2], np.int32))
    assert asked.agreement(slice(0, 2), np.array([[0, 1, 2], [0, 1, 2]])) == (2 + 1, 6)


def test_evaluation_counts_the_places_of_all_lists() -> None:
    rng = np.random.default_rng(3)
    items, examples = 60, 40
    values = rng.random((items, 6)) < 0.2
    history = [rng.choice(items, rng.integers(0, 15), replace=False).tolist() for _ in range(examples)]
    lists = Ragged.from_lists(history)
    asked_about = EvaluationSet(np.arange(examples).astype(str), rng.integers(0, items, examples), lists, lists)
    scorer = VectorScorer(
        rng.normal(size=(examples, 4)).astype(np.float32), rng.normal(size=(items, 4)).astype(np.float32)
    )
    shown = np.zeros(items, np.int64)
    found = evaluate(
        scorer,
        asked_about,
        exposures=shown,
        clicks=shown,
        config=EvaluationConfig(),
        categories=AskedCategories.of_histories(sparse.csr_array(values.astype(np.int32)), lists),
        block_bytes=1,
    )
    agree = could = 0
    for recalled, clicked in zip(top_items(scorer, asked_about, 100).tolist(), history, strict=True):
        wanted = values[clicked[-10:]].any(axis=0)
        for item in recalled:
            if item >= 0 and wanted.any() and values[item].any():
                agree, could = agree + bool((values[item] & wanted).any()), could + 1
    assert found["ecology"]["category_consistency@100"] == pytest.approx(agree / could)


def test_without_a_category_the_metrics_are_what_they_were() -> None:
    nothing = np.zeros(5, np.int64)
    lists = Ragged.from_lists([[0]])
    examples = EvaluationSet(np.array(["u"]), np.array([1]), lists, lists)
    scorer = VectorScorer(np.ones((1, 2), np.float32), np.ones((5, 2), np.float32))
    found = evaluate(scorer, examples, exposures=nothing, clicks=nothing, config=EvaluationConfig())
    assert set(found["ecology"]) == {
        "coverage@100", "gini@100", "hub_share_10@100", "k_occurrence_skew@100", "cold_share@100", "novelty@100"
    }  # fmt: skip


@pytest.mark.slow
def test_a_run_says_how_far_each_model_keeps_to_the_category(experiment: Experiment, prepared: PreparedData) -> None:
    from recall.model.recall_model import RecallModel

    config = experiment("evaluation.category=category", "model.query=both")
    model = RecallModel(config, prepared)
    model.build_layers()
    found = assess_models(config, prepared, ["gated"], load=lambda name: model).metrics["test"]
    assert all("category_consistency@100" in found[name]["ecology"] for name in ("gated", "gated_trigger", "item_knn"))
    # Popularity by hand: the hundred most clicked for everybody, less what they have seen.
    examples = read_examples(prepared.shards("test"))
    has = tag_matrices(prepared)["category"].toarray() > 0
    clicks = prepared.posterior("test").clicks
    agree = could = 0
    for place in range(len(examples)):
        clicked = examples.history[place]
        unseen = np.setdiff1d(np.arange(len(clicks)), examples.seen[place])
        wanted = has[clicked[-10:]].any(axis=0)
        # Who is clicked more than the next one in line: items that tie across the end of a list are not on it.
        listed = unseen[clicks[unseen] > np.sort(clicks[unseen])[-101]]
        if wanted.any():
            agree, could = agree + int((has[listed] & wanted).any(axis=1).sum()), could + len(listed)
    assert found["popularity"]["ecology"]["category_consistency@100"] == pytest.approx(agree / could)


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("evaluation.category=genre", "evaluation.category: genre is not there"),
        ("evaluation.category=duration_s", "duration_s is of type number"),
        ("model.category_head=text", "model.category_head: text is of type embedding"),
    ],
)
def test_a_category_that_is_none_is_refused(experiment: Experiment, override: str, found: str) -> None:
    with pytest.raises(ConfigError, match=found) as error:
        experiment(override)
    assert "category or tags" in str(error.value)
