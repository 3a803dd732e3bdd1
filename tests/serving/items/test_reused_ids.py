"""Ids that are deleted and used again, for another item."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from recall.config.experiment import Config
from recall.index import LivingIndex, new_journal
from recall.serving.export.run import export_run
from recall.serving.recaller import Recaller
from tests.helpers.raw_items import own, raw, where


@pytest.fixture(scope="module")
def reused(finished: Path, settings: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose item i031 was deleted, brought back with the content of i050, and put into a version."""
    directory = Path(shutil.copytree(finished, tmp_path_factory.mktemp("reused") / "run"))
    recaller = Recaller.load(directory, living=True)
    recaller.delete_items(["i031", "i011"])
    recaller.add_items([raw(settings, 50, "i031", title=None, category="brand new"), raw(settings, 3, "brand new")])
    assert isinstance(recaller.index, LivingIndex)
    recaller.index.rebalance()
    recaller.close()
    return directory


@pytest.mark.parametrize("living", [False, True, "read_only", "without its journal"])
def test_a_reused_id_has_nothing_of_the_item_before(
    reused: Path, living: Any, settings: Config, tmp_path: Path
) -> None:
    directory = reused
    if living == "without its journal":
        directory = Path(shutil.copytree(reused, tmp_path / "run"))
        shutil.rmtree(directory / "index" / "journal")
        new_journal(directory / "index")
    recaller = Recaller.load(directory, living="read_only" if living == "without its journal" else living)
    new = raw(settings, 50, "?", title=None, category="brand new")
    np.testing.assert_allclose(recaller.vectors(["i031"]), recaller.new_item_vectors([new]), atol=1e-5)
    assert own(recaller, ["i031", "i012"], **where(column="category", **{"in": ["brand new"]})) == ["i031"]
    titles = recaller.recall(["u001"], k=200, exclude_seen=False).titles
    assert (titles.get("i031"), titles["brand new"]) == (None, "title of brand new")
    assert recaller.behaviour(["i031"])["i031"]["exposures"] == 0
    cold = recaller.recall(["u001"], k=1, filters={"allow": ["i031", "i012"]}, min_cold_share=1, exclude_seen=False)
    assert cold.ids[0].tolist() == ["i031"]
    # By content it is where its new content is, and what was deleted is nowhere.
    assert recaller.similar_to_new([new], k=3).scores[0, 0] == pytest.approx(1, abs=1e-5)
    assert "i031" in recaller.similar_to_new([new], k=3).ids[0]
    for found in (recaller.similar(["i012"], k=300, by="content"), recaller.similar(["i012"], k=300)):
        assert "i011" not in found.ids[0]
    # Its neighbours are by its own vector: the trigger tower knows the item before.
    ids = [name for name in recaller.index.ids if name is not None]
    vectors = recaller.vectors(ids)[:, :-1]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors @ vectors[ids.index("i031")]
    expected = [ids[place] for place in np.argsort(-cosines) if ids[place] != "i031"][:5]
    assert recaller.similar(["i031"], k=5).ids[0].tolist() == expected
    recaller.close()


def test_an_export_answers_for_a_reused_id_as_for_the_item_that_has_it_now(reused: Path, tmp_path: Path) -> None:
    served = Recaller.load(reused)
    export_run(reused, tmp_path / "out", k=8, index="exact")
    exported = tf.saved_model.load(str(tmp_path / "out" / "saved_model"))

    def similar(item: str) -> list[str]:
        return [name.decode() for name in exported.signatures["similar"](item_id=tf.constant([item]))["ids"][0].numpy()]

    for item in ("i031", "brand new", "i012"):
        assert similar(item)[:5] == served.similar([item], k=5).ids[0].tolist()

    def recalled(*history: str) -> list[str]:
        found = exported.signatures["recall"](user_id=tf.constant(["nobody"]), history=tf.constant([history]))
        return [name.decode() for name in found["ids"][0].numpy()]

    assert recalled("i020", "i031") == recalled("i020", "") != recalled("i020", "i012")


def test_who_saw_the_item_before_may_get_the_item_that_has_its_id_now(reused: Path, recaller: Recaller) -> None:
    served = Recaller.load(reused)
    events = recaller.user_queries.logged
    users = [user for user in (f"u{number:03d}" for number in range(120)) if "i031" in events.clicked(user)]
    assert users
    for by in ("model", "content"):
        before = recaller.recall(users, k=200, by=by)
        assert not (before.ids == "i031").any()
        now = served.recall(users, k=200, by=by)
        assert (now.ids == "i031").any(axis=1).all()
    # In a history that a caller gives, the id is of the item that is served: excluded, and unknown to the tower.
    given = served.recall(["nobody"], k=200, histories={"nobody": ["i020", "i031"]})
    assert "i031" not in given.ids[0]
    without = served.recall(["nobody"], k=200, histories={"nobody": ["i020", "no such item"]}, exclude=["i031"])
    assert given.ids.tolist() == without.ids.tolist()
    by_features = [
        served.recall(features=[{"history": history}], k=50, exclude=["i031"]).ids.tolist()
        for history in (["i020", "i031"], ["i020", "no such item"])
    ]
    assert by_features[0] == by_features[1]
