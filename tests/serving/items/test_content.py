"""Search by content alone agrees with brute force on the content space, and knows nothing of behaviour."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from recall.config.experiment import Config
from recall.core.errors import ArtifactError, DataError
from recall.data.prepared import PreparedData
from recall.model.content_term.space import content_space
from recall.model.recall_model import RecallModel
from recall.model.saved_model import ItemModule
from recall.serving.items.content import ContentSearch
from recall.serving.items.encode import ItemEncoder
from recall.serving.recaller import Recaller
from tests.conftest import Experiment

if TYPE_CHECKING:
    from tests.helpers.finished_run import Outcome


Command = Callable[..., "Outcome"]


class Truth(NamedTuple):
    """What the search has to find: cosines of all pairs of items in the content space, and what users clicked."""

    ids: list[str]
    cosine: Any  # [items, items]
    clicks: pd.DataFrame

    def clicked(self, user: str) -> list[str]:
        own = self.clicks[self.clicks.user_id == user]
        return list(own.sort_values(["time_ms", "item_id"]).item_id)

    def nearest(self, items: Sequence[str], *, without: Sequence[str], k: int) -> list[tuple[str, float]]:
        """The best items by their largest cosine to any of some items."""
        best = {
            other: max(float(self.cosine[self.ids.index(item), column]) for item in items)
            for column, other in enumerate(self.ids)
            if other not in without
        }
        return sorted(best.items(), key=lambda pair: -pair[1])[:k]


@pytest.fixture(scope="module")
def truth(model: RecallModel, prepared_data: PreparedData, settings: Config) -> Truth:
    table = model.item_table
    features = {name: variable.numpy() for name, variable in table.variables.items()}
    space = content_space(table.columns, features, dim=256)
    assert space is not None
    content = space.vectors(features).astype(np.float64)
    log = pd.read_parquet(settings.data.events.path)
    return Truth(prepared_data.item_ids.to_pylist(), content @ content.T, log[log.is_click == 1])


@pytest.fixture(scope="module")
def active(truth: Truth) -> list[str]:
    """The users who clicked most."""
    return truth.clicks.user_id.value_counts().index[:3].tolist()


def assert_found(ids: Any, scores: Any, expected: list[tuple[str, float]]) -> None:
    assert list(scores) == pytest.approx([score for _, score in expected], abs=1e-5)
    scored = dict(zip(ids, scores, strict=True))
    for item, score in expected[:-1]:  # of equal ones at the end any may be listed
        assert item in scored or score == pytest.approx(expected[-1][1], abs=1e-5)


def test_similar_by_content_are_the_nearest_in_the_content_space(recaller: Recaller, truth: Truth) -> None:
    asked = [truth.ids[row] for row in (0, 7, 149)]
    found = recaller.similar(asked, k=10, by="content")
    for item, ids, scores in zip(asked, found.ids, found.scores, strict=True):
        assert item not in ids
        assert_found(ids, scores, truth.nearest([item], without=[item], k=10))


@pytest.mark.parametrize("last", [1, 5])
def test_recall_by_content_starts_from_each_of_the_last_clicks(
    recaller: Recaller, truth: Truth, active: list[str], last: int
) -> None:
    found = recaller.recall(active, k=10, by="content", last=last)
    for user, ids, scores in zip(active, found.ids, found.scores, strict=True):
        clicked = truth.clicked(user)
        assert len(clicked) > last
        assert len(set(ids)) == 10
        assert_found(ids, scores, truth.nearest(clicked[-last:], without=clicked, k=10))


def test_recall_by_content_starts_from_the_mean_of_the_history(
    recaller: Recaller, truth: Truth, active: list[str]
) -> None:
    found = recaller.recall(active, k=10, by="content")
    for user, ids, scores in zip(active, found.ids, found.scores, strict=True):
        clicked = truth.clicked(user)
        rows = [truth.ids.index(item) for item in clicked[-8:]]  # data.history
        # cos(mean of c_j, c_i) = sum_j c_j . c_i / |sum_j c_j|
        sums = truth.cosine[rows].sum(axis=0) / np.sqrt(truth.cosine[np.ix_(rows, rows)].sum())
        best = sorted(((item, sums[row]) for row, item in enumerate(truth.ids) if item not in clicked), key=_falling)
        assert_found(ids, scores, best[:10])


def _falling(pair: tuple[str, float]) -> float:
    return -pair[1]


def test_a_fresh_history_is_started_from_and_excluded(recaller: Recaller, truth: Truth) -> None:
    fresh = [truth.ids[3], "gone from the catalogue", truth.ids[9]]
    found = recaller.recall(["nobody"], k=5, histories={"nobody": fresh}, by="content", last=5)
    known = [fresh[0], fresh[2]]
    assert_found(found.ids[0], found.scores[0], truth.nearest(known, without=known, k=5))
    again = recaller.recall(["nobody"], k=2, histories={"nobody": fresh}, by="content", last=5, exclude_seen=False)
    assert set(again.ids[0]) == set(known)


def test_who_clicked_nothing_gets_nothing_and_others_beside_get_theirs(recaller: Recaller, active: list[str]) -> None:
    found = recaller.recall(["nobody", active[0]], k=4, by="content")
    assert set(found.ids[0]) == {None}
    assert np.isneginf(found.scores[0]).all()
    assert list(found.ids[1]) == list(recaller.recall(active[:1], k=4, by="content").ids[0])


def test_content_of_a_new_item_finds_the_item_it_was_copied_from(recaller: Recaller, settings: Config) -> None:
    frame = pd.read_parquet(settings.data.items.path)
    found = recaller.similar_to_new(frame[:3].drop(columns=["item_id", "author_id"]), k=2)
    assert found.queries == ["0", "1", "2"]
    for row, item in enumerate(frame.item_id[:3]):
        assert found.scores[row, 0] == pytest.approx(1, abs=1e-5)
        assert item in found.ids[row]


def test_what_cannot_be_asked_is_an_error(recaller: Recaller) -> None:
    with pytest.raises(DataError, match="by: expected model or content, found taste"):
        recaller.similar(["i001"], by="taste")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="last: expected at least 1, found 0"):
        recaller.recall(["u001"], by="content", last=0)
    with pytest.raises(DataError, match="1 of 1 ids are not in the index: nope"):
        recaller.similar(["nope"], by="content")


def test_a_structure_without_a_meta_tower_says_which_have_one(
    experiment: Experiment, prepared_data: PreparedData
) -> None:
    model = RecallModel(experiment("model.structure=behaviour_only"), prepared_data)
    model.build_layers()
    table_encoder = prepared_data.item_encoder
    encoder = ItemEncoder(ItemModule(model), table_encoder=table_encoder, id_column=None, content_prior=None)
    search = ContentSearch(encoder, prepared=prepared_data, structure="behaviour_only")
    with pytest.raises(ArtifactError, match=r"no meta tower \(model.structure: behaviour_only\); train .* gated, base"):
        _ = search.index


# The commands


def test_query_by_content_prints_what_the_recaller_finds(
    command: Command, finished: Path, recaller: Recaller, active: list[str]
) -> None:
    outcome = command(
        "query", "--run", finished, "--user", active[0], "--by", "content", "--last", 2, "-k", 3, "--json"
    )
    assert outcome.code == 0, outcome.err
    printed = [row["item"] for row in json.loads(outcome.out)["candidates"]]
    assert printed == list(recaller.recall(active[:1], k=3, by="content", last=2).ids[0])


@pytest.mark.parametrize("by", ["content", "model"])
def test_similar_is_query_for_an_item(command: Command, finished: Path, by: str) -> None:
    arguments = ("--run", finished, "--item", "i001", "--by", by, "-k", 4)
    similar, query = (command(name, *arguments, "--json") for name in ("similar", "query"))
    assert similar.code == 0, similar.err
    assert similar.out == query.out
    assert len(json.loads(similar.out)["candidates"]) == 4
    assert "item i001" in command("similar", *arguments).out


def test_a_user_without_clicks_is_told_so(command: Command, finished: Path) -> None:
    outcome = command("query", "--run", finished, "--user", "nobody", "--by", "content")
    assert outcome.code == 0
    assert "no candidates: nobody has no clicks to start from" in outcome.err


def test_an_unknown_way_to_ask_is_one_clear_line(command: Command, finished: Path) -> None:
    outcome = command("similar", "--run", finished, "--item", "i001", "--by", "taste")
    assert outcome.code == 1
    assert outcome.err.splitlines() == ["error: by: expected model or content, found taste"]
