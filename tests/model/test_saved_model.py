"""Tests that SavedModels give the vectors of the model, also where recall is not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from recall.data.prepared import PreparedData
from recall.model.inference import encode_items, encode_triggers, encode_users
from recall.model.recall_model import RecallModel
from recall.model.vector_table import ItemVectorTable

HISTORY = 8  # data.history of the experiment
USERS = ["u001", "u002", "u003", "nobody", "u004", "u005"]
# Item rows, oldest first; -2 stands for an id that the catalogue lacks.
HISTORIES = [[3, 1, 2], [], [-2, 5, -2, 6], [7, 8], [*range(20)], [-2, -2]]
# Hours before the query; those of the last two histories, and one of the third's known items, are unknown.
AGES_HOURS = [[900, 30, 0.001], [], [50, -1, 40, 3], [2, 1], [], []]
STRANGER = """\
import sys
import numpy as np
import tensorflow as tf

folder, answers = sys.argv[1:]
asked = np.load(f"{answers}/asked.npz")
features = {name: tf.constant(asked[name]) for name in asked.files}
query, item = (tf.saved_model.load(f"{folder}/{name}") for name in ("query", "item"))
posterior = features.pop("posterior")
users, histories, ages, triggers = (features.pop(name) for name in ("users", "histories", "ages", "triggers"))
served = item.vectors({name.removeprefix("feature "): value for name, value in features.items()}, posterior)
np.savez(
    f"{answers}/answered.npz",
    user=query.signatures["user"](user_id=users, history=histories)["vector"],
    timed=query.signatures["user_in_full"](user_id=users, history=histories, history_age_hours=ages)["vector"],
    default=query.signatures["serving_default"](user_id=users, history=histories)["vector"],
    no_history=query.signatures["user"](user_id=users, history=tf.zeros([len(users), 0], tf.string))["vector"],
    trigger=query.signatures["trigger"](item_id=triggers)["vector"],
    item=served["vector"],
    share=served["behaviour_share"],
    new_posterior=item.new_posterior,
)
assert not {"recall", "tensorflow_recommenders"} & {name.split(".")[0] for name in sys.modules}
"""
Answers = dict[str, npt.NDArray[np.float32]]


@pytest.fixture(scope="module")
def answers(
    finished: Path, prepared_data: PreparedData, model: RecallModel, tmp_path_factory: pytest.TempPathFactory
) -> Answers:
    """Run the SavedModels in a process that never imports recall, and return their outputs."""
    folder = tmp_path_factory.mktemp("stranger")
    ids = prepared_data.item_ids.to_pylist()
    longest = max(map(len, HISTORIES))
    histories = [
        [*("unknown" if row < 0 else ids[row] for row in rows), *[""] * (longest - len(rows))] for rows in HISTORIES
    ]
    features = {f"feature {name}": variable.numpy() for name, variable in model.item_table.variables.items()}
    np.savez(
        folder / "asked.npz",
        users=np.array(USERS, dtype=bytes),
        histories=np.array(histories, dtype=bytes),
        ages=np.array([[*hours, *[np.nan] * (longest - len(hours))] for hours in AGES_HOURS], np.float32),
        triggers=np.array(ids[:10], dtype=bytes),
        posterior=prepared_data.posterior("serving").stacked(),
        **features,
    )
    result = subprocess.run(
        [sys.executable, "-c", STRANGER, str(finished / "model"), str(folder)],
        capture_output=True, text=True, check=False, cwd=folder,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return dict(np.load(folder / "answered.npz"))


def in_process(
    model: RecallModel, histories: list[list[int]], *, ages_hours: list[list[float]] | None = None
) -> npt.NDArray[np.float32]:
    """Compute user queries of the model from the last known items of each history."""
    rows = np.full((len(histories), HISTORY), -1, np.int32)
    age_ms = np.full((len(histories), HISTORY), -1, np.int64)
    for user, history in enumerate(histories):
        known = [place for place, row in enumerate(history) if row >= 0][-HISTORY:]
        rows[user, : len(known)] = [history[place] for place in known]
        if ages_hours is not None and ages_hours[user]:
            age_ms[user, : len(known)] = [round(ages_hours[user][place] * 3_600_000) for place in known]
    return encode_users(model, np.array(USERS, dtype=object), rows, age_ms=None if ages_hours is None else age_ms)


def test_user_queries_are_those_of_the_model(answers: Answers, model: RecallModel) -> None:
    expected = in_process(model, HISTORIES)
    np.testing.assert_allclose(answers["user"], expected, atol=1e-5)
    np.testing.assert_array_equal(answers["default"], answers["user"])
    assert np.abs(expected[0] - expected[1]).max() > 1e-3, "histories and users matter"


def test_timed_user_queries_are_those_of_the_model(answers: Answers, model: RecallModel) -> None:
    expected = in_process(model, HISTORIES, ages_hours=AGES_HOURS)
    np.testing.assert_allclose(answers["timed"], expected, atol=1e-5)
    moved = np.abs(answers["timed"] - answers["user"]).max(axis=1)
    assert (moved[[0, 2, 3]] > 1e-5).all(), "times matter"
    assert (moved[[1, 4, 5]] < 1e-5).all(), "unknown times are those of a query without times"


def test_an_empty_history_is_the_same_however_it_is_written(answers: Answers, model: RecallModel) -> None:
    expected = in_process(model, [[] for _ in USERS])
    np.testing.assert_allclose(answers["no_history"], expected, atol=1e-5)
    # The second user has no history, the last one only items that nobody knows.
    np.testing.assert_allclose(answers["user"][[1, 5]], expected[[1, 5]], atol=1e-5)


def test_trigger_queries_are_those_of_the_model(answers: Answers, model: RecallModel) -> None:
    np.testing.assert_allclose(answers["trigger"], encode_triggers(model, np.arange(10, dtype=np.int32)), atol=1e-5)


def test_item_vectors_and_shares_are_those_of_the_model_and_of_the_table(
    answers: Answers, model: RecallModel, prepared_data: PreparedData, finished: Path
) -> None:
    vectors, shares = encode_items(model, prepared_data.posterior("serving").stacked())
    np.testing.assert_allclose(answers["item"], vectors, atol=1e-5)
    np.testing.assert_allclose(answers["share"], shares, atol=1e-5)
    table = ItemVectorTable.read(finished / "vectors")
    assert table.ids.equals(prepared_data.item_ids)
    np.testing.assert_allclose(table.vectors, answers["item"], atol=1e-5)
    np.testing.assert_allclose(table.behaviour_share, answers["share"], atol=1e-5)
    np.testing.assert_array_equal(table.exposures, prepared_data.posterior("serving").exposures)


def test_the_posterior_of_a_new_item_is_the_prior(answers: Answers, prepared_data: PreparedData) -> None:
    prior = prepared_data.manifest["posterior"]["prior_ctr"]
    assert answers["new_posterior"] == pytest.approx([0, 0, prior, 0] + [0] * 9)  # three columns for each half-life


def test_an_unknown_trigger_is_refused_by_name(finished: Path) -> None:
    query = tf.saved_model.load(str(finished / "model" / "query"))
    with pytest.raises(tf.errors.InvalidArgumentError, match="trigger: an item id is not in the catalogue"):
        query.signatures["trigger"](item_id=tf.constant(["unknown"]))


def test_a_saved_model_carries_no_training_state(finished: Path) -> None:
    names = [name for name, _ in tf.train.list_variables(str(finished / "model" / "query" / "variables" / "variables"))]
    assert not [name for name in names if "optimizer" in name or "adagrad" in name.lower() or "/m/" in name]
