"""Items that were shown and not clicked: from a small log through the job to a batch; what cannot be is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.training_data import prepare
from recall.core.errors import ConfigError, DataError
from recall.data.fingerprints import data_fingerprint
from recall.data.prepared import PreparedData
from recall.model.batches.dataset import UserRows, training_dataset
from tests.conftest import Experiment
from tests.helpers.training_examples import click_examples, experiment

MINUTE = 60_000
# v refuses a, clicks b, refuses c; d, which is clicked an hour later, is not refused; what u refuses is none of v's.
LOG = [
    *[("v", item, minute, click) for item, minute, click in [("a", 0, 0), ("b", 1, 1), ("c", 2, 0), ("d", 3, 0)]],
    *[("u", "c", 3, 1), ("u", "a", 4, 0), ("v", "d", 63, 1), ("v", "a", 64, 0)],
    *[("u", "b", 600, 1), ("u", "d", 601, 0), ("v", "c", 700, 1), ("v", "b", 701, 0)],
]  # validation begins with the ninth event, test with the eleventh


def written(folder: Path, log: list[tuple[str, str, int, int]], **data: Any) -> Any:
    lines = [f"{user},{item},{minute * MINUTE},{click}" for user, item, minute, click in log]
    (folder / "log.csv").write_text("\n".join(["user_id,item_id,time,click", *lines]) + "\n")
    (folder / "items.csv").write_text("item_id\na\nb\nc\nd\n")
    split = {"validation": 0.17, "test": 0.16}
    events = {"path": str(folder / "log.csv"), "click": "click"}
    return experiment(events, {"path": str(folder / "items.csv")}, split=split, **data)


def test_training_examples_carry_what_was_refused_beside_their_click(tmp_path: Path) -> None:
    manifest = prepare(written(tmp_path, LOG, refused=2), tmp_path / "data")
    columns = manifest["examples"]
    assert ["refused" in columns[split] for split in ("train", "validation", "test")] == [True, False, False]
    prepared = PreparedData.load(tmp_path / "data", verify=True)
    [batch] = training_dataset(
        prepared, UserRows(prepared.user_ids.to_pylist()), batch_size=9, history=5, shuffle_buffer=9, seed=1
    )
    users = prepared.user_ids.to_pylist()
    keys = [(users[user], item) for user, item in zip(batch["user"].numpy(), batch["item"].numpy(), strict=True)]
    found = dict(zip(keys, batch["refused"].numpy().tolist(), strict=True))
    assert found == {("v", 1): [0, 2], ("u", 2): [0, -1], ("v", 3): [0, -1]}


def test_without_it_data_is_as_it_was(tmp_path: Path) -> None:
    plain, off = written(tmp_path, LOG), written(tmp_path, LOG, refused={"count": 0, "gap": "5m"})
    assert data_fingerprint(plain) == data_fingerprint(off) != data_fingerprint(written(tmp_path, LOG, refused=1))
    manifest = prepare(off, tmp_path / "data")
    assert "refused" not in manifest["examples"]["train"]
    assert not PreparedData.load(tmp_path / "data").has_refusals
    assert len(click_examples(tmp_path / "data", "train")) == 3


def test_a_log_of_clicks_alone_has_nothing_refused(tmp_path: Path) -> None:
    clicks = [(user, item, minute, 1) for user, item, minute, _ in LOG]
    with pytest.raises(DataError, match=r"all 12 events are clicks.*data\.refused: 2 asks for.*or data\.refused: 0"):
        prepare(written(tmp_path, clicks, refused=2), tmp_path / "data")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["data.refused=3", "data.events.click=null"],
            r"refused: 3 .*without data\.events\.click every row is a click",
        ),
        (["data.refused=3", "data.layout=user"], "refused: 3 needs one record per click; use layout: click"),
        (
            ["data.refused=3", "data.events.time_unit=order", "data.split={by: last_click}"],
            r"refused: 3 .*without timestamps \(time_unit: order\)",
        ),
        (["model.loss.refused=2"], r"model\.loss\.refused: 2 needs .*data\.refused is 0; set data\.refused: 2"),
        (["data.refused=2", "model.loss={refused: 2, softmax: full}"], "softmax: full draws none"),
        (["model.loss.hard_negatives={count: 30, skip: 3}"], "which there are 32; raise uniform_negatives"),
        (["model.loss={hard_negatives: 3, negatives: none}"], "which there are 0; raise uniform_negatives"),
        (["model.loss.hard_negatives=3", "model.interests={count: 2}"], "hard_negatives: 3 is for one vector per user"),
        (["model.loss.exposure_power=-1"], "exposure_power"),
    ],
)
def test_what_cannot_be_is_one_error_with_a_remedy(overrides: list[str], message: str, experiment: Experiment) -> None:
    with pytest.raises(ConfigError, match=message):
        experiment(*overrides)
