"""What the model promises with every structure, query and layout: what a step trains, and what is hidden from it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import tensorflow as tf

from recall.model.batches.dataset import Batch
from recall.model.batches.negatives import Negatives
from recall.model.recall_model import RecallModel
from tests.helpers.untrained_models import PLAIN, Data

STRUCTURES = ("gated", "base", "single", "behaviour_only", "meta_only")
QUERIES = ("user", "trigger", "both")


# What every combination promises


# A trigger alone is asked with in either layout, not with each structure in both.
COMBINATIONS = [
    (structure, query, layout)
    for number, structure in enumerate(STRUCTURES)
    for query in QUERIES
    for layout in (("click", "user") if query != "trigger" else ("click", "user")[number % 2 :][:1])
]


@pytest.mark.slow
@pytest.mark.parametrize(("structure", "query", "layout"), COMBINATIONS)
def test_every_combination_learns_a_small_batch_with_all_its_weights(
    structure: str, query: str, layout: str, data: Data
) -> None:
    softmax = "full" if query == "user" else "sampled"
    settings = (f"model.structure={structure}", f"model.query={query}", f"model.loss.softmax={softmax}")
    settings += ("training.learning_rate=0.05",)
    model = data.model(*PLAIN, *settings, layout=layout)
    batch = data.batch(model)
    before = [variable.numpy() for variable in model.trainable_variables]
    first = float(model.train_step(batch)["loss"])
    model.train_step(batch)
    assert float(model.compute_loss(batch, training=True)) < 0.9 * first
    for variable, start in zip(model.trainable_variables, before, strict=True):
        assert np.isfinite(variable.numpy()).all(), variable.name
        assert (variable.numpy() != start).any(), f"{variable.name} is never trained"


@pytest.mark.slow
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
    first = float(model.train_step(batch)["loss"])
    model.train_step(batch)
    assert float(model.compute_loss(batch, training=True)) < 0.9 * first
    for variable, start in zip(model.trainable_variables, before, strict=True):
        assert (variable.numpy() != start).any(), f"{variable.name} is never trained"


@pytest.mark.slow
def test_the_terms_of_the_loss_add_up_in_the_metrics(data: Data) -> None:
    model = data.model("model.query=both")
    metrics = {name: float(value) for name, value in model.train_step(data.batch(model)).items()}
    assert set(metrics) == {"loss", "item_loss", "behaviour_loss", "meta_loss", "triplet_loss"}
    assert sum(metrics.values()) == pytest.approx(2 * metrics["loss"], rel=1e-5)


# A loss that is the same at every call.
NOTHING_DRAWN = ("model.dropout=0", "model.loss.negatives=none", "model.loss.shown_again=false")


def test_a_weight_of_zero_takes_a_term_away(data: Data) -> None:
    loss = "{behaviour: 0, meta: 0, triplet: 0, uniform_negatives: 8}"
    model = data.model(f"model.loss={loss}")
    assert set(model.loss_terms(data.batch(model), training=True)) == {"item"}


@pytest.mark.slow
def test_base_trains_both_towers_on_their_own(data: Data) -> None:
    model = data.model("model.structure=base", "model.loss.triplet=0", *PLAIN)
    norm = gradient_norms(model, data.batch(model))
    towers = {"behaviour": model.items.behaviour_stack, "meta": model.items.meta_stack}
    for name, tower in towers.items():
        assert all(norm(name, [variable]) > 0 for variable in tower.trainable_variables), name


def gradient_norms(model: RecallModel, batch: Batch) -> Callable[[str, list[tf.Variable]], float]:
    """Run a batch forwards; `norm(term, variables)` is then the length of the gradient of one term of the loss."""
    with tf.GradientTape(persistent=True) as tape:
        terms = model.loss_terms(batch, training=True)

    def norm(term: str, variables: list[tf.Variable]) -> float:
        found = [gradient for gradient in tape.gradient(terms[term], variables) if gradient is not None]
        return float(tf.linalg.global_norm(list(map(tf.convert_to_tensor, found)))) if found else 0.0

    return norm


@pytest.mark.slow
@pytest.mark.parametrize("gate", ["sum", "concat"])
def test_losses_of_the_towers_alone_do_not_move_the_query_unless_asked_to(gate: str, data: Data) -> None:
    for moves in (False, True):
        settings = ("model.query=both", f"model.gate={gate}", f"model.loss.towers_move_query={str(moves).lower()}")
        model = data.model(*PLAIN, *settings)
        batch = data.batch(model)
        query_side = [model.user_tower, model.trigger_tower, model.items.token_projection]
        variables = [variable for layer in query_side for variable in layer.trainable_variables]
        norm = gradient_norms(model, batch)
        for term, tower in (("behaviour", model.items.behaviour_stack), ("meta", model.items.meta_stack)):
            assert (norm(term, variables) > 0) == moves, term
            assert norm(term, tower.trainable_variables) > 0, term
        assert norm("item", variables) > 0


@pytest.mark.slow
def test_towers_of_a_base_model_train_the_query_as_nothing_else_does(data: Data) -> None:
    model = data.model(*PLAIN, "model.structure=base", "model.loss.triplet=0")
    norm = gradient_norms(model, data.batch(model))
    for term in ("behaviour", "meta"):
        assert norm(term, model.user_tower.head.trainable_variables) > 0


@pytest.mark.slow
def test_an_example_without_a_trigger_teaches_an_i2i_model_nothing(data: Data) -> None:
    model = data.model("model.query=trigger", "model.structure=behaviour_only", *PLAIN)
    batch = data.batch(model)
    lonely = batch | {"trigger": tf.fill(tf.shape(batch["trigger"]), -1)}
    assert float(model.compute_loss(lonely)) == 0
    assert float(model.compute_loss(batch)) > 0


@pytest.mark.slow
def test_the_temperature_is_learned_only_if_asked_for(data: Data) -> None:
    for learn in (True, False):
        model = data.model(f"model.learn_temperature={str(learn).lower()}", "model.structure=behaviour_only")
        model.train_step(data.batch(model))
        assert (float(model.temperature) != pytest.approx(0.08, rel=1e-6)) == learn


# Sparse updates


def rows_of(batch: Batch, chosen: npt.NDArray[np.intp]) -> Batch:
    """A smaller batch."""
    return {name: tf.gather(value, chosen) for name, value in batch.items()}


@pytest.mark.slow
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


@pytest.mark.slow
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
    model = data.model(*NOTHING_DRAWN, f"model.cold_simulation={simulation}")
    batch = with_exposures(data.batch(model), exposures)
    # A target that is in no history: its id speaks for the candidate alone.
    target = np.setdiff1d(batch["item"].numpy(), batch["history"].numpy())[0]
    code = int(model.item_table.variables["item_id"].numpy()[target])
    assert code > 1
    before = loss_of(model, batch)
    table = model.items.identity.weight
    table.scatter_nd_add([[code]], tf.random.stateless_normal([1, 8], seed=(1, 2)))
    assert (loss_of(model, batch) != before) == id_matters


@pytest.mark.slow
def test_a_brand_new_candidate_shows_no_posterior_and_an_unseen_one_does(data: Data) -> None:
    for shares, matters in (("brand_new: 1", False), ("unseen: 1", True), ("unseen: 0", True)):
        simulation = f"model.cold_simulation={{max_probability: 0, {shares}}}"
        model = data.model(*NOTHING_DRAWN, simulation)
        batch = data.batch(model)
        assert (loss_of(model, batch) != loss_of(model, with_exposures(batch, 500.0))) == matters


@pytest.mark.slow
def test_nothing_is_hidden_outside_of_training(data: Data) -> None:
    drawn = "model.loss.negatives=none", "model.loss.shown_again=false"
    model = data.model("model.cold_simulation={max_probability: 1, unseen: 1, brand_new: 1}", *drawn)
    plain = data.model("model.cold_simulation.enabled=false", *drawn)
    batch = data.batch(model)
    assert float(model.compute_loss(batch)) == float(plain.compute_loss(batch))


@pytest.mark.slow
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


@pytest.mark.slow
def test_concat_makes_vectors_twice_as_wide_with_a_unit_half_for_each_tower(data: Data) -> None:
    model = data.model("model.gate=concat", "model.query=both", "model.similarity=cosine")
    rows = tf.range(5)
    vectors, shares, _ = model.join_towers(model.encode_towers(rows), tf.ones([5, model.items.posterior_width]))
    queries = model.user_queries(rows, tf.constant([[1, 2], [3, -1], [-1, -1], [4, 4], [0, 1]])).numpy()
    assert vectors.shape == queries.shape == model.encode_triggers(rows).shape == (5, 17)
    norm = np.linalg.norm(queries[:, :-1].reshape(5, 2, 8), axis=2)
    np.testing.assert_allclose(norm, 1, rtol=1e-5)
    parts = np.linalg.norm(vectors.numpy()[:, :-1].reshape(5, 2, 8), axis=2)
    np.testing.assert_allclose(parts, np.c_[np.ones(5), 1 - shares.numpy()], rtol=1e-5)


@pytest.mark.slow
def test_a_model_has_the_towers_that_its_query_asks_for(data: Data) -> None:
    towers = {}
    for query in QUERIES:
        model = data.model(f"model.query={query}", "model.structure=behaviour_only")
        towers[query] = (model.user_tower is not None, model.trigger_tower is not None)
    assert towers == {"user": (True, False), "trigger": (False, True), "both": (True, True)}


@pytest.mark.slow
def test_equal_seeds_give_equal_models(data: Data) -> None:
    one, other = data.model(), data.model()
    for first, second in zip(one.trainable_variables, other.trainable_variables, strict=True):
        np.testing.assert_array_equal(first.numpy(), second.numpy())
