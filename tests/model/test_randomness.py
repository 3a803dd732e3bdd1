"""Random numbers of a model's parts: the same whatever else the model is trained for."""

from __future__ import annotations

import random

import numpy as np
import pytest
import tensorflow as tf

from recall.model.randomness import op_seed, seed_of, stream_of
from recall.model.recall_model import RecallModel
from tests.helpers.untrained_models import Data

pytestmark = pytest.mark.slow

# All that draws is on: dropout, hidden ids, hidden times, negatives.
DRAWING = (
    "model.query=both", "model.dropout=0.3", "model.student=null", "model.category_head=null",
    "model.history_time=both",
    "model.cold_simulation={unseen: 0.3, brand_new: 0.2}", "model.loss.uniform_negatives=16",
)  # fmt: skip
RETRIEVAL = "model.loss={triplet: 0, uniform_negatives: 16}"
OBJECTIVES = {
    "towers alone": ("model.loss={triplet: 0, uniform_negatives: 16, behaviour: 0, meta: 0}",),
    "alignment": ("model.loss={triplet: 0.3, uniform_negatives: 16}",),
    "category head": (RETRIEVAL, "model.category_head={feature: category, weight: 0.5, query_weight: 0.5}"),
    "student": (RETRIEVAL, "model.student={kind: attention, dropout: 0.3}"),
    "frozen student": (RETRIEVAL, "model.student={kind: mean, stage: frozen, dropout: 0.3}"),
    "all": (
        "model.loss={triplet: 0.3, uniform_negatives: 16}", "model.category_head={feature: category, query_weight: 1}",
        "model.student={kind: mean, dropout: 0.3}",
    ),
}  # fmt: skip

Plain = tuple[dict[str, np.ndarray], list[float]]


def starts(model: RecallModel) -> dict[str, np.ndarray]:
    towers = {"items": model.items, "user": model.user_tower, "trigger": model.trigger_tower}
    return {
        f"{name} {place}": variable.numpy()
        for name, tower in towers.items()
        for place, variable in enumerate(tower.variables)
    }


def item_losses(model: RecallModel, data: Data) -> list[float]:
    """The retrieval loss of three steps that train nothing: it depends on every draw of the towers and candidates."""
    batch = data.batch(model)
    tf.keras.utils.set_random_seed(model.config.seed)
    terms = tf.function(lambda: model.loss_terms(batch, training=True)["item"], autograph=False)
    return [float(terms()) for _ in range(3)]


@pytest.fixture(scope="module")
def plain(data: Data) -> Plain:
    """What a model of retrieval alone starts with, and its losses."""
    model = data.model(*DRAWING, RETRIEVAL, trains=False)
    return starts(model), item_losses(model, data)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_objective_changes_neither_starts_nor_draws_of_the_rest(objective: str, plain: Plain, data: Data) -> None:
    expected, losses = plain
    beside = data.model(*DRAWING, *OBJECTIVES[objective], trains=False)
    found = starts(beside)
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    assert len(set(losses)) == 3, "every step draws anew"
    assert item_losses(beside, data) == pytest.approx(losses, rel=1e-6)


def test_an_objective_starts_alike_beside_any_other(data: Data) -> None:
    head, student = "model.category_head=category", "model.student={kind: attention}"
    one, both = data.model(*DRAWING, student, trains=False), data.model(*DRAWING, student, head, trains=False)
    alone = data.model(*DRAWING, head, trains=False)
    for first, second in ((one.student, both.student), (alone.category_head, both.category_head)):
        for left, right in zip(first.variables, second.variables, strict=True):
            np.testing.assert_array_equal(left.numpy(), right.numpy())


def test_another_seed_of_the_experiment_gives_other_weights(plain: Plain, data: Data) -> None:
    one, other = plain[0], starts(data.model(*DRAWING, RETRIEVAL, "seed=12345", trains=False))
    assert any(not np.array_equal(one[name], other[name]) for name in one)


def test_parts_of_one_model_do_not_start_alike(plain: Plain) -> None:
    drawn = [values.ravel()[:3].tolist() for values in plain[0].values() if np.ptp(values) > 0]
    assert len({tuple(values) for values in drawn if len(values) == 3}) == sum(len(values) == 3 for values in drawn)


def test_a_stream_leaves_the_generators_of_the_caller_alone() -> None:
    random.seed(3), np.random.seed(3)
    expected = random.random(), np.random.random()
    random.seed(3), np.random.seed(3)
    with stream_of("a", seed=1):
        inside = op_seed()
    assert (random.random(), np.random.random()) == expected
    with stream_of("a", seed=1):
        assert op_seed() == inside
    assert len({seed_of("a", seed=1), seed_of("b", seed=1), seed_of("a", seed=2)}) == 3
