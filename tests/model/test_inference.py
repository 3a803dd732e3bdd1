"""Vectors out of a model: the same whatever the batch, the padding and the order of the calls."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from recall.data.prepared import PreparedData
from recall.model.batches.dataset import pad, read_examples
from recall.model.inference import (
    CatalogueVectors,
    answerable,
    encode_items,
    encode_queries,
    encode_triggers,
    encode_users,
)
from recall.model.recall_model import RecallModel
from tests.conftest import Experiment


@pytest.fixture(scope="module")
def model(experiment: Experiment, prepared: PreparedData) -> RecallModel:
    """Untrained, with towers for both queries."""
    tf.keras.utils.set_random_seed(1)
    model = RecallModel(experiment("model.query=both"), prepared)
    model.build_layers()
    return model


@pytest.fixture(scope="module")
def trigger_model(experiment: Experiment, prepared: PreparedData) -> RecallModel:
    tf.keras.utils.set_random_seed(1)
    model = RecallModel(experiment("model.query=trigger", "model.structure=meta_only"), prepared)
    model.build_layers()
    return model


@pytest.fixture(scope="module")
def histories() -> list[list[int]]:
    return [[3, 1, 2], [], [5], [9, 8, 7, 6, 5, 4, 3, 2]]


def padded(histories: list[list[int]], width: int) -> np.ndarray:
    return np.array([history + [-1] * (width - len(history)) for history in histories], np.int32)


def test_every_item_gets_a_vector_that_ends_in_its_appeal_and_a_share(
    model: RecallModel, prepared: PreparedData
) -> None:
    vectors, shares = encode_items(model, prepared.posterior("serving").stacked())
    assert vectors.shape == (len(prepared.item_ids), 9)
    assert vectors.dtype == shares.dtype == np.float32
    assert np.linalg.norm(vectors[:, :-1], axis=1).min() > 0
    assert ((shares > 0) & (shares < 1)).all()


def test_item_vectors_do_not_depend_on_the_batch(model: RecallModel, prepared: PreparedData) -> None:
    posterior = prepared.posterior("serving").stacked()
    for whole, parts in zip(encode_items(model, posterior), encode_items(model, posterior, batch_size=7), strict=True):
        np.testing.assert_allclose(parts, whole, atol=1e-6)


def test_item_vectors_depend_on_the_moment(model: RecallModel, prepared: PreparedData) -> None:
    posterior = prepared.posterior("serving").stacked()
    later = posterior.copy()
    later[:, 0] += 1_000  # exposures
    assert (encode_items(model, posterior)[1] != encode_items(model, later)[1]).all()


def test_without_a_gate_there_is_no_share(trigger_model: RecallModel, prepared: PreparedData) -> None:
    assert np.isnan(encode_items(trigger_model, prepared.posterior("serving").stacked())[1]).all()


def test_padding_of_histories_never_shows(
    model: RecallModel, prepared: PreparedData, histories: list[list[int]]
) -> None:
    users = np.array(prepared.user_ids.to_pylist()[:4], dtype=object)
    together = encode_users(model, users, padded(histories, 8))
    assert together.shape == (4, 9)
    for row, history in enumerate(histories):
        alone = encode_users(model, users[[row]], padded([history], max(1, len(history))))
        np.testing.assert_allclose(alone[0], together[row], atol=1e-6)


def test_user_vectors_do_not_depend_on_the_batch(model: RecallModel, prepared: PreparedData) -> None:
    examples = read_examples(prepared.shards("test"))
    history = pad(examples.history, width=8)
    whole = encode_users(model, examples.users, history)
    np.testing.assert_allclose(encode_users(model, examples.users, history, batch_size=5), whole, atol=1e-6)


def test_a_user_is_asked_by_history_and_by_profile(
    model: RecallModel, prepared: PreparedData, histories: list[list[int]]
) -> None:
    one, other = prepared.user_ids.to_pylist()[:2]
    queries = encode_users(
        model, np.array([one, one, other], dtype=object), padded([histories[0], histories[2], histories[0]], 3)
    )
    assert np.abs(queries[0] - queries[1]).max() > 1e-4
    assert np.abs(queries[0] - queries[2]).max() > 1e-4


def test_unknown_users_are_all_the_same_stranger(model: RecallModel) -> None:
    names = np.array(["nobody", "zoë", ""], dtype=object)
    queries = encode_users(model, names, np.full((3, 1), -1, np.int32))
    assert np.isfinite(queries).all()
    np.testing.assert_array_equal(queries[0], queries[1])
    np.testing.assert_array_equal(queries[0], queries[2])


def test_nobody_and_nothing_give_no_vectors(model: RecallModel) -> None:
    assert encode_users(model, np.zeros(0, object), np.zeros((0, 8), np.int32)).shape == (0, 9)
    assert encode_triggers(model, np.zeros(0, np.int32)).shape == (0, 9)


def test_trigger_vectors_do_not_depend_on_the_batch(model: RecallModel) -> None:
    items = np.arange(20, dtype=np.int32)
    whole = encode_triggers(model, items)
    assert whole.shape == (20, 9)
    np.testing.assert_allclose(encode_triggers(model, items, batch_size=3), whole, atol=1e-6)


def test_a_model_with_a_user_tower_answers_every_example(model: RecallModel, prepared: PreparedData) -> None:
    examples = read_examples(prepared.shards("test"))
    assert len(answerable(model, examples)) == len(examples)
    expected = encode_users(model, examples.users, pad(examples.history, width=8))
    np.testing.assert_array_equal(encode_queries(model, examples), expected)


def test_a_model_without_one_answers_examples_that_have_a_trigger(
    trigger_model: RecallModel, prepared: PreparedData
) -> None:
    examples = read_examples(prepared.shards("test"))
    has_trigger = examples.triggers >= 0
    assert 0 < has_trigger.sum() < len(examples)
    asked = answerable(trigger_model, examples)
    assert asked.targets.tolist() == examples.targets[has_trigger].tolist()
    expected = encode_triggers(trigger_model, examples.triggers[has_trigger])
    np.testing.assert_array_equal(encode_queries(trigger_model, asked), expected)


def test_batches_of_any_size_share_one_trace(experiment: Experiment, prepared: PreparedData) -> None:
    model = RecallModel(experiment("model.structure=behaviour_only"), prepared)
    model.build_layers()
    for size in (1, 5, 9):
        encode_users(model, np.full(size, "u", object), np.full((size, size), -1, np.int32))
    assert model.encode_users.experimental_get_tracing_count() == 1


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["model.structure=single"],
        ["model.structure=base"],
        ["model.gate=concat", "model.item_codes=2", "model.fusion=weighted_sum"],
    ],
)
def test_towers_that_ran_once_give_the_vectors_of_any_moment(
    overrides: list[str], experiment: Experiment, prepared: PreparedData
) -> None:
    model = RecallModel(experiment(*overrides), prepared)
    model.build_layers()
    catalogue = CatalogueVectors(model, batch_size=64)
    rows = tf.range(len(prepared.item_ids))
    for moment in ("validation", "test", "serving"):
        posterior = prepared.posterior(moment).stacked()
        made = model.item_vectors_of(model.item_table.gather(rows), tf.constant(posterior))
        vectors, shares = catalogue.at(posterior)
        np.testing.assert_allclose(vectors, model.items.served(made), atol=1e-5)
        np.testing.assert_allclose(shares, made.share_or_nan(), atol=1e-5)


def test_a_posterior_of_another_width_is_refused(model: RecallModel, prepared: PreparedData) -> None:
    with pytest.raises(ValueError, match=r"found shape \(150, 4\), expected \[items, 13\]"):
        encode_items(model, prepared.posterior("serving").stacked()[:, :4])
