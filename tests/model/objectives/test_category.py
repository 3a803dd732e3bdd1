"""Tests the category head: its targets and loss by hand, and its effect on a model."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from recall.config.model import CategoryHeadConfig
from recall.core.errors import ConfigError
from recall.data.features.table_encoder import EncodedColumn
from recall.data.prepared import PreparedData
from recall.model.objectives.category import CategoryHead
from recall.model.recall_model import RecallModel
from tests.conftest import Experiment

CATEGORY = EncodedColumn("kind", "kind", "meta", "code", size=5)  # missing, out of vocabulary, and three values
TAGS = EncodedColumn("kind", "kind", "meta", "codes", size=5)


def head(column: EncodedColumn, **settings: float) -> CategoryHead:
    return CategoryHead(column, settings=CategoryHeadConfig(feature="kind", **settings), dim=2)


def test_targets_of_a_category_are_its_value_or_nothing() -> None:
    found = head(CATEGORY).targets({"kind": tf.constant([0, 1, 2, 4])})
    np.testing.assert_allclose(found, [[0, 0, 0], [0, 0, 0], [1, 0, 0], [0, 0, 1]])


def test_targets_of_tags_are_equal_parts() -> None:
    found = head(TAGS).targets({"kind": tf.constant([[2, 4, 0], [3, 3, 1], [0, 0, 0]])})
    np.testing.assert_allclose(found, [[0.5, 0, 0.5], [0, 1, 0], [0, 0, 0]])


def test_loss_is_the_cross_entropy_of_what_has_a_target() -> None:
    layer = head(CATEGORY)
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(4, 2)).astype(np.float32)
    targets = np.array([[1, 0, 0], [0, 0, 0], [0, 0.5, 0.5], [0, 1, 0]], np.float32)
    weights = np.array([1, 5, 2, 0], np.float32)
    found = layer.loss(vectors, targets, weights=weights).numpy()
    kernel, bias = (weight.numpy() for weight in layer.logits.weights)
    logits = vectors @ kernel + bias
    log_softmax = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    # The second has no target, the last no weight: (1 * first + 2 * third) / 3.
    expected = (-log_softmax[0, 0] - 2 * (log_softmax[2, 1] + log_softmax[2, 2]) / 2) / 3
    assert found == pytest.approx(expected, rel=1e-5)


def test_loss_without_any_target_is_nothing() -> None:
    assert head(CATEGORY).loss(tf.ones([2, 2]), tf.zeros([2, 3])).numpy() == 0


@pytest.mark.parametrize("gate", ["sum", "residual", "concat"])
def test_queries_are_read_where_they_face_the_meta_vector(gate: str) -> None:
    layer = head(CATEGORY, query_weight=0.5)
    parts = 2 if gate == "concat" else 1
    facing = np.array([[0.3, -0.8]], np.float32)
    query = np.concatenate([np.full((1, 2 * (parts - 1)), 9.0), facing, [[1.0]]], axis=1).astype(np.float32)
    target = tf.constant([[0.0, 1.0, 0.0]])
    found = layer.query_terms("user", tf.constant(query), target, weights=tf.ones([1]))
    assert found["user_category"].numpy() == pytest.approx(0.5 * layer.loss(facing, target).numpy(), rel=1e-5)


@pytest.mark.parametrize(("weights", "terms"), [((0.1, 0.1), {"category", "user_category", "trigger_category"}),
                                                ((0.1, 0.0), {"category"}), ((0.0, 0.0), set())])  # fmt: skip
def test_terms_of_weight_zero_are_not_made(
    experiment: Experiment, prepared: PreparedData, weights: tuple[float, float], terms: set[str]
) -> None:
    from recall.model.batches.dataset import training_dataset

    settings = {"feature": "category", "weight": weights[0], "query_weight": weights[1]}
    config = experiment("model.query=both").replaced(model={"category_head": settings})
    model = RecallModel(config, prepared)
    dataset = training_dataset(prepared, model.user_rows, batch_size=64, history=10, shuffle_buffer=100, seed=1)
    found = model.loss_terms(next(iter(dataset)), training=False)
    assert {name for name in found if "category" in name} == terms
    assert all(np.isfinite(term.numpy()) and term.numpy() > 0 for term in found.values())


@pytest.mark.slow
def test_training_with_the_head_makes_meta_vectors_tell_categories(
    experiment: Experiment, prepared: PreparedData
) -> None:
    from recall.model.batches.dataset import training_dataset

    model = RecallModel(experiment("model.category_head={feature: category, weight: 1.0}"), prepared)
    model.prepare_optimizers()
    dataset = training_dataset(prepared, model.user_rows, batch_size=64, history=10, shuffle_buffer=5000, seed=1)

    def right() -> float:
        features = model.item_table.gather(tf.range(len(prepared.item_ids)))
        assert model.category_head is not None
        logits = model.category_head.logits(model.items.content_of(features).meta).numpy()
        targets = model.category_head.targets(features).numpy()
        known = targets.any(axis=1)
        return float((logits.argmax(axis=1) == targets.argmax(axis=1))[known].mean())

    before = right()
    model.fit(dataset, epochs=3, verbose=0)
    assert right() > max(0.9, before)


@pytest.mark.parametrize(
    ("overrides", "remedy"),
    [
        (["model.structure=single", "model.category_head=category"], "use structure: gated, base or meta_only"),
        (["model.category_head=category", "model.interests={count: 3}"], "set query_weight: 0"),
    ],
)
def test_what_cannot_be_is_refused(experiment: Experiment, overrides: list[str], remedy: str) -> None:
    with pytest.raises(ConfigError, match=remedy):
        experiment(*overrides)
