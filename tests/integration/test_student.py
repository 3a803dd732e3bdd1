"""A model with a student: the large tower is the one without; the student is trained, served, measured and resumed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import tensorflow as tf

from recall.config.experiment import Config
from recall.core.errors import ArtifactError, ConfigError, DataError
from recall.data.prepared import PreparedData
from recall.evaluation.cold_bias import with_cold_bias
from recall.model.batches.dataset import pad, read_examples, training_dataset
from recall.model.inference import encode_items, encode_students, encode_users
from recall.model.recall_model import RecallModel
from recall.serving.recaller import Recaller
from recall.serving.users.vectors import load_query_model
from recall.training.published import load_model, read_history, read_student_history
from recall.training.student import StudentStage
from recall.training.train import train
from tests.conftest import Experiment
from tests.helpers.dying import train_until_killed
from tests.helpers.finished_run import STUDENT, WITH_STUDENT
from tests.helpers.trained_models import TRAINED_SMALL

if TYPE_CHECKING:
    from tests.helpers.finished_run import Outcome


FROZEN = (*STUDENT, "model.student.stage=frozen")
PLAIN = ("model.dropout=0", "model.student.dropout=0", "model.cold_simulation.enabled=false")
Matrix = npt.NDArray[np.float32]


def model_of(config: Config, prepared: PreparedData) -> RecallModel:
    tf.keras.utils.set_random_seed(11)
    model = RecallModel(config, prepared)
    model.build_layers()
    return model


def batch_of(model: RecallModel, prepared: PreparedData, *, size: int = 24) -> dict[str, tf.Tensor]:
    dataset = training_dataset(
        prepared, model.user_rows, batch_size=size, history=8, shuffle_buffer=10_000, seed=1
    )  # fmt: skip
    return next(iter(dataset))


def weights_of(model: RecallModel) -> dict[str, Matrix]:
    """Of the towers, without the student."""
    towers = {"items": model.items, "user": model.user_tower, "trigger": model.trigger_tower}
    found = {
        f"{name} {place}": variable.numpy()
        for name, tower in towers.items()
        if tower is not None
        for place, variable in enumerate(tower.variables)
    }
    return {**found, "log_temperature": model.log_temperature.numpy()}


# What it is trained for


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
@pytest.mark.parametrize("mask_seen", [False, True])
def test_its_loss_is_that_of_the_formulas(
    experiment: Experiment, prepared: PreparedData, similarity: str, mask_seen: bool
) -> None:
    weights = {"item": 0.5, "query": 2.0, "scores": 3.0}
    config = experiment(
        *STUDENT, *PLAIN, f"model.similarity={similarity}", f"model.loss.mask_seen={mask_seen}",
        "model.loss.negatives=none", "model.loss.shown_again=false", "model.loss.logq=false",
        f"model.student.loss={weights}", "model.student.temperature=1.5",
    )  # fmt: skip
    model = model_of(config, prepared)
    batch = batch_of(model, prepared)
    terms = {name: float(term) for name, term in model.loss_terms(batch, training=True).items()}
    items, history = batch["item"].numpy(), batch["history"].numpy()
    student, teacher = (
        ask(batch["user"], batch["history"]).numpy() for ask in (model.student_queries, model.user_queries)
    )
    posterior = prepared.posterior_history.as_of(items, batch["time_ms"].numpy()).stacked()
    vectors = model.item_vectors_of(model.item_table.gather(items), posterior).vector.numpy()
    temperature = float(model.temperature)
    masked = (items[:, np.newaxis] == items) & ~np.eye(len(items), dtype=bool)
    if mask_seen:
        seen = (history[:, :, np.newaxis] == items).any(axis=1) & (items[:, np.newaxis] != items)
        assert seen.any()
        masked |= seen

    def log_shares(queries: Matrix, softened: float) -> Matrix:
        logits = np.where(masked, -1e9, queries @ vectors.T / temperature / softened)
        return (
            logits
            - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
            - logits.max(1, keepdims=True)
        )

    assert terms["student_item"] == pytest.approx(-0.5 * np.diag(log_shares(student, 1)).mean(), rel=1e-4)
    error = ((student - teacher) ** 2).sum() / (teacher[:, :-1] ** 2).sum()
    assert terms["student_query"] == pytest.approx(2 * error, rel=1e-4)
    own, wanted = log_shares(student, 1.5), log_shares(teacher, 1.5)
    divergence = (np.exp(wanted) * (wanted - own)).sum(axis=1).mean()
    assert terms["student_scores"] == pytest.approx(3 * 1.5**2 * divergence, rel=1e-3)


@pytest.mark.parametrize(
    ("layout", "overrides"),
    [
        ("click", ("model.gate=concat", "model.query=both", "model.history_time=both", "model.loss.mask_seen=true")),
        ("click", ("model.gate=sum", "model.loss.softmax=full", "model.student.kind=attention")),
        ("click", ("model.structure=base", "model.shared_space=true")),
        ("user", ("model.gate=residual", "model.history_encoder=transformer", "model.student.kind=attention")),
        ("user", ("model.structure=single", "model.loss.softmax=full", "model.loss.mask_seen=true")),
    ],
)
def test_its_losses_train_all_of_it_and_nothing_else(
    layout: str,
    overrides: tuple[str, ...],
    experiment: Experiment,
    prepared: PreparedData,
    prepared_by_user: PreparedData,
) -> None:
    data = {"click": prepared, "user": prepared_by_user}[layout]
    model = model_of(experiment(f"data.layout={layout}", *STUDENT, *overrides), data)
    batch = batch_of(model, data, size={"click": 60, "user": 20}[layout])
    random = np.random.default_rng(3)  # what starts at zero would hide what stands before it
    model.student.set_weights([random.normal(scale=0.3, size=weight.shape) for weight in model.student.get_weights()])
    own = {variable.ref() for variable in model.student.trainable_variables}
    others = [variable for variable in model.trainable_variables if variable.ref() not in own]
    with tf.GradientTape(persistent=True) as tape:
        terms = model.loss_terms(batch, training=True)
        assert {"student_item", "student_query", "student_scores"} <= set(terms)
        total = tf.add_n([term for name, term in terms.items() if name.startswith("student")])
        alone = tf.add_n([term for name, term in terms.items() if not name.startswith("student")])
    students = model.student.trainable_variables
    gradients = tape.gradient(total, [*others, *students])
    assert gradients[: len(others)] == [None] * len(others)
    assert len(own) + len(others) == len(model.tables) + len(model.dense_variables)
    for variable, found in zip(students, gradients[len(others) :], strict=True):
        gradient = tf.convert_to_tensor(found)
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 0, variable.name
    assert tape.gradient(alone, students) == [None] * len(students)


def assert_same_large_tower(with_student: Path, without: Path, prepared: PreparedData) -> None:
    """The same numbers in the same order: what differs is at most the order in which threads add up."""
    found, expected = (weights_of(load_model(directory, prepared)) for directory in (with_student, without))
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-4, err_msg=name)
    curves = [[entry["val_recall@20"] for entry in read_history(path)] for path in (with_student, without)]
    assert curves[0] == pytest.approx(curves[1])


def test_a_model_that_trains_with_a_student_is_the_model_without(
    trained_small: Path, experiment: Experiment, prepared: PreparedData, tmp_path: Path
) -> None:
    train(experiment(*TRAINED_SMALL, *STUDENT), prepared, tmp_path / "model", saved_models=False)
    assert_same_large_tower(tmp_path / "model", trained_small, prepared)
    assert read_student_history(tmp_path / "model") == []


@pytest.mark.slow
def test_a_frozen_stage_trains_the_student_and_leaves_the_rest_bit_by_bit_and_goes_on_after_a_kill(
    trained_small: Path,
    community: Path,
    experiment: Experiment,
    prepared: PreparedData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    directory, work = tmp_path / "model", tmp_path / ".model-training"
    settings = (*TRAINED_SMALL, *FROZEN)
    # Three epochs of the large tower; the fifth validation is that of the student's second epoch.
    train_until_killed(community / "experiment.yaml", prepared.directory, directory, settings, validation=5)
    assert not directory.exists()
    large, student = (json.loads((folder / "state.json").read_text()) for folder in (work, work / "student"))
    assert (len(large["history"]), len(student["history"])) == (3, 1)

    before: dict[str, Matrix] = {}
    student_before: list[Matrix] = []

    class NotingStage(StudentStage):
        def __init__(self, model: RecallModel) -> None:
            before.update(weights_of(model))
            student_before.extend(model.student.get_weights())
            super().__init__(model)

    monkeypatch.setattr("recall.training.train.StudentStage", NotingStage)
    returned = train(experiment(*settings), prepared, directory, fingerprint="this", resume=True, saved_models=False)
    assert not work.exists()
    assert_same_large_tower(directory, trained_small, prepared)
    for model in (returned, load_model(directory, prepared)):
        found = weights_of(model)
        assert list(found) == list(before)
        for name, values in before.items():
            np.testing.assert_array_equal(found[name], values, err_msg=name)
        for start, end in zip(student_before, model.student.get_weights(), strict=True):
            assert np.abs(start - end).max() > 1e-5
    terms = {"loss", "student_item_loss", "student_query_loss", "student_scores_loss"}
    history = read_student_history(directory)
    assert [set(entry) for entry in history] == [{"epoch", "seconds", "val_recall@20", *terms}] * 3
    assert [entry["epoch"] for entry in history] == [1, 2, 3]
    assert history[:1] == student["history"]
    assert history[-1]["loss"] < history[0]["loss"]
    assert read_history(directory) == large["history"]
    assert not any("student" in name for entry in read_history(directory) for name in entry)
    assert recall_at_20(returned, prepared) == pytest.approx(max(entry["val_recall@20"] for entry in history))


def recall_at_20(model: RecallModel, prepared: PreparedData) -> float:
    """Of the student on validation clicks; items that nobody had been shown compete with each other alone."""
    examples = read_examples(prepared.shards("validation"))
    posterior = prepared.posterior("validation")
    cold = posterior.exposures == 0
    queries = encode_students(model, examples.users, pad(examples.history, width=8))
    scores = queries @ encode_items(model, posterior.stacked())[0].T
    hits = []
    for row, target in enumerate(examples.targets):
        seen = examples.seen[row]
        rivals = np.setdiff1d(np.flatnonzero(cold == cold[target]), [*seen, target])
        hits.append((scores[row, rivals] >= scores[row, target]).sum() < 20)
    return float(np.mean(hits))


# A whole run


@pytest.fixture(scope="module")
def settings(experiment: Experiment) -> Config:
    return experiment(*WITH_STUDENT)


@pytest.fixture(scope="module")
def recaller(finished: Path) -> Recaller:
    """Serves the run by its student."""
    return Recaller.load(finished, query="student")


def test_the_exported_student_gives_the_queries_of_the_model(
    finished: Path, model: RecallModel, prepared_data: PreparedData
) -> None:
    signatures = tf.saved_model.load(str(finished / "model" / "query")).signatures
    ids = np.array(prepared_data.item_ids.to_pylist(), object)
    users = np.array(["u001", "u002", "nobody"], object)
    rows = np.array([[4, 9, 2], [7, -1, -1], [-1, -1, -1]], np.int32)
    history = tf.constant([[*ids[[4, 9, 2]]], ["unknown", ids[7], ""], ["", "", ""]], tf.string)
    found = signatures["student"](user_id=tf.constant(users), history=history)["vector"].numpy()
    np.testing.assert_allclose(found, encode_students(model, users, rows), atol=1e-5)
    assert np.abs(found - encode_users(model, users, rows)).max() > 1e-3
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_a_recaller_asks_the_student_for_the_candidates_of_its_own_queries(
    finished: Path, recaller: Recaller, model: RecallModel, prepared_data: PreparedData
) -> None:
    users = prepared_data.user_ids.to_pylist()[:5]
    found = recaller.recall(users, k=10)
    histories = [prepared_data.histories.recent(user)[-8:] for user in users]
    rows = np.array([[*history, *[-1] * (8 - len(history))] for history in histories], np.int32)
    queries = encode_students(model, np.array(users, object), rows)
    table = pd.read_parquet(finished / "vectors" / "vectors.parquet")
    bias = json.loads((finished / "metrics.json").read_text())["index"]["cold_bias"]
    vectors = with_cold_bias(np.stack(list(table.vector)), table.exposures.to_numpy(), bias)
    for row, user in enumerate(users):
        scores = queries[row] @ vectors.T
        scores[prepared_data.histories.seen(user)] = -np.inf
        np.testing.assert_allclose(found.scores[row], np.sort(scores)[::-1][:10], atol=1e-4)


def test_metrics_hold_the_student_beside_the_model(
    finished: Path, model: RecallModel, prepared_data: PreparedData
) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    for split in ("test", "validation"):
        examples, posterior = read_examples(prepared_data.shards(split)), prepared_data.posterior(split)
        part = metrics[split]["student"]
        assert set(part) == set(metrics[split]["gated"])
        assert part["cold_bias"] == metrics[split]["gated"]["cold_bias"], "both ask one index"
        vectors = with_cold_bias(encode_items(model, posterior.stacked())[0], posterior.exposures, part["cold_bias"])
        scores = encode_students(model, examples.users, pad(examples.history, width=8)) @ vectors.T
        hits = 0
        for row, target in enumerate(examples.targets):
            others = np.setdiff1d(np.arange(len(vectors)), [target, *examples.seen[row]])
            hits += np.count_nonzero(scores[row, others] >= scores[row, target]) < 10
        # Sums in another order differ in the last digit, which may move a target across the cut.
        assert part["all"]["recall@10"] * len(examples) == pytest.approx(hits, abs=1.5)
        ranks = pd.read_parquet(finished / "ranks" / f"{split}.parquet")
        assert (ranks.model == "student").sum() == len(examples)


def test_metrics_say_what_a_query_costs(finished: Path) -> None:
    timing = json.loads((finished / "metrics.json").read_text())["timing"]
    names = [f"{name}_query_of_{size}_ms" for name in ("user", "student") for size in (1, 256)]
    assert all(timing[name] > 0 for name in names)
    report = (finished / "report.html").read_text()
    assert all(name in report for name in ("student", *names))


def test_the_command_asks_the_student(finished: Path, recaller: Recaller, command: Callable[..., Outcome]) -> None:
    outcome = command("query", "--run", finished, "--user", "u001", "-k", 3, "--student", "--json")
    assert outcome.code == 0, outcome.err
    expected = recaller.recall(["u001"], k=3).ids[0].tolist()
    assert [row["item"] for row in json.loads(outcome.out)["candidates"]] == expected
    outcome = command("query", "--run", finished, "--item", "i001", "--student")
    assert outcome.code == 1
    assert "--student asks the model for a user" in outcome.err


def test_a_run_without_a_student_says_how_to_get_one(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected user or student, found teacher"):
        Recaller.load(finished, query="teacher")  # type: ignore[arg-type]
    query = tf.saved_model.load(str(finished / "model" / "query"))
    signatures = {name: query.signatures[name] for name in query.signatures if name != "student"}
    tf.saved_model.save(query, str(tmp_path / "model" / "query"), signatures=signatures)
    with pytest.raises(ArtifactError, match=r"has no student; train it with model\.student"):
        load_query_model(tmp_path, tower="student")


# The experiment file


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model.query=trigger",), "query: trigger has none"),
        (("model.interests.count=3",), r"cannot follow interests\.count 3"),
        (("model.student.loss={item: 0, query: 0, scores: 0}",), "the student learns nothing"),
        (("model.student.kind=transformer",), "mean"),
        (("model.student.temperature=0",), "temperature"),
        (("model.student.size=8",), "size"),
    ],
)
def test_what_makes_no_sense_is_an_error(overrides: tuple[str, ...], message: str, experiment: Experiment) -> None:
    with pytest.raises(ConfigError, match=message):
        experiment("model.student.hidden=[8]", *overrides)


def test_an_empty_section_is_a_student_with_defaults_and_one_interest_is_none(experiment: Experiment) -> None:
    config: Any = experiment("model.student={}", "model.interests.count=1")
    assert config.model.student is not None
    assert experiment().model.student is None
