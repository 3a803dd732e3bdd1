"""The loss of a step against a naive forward pass: one example, one candidate at a time, as the definitions say it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from recall.data.prepared import PreparedData
from recall.model.batches.dataset import Batch
from recall.model.batches.negatives import Negatives, ShownAgain
from recall.model.layers.history_time import AgeBias, ClickTimes, GapEmbedding
from recall.model.recall_model import RecallModel
from recall.model.towers.item import ItemVectors
from tests.helpers.untrained_models import PLAIN, Data

Array = npt.NDArray[np.float64]
MASKED = "model.loss.mask_seen=true"


class Example(NamedTuple):
    user: int
    history: list[int]
    clicked_ms: list[int]
    trigger: int
    item: int
    posterior: npt.NDArray[np.float32]
    time_ms: int
    weight: float


def examples_of(batch: Batch) -> list[Example]:
    values = {name: value.numpy() for name, value in batch.items()}
    columns = ("trigger", "item", "posterior", "time_ms", "weight")
    if "history" in batch:
        histories = [[item for item in history if item >= 0] for history in values["history"].tolist()]
        return [
            Example(
                user,
                history,
                values["history_time_ms"][row, : len(history)].tolist(),
                *(values[name][row] for name in columns),
            )
            for row, (user, history) in enumerate(zip(values["user"], histories, strict=True))
        ]
    values["item"] = values["items"]
    return [
        Example(
            values["user"][row],
            *(values[name][row, : values["before"][row, place] + 1].tolist() for name in ("items", "time_ms")),
            *(values[name][row, place] for name in columns),
        )
        for row, place in zip(*np.nonzero(values["is_target"]), strict=True)
    ]


class OneByOne:
    """The towers, asked for one item or one example at a time. Traced, since an eager call takes 20 ms."""

    def __init__(self, model: RecallModel) -> None:
        number, dim = tf.TensorSpec([], tf.int32), model.config.model.dim
        tokens, ages_ms = tf.TensorSpec([None, dim]), tf.TensorSpec([None], tf.int64)
        self._model, self._tokens = model, {-1: tf.zeros([dim])}
        posterior = tf.TensorSpec([model.items.posterior_width])
        self.vectors = tf.function(self._vectors, input_signature=[number, posterior], autograph=False)
        self._traced_token = tf.function(self._token, input_signature=[number], autograph=False)
        asked = [number, tokens, ages_ms, number]
        self._traced_user = tf.function(self._user, input_signature=asked, autograph=False)

    def token(self, item: int) -> tf.Tensor:
        if item not in self._tokens:
            self._tokens[item] = self._traced_token(item)
        return self._tokens[item]

    def user_query(self, example: Example) -> Array:
        tokens = tf.stack([self.token(item) for item in example.history or [-1]])
        ages_ms = tf.constant([example.time_ms - clicked_ms for clicked_ms in example.clicked_ms] or [0], tf.int64)
        return self._traced_user(example.user, tokens, ages_ms, len(example.history)).numpy()

    def trigger_query(self, example: Example) -> Array:
        return self._model.trigger_tower(self.token(max(example.trigger, 0))[tf.newaxis])[0].numpy()

    def _vectors(self, row: tf.Tensor, posterior: tf.Tensor) -> ItemVectors:
        return self._model.item_vectors_of(self._model.item_table.gather(row[tf.newaxis]), posterior[tf.newaxis])

    def _token(self, row: tf.Tensor) -> tf.Tensor:
        items = self._model.items
        return items.tokens(items.content_of(self._model.item_table.gather(row[tf.newaxis])))[0]  # [dim]

    def _user(self, user: tf.Tensor, tokens: tf.Tensor, ages_ms: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
        features, lengths = self._model.user_table.gather(user[tf.newaxis]), length[tf.newaxis]
        times = ClickTimes.before_query(ages_ms[tf.newaxis], lengths)
        return self._model.user_tower(features, tokens[tf.newaxis], lengths, times=times)[0]


class Ranked(NamedTuple):
    """Candidates as a definition names them: each query's own, those that take part for it, and their logQ."""

    rows: list[int]
    posterior: npt.NDArray[np.float32]  # [candidates, width]
    own: list[int]  # [queries]
    takes_part: npt.NDArray[np.bool_]  # [queries, candidates]
    log_q: Array  # [candidates]
    pool: npt.NDArray[np.bool_]  # [queries, candidates], those that smoothed labels are spread over


def softmax_loss(
    queries: Array, vectors: Array, ranked: Ranked, weights: Array, scale: float, smoothing: float
) -> float:
    """Weighted mean of -log softmax of each query's own candidate among those that take part for it.

    Of several interests (queries [examples, interests, dim]) each candidate's score is the best.
    """
    losses = []
    for query, own, takes_part, pool in zip(queries, ranked.own, ranked.takes_part, ranked.pool, strict=True):
        logits = (vectors @ np.atleast_2d(query).T).max(axis=1) / scale - ranked.log_q
        peak = logits[takes_part].max()
        minus_log_p = np.log(np.exp(logits[takes_part] - peak).sum()) + peak - logits
        losses.append((1 - smoothing) * minus_log_p[own] + smoothing * minus_log_p[pool].mean())
    return float(np.average(losses, weights=weights)) if weights.any() else 0.0


def triplet_loss(behaviour: Array, meta: Array, items: list[int], margin: float) -> float:
    behaviour, meta = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (behaviour, meta))
    violations = [
        max(0.0, margin - meta[one] @ behaviour[one] + meta[one] @ behaviour[other])
        for one in range(len(items))
        for other in range(len(items))
        if items[one] != items[other]
    ]
    return float(np.mean(violations))


def masked_as_seen(model: RecallModel, examples: list[Example], rows: list[int]) -> npt.NDArray[np.bool_]:
    """Candidates that the user of an example clicked before, where these are masked: [examples, candidates]."""
    is_asked = model.config.model.loss.mask_seen
    return np.array([[is_asked and row in example.history for row in rows] for example in examples])


def drawn_candidates(
    model: RecallModel, examples: list[Example], again: ShownAgain, negatives: Negatives, prepared: PreparedData
) -> Ranked:
    """The examples' items as of their clicks, the same items at other moments, and what is drawn uniformly."""
    items, count = np.array([example.item for example in examples]), len(examples)
    times = np.array([example.time_ms for example in examples])
    own = prepared.posterior_history.as_of(items, times).stacked()
    np.testing.assert_allclose(own[:, :4], [example.posterior for example in examples], rtol=1e-6)
    rows = [*items.tolist(), *items.tolist(), *negatives.rows.numpy().tolist()]
    drawn_at = [times[place % count] for place in range(len(negatives.rows))]
    all_times = np.array([*times, *again.times_ms.numpy(), *drawn_at], np.int64)
    posterior = np.concatenate([own, again.posterior.numpy(), negatives.posterior.numpy()])
    takes_part = items[:, np.newaxis] != np.array(rows)  # accidental hits do not
    takes_part &= ~masked_as_seen(model, examples, rows)
    takes_part[:, count : 2 * count] &= again.is_there.numpy()
    np.fill_diagonal(takes_part, val=True)
    log_q = np.zeros(len(rows))
    if model.config.model.loss.logq:
        frequency = model.sampler.frequency(tf.constant(rows), tf.constant(all_times))
        everywhere = tf.ones([len(rows)], tf.bool)
        log_q = model.sampler.log_q(
            tf.constant(rows),
            frequency,
            is_there=everywhere,
            batch_size=tf.constant(count),
            pool_sizes=negatives.pool_sizes,
        ).numpy()
    return Ranked(rows, posterior, list(range(count)), takes_part, log_q, takes_part)


def whole_catalogue(model: RecallModel, examples: list[Example], prepared: PreparedData, *, time_ms: int) -> Ranked:
    """All items with their posterior at one moment; those exposed before an example, and its own, take part."""
    history, rows = prepared.posterior_history, np.arange(len(prepared.item_ids))
    posterior = history.as_of(rows, np.full(len(rows), time_ms)).stacked()
    own = [example.item for example in examples]
    takes_part = np.array(
        [history.as_of(rows, np.full(len(rows), example.time_ms)).exposures > 0 for example in examples]
    )
    takes_part |= model.config.model.loss.negatives == "catalogue"
    pool = takes_part.copy()
    earliest = history.item[np.argmin(history.first_time_ms // history.bucket_ms)]
    pool[~pool.any(axis=1), earliest] = True  # before the first exposure the earliest item stands in
    takes_part &= ~masked_as_seen(model, examples, rows.tolist())
    takes_part[np.arange(len(own)), own] = True
    return Ranked(rows.tolist(), posterior, own, takes_part, np.zeros(len(rows)), pool)


def naive_terms(model: RecallModel, batch: Batch, ranked: Ranked) -> dict[str, float]:
    config, examples, rows = model.config.model, examples_of(batch), ranked.rows
    naive = OneByOne(model)
    found = [naive.vectors(row, values) for row, values in zip(rows, ranked.posterior, strict=True)]

    def stacked(part: str) -> Array | None:
        parts = [getattr(vectors, part) for vectors in found]
        return None if parts[0] is None else np.concatenate(parts).astype(np.float64)

    vector, behaviour, meta, appeal = (stacked(part) for part in ("vector", "behaviour", "meta", "appeal"))
    asked = []
    if model.user_tower:
        queries = np.array([naive.user_query(example) for example in examples])
        if config.interests and config.interests.objective == "chosen":
            best = [np.argmax(own @ vector[place]) for own, place in zip(queries, ranked.own, strict=True)]
            queries = queries[np.arange(len(queries)), best]
        asked.append((queries, np.array([example.weight for example in examples])))
    if model.trigger_tower:
        has_trigger = np.array([example.weight * (example.trigger >= 0) for example in examples])
        asked.append((np.array([naive.trigger_query(example) for example in examples]), has_trigger))
    terms: dict[str, float] = {}
    for queries, weights in asked:
        taste = queries[..., :-1]  # what is left is matched with the appeal, which no tower alone has
        for_behaviour, for_meta = (taste, taste)
        if config.structure == "gated" and config.gate == "concat":
            for_behaviour, for_meta = np.split(taste, 2, axis=-1)
        matched = {"item": (queries, vector, 1.0)}
        if config.structure == "gated":
            matched |= {"behaviour": (for_behaviour, behaviour, 0.3), "meta": (for_meta, meta, 0.3)}
        if config.structure == "base":
            matched = {"behaviour": (taste, behaviour, 1.0), "meta": (taste, meta, 1.0)}
        if appeal is not None:
            matched = {
                name: (queries, np.concatenate([tower, appeal], axis=1), 1.0) for name, (_, tower, _) in matched.items()
            }
        for name, (query, candidates, weight) in matched.items():
            smoothing = config.loss.label_smoothing
            loss = softmax_loss(query, candidates, ranked, weights, config.start_temperature, smoothing)
            terms[name] = terms.get(name, 0) + weight * loss
    if behaviour is not None and meta is not None:
        items = [example.item for example in examples]
        terms["triplet"] = 0.3 * triplet_loss(behaviour[ranked.own], meta[ranked.own], items, config.loss.margin)
    return terms


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "overrides"),
    [
        ("click", ["model.query=both", "model.history_time=both"]),
        ("user", ["model.query=both", "model.gate=concat", "model.gate_shape=per_dimension", MASKED]),
        ("click", ["model.structure=base", "model.loss.logq=false"]),
        ("click", ["model.structure=base", "model.base_appeal=true"]),
        ("user", ["model.structure=single", "model.loss.negatives=catalogue", "model.history_time=both"]),
        ("click", ["model.structure=behaviour_only", "model.query=trigger", "model.loss.negatives=none"]),
        ("user", ["model.structure=meta_only", "model.history_encoder=transformer", "model.history_time=age"]),
        ("user", ["model.interests={count: 3}", "model.gate=concat", MASKED]),
        ("user", ["model.interests={count: 2, objective: chosen}", "model.gate=concat", "model.history_time=both"]),
        ("click", ["model.interests={count: 2, objective: chosen, extractor: routing}", "model.query=both", MASKED]),
        ("click", ["model.interests={count: 2, extractor: routing}", "model.structure=base"]),
    ],
)
def test_the_step_gives_the_loss_of_a_naive_pass_over_single_examples(
    layout: str, overrides: list[str], data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = data.model(*PLAIN, "model.loss.uniform_negatives=8", *overrides, layout=layout, trains=False)
    for layer in model.submodules:  # at zero, where they start, no time would matter
        if isinstance(layer, AgeBias | GapEmbedding):
            layer.rows.assign(tf.random.stateless_normal(layer.rows.shape, [3, 4]))
    batch = data.batch(model)
    assert (batch["weight"].numpy()[batch["is_target"].numpy() if layout == "user" else ...] == 1).all()
    batch["weight"] *= tf.random.stateless_uniform(tf.shape(batch["weight"]), [1, 2], 0.5, 3.0)
    # Appeal starts at zero, where a wrong place for it would not show.
    if model.items.appeal is not None:
        model.items.appeal.score.kernel.assign(tf.random.stateless_normal([16, 1], seed=(3, 4)))
    examples = examples_of(batch)
    assert len({example.item for example in examples}) < len(examples), "some hits are accidental"
    assert 0 < sum(example.trigger >= 0 for example in examples) < len(examples)
    draws = 0 if model.config.model.loss.negatives == "none" else 8
    times = tf.constant([examples[place % len(examples)].time_ms for place in range(draws)], tf.int64)
    negatives = model.sampler.draw(times)
    asked_at = []

    def draw(moments: tf.Tensor) -> Negatives:
        asked_at.append(moments.numpy().tolist())
        return negatives

    again = model.sampler.shown_again(
        tf.constant([example.item for example in examples]),
        tf.constant([example.time_ms for example in examples], tf.int64),
    )
    monkeypatch.setattr(model.sampler, "draw", draw)
    monkeypatch.setattr(model.sampler, "shown_again", lambda rows, times_ms: again)
    found = {name: float(term) for name, term in model.loss_terms(batch, training=True).items()}
    assert asked_at == [times.numpy().tolist()], "negatives are drawn as of the moments of the examples"
    ranked = drawn_candidates(model, examples, again, negatives, data.layouts[layout])
    expected = naive_terms(model, batch, ranked)
    assert found == pytest.approx(expected, rel=1e-4)
    assert float(model.compute_loss(batch)) == pytest.approx(sum(found.values()), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "overrides"),
    [
        ("click", ["model.loss.label_smoothing=0.3", "model.query=both"]),
        ("user", ["model.query=both", "model.gate=concat", "model.loss.negatives=catalogue"]),
        ("click", ["model.structure=base", "model.query=trigger", MASKED]),
        ("user", ["model.structure=single", "model.history_encoder=transformer"]),
        ("click", ["model.interests={count: 2}", "model.gate=concat"]),
        ("user", ["model.interests={count: 3, objective: chosen}", MASKED]),
        ("user", ["model.similarity=dot", "model.query=both", MASKED]),
        ("user", ["model.loss.label_smoothing=0.1", "model.loss.negatives=catalogue", MASKED]),
    ],
)
def test_the_full_softmax_is_a_naive_pass_over_the_catalogue_of_each_example(
    layout: str, overrides: list[str], data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = data.model(*PLAIN, "model.loss.softmax=full", *overrides, layout=layout, trains=False)
    batch = data.batch(model)
    examples = examples_of(batch)
    time_ms = examples[-1].time_ms
    catalogue = model.sampler.catalogue(tf.constant([time_ms], tf.int64))
    monkeypatch.setattr(model.sampler, "catalogue", lambda moments: catalogue)
    found = {name: float(term) for name, term in model.loss_terms(batch, training=True).items()}
    ranked = whole_catalogue(model, examples, data.layouts[layout], time_ms=time_ms)
    if model.config.model.loss.negatives == "exposed":
        sizes = ranked.takes_part.sum(axis=1)
        assert sizes.min() < sizes.max() < len(ranked.rows), "the examples differ in what had been shown by then"
    assert found == pytest.approx(naive_terms(model, batch, ranked), rel=1e-4)
