"""The content term starts as the cosine to the mean of the history, in every structure and query tower."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from recall.data.prepared import PreparedData
from recall.model.content_term.term import content_interest, interest_at
from recall.model.inference import encode_items, encode_triggers, encode_users
from recall.model.recall_model import RecallModel
from recall.model.saved_model import ItemModule
from tests.conftest import Experiment
from tests.helpers.untrained_models import Data

TERM, DIM = "model.content_term=5", 5
HISTORY = np.array([[3, 1, 2], [7, -1, -1], [-1, -1, -1]], np.int32)
WEIGHT = 4.0  # the start weight, for similarity: dot, whose temperature starts at 1


def parts(vectors: np.ndarray) -> np.ndarray:
    """Cut out the dimensions of the term, which stand before the last one."""
    return vectors[..., -1 - DIM : -1]


@pytest.fixture(scope="module")
def content(experiment: Experiment, prepared: PreparedData) -> np.ndarray:
    """Return content vectors of the catalogue, float32 [items, 5]."""
    model = RecallModel(experiment(), prepared)
    features = {name: variable.numpy() for name, variable in model.item_table.variables.items()}
    space = model.content_space(dim=DIM)
    assert space is not None
    return space.vectors(features)


def mean_of(content: np.ndarray) -> np.ndarray:
    """Average the content of `HISTORY` by hand, unit length, zeros without clicks."""
    sums = np.stack([content[row[row >= 0]].sum(axis=0) for row in HISTORY])
    return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-6)


@pytest.mark.parametrize(
    "overrides",
    [
        ("model.structure=meta_only",),
        ("model.structure=base",),
        ("model.structure=single",),
        ("model.gate=concat", "model.history_encoder=transformer"),
        ("model.interests.count=2",),
        ("model.structure=meta_only", "model.fusion=weighted_sum", "model.item_codes=2"),
    ],
    ids=" ".join,
)
def test_the_term_starts_as_the_cosine_to_the_mean(
    experiment: Experiment, prepared: PreparedData, content: np.ndarray, overrides: tuple[str, ...]
) -> None:
    model = RecallModel(experiment(TERM, *overrides), prepared)
    model.build_layers()
    users = prepared.user_ids.to_numpy(zero_copy_only=False)[:3]
    vectors, shares = encode_items(model, prepared.posterior("validation").stacked())
    queries = encode_users(model, users, HISTORY)
    assert vectors.shape[-1] == queries.shape[-1] == model.items.width
    left = np.where(np.isnan(shares), 1, 1 - shares)  # what the gate leaves to content
    expected = WEIGHT * left * (mean_of(content) @ content.T)  # [users, items]
    found = np.tensordot(parts(queries), parts(vectors), axes=(-1, -1))  # [users, (interests,) items(, codes)]
    # An interest, and a code of an item, says the same of content as its neighbours.
    found = np.moveaxis(found, found.shape.index(len(content)), 1)  # [users, items, ...]
    for one in np.moveaxis(found.reshape(3, len(content), -1), 2, 0):
        np.testing.assert_allclose(one, expected, atol=1e-5)


def test_without_the_term_the_other_dimensions_are_the_same(experiment: Experiment, prepared: PreparedData) -> None:
    users, posterior = prepared.user_ids.to_numpy(zero_copy_only=False)[:3], prepared.posterior("test").stacked()
    found = []
    for overrides in ((), (TERM,)):
        model = RecallModel(experiment("model.query=both", *overrides), prepared)
        model.build_layers()
        answers = (
            encode_items(model, posterior)[0],
            encode_users(model, users, HISTORY),
            encode_triggers(model, np.array([4, 9], np.int32)),
        )
        found.append([np.delete(one, np.s_[-1 - DIM : -1], axis=-1) if overrides else one for one in answers])
    for without, others in zip(*found, strict=True):
        np.testing.assert_allclose(without, others, atol=1e-6)


def test_a_trigger_asks_with_its_own_content(
    experiment: Experiment, prepared: PreparedData, content: np.ndarray
) -> None:
    model = RecallModel(experiment(TERM, "model.query=trigger"), prepared)
    model.build_layers()
    np.testing.assert_allclose(parts(encode_triggers(model, np.array([4, 9], np.int32))), content[[4, 9]], atol=1e-5)


def test_inside_sequences_the_interest_is_of_the_clicks_so_far() -> None:
    contents = tf.random.normal([2, 4, 3], seed=1)
    users, positions = tf.constant([0, 1, 1]), tf.constant([2, -1, 0])
    found = interest_at(contents, users=users, positions=positions)
    alone = [content_interest(contents[:1], tf.constant([3]))[0], tf.zeros([3])]
    alone.append(content_interest(contents[1:], tf.constant([1]))[0])
    np.testing.assert_allclose(found, tf.stack(alone), atol=1e-6)


@pytest.mark.parametrize("layout", ["click", "user"])
def test_training_moves_map_and_weight(data: Data, layout: str) -> None:
    model = data.model(TERM, "model.query=both", layout=layout)
    term = model.items.content_term
    assert term is not None
    before = [variable.numpy() for variable in (term.map, term.log_weight, term.mean)]
    model.train_step(data.batch(model))
    after = [variable.numpy() for variable in (term.map, term.log_weight, term.mean)]
    assert np.abs(after[0] - before[0]).max() > 0
    assert after[1] != before[1]
    np.testing.assert_array_equal(after[2], before[2])  # the space is fixed


def test_content_of_a_model_without_the_term_is_exported_all_the_same(
    experiment: Experiment, prepared: PreparedData, content: np.ndarray
) -> None:
    model = RecallModel(experiment("model.structure=meta_only"), prepared)
    model.build_layers()
    features = model.item_table.gather(tf.range(len(content)))
    found = ItemModule(model).functions["content"](features)["vector"].numpy()
    space = model.content_space(dim=256)
    assert space is not None
    expected = space.vectors({name: values.numpy() for name, values in features.items()})
    np.testing.assert_allclose(found, expected, atol=1e-5)
