"""What is asked of a run's lists: filters, exclusions, caps, cold shares, fallbacks, held against whole rankings."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from recall.config.experiment import Config
from recall.core.errors import DataError
from recall.data.prepared import PreparedData
from recall.serving.items.facts import ItemFacts
from recall.serving.items.posterior import ServedPosterior
from recall.serving.items.served import ServedItems
from recall.serving.recaller import Recaller

if TYPE_CHECKING:
    from tests.helpers.finished_run import Outcome


Command = Callable[..., "Outcome"]


@pytest.fixture(scope="module")
def items(settings: Config) -> pd.DataFrame:
    """The items file by id."""
    return pd.read_parquet(settings.data.items.path).set_index("item_id")


@pytest.fixture(scope="module")
def clicked(settings: Config) -> dict[str, set[str]]:
    """What users clicked, those who clicked most first."""
    log = pd.read_parquet(settings.data.events.path)
    log = log[log.is_click == 1]
    return {user: set(log.item_id[log.user_id == user]) for user in log.user_id.value_counts().index}


@pytest.mark.parametrize("by", ["model", "content"])
def test_users_get_the_first_k_of_their_whole_ranking_that_filters_leave(
    recaller: Recaller, items: pd.DataFrame, clicked: dict[str, set[str]], by: Any
) -> None:
    users = list(clicked)[:4]
    category = items.category.mode()[0]
    ranking = recaller.recall(users, k=len(items), by=by, exclude_seen=False).ids
    denied = list(ranking[0][:20])
    exclude = {users[1]: list(ranking[1][:30]), "nobody": ["i001"]}
    filters = {"deny": [*denied, "gone"], "where": [{"column": "category", "not_in": [category]}]}
    found = recaller.recall(users, k=12, by=by, filters=filters, exclude=exclude, caps={"author_id": 1})
    assert found.unknown_ids == 1
    for row, user in enumerate(users):
        expected: list[str] = []
        authors: set[str] = set()
        for item in ranking[row]:
            barred = clicked[user] | set(denied) | set(exclude.get(user, []))
            if items.category[item] != category and item not in barred and items.author_id[item] not in authors:
                expected.append(item)
                authors.add(items.author_id[item])
        assert [item for item in found.ids[row] if item] == expected[:12]


def test_a_user_who_saw_nearly_all_that_is_allowed_gets_the_rest(
    recaller: Recaller, items: pd.DataFrame, clicked: dict[str, set[str]]
) -> None:
    user, seen = next(iter(clicked.items()))
    unseen = [item for item in items.index if item not in seen][:3]
    found = recaller.recall([user], k=10, filters={"allow": [*seen, *unseen]})
    assert set(found.ids[0]) - {None} == set(unseen)


@pytest.mark.parametrize("by", ["model", "content"])
def test_similar_items_and_those_of_new_content_are_filtered_and_capped(
    recaller: Recaller, items: pd.DataFrame, by: Any
) -> None:
    asked = list(items.index[:3])
    tag = Counter(tag for tags in items.tags for tag in tags).most_common(1)[0][0]
    wanted: dict[str, Any] = {"filters": {"where": [{"column": "tags", "in": [tag]}]}, "caps": {"category": 2}}
    lists = [(recaller.similar(asked, k=len(items), by=by).ids, recaller.similar(asked, k=8, by=by, **wanted).ids)]
    if by == "content":
        new = items.reset_index(drop=True)[:3]
        lists.append((recaller.similar_to_new(new, k=len(items)).ids, recaller.similar_to_new(new, k=8, **wanted).ids))
    for ranking, found in lists:
        for whole, own in zip(ranking, found, strict=True):
            several: Counter[str] = Counter()
            expected = []
            for item in whole:
                if item and tag in items.tags[item] and several[items.category[item]] < 2:
                    several[items.category[item]] += 1
                    expected.append(item)
            assert [item for item in own if item] == expected[:8]


def test_items_excluded_beside_one_item_may_be_shown_beside_another(recaller: Recaller, items: pd.DataFrame) -> None:
    asked = list(items.index[:2])
    plain = recaller.similar(asked, k=5).ids
    found = recaller.similar(asked, k=5, exclude={asked[0]: list(plain[0])}).ids
    assert not set(found[0]) & set(plain[0])
    assert list(found[1]) == list(plain[1])


def test_lists_hold_the_share_of_items_that_nobody_was_shown(recaller: Recaller, prepared_data: PreparedData) -> None:
    ids = prepared_data.item_ids
    ranking = list(recaller.similar(["i001"], k=len(ids)).ids[0])
    new = [ranking[40], ranking[60], ranking[80]]
    posterior = prepared_data.posterior("serving")
    exposures = np.where(np.isin(ids.to_pylist(), new), 0, posterior.exposures)
    assert (exposures == 0).sum() == 3, "nothing else is new"
    later = ServedPosterior.at(
        ids, posterior._replace(exposures=exposures), at_ms=prepared_data.manifest["last_time_ms"]
    )
    served = Recaller(ServedItems(recaller.index, titles={}, facts=ItemFacts(None, later)), recaller.user_queries)
    for share, several in ((0.1, 1), (0.2, 2), (0.9, 3)):
        found = list(served.similar(["i001"], k=10, min_cold_share=share).ids[0])
        assert found == [*ranking[: 10 - several], *new[:several]]


def test_who_clicked_nothing_gets_popular_and_fresh_items_when_asked_for(
    recaller: Recaller, clicked: dict[str, set[str]], settings: Config
) -> None:
    user = next(iter(clicked))
    found = recaller.recall(["nobody", user, "fresh", "lost"], k=20, fallback=True,
                            histories={"fresh": ["i010"], "lost": ["gone"]})  # fmt: skip
    assert found.sources == ("fallback", "model", "model", "fallback")
    plain = recaller.recall(["nobody", user], k=20)
    assert plain.sources is None
    assert list(found.ids[1]) == list(plain.ids[1])
    log = pd.read_parquet(settings.data.events.path)
    clicks = log[log.is_click == 1].item_id.value_counts()
    latest = log.groupby("item_id").time_ms.min().idxmax()
    assert clicks[list(found.ids[0][:4])].tolist() == clicks.iloc[:4].tolist()
    assert found.ids[0][4] == latest
    assert list(found.ids[0]) == list(found.ids[3])
    by_content = recaller.recall(["nobody", user], k=20, by="content", fallback=True)
    assert by_content.sources == ("fallback", "model")
    assert list(by_content.ids[0]) == list(found.ids[0])


def test_who_brings_features_is_answered_by_the_model(recaller: Recaller) -> None:
    assert recaller.recall(features=[{}], k=3, fallback=True).sources == ("model",)


def test_freshness_counts_to_the_moment_of_the_query(recaller: Recaller, settings: Config) -> None:
    log = pd.read_parquet(settings.data.events.path)
    first = log.groupby("item_id").time_ms.min()
    now_ms = int(log.time_ms.max())
    filters = {"where": [{"newer_than_hours": 24}]}
    for later_hours in (0, 12):
        moment = now_ms + later_hours * 3_600_000
        found = recaller.recall(["nobody"], k=150, filters=filters, now_ms=moment).ids[0]
        young = set(first.index[moment - first < 24 * 3_600_000])
        old = set(first.index) - young
        assert young <= set(found)
        assert not old & set(found)
        assert len(old)


def test_the_command_filters_caps_and_says_who_answered(
    command: Command, finished: Path, items: pd.DataFrame, tmp_path: Path
) -> None:
    category = items.category.mode()[0]
    (tmp_path / "filter.json").write_text(json.dumps({"where": [{"column": "category", "in": [category]}]}))
    asked = ("query", "--run", finished, "--user", "u001", "-k", 6, "--json")
    options = ("--filter", tmp_path / "filter.json", "--cap", "author_id=1", "--min-cold-share", 0.2, "--fallback")
    answer = json.loads(command(*asked, *options).out)
    shown = [candidate["item"] for candidate in answer["candidates"]]
    assert answer["source"] == "model"
    assert set(items.category[shown]) == {category}
    assert items.author_id[shown].is_unique
    assert "source" not in json.loads(command(*asked).out)
    table = command("query", "--run", finished, "--user", "new", "--fallback", "--filter", '{"deny": ["gone"]}')
    assert "user new (source: fallback, unknown)" in table.out
    assert "1 ids of the filter are of no item; they were passed over" in table.err
    nothing = command("query", "--run", finished, "--user", "u001", "--filter", '{"allow": []}')
    assert "no candidates: the filter leaves nothing for u001" in nothing.err


def test_an_unknown_item_stays_an_error(recaller: Recaller) -> None:
    with pytest.raises(DataError, match="not in the index: nope"):
        recaller.similar(["nope"], k=3, fallback=True)
