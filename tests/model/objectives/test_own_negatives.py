"""Negatives of one example alone: refused and hard ones, against a naive pass over single examples."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from recall.model.batches.dataset import Batch
from recall.model.batches.negatives import Negatives
from recall.model.objectives.own_negatives import own_softmax
from recall.model.recall_model import RecallModel
from tests.helpers.untrained_models import PLAIN, Data
from tests.model.test_loss import Example, OneByOne, drawn_candidates, examples_of

SETTINGS = (*PLAIN, "model.loss.uniform_negatives=16", "data.refused=3")


def with_refusals(data: Data, model: RecallModel) -> Batch:
    """A batch whose examples have 0 to 3 refused items each, of which none is the clicked one."""
    batch = data.batch(model)
    random = np.random.default_rng(5)
    rows = random.integers(len(data.layouts["click"].item_ids) - 1, size=(len(batch["item"]), 3)).astype(np.int32)
    rows += rows >= batch["item"].numpy()[:, np.newaxis]
    rows[np.arange(3) >= random.integers(4, size=(len(rows), 1))] = -1
    weight = random.uniform(0.5, 3.0, size=len(rows)).astype(np.float32)
    return {**batch, "refused": tf.constant(rows), "weight": tf.constant(weight)}


def scores_of(model: RecallModel, data: Data, example: Example, naive: OneByOne, rows: list[int]) -> list[float]:
    """Scores of items for the user of an example, with their posteriors as of the example."""
    moments = np.full(len(rows), example.time_ms)
    posterior = data.layouts["click"].posterior_history.as_of(np.array(rows, np.int64), moments).stacked()
    query, scale = naive.user_query(example), model.config.model.start_temperature
    vectors = [naive.vectors(row, known).vector.numpy()[0] for row, known in zip(rows, posterior, strict=True)]
    return [float(query @ vector) / scale for vector in vectors]


def loss_of(positive: float, negatives: list[float]) -> float:
    """Minus the log of the share of the positive in the softmax."""
    shares = np.exp(np.array([positive, *negatives]))
    return -float(np.log(shares[0] / shares.sum()))


def test_own_softmax_is_a_softmax_for_each_target() -> None:
    negatives = tf.constant([[1.0, 3.0], [5.0, 0.5], [9.0, 9.0]])
    is_there = tf.constant([[True, True], [False, True], [False, False]])
    found = own_softmax(
        tf.constant([2.0, 1.0, 4.0]), negatives, is_there=is_there, weights=tf.constant([1.0, 2.0, 3.0])
    )
    expected = (loss_of(2.0, [1.0, 3.0]) + 2 * loss_of(1.0, [0.5])) / 6  # the third has no negatives, and no loss
    assert float(found) == pytest.approx(expected)


def test_gradients_are_finite_where_nobody_has_negatives() -> None:
    for width in (0, 2):
        positives, negatives = tf.Variable([1.0, 2.0]), tf.zeros([2, width])
        with tf.GradientTape() as tape:
            is_there = tf.zeros([2, width], tf.bool)
            loss = own_softmax(positives, negatives, is_there=is_there, weights=tf.ones([2]))
        assert float(loss) == 0
        assert tape.gradient(loss, positives).numpy().tolist() == [0, 0]


@pytest.mark.parametrize("logq", [False, True])
def test_refused_items_meet_the_click_that_they_were_shown_beside(data: Data, *, logq: bool) -> None:
    loss = f"model.loss.refused={{count: 3, weight: 0.5, logq: {logq}}}"
    model = data.model(*SETTINGS, loss, trains=False)
    batch = with_refusals(data, model)
    naive, losses, examples = OneByOne(model), [], examples_of(batch)
    for example, refused in zip(examples, batch["refused"].numpy(), strict=True):
        rows = [example.item, *refused[refused >= 0].tolist()]
        scores = np.array(scores_of(model, data, example, naive, rows))
        if logq:  # of three half-lives the middle one, whose first number is what was shown
            times = np.full(len(rows), example.time_ms)
            history = data.layouts["click"].posterior_history
            scores -= np.log(1 + history.as_of(np.array(rows), times).stacked()[:, 4 + 3])
        losses.append(loss_of(scores[0], scores[1:].tolist()))
    weights = [example.weight for example in examples]
    found = model.loss_terms(batch, training=True)
    assert float(found["refused"]) == pytest.approx(0.5 * np.average(losses, weights=weights), rel=1e-4)


def test_own_negatives_change_no_other_term(data: Data) -> None:
    losses = []
    for further in ((), ("model.loss.refused=2", "model.loss.hard_negatives=4")):
        model = data.model(*SETTINGS, *further, trains=False)
        tf.random.set_seed(3)
        terms = model.loss_terms(with_refusals(data, model), training=True)
        losses.append({name: float(terms[name]) for name in ("item", "behaviour", "meta", "triplet")})
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_hard_negatives_are_the_uniform_ones_that_score_highest(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    model = data.model(*SETTINGS, "model.loss.hard_negatives={count: 3, skip: 1, weight: 2}", trains=False)
    batch = with_refusals(data, model)
    examples, naive, losses = examples_of(batch), OneByOne(model), []
    moments = tf.constant([example.time_ms for example in examples[:16]], tf.int64)
    drawn: Negatives = model.sampler.draw(moments)
    # One drawn item is the click of the first example, another its history: neither may count against it.
    rows = drawn.rows.numpy()
    rows[:2] = examples[0].item, next(example.history[-1] for example in examples if example.history)
    posterior = model.sampler.posterior(tf.constant(rows), moments)
    negatives = Negatives(tf.constant(rows), posterior, drawn.pool_sizes)
    monkeypatch.setattr(model.sampler, "draw", lambda moments: negatives)
    items = tf.constant([example.item for example in examples])
    again = model.sampler.shown_again(items, tf.constant([example.time_ms for example in examples], tf.int64))
    log_q = drawn_candidates(model, examples, again, negatives, data.layouts["click"]).log_q
    vectors = [naive.vectors(row, known).vector.numpy()[0] for row, known in zip(rows, posterior, strict=True)]
    for own, example in enumerate(examples):
        query = naive.user_query(example) / model.config.model.start_temperature
        scores = [float(query @ vector) for vector in vectors]
        hardest = sorted(range(16), key=lambda place: -scores[place])[1:4]
        taken = [place for place in hardest if rows[place] != example.item and rows[place] not in example.history]
        positive = scores_of(model, data, example, naive, [example.item])[0] - log_q[own]
        losses.append(loss_of(positive, [scores[place] - log_q[place - 16] for place in taken]))
    weights = [example.weight for example in examples]
    found = model.loss_terms(batch, training=True)
    assert float(found["hard"]) == pytest.approx(2 * np.average(losses, weights=weights), rel=1e-4)
