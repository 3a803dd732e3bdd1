"""The model's step against a naive forward pass, and what every structure, query and layout promises."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import tensorflow as tf
from conftest import Experiment

from recall.dataset import Batch, training_dataset
from recall.model import RecallModel
from recall.negatives import Negatives
from recall.prepared import PreparedData
from recall.towers.history_time import AgeBias, ClickTimes, GapEmbedding

STRUCTURES = ("gated", "base", "single", "behaviour_only", "meta_only")
QUERIES = ("user", "trigger", "both")
# Nothing random is left: the same batch gives the same loss.
PLAIN = ("model.dropout=0", "model.cold_simulation.enabled=false", "model.history_time_hidden=0")
Array = npt.NDArray[np.float64]


class Data(NamedTuple):
    """Prepared data by layout, with the size of a small batch of each."""

    layouts: dict[str, PreparedData]
    experiment: Experiment

    def model(self, *overrides: str, layout: str = "click") -> RecallModel:
        """An untrained model that is ready to train."""
        tf.keras.utils.set_random_seed(11)
        model = RecallModel(
            self.experiment(f"data.layout={layout}", "model.similarity=cosine", *overrides), self.layouts[layout]
        )
        model.prepare_optimizers()
        return model

    def batch(self, model: RecallModel, *, size: int | None = None) -> Batch:
        """The first batch of an epoch."""
        layout = model.config.data.layout
        dataset = training_dataset(
            self.layouts[layout],
            model.user_rows,
            batch_size=size or {"click": 24, "user": 5}[layout],
            history=model.config.data.history,
            shuffle_buffer=10_000,
            seed=1,
        )
        return next(iter(dataset))


@pytest.fixture(scope="module")
def data(prepared: PreparedData, prepared_by_user: PreparedData, experiment: Experiment) -> Data:
    return Data({"click": prepared, "user": prepared_by_user}, experiment)


def rows_of(batch: Batch, chosen: npt.NDArray[np.intp]) -> Batch:
    """A smaller batch."""
    return {name: tf.gather(value, chosen) for name, value in batch.items()}


# The naive forward pass: one example at a time, one candidate at a time, in the words of the definitions.


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


def token(model: RecallModel, item: int) -> tf.Tensor:
    return model.items.tokens(model.items.content_of(model.item_table.gather([item])))[0]  # [dim]


def user_query(model: RecallModel, example: Example) -> Array:
    tokens = [token(model, item) for item in example.history] or [tf.zeros([model.config.model.dim])]
    features = model.user_table.gather([example.user])
    lengths = tf.constant([len(example.history)])
    age_ms = [example.time_ms - clicked_ms for clicked_ms in example.clicked_ms] or [0]
    times = ClickTimes.before_query(tf.constant([age_ms], tf.int64), lengths)
    return model.user_tower(features, tf.stack(tokens)[tf.newaxis], lengths, times=times)[0].numpy()


def trigger_query(model: RecallModel, example: Example) -> Array:
    return model.trigger_tower(token(model, max(example.trigger, 0))[tf.newaxis])[0].numpy()


class Ranked(NamedTuple):
    """Candidates as a definition names them: each query's own, those that take part for it, and their logQ."""

    rows: list[int]
    posterior: npt.NDArray[np.float32]  # [candidates, 4]
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


def drawn_candidates(model: RecallModel, examples: list[Example], negatives: Negatives) -> Ranked:
    rows = [example.item for example in examples] + negatives.rows.numpy().tolist()
    posterior = np.concatenate([[example.posterior for example in examples], negatives.posterior.numpy()])
    log_q = np.zeros(len(rows))
    if model.config.model.loss.logq:
        pools = negatives.pool_sizes
        log_q = model.sampler.log_q(tf.constant(rows), batch_size=tf.constant(len(examples)), pool_sizes=pools).numpy()
    count = len(examples)
    takes_part = np.array(rows[:count])[:, np.newaxis] != np.array(rows)  # accidental hits do not
    takes_part &= ~masked_as_seen(model, examples, rows)
    np.fill_diagonal(takes_part, val=True)
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
    takes_part &= ~masked_as_seen(model, examples, rows.tolist())
    takes_part[np.arange(len(own)), own] = True
    return Ranked(rows.tolist(), posterior, own, takes_part, np.zeros(len(rows)), pool)


def naive_terms(model: RecallModel, batch: Batch, ranked: Ranked) -> dict[str, float]:
    config, examples, rows = model.config.model, examples_of(batch), ranked.rows
    found = [
        model.item_vectors_of(model.item_table.gather([row]), tf.constant(values[np.newaxis]))
        for row, values in zip(rows, ranked.posterior, strict=True)
    ]

    def stacked(part: str) -> Array | None:
        parts = [getattr(vectors, part) for vectors in found]
        return None if parts[0] is None else np.concatenate(parts).astype(np.float64)

    vector, behaviour, meta = (stacked(part) for part in ("vector", "behaviour", "meta"))
    asked = []
    if model.user_tower:
        queries = np.array([user_query(model, example) for example in examples])
        if config.interests and config.interests.objective == "chosen":
            best = [np.argmax(own @ vector[place]) for own, place in zip(queries, ranked.own, strict=True)]
            queries = queries[np.arange(len(queries)), best]
        asked.append((queries, np.array([example.weight for example in examples])))
    if model.trigger_tower:
        has_trigger = np.array([example.weight * (example.trigger >= 0) for example in examples])
        asked.append((np.array([trigger_query(model, example) for example in examples]), has_trigger))
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
        for name, (query, candidates, weight) in matched.items():
            smoothing = config.loss.label_smoothing
            loss = softmax_loss(query, candidates, ranked, weights, config.start_temperature, smoothing)
            terms[name] = terms.get(name, 0) + weight * loss
    if behaviour is not None and meta is not None:
        items = [example.item for example in examples]
        terms["triplet"] = 0.3 * triplet_loss(behaviour[ranked.own], meta[ranked.own], items, config.loss.margin)
    return terms


@pytest.mark.parametrize(
    ("layout", "overrides"),
    [
        ("click", ["model.query=both", "model.history_time=both"]),
        ("user", ["model.query=both", "model.gate=concat", "model.gate_shape=per_dimension"]),
        ("click", ["model.structure=base", "model.loss.logq=false"]),
        ("user", ["model.structure=single", "model.loss.negatives=catalogue", "model.history_time=both"]),
        ("click", ["model.structure=behaviour_only", "model.query=trigger", "model.loss.negatives=none"]),
        ("user", ["model.structure=meta_only", "model.history_encoder=transformer", "model.history_time=age"]),
        ("user", ["model.interests={count: 3}", "model.gate=concat"]),
        ("user", ["model.interests={count: 2, objective: chosen}", "model.gate=concat", "model.history_time=both"]),
        ("click", ["model.interests={count: 2, objective: chosen, extractor: routing}", "model.query=both"]),
        ("click", ["model.interests={count: 2, extractor: routing}", "model.structure=base"]),
        ("click", ["model.loss.mask_seen=true", "model.query=trigger"]),
        ("user", ["model.loss.mask_seen=true", "model.query=both"]),
        ("user", ["model.loss.mask_seen=true", "model.interests={count: 2}"]),
    ],
)
def test_the_step_gives_the_loss_of_a_naive_pass_over_single_examples(
    layout: str, overrides: list[str], data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = data.model(*PLAIN, "model.loss.uniform_negatives=8", *overrides, layout=layout)
    for layer in model.submodules:  # at zero, where they start, no time would matter
        if isinstance(layer, AgeBias | GapEmbedding):
            layer.rows.assign(tf.random.stateless_normal(layer.rows.shape, [3, 4]))
    batch = data.batch(model)
    assert (batch["weight"].numpy()[batch["is_target"].numpy() if layout == "user" else ...] == 1).all()
    batch["weight"] *= tf.random.stateless_uniform(tf.shape(batch["weight"]), [1, 2], 0.5, 3.0)
    # Appeal starts at zero, where a wrong place for it would not show.
    if model.items.config.structure == "gated":
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

    monkeypatch.setattr(model.sampler, "draw", draw)
    found = {name: float(term) for name, term in model.loss_terms(batch, training=True).items()}
    assert asked_at == [times.numpy().tolist()], "negatives are drawn as of the moments of the examples"
    expected = naive_terms(model, batch, drawn_candidates(model, examples, negatives))
    assert found == pytest.approx(expected, rel=1e-4)
    assert float(model.compute_loss(batch)) == pytest.approx(sum(found.values()), rel=1e-5)


@pytest.mark.parametrize(
    ("layout", "overrides"),
    [
        ("click", ["model.query=both"]),
        ("user", ["model.query=both", "model.gate=concat", "model.loss.negatives=catalogue"]),
        ("click", ["model.structure=base", "model.query=trigger"]),
        ("user", ["model.structure=single", "model.history_encoder=transformer"]),
        ("click", ["model.interests={count: 2}", "model.gate=concat"]),
        ("user", ["model.interests={count: 3, objective: chosen}"]),
        ("user", ["model.similarity=dot"]),
        ("click", ["model.loss.label_smoothing=0.3", "model.query=both"]),
        ("user", ["model.loss.label_smoothing=0.1", "model.loss.mask_seen=true", "model.loss.negatives=catalogue"]),
        ("click", ["model.loss.mask_seen=true", "model.query=trigger"]),
        ("user", ["model.loss.mask_seen=true", "model.query=both"]),
        ("user", ["model.loss.mask_seen=true", "model.interests={count: 2}"]),
    ],
)
def test_the_full_softmax_is_a_naive_pass_over_the_catalogue_of_each_example(
    layout: str, overrides: list[str], data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = data.model(*PLAIN, "model.loss.softmax=full", *overrides, layout=layout)
    batch = data.batch(model)
    examples = examples_of(batch)
    time_ms = examples[-1].time_ms
    catalogue = model.sampler.catalogue(tf.constant([time_ms], tf.int64))
    monkeypatch.setattr(model.sampler, "catalogue", lambda moments: catalogue)
    found = {name: float(term) for name, term in model.loss_terms(batch, training=True).items()}
    ranked = whole_catalogue(model, examples, data.layouts[layout], time_ms=time_ms)
    if model.config.model.loss.negatives == "exposed":
        sizes = ranked.takes_part.sum(axis=1)
        assert 1 < sizes.min() < sizes.max() < len(ranked.rows), "the examples differ in what had been shown by then"
    assert found == pytest.approx(naive_terms(model, batch, ranked), rel=1e-4)


# What every combination promises


@pytest.mark.parametrize("layout", ["click", "user"])
@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("structure", STRUCTURES)
def test_every_combination_learns_a_small_batch_with_all_its_weights(
    structure: str, query: str, layout: str, data: Data
) -> None:
    softmax = "full" if query == "user" else "sampled"
    settings = (f"model.structure={structure}", f"model.query={query}", f"model.loss.softmax={softmax}")
    settings += ("training.learning_rate=0.05",)
    model = data.model(*PLAIN, *settings, layout=layout)
    batch = data.batch(model)
    before = [variable.numpy() for variable in model.trainable_variables]
    losses = [float(model.train_step(batch)["loss"]) for _ in range(3)]
    assert losses[-1] < 0.9 * losses[0]
    for variable, start in zip(model.trainable_variables, before, strict=True):
        assert np.isfinite(variable.numpy()).all(), variable.name
        assert (variable.numpy() != start).any(), f"{variable.name} is never trained"


@pytest.mark.parametrize(
    ("layout", "interests", "encoder"),
    [
        ("user", "{count: 3}", "transformer"),
        ("user", "{count: 2, objective: chosen}", "attention"),
        ("click", "{count: 3, extractor: routing}", "attention"),
        ("click", "{count: 2}", "mean"),
    ],
)
def test_a_model_with_interests_learns_a_small_batch_with_all_its_weights(
    layout: str, interests: str, encoder: str, data: Data
) -> None:
    settings = (f"model.interests={interests}", f"model.history_encoder={encoder}", "training.learning_rate=0.05")
    model = data.model(*PLAIN, *settings, layout=layout)
    batch = data.batch(model)
    before = [variable.numpy() for variable in model.trainable_variables]
    losses = [float(model.train_step(batch)["loss"]) for _ in range(3)]
    assert losses[-1] < 0.9 * losses[0]
    for variable, start in zip(model.trainable_variables, before, strict=True):
        assert (variable.numpy() != start).any(), f"{variable.name} is never trained"


def test_the_terms_of_the_loss_add_up_in_the_metrics(data: Data) -> None:
    model = data.model("model.query=both")
    metrics = {name: float(value) for name, value in model.train_step(data.batch(model)).items()}
    assert set(metrics) == {"loss", "item_loss", "behaviour_loss", "meta_loss", "triplet_loss"}
    assert sum(metrics.values()) == pytest.approx(2 * metrics["loss"], rel=1e-5)


def test_a_weight_of_zero_takes_a_term_away(data: Data) -> None:
    loss = "{behaviour: 0, meta: 0, triplet: 0, uniform_negatives: 8}"
    model = data.model(f"model.loss={loss}")
    assert set(model.loss_terms(data.batch(model), training=True)) == {"item"}


def test_base_trains_both_towers_on_their_own(data: Data) -> None:
    model = data.model("model.structure=base", "model.loss.triplet=0", *PLAIN)
    batch = data.batch(model)
    towers = {"behaviour": model.items.behaviour_stack, "meta": model.items.meta_stack}
    for name, tower in towers.items():
        with tf.GradientTape() as tape:
            term = model.loss_terms(batch, training=True)[name]
        assert all(tf.norm(gradient) > 0 for gradient in tape.gradient(term, tower.trainable_variables)), name


def gradient_norm(model: RecallModel, batch: Batch, term: str, variables: list[tf.Variable]) -> float:
    """Length of the gradient of one term of the loss."""
    with tf.GradientTape() as tape:
        value = model.loss_terms(batch, training=True)[term]
    gradients = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(value, variables) if gradient is not None]
    return float(tf.linalg.global_norm(gradients)) if gradients else 0.0


@pytest.mark.parametrize("gate", ["sum", "concat"])
def test_losses_of_the_towers_alone_do_not_move_the_query_unless_asked_to(gate: str, data: Data) -> None:
    for moves in (False, True):
        settings = ("model.query=both", f"model.gate={gate}", f"model.loss.towers_move_query={str(moves).lower()}")
        model = data.model(*PLAIN, *settings)
        batch = data.batch(model)
        query_side = [model.user_tower, model.trigger_tower, model.items.token_projection]
        variables = [variable for layer in query_side for variable in layer.trainable_variables]
        for term, tower in (("behaviour", model.items.behaviour_stack), ("meta", model.items.meta_stack)):
            assert (gradient_norm(model, batch, term, variables) > 0) == moves, term
            assert gradient_norm(model, batch, term, tower.trainable_variables) > 0, term
        assert gradient_norm(model, batch, "item", variables) > 0


def test_towers_of_a_base_model_train_the_query_as_nothing_else_does(data: Data) -> None:
    model = data.model(*PLAIN, "model.structure=base", "model.loss.triplet=0")
    batch = data.batch(model)
    for term in ("behaviour", "meta"):
        assert gradient_norm(model, batch, term, model.user_tower.head.trainable_variables) > 0


def test_an_example_without_a_trigger_teaches_an_i2i_model_nothing(data: Data) -> None:
    model = data.model("model.query=trigger", "model.structure=behaviour_only", *PLAIN)
    batch = data.batch(model)
    lonely = batch | {"trigger": tf.fill(tf.shape(batch["trigger"]), -1)}
    assert float(model.compute_loss(lonely)) == 0
    assert float(model.compute_loss(batch)) > 0


def test_the_temperature_is_learned_only_if_asked_for(data: Data) -> None:
    for learn in (True, False):
        model = data.model(f"model.learn_temperature={str(learn).lower()}", "model.structure=behaviour_only")
        model.train_step(data.batch(model))
        assert (float(model.temperature) != pytest.approx(0.08, rel=1e-6)) == learn


# Sparse updates


@pytest.mark.parametrize("optimizer", ["adagrad", "lazy_adam"])
def test_a_step_moves_only_the_rows_of_the_batch(optimizer: str, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    model = data.model(f"training.table_optimizer={optimizer}", *PLAIN)
    everything = data.batch(model, size=10_000)
    # The first item of the catalogue is what a careless -1 becomes: it takes part in a first step, so that it has
    # optimizer state, and is absent from the second, which has histories with padding.
    involved = np.c_[everything["item"], everything["history"]]
    has_first = (involved == 0).any(axis=1)
    assert has_first.sum() >= 5
    first, second = (rows_of(everything, np.flatnonzero(mask)[:20]) for mask in (has_first, ~has_first))
    assert (second["history"].numpy() == -1).any()
    drawn: list[tf.Tensor] = []
    draw = model.sampler.draw

    def draw_but_the_first_item(moments: tf.Tensor) -> Negatives:
        negatives = draw(moments)
        drawn.append(tf.maximum(negatives.rows, 1))
        return negatives._replace(rows=drawn[-1])

    monkeypatch.setattr(model.sampler, "draw", draw_but_the_first_item)
    model.train_step(first)
    tables = {
        "item_id": model.items.identity.weight,
        "author_id": model.items.context.tables["author_id"].weight,
        "user_id": model.user_tower.profile.tables["user_id"].weight,
    }
    before = {name: table.numpy() for name, table in tables.items()}
    model.train_step(second)
    moved = {name: set(np.flatnonzero((table.numpy() != before[name]).any(axis=1))) for name, table in tables.items()}

    code = {name: variable.numpy() for name, variable in model.item_table.variables.items()}
    candidates = np.unique(np.r_[second["item"], drawn[-1]])
    items = np.union1d(candidates, second["history"].numpy().ravel())
    assert moved["item_id"] == set(code["item_id"][items[items >= 0]])
    assert moved["author_id"] == set(code["author_id"][candidates])
    assert moved["user_id"] == set(model.user_table.variables["user_id"].numpy()[second["user"].numpy()])
    assert len(moved["item_id"]) < len(before["item_id"])


# Cold simulation


def loss_of(model: RecallModel, batch: Batch) -> float:
    tf.random.set_seed(5)
    return float(model.compute_loss(batch, training=True))


def with_exposures(batch: Batch, exposures: float) -> Batch:
    posterior = batch["posterior"].numpy()
    posterior[..., 0] = exposures
    return batch | {"posterior": tf.constant(posterior)}


@pytest.mark.parametrize(
    ("simulation", "exposures", "id_matters"),
    [
        ("{max_probability: 1, unseen: 0}", 0, False),
        ("{max_probability: 1, unseen: 0}", 1e9, True),
        ("{max_probability: 0, unseen: 0}", 0, True),
        ("{max_probability: 0, unseen: 1}", 1e9, False),
        ("{max_probability: 0, unseen: 0, brand_new: 1}", 1e9, False),
        ("{enabled: false, max_probability: 1, unseen: 1, brand_new: 1}", 0, True),
    ],
)
def test_the_id_of_a_hidden_candidate_has_no_say(
    simulation: str, exposures: float, id_matters: bool, data: Data
) -> None:
    model = data.model("model.dropout=0", "model.loss.negatives=none", f"model.cold_simulation={simulation}")
    batch = with_exposures(data.batch(model), exposures)
    # A target that is in no history: its id speaks for the candidate alone.
    target = np.setdiff1d(batch["item"].numpy(), batch["history"].numpy())[0]
    code = int(model.item_table.variables["item_id"].numpy()[target])
    assert code > 1
    before = loss_of(model, batch)
    table = model.items.identity.weight
    table.scatter_nd_add([[code]], tf.random.stateless_normal([1, 8], seed=(1, 2)))
    assert (loss_of(model, batch) != before) == id_matters


def test_a_brand_new_candidate_shows_no_posterior_and_an_unseen_one_does(data: Data) -> None:
    for shares, matters in (("brand_new: 1", False), ("unseen: 1", True), ("unseen: 0", True)):
        simulation = f"model.cold_simulation={{max_probability: 0, {shares}}}"
        model = data.model("model.dropout=0", "model.loss.negatives=none", simulation)
        batch = data.batch(model)
        assert (loss_of(model, batch) != loss_of(model, with_exposures(batch, 500.0))) == matters


def test_nothing_is_hidden_outside_of_training(data: Data) -> None:
    model = data.model(
        "model.cold_simulation={max_probability: 1, unseen: 1, brand_new: 1}", "model.loss.negatives=none"
    )
    plain = data.model("model.cold_simulation.enabled=false", "model.loss.negatives=none")
    batch = data.batch(model)
    assert float(model.compute_loss(batch)) == float(plain.compute_loss(batch))


@pytest.mark.parametrize("hides", ["unseen", "brand_new"])
def test_a_hidden_id_is_not_aligned_with_its_content(hides: str, data: Data) -> None:
    model = data.model(f"model.cold_simulation={{max_probability: 0, {hides}: 1}}", "model.loss.negatives=none")
    assert float(model.loss_terms(data.batch(model), training=True)["triplet"]) == 0


def test_the_gate_is_told_the_training_clicks_of_each_id(data: Data) -> None:
    model, prepared = data.model(), data.layouts["click"]
    log = pd.read_parquet(model.config.data.events.path).drop_duplicates()
    training = log[(log.is_click == 1) & (log.time_ms < prepared.manifest["split"]["validation_start_ms"])]
    clicks = training.groupby("item_id").size().reindex(prepared.item_ids.to_pylist(), fill_value=0).to_numpy()
    content = model.items.content_of(model.item_table.gather(tf.range(len(clicks))))
    known = content.known.numpy()
    assert (known == (clicks > 0)).all()
    assert 0 < known.sum() < len(known)
    np.testing.assert_allclose(content.learned, np.log1p(clicks) / 5, rtol=1e-5)


# Shapes of the answers


def test_concat_makes_vectors_twice_as_wide_with_a_unit_half_for_each_tower(data: Data) -> None:
    model = data.model("model.gate=concat", "model.query=both", "model.similarity=cosine")
    rows = tf.range(5)
    vectors, shares = model.encode_items(rows, tf.ones([5, 4]))
    queries = model.user_queries(rows, tf.constant([[1, 2], [3, -1], [-1, -1], [4, 4], [0, 1]])).numpy()
    assert vectors.shape == queries.shape == model.encode_triggers(rows).shape == (5, 17)
    norm = np.linalg.norm(queries[:, :-1].reshape(5, 2, 8), axis=2)
    np.testing.assert_allclose(norm, 1, rtol=1e-5)
    parts = np.linalg.norm(vectors.numpy()[:, :-1].reshape(5, 2, 8), axis=2)
    np.testing.assert_allclose(parts, np.c_[np.ones(5), 1 - shares.numpy()], rtol=1e-5)


def test_a_model_has_the_towers_that_its_query_asks_for(data: Data) -> None:
    towers = {}
    for query in QUERIES:
        model = data.model(f"model.query={query}", "model.structure=behaviour_only")
        towers[query] = (model.user_tower is not None, model.trigger_tower is not None)
    assert towers == {"user": (True, False), "trigger": (False, True), "both": (True, True)}


def test_equal_seeds_give_equal_models(data: Data) -> None:
    one, other = data.model(), data.model()
    for first, second in zip(one.trainable_variables, other.trainable_variables, strict=True):
        np.testing.assert_array_equal(first.numpy(), second.numpy())
