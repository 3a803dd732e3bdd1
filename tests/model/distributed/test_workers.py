"""Training on several workers: two processes learn what one learns, and keep equal copies of everything."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from recall.core.errors import ConfigError
from recall.data.prepared import PreparedData
from recall.model.batches.dataset import read_examples
from recall.model.distributed.tf_config import Cluster
from recall.model.recall_model import RecallModel
from recall.runs.run import Run
from recall.training.loop import trained_state
from recall.training.published import load_model, read_history
from recall.training.train import train
from tests.conftest import Experiment

# Nothing is drawn and nothing is hidden, so that one worker and two see the same numbers.
EXACT = (
    "model.query=both", "model.dropout=0", "model.cold_simulation.enabled=false", "model.loss.negatives=none",
    "model.loss.mask_seen=true", "model.loss.shown_again=false", "training.table_optimizer=adagrad",
    "training.ema=null", "training.epochs=2", "model.loss.exposure_power=0.3",
)  # fmt: skip

# Negatives are drawn; of the rest only what is quickly traced.
DRAWN = (
    *EXACT, "model.structure=behaviour_only", "model.query=user", "training.epochs=1",
    "model.loss.negatives=exposed", "model.loss.uniform_negatives=512", "model.loss.shown_again=true",
    "model.loss.hard_negatives=4",
)  # fmt: skip

# One process trains both, one after the other: most of its time TensorFlow is loaded.
TRAINS = """
import json, sys
from pathlib import Path
import numpy as np
from recall import (PreparedData, load_config)
from recall.training.loop import trained_state
from recall.training.train import train

experiment, data, folder, worker, trainings = sys.argv[1:]
for name, overrides in json.loads(trainings).items():
    directory = Path(folder, name)
    model = train(load_config(experiment, overrides), PreparedData.load(data), directory, saved_models=False)
    np.savez(f"{directory}-{worker}.npz", *(variable.numpy() for variable in trained_state(model)))
"""


class Trained(NamedTuple):
    """What two processes trained together: what was published, and what each holds at its end."""

    directory: Path
    states: list[list[np.ndarray]]  # of each worker `trained_state`

    @property
    def curve(self) -> dict[str, list[float]]:
        return curve(self.directory)


def curve(directory: Path) -> dict[str, list[float]]:
    history = read_history(directory)
    return {name: [entry[name] for entry in history] for name in history[0] if name not in ("epoch", "seconds")}


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def task(index: int, addresses: list[str], **changes: Any) -> str:
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}, **changes})


@pytest.fixture(scope="module")
def by_two(community: Path, prepared: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    folder = tmp_path_factory.mktemp("by_two")
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    script = [sys.executable, "-c", TRAINS, str(community / "experiment.yaml"), str(prepared.directory), str(folder)]
    trainings = json.dumps({"exact": EXACT, "drawn": DRAWN})
    started = [
        subprocess.Popen(
            [*script, str(index), trainings],
            env={**os.environ, "TF_CONFIG": task(index, addresses), "CUDA_VISIBLE_DEVICES": "-1"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for index in range(2)
    ]  # fmt: skip
    try:
        printed = [process.communicate(timeout=300)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], "\n".join(printed)
    trained = {}
    for name in ("exact", "drawn"):
        loaded = [np.load(folder / f"{name}-{index}.npz") for index in range(2)]
        trained[name] = Trained(folder / name, [[held[part] for part in held.files] for held in loaded])
    return trained


@pytest.fixture(scope="module")
def exact(by_two: dict[str, Trained]) -> Trained:
    return by_two["exact"]


def test_two_workers_have_the_loss_curve_of_one_with_the_same_batches(
    exact: Trained, experiment: Experiment, prepared: PreparedData, tmp_path: Path
) -> None:
    alone = train(experiment(*EXACT), prepared, tmp_path / "model", saved_models=False)
    expected = curve(tmp_path / "model")
    assert exact.curve.keys() == expected.keys() >= {"loss", "item_loss", "triplet_loss", "val_recall@50"}
    for name, values in expected.items():
        # Sums in another order, over some 25 steps of Adam.
        np.testing.assert_allclose(exact.curve[name], values, rtol=5e-3, err_msg=name)
    for found, table in zip(load_model(exact.directory, prepared).tables, alone.tables, strict=True):
        np.testing.assert_allclose(found.numpy(), table.numpy(), atol=2e-3, err_msg=table.name)


def test_all_workers_hold_the_same_bits_at_the_end(exact: Trained) -> None:
    first, second = exact.states
    assert len(first) == len(second) > 100  # weights, two moments each, and what Adagrad keeps
    assert [number for number, held in enumerate(first) if not np.array_equal(held, second[number])] == []


def test_rows_that_no_batch_names_stay_as_they_were(
    exact: Trained, experiment: Experiment, prepared: PreparedData
) -> None:
    config = experiment(*EXACT)
    tf.keras.utils.set_random_seed(config.seed)
    model = RecallModel(config, prepared)
    model.prepare_optimizers()
    codes = np.asarray(prepared.items[prepared.item_id_feature].combine_chunks())
    examples = read_examples(prepared.shards("train"))
    named = {*examples.targets, *examples.history.values, *examples.triggers[examples.triggers >= 0]}
    untouched = np.setdiff1d(np.arange(codes.max() + 1), codes[sorted(named)])
    assert 0 < len(untouched) < len(codes)

    before = trained_state(model)
    [table] = [n for n, variable in enumerate(before) if variable is model.items.identity.weight]
    assert model.table_optimizer is not None
    place = [one is before[table] for one in model.table_optimizer.tables].index(True)
    [slot] = [n for n, variable in enumerate(before) if variable is model.table_optimizer.accumulators[place]]
    for state in exact.states:
        np.testing.assert_array_equal(state[table][untouched], before[table].numpy()[untouched])
        np.testing.assert_array_equal(state[slot][untouched], np.float32(0.1))  # where Adagrad starts
        assert (state[slot] > np.float32(0.1)).sum() == len(state[slot]) - len(untouched)


@pytest.mark.slow
def test_workers_share_the_uniform_negatives_and_correct_for_all_of_them(
    by_two: dict[str, Trained], experiment: Experiment, prepared: PreparedData, tmp_path: Path
) -> None:
    two = by_two["drawn"]
    train(experiment(*DRAWN), prepared, tmp_path / "model", saved_models=False)
    # Other draws of the same number: with half of them the loss would be lower by log(640 / 384) = 0.5 of some 6.
    np.testing.assert_allclose(two.curve["item_loss"], curve(tmp_path / "model")["item_loss"], rtol=0.02)
    assert all(np.array_equal(a, b) for a, b in zip(*two.states, strict=True))


# What is refused before any work


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (["model.loss.softmax=full"], "model.loss.softmax: full"),
        (["model.student={}"], "model.student"),
        (["model.category_head=category"], "model.category_head"),
        (["training.stages=[{name: clicks}]"], "training.stages"),
        (["training.batch_size=1"], "a batch has 1 examples"),
    ],
)
def test_what_several_workers_cannot_train_is_refused(
    settings: list[str],
    key: str,
    experiment: Experiment,
    prepared: PreparedData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TF_CONFIG", task(0, ["localhost:1", "localhost:2"]))
    with pytest.raises(ConfigError, match=f"2 workers, but {key}"):
        train(experiment(*settings), prepared, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("worker", r"TF_CONFIG: expected such as .*found worker; correct or unset it"),
        ('{"cluster": {"worker": ["a:1"]}}', "TF_CONFIG: expected such as"),
        (task(2, ["a:1", "b:1"]), r"this process is worker 2, which the cluster does not list.*2 of type worker"),
        (task(0, [], cluster={"worker": ["a:1"], "ps": ["b:1"]}), "found ps in the cluster"),
    ],
)
def test_a_wrong_tf_config_is_refused(text: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ConfigError, match=message):
        Cluster.of_environment()


def test_the_chief_comes_before_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
    monkeypatch.setenv("TF_CONFIG", task(0, [], cluster=cluster))
    assert Cluster.of_environment() == Cluster(count=3, index=1)
    monkeypatch.setenv("TF_CONFIG", task(0, [], cluster=cluster, task={"type": "chief", "index": 0}))
    assert Cluster.of_environment() == Cluster(count=3, index=0)


def test_one_worker_or_none_is_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert Cluster.of_environment() is None
    monkeypatch.setenv("TF_CONFIG", task(0, ["a:1"]))
    assert Cluster.of_environment() is None


@pytest.mark.parametrize(("total", "count"), [(128, 2), (7, 3), (2, 3)])
def test_parts_cover_everything_once(total: int, count: int) -> None:
    parts = [list(Cluster(count, index).part_of(total)) for index in range(count)]
    assert [number for part in parts for number in part] == list(range(total))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_all_steps_at_once_are_refused_on_several_workers(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CONFIG", task(0, ["a:1", "b:1"]))
    with pytest.raises(ConfigError, match="run `recall prepare` once, `recall train` on each worker"):
        Run(experiment(), tmp_path / "run").all()
    assert list(tmp_path.iterdir()) == []
