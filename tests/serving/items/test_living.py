"""Items that come, gather counts and go while a run is served."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recall.config.experiment import Config
from recall.core.artifacts import write_json
from recall.core.errors import ArtifactError, DataError
from recall.data.prepared import PreparedData
from recall.index import LivingIndex, load_index, save_index
from recall.runs.run import Run
from recall.serving.recaller import Recaller
from tests.helpers.interrupting import Interruption
from tests.helpers.raw_items import own, raw, where


@pytest.fixture(scope="module")
def served(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recaller]:
    """A living recaller of a copy of the run; tests bring ids of their own."""
    directory = Path(shutil.copytree(finished, tmp_path_factory.mktemp("living") / "run"))
    recaller = Recaller.load(directory, living=True)
    yield recaller
    recaller.close()


def counts(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame(columns)


def test_an_added_item_is_searchable_at_once_by_its_content(served: Recaller, settings: Config) -> None:
    rows = [raw(settings, 3, "near 3"), raw(settings, 50, "near 50")]
    expected = served.new_item_vectors(rows)
    assert served.add_items(pd.DataFrame(rows)) == ["near 3", "near 50"]
    np.testing.assert_allclose(served.vectors(["near 3", "near 50"]), expected, atol=1e-6)
    found = served.recall(["u001"], k=200, exclude_seen=False).to_pandas().set_index("item")
    assert found.title["near 3"] == "title of near 3"
    similar = served.similar(["near 3"], k=10)
    assert len(set(similar.ids[0])) == 10
    assert "near 3" not in similar.ids[0]


def test_neighbours_of_an_added_item_are_by_its_own_vector_and_of_others_by_the_trigger_tower(
    served: Recaller, recaller: Recaller, settings: Config
) -> None:
    served.add_items([raw(settings, 7, "asked")])
    mixed = served.similar(["i010", "asked", "i011"], k=5)
    ids = [name for name in served.index.ids if name not in ("asked", None)]
    taste, own = served.vectors(ids)[:, :-1].astype(float), served.vectors(["asked"])[0, :-1].astype(float)
    cosine = pd.Series(taste @ own / np.linalg.norm(taste, axis=1) / np.linalg.norm(own), ids)
    nearest = cosine.sort_values(ascending=False)[:5]
    assert mixed.queries == ["i010", "asked", "i011"]
    assert mixed.ids[1].tolist() == nearest.index.tolist()
    np.testing.assert_allclose(mixed.scores[1], nearest, atol=1e-5)
    assert mixed.ids[2].tolist() == served.similar(["i011"], k=5).ids[0].tolist()
    known = [name for name in mixed.ids[0] if name in set(recaller.index.ids)]
    assert known == [name for name in recaller.similar(["i010"], k=5).ids[0] if name in known]


def test_an_added_item_in_a_history_is_passed_over(served: Recaller, settings: Config) -> None:
    served.add_items([raw(settings, 9, "clicked")])
    with_it = served.recall(["nobody"], k=20, histories={"nobody": ["i010", "clicked"]})
    without = served.recall(["nobody"], k=21, histories={"nobody": ["i010"]})
    assert "clicked" not in with_it.ids[0]
    assert with_it.ids[0].tolist() == [name for name in without.ids[0] if name != "clicked"][:20]


def test_the_serving_posterior_again_gives_the_vectors_that_were_served(
    served: Recaller, finished: Path, recaller: Recaller
) -> None:
    table = pd.read_parquet(finished / "data" / "posterior.parquet")
    last_ms = PreparedData.load(finished / "data").manifest["last_time_ms"]
    table["first_time_ms"] = (last_ms - table.age_hours * 3_600_000).round()
    assert served.refresh_posterior(table, now_ms=last_ms) == len(table)
    ids = table.item_id.tolist()
    np.testing.assert_allclose(served.vectors(ids), recaller.vectors(ids), atol=5e-4)


def test_counts_move_the_gate_of_new_and_of_known_items(served: Recaller, settings: Config, finished: Path) -> None:
    served.add_items([raw(settings, 11, "rising"), raw(settings, 11, "still new")])
    before = served.vectors(["rising", "i020"])
    last_ms = PreparedData.load(finished / "data").manifest["last_time_ms"]
    moved = served.refresh_posterior(
        counts(
            item_id=["rising", "i020"],
            exposures=[900, 2_000],
            clicks=[600, 10],
            first_time_ms=[last_ms - 3_600_000, last_ms - 9_000_000],
        )
    )
    assert moved == 2
    assert served.items.living is not None
    known = served.items.living.changed.counts()
    assert known["i020"] == (2_000, 10, last_ms - 9_000_000)
    assert known["still new"] == (0, 0, 0)
    assert (np.abs(served.vectors(["rising", "i020"]) - before).max(axis=1) > 1e-3).all()
    served.refresh_posterior(counts(item_id=["rising"], exposures=[0], clicks=[0], first_time_ms=[None]))
    np.testing.assert_allclose(served.vectors(["rising"]), served.vectors(["still new"]), atol=1e-6)


def test_deleted_items_are_in_no_list_by_model_or_by_content(served: Recaller, settings: Config) -> None:
    best = [name for name in served.similar(["i030"], k=5, by="content").ids[0] if name.startswith("i")]
    assert served.delete_items(best) == len(best)
    for by in ("model", "content"):
        assert not set(best) & set(served.similar(["i030"], k=140, by=by).ids[0])
        users = served.recall(["u001", "u002"], k=140, exclude_seen=False, by=by)
        assert not set(best) & set(users.ids.ravel())
    with pytest.raises(DataError, match=f"1 of 1 ids are not in the index: {best[0]}"):
        served.delete_items([best[0]])
    assert served.delete_items([best[0]], missing_ok=True) == 0
    again = raw(settings, int(best[0][1:]), best[0])
    assert served.add_items([again]) == [best[0]]
    assert best[0] in set(served.index.ids)


def test_everything_is_there_after_reopening_and_after_building_the_index_again(
    finished: Path, settings: Config, tmp_path: Path
) -> None:
    directory = Path(shutil.copytree(finished, tmp_path / "run"))
    recaller = Recaller.load(directory, living=True)
    recaller.add_items([raw(settings, 3, "new"), raw(settings, 4, "short-lived")])
    recaller.refresh_posterior(counts(item_id=["new"], exposures=[50], clicks=[20], first_time_ms=[1_700_000_000_000]))
    recaller.delete_items(["short-lived", "i001"])
    vector = recaller.vectors(["new"])
    with pytest.raises(ArtifactError, match="held by another writer"):
        Recaller.load(directory, living=True)
    recaller.close()

    shutil.rmtree(directory / "index" / "versions")  # the index has to be built again, and the journal is there
    Run(settings, directory).index()
    recaller = Recaller.load(directory, living=True)
    for _ in range(2):
        np.testing.assert_array_equal(recaller.vectors(["new"]), vector)
        assert {"i001", "short-lived"}.isdisjoint(recaller.index.ids)
        assert recaller.recall(["u001"], k=150, exclude_seen=False).titles["new"] == "title of new"
        assert isinstance(recaller.index, LivingIndex)
        recaller.index.rebalance()
    recaller.close()
    version = set(load_index(directory / "index").ids)
    assert "new" in version, "the rebalanced version holds it by itself"
    assert "i001" not in version


def test_added_items_are_encoded_again_by_another_model(copied: Path, settings: Config) -> None:
    recaller = Recaller.load(copied, living=True)
    recaller.add_items([raw(settings, 3, "new")])
    recaller.delete_items(["i005"])
    before = recaller.vectors(["new"])
    recaller.close()
    # The same towers under another fingerprint, and an index with another bias: what is taken from the journal as it
    # stands has the old one.
    manifest = json.loads((copied / "model" / "manifest.json").read_text())
    write_json(copied / "model" / "manifest.json", {**manifest, "fingerprint": "other"}, checksummed=True)
    index = load_index(copied / "index")
    index.report = {**index.report, "cold_bias": index.report["cold_bias"] + 0.5}
    save_index(index, copied / "index", fingerprint="other")
    recaller = Recaller.load(copied, living=True)
    np.testing.assert_allclose(recaller.vectors(["new"]) - before, [[*[0] * 8, 0.5]], atol=1e-5)
    assert "i005" not in set(recaller.index.ids)
    recaller.close()


def test_added_items_are_filtered_capped_and_cold_until_they_are_refreshed_also_after_reopening(
    copied: Path, settings: Config
) -> None:
    recaller = Recaller.load(copied, living=True)
    ids = ["fresh a", "fresh b", "fresh c"]
    last_ms = PreparedData.load(copied / "data").manifest["last_time_ms"]
    recaller.add_items([raw(settings, 3, name, category="brand new", author_id="one author") for name in ids])
    recaller.refresh_posterior(
        counts(item_id=[ids[0], "i020"], exposures=[40, 7], clicks=[4, 3], first_time_ms=[last_ms - 7_200_000] * 2)
    )
    for _ in range(2):
        assert own(recaller, [*ids, "i020"], **where(column="category", **{"in": ["brand new"]})) == ids
        assert own(recaller, [*ids, "i020"], **where(column="category", not_in=["brand new"])) == ["i020"]
        assert len(own(recaller, ids, caps={"author_id": 2})) == 2
        assert own(recaller, ids, **where(newer_than_hours=1)) == ids[1:], "the first was exposed two hours ago"
        cold = recaller.recall(["u001"], k=2, filters={"allow": [*ids, "i020", "i021"]}, min_cold_share=1).ids[0]
        assert sorted(cold) == ids[1:]
        known = recaller.behaviour([*ids, "i020", "i021"])
        assert {name: behaviour["exposures"] for name, behaviour in known.items()} == {
            ids[0]: 40, ids[1]: 0, ids[2]: 0, "i020": 7,
        }  # fmt: skip
        assert known[ids[0]]["gate_share"] > known[ids[1]]["gate_share"] >= 0
        recaller.close()
        recaller = Recaller.load(copied, living=True)
    recaller.add_items([raw(settings, 3, ids[0], category="changed")])
    assert own(recaller, ids, **where(newer_than_hours=1)) == ids, "added anew it has no exposures again"
    assert own(recaller, ids, **where(column="category", **{"in": ["changed"]})) == ids[:1]
    recaller.close()


def test_an_item_is_never_found_by_its_new_attributes_with_its_old_vector(served: Recaller, settings: Config) -> None:
    contents = pd.read_parquet(settings.data.items.path).drop_duplicates("category").index[:2].tolist()
    rows = [raw(settings, content, "changing") for content in contents]
    seen, is_done = list[tuple[str, float]](), threading.Event()

    def scores(category: str) -> list[float]:
        filters = {"allow": ["changing"], "where": [{"column": "category", "in": [category]}]}
        found = served.recall(["u001"], k=1, filters=filters, exclude_seen=False).scores[0]
        return [float(score) for score in found if np.isfinite(score)]

    expected = {}
    for row in rows:
        served.add_items([row])
        (expected[row["category"]],) = scores(row["category"])
    assert np.ptp(list(expected.values())) > 1e-3

    def ask() -> None:
        while not is_done.is_set():
            for category in expected:
                seen.extend((category, score) for score in scores(category))

    reader = threading.Thread(target=ask)
    reader.start()
    for turn in range(80):
        served.add_items([rows[turn % 2]])
    is_done.set()
    reader.join()
    assert {category for category, _ in seen} == set(expected)
    for category, score in seen:
        assert score == pytest.approx(expected[category], abs=1e-5)


def test_added_items_are_asked_for_and_found_by_content(copied: Path, settings: Config) -> None:
    recaller = Recaller.load(copied, living=True)
    recaller.delete_items([pd.read_parquet(settings.data.items.path).item_id[3]])  # as near as what is added
    recaller.add_items([raw(settings, 3, "before", title="same")])
    expected = recaller.similar_to_new([raw(settings, 3, "?", title="same")], k=6).ids[0].tolist()
    assert expected[0] == "before", "whose content it has"
    assert recaller.similar(["before"], k=5, by="content").ids[0].tolist() == expected[1:]
    recaller.add_items([raw(settings, 3, "after", title="same")])
    assert recaller.similar(["after"], k=6, by="content").ids[0].tolist() == expected
    users = recaller.recall(["nobody"], k=1, by="content", histories={"nobody": ["after"]})
    assert users.ids[0].tolist() == ["before"]
    recaller.delete_items(["before"])
    assert "before" not in recaller.similar(["i003"], k=200, by="content").ids[0]
    recaller.close()


def test_a_reader_shows_what_another_process_did_when_it_catches_up(copied: Path, settings: Config) -> None:
    writer, reader = Recaller.load(copied, living=True), Recaller.load(copied, living="read_only")
    writer.add_items([raw(settings, 3, "seen later", category="brand new")])
    writer.delete_items(["i001", "i002"])
    assert own(reader, ["seen later", "i001"]) == ["i001"], "as it was when it was asked last"
    reader.refresh()
    assert own(reader, ["seen later", "i001", "i003"]) == ["i003", "seen later"]
    assert own(reader, ["seen later", "i003"], **where(column="category", **{"in": ["brand new"]})) == ["seen later"]
    assert reader.recall(["u001"], k=200, exclude_seen=False).titles["seen later"] == "title of seen later"
    assert reader.behaviour(["seen later"])["seen later"]["exposures"] == 0
    writer.refresh_posterior(counts(item_id=["seen later"], exposures=[9], clicks=[1], first_time_ms=[0]))
    assert isinstance(writer.index, LivingIndex)
    writer.index.rebalance()
    writer.delete_items(["i004"])
    reader.refresh()
    assert own(reader, ["seen later", "i001", "i003", "i004"]) == ["i003", "seen later"]
    np.testing.assert_array_equal(reader.vectors(["seen later"]), writer.vectors(["seen later"]))
    assert reader.behaviour(["seen later"])["seen later"]["exposures"] == 9
    with pytest.raises(ArtifactError, match=r"Recaller.load\(run, living=True\)"):
        reader.delete_items(["i003"])
    reader.close()
    writer.close()


@pytest.mark.slow
def test_a_reader_knows_titles_and_attributes_whatever_the_writer_does_while_it_catches_up(
    copied: Path, settings: Config
) -> None:
    writer, reader = Recaller.load(copied, living=True), Recaller.load(copied, living="read_only")
    index = writer.index
    assert isinstance(index, LivingIndex)
    ids: list[str] = []

    def known(recaller: Recaller, name: str) -> tuple[list[str], list[str], str | None]:
        """Whether an item is there, by which of the two categories it is found, and its title."""
        found = [own(recaller, [name], **where(column="category", **{"in": [category]})) for category in ("one", "two")]
        titles = recaller.recall(["u001"], k=1).titles
        return own(recaller, [name]), [category for own_of in found for category in own_of], titles.get(name)

    def meanwhile(turn: int) -> None:
        writer.add_items([raw(settings, 4, "moving", category="two", title=f"second {turn}")])
        if turn > 2:
            writer.delete_items([ids[-2]])
        if turn % 2:
            index.rebalance()
        else:
            assert index._journal is not None
            index._journal.compact()

    happened = 0
    for turn in range(24):
        ids.append(f"race {turn}")
        writer.add_items([raw(settings, 3, ids[-1], category="one"), raw(settings, 3, "moving", category="one")])
        interruption = Interruption(lambda turn=turn: meanwhile(turn), before_line=37 * turn, within="recall/")
        with interruption.armed():
            reader.refresh()
        happened += interruption.happened
        for name in (*ids[-3:], "moving"):
            is_there, by_category, _ = known(reader, name)
            assert by_category == is_there, "never one without the other"
        reader.refresh()
        for name in (*ids[-3:], "moving"):
            assert known(reader, name) == known(writer, name)
    assert happened > 12
    reader.close()
    writer.close()


def test_a_reader_of_a_run_that_nobody_wrote_to_shows_it_as_it_is(copied: Path, recaller: Recaller) -> None:
    reader = Recaller.load(copied, living="read_only")
    reader.refresh()
    assert reader.recall(["u001"], k=20).ids.tolist() == recaller.recall(["u001"], k=20).ids.tolist()
    assert not (copied / "index" / "journal").exists(), "reading writes nothing"
    with pytest.raises(ArtifactError, match="living='read_only'"):
        recaller.refresh()


def _plain(value: Any) -> Any:
    return value.tolist()


def test_items_whose_values_differ_in_type_stay_servable_together(copied: Path, settings: Config) -> None:
    forms: list[dict[str, Any]] = [
        {"category": 7, "duration_s": "12.50", "tags": ["a"]},
        {"category": "k1", "duration_s": 12.5, "tags": "a,b"},
        {"category": True, "duration_s": 12, "tags": 3},
    ]
    recaller = Recaller.load(copied, living=True)
    for place, form in enumerate(forms):
        recaller.add_items([raw(settings, 3, f"accepted {place}", **form)])
    # As a version of before has written them: in the types that they came in.
    old = {f"old {place}": raw(settings, 3, f"old {place}", text=None, **form) for place, form in enumerate(forms)}
    for name, row in old.items():
        kept = json.loads(json.dumps({key: value for key, value in row.items() if key != "text"}, default=_plain))
        recaller.index.upsert([name], recaller.vectors(["accepted 0"]), sources=[{"row": kept}])
    recaller.close()
    recaller = Recaller.load(copied, living=True)
    names = [*(f"accepted {place}" for place in range(3)), *old]
    assert recaller.behaviour(names).keys() == set(names)
    for value, expected in ((7, 0), ("k1", 1), (True, 2)):
        found = own(recaller, names, **where(column="category", **{"in": [value]}))
        assert found == [f"accepted {expected}", f"old {expected}"]
    moment = [1_700_000_000_000] * len(names)
    shown = counts(item_id=names, exposures=[5] * 6, clicks=[1] * 6, first_time_ms=moment)
    assert recaller.refresh_posterior(shown) == 6
    assert recaller.recall(["u001"], k=3, by="content").ids.shape == (1, 3)
    rows = recaller.similar_to_new([raw(settings, 3, "?", **form) for form in forms], k=3)
    assert rows.ids.shape == (3, 3)
    recaller.close()


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ([{"item_id": "a"}, {"item_id": "a"}], "item_id: 1 ids stand more than once: a"),
        ([{"item_id": "a"}, {"title": "no id"}], "item_id: 1 of 2 items have no id"),
        ([{"item_id": "i001"}], "1 of 1 items are in the catalogue already.*i001; use refresh_posterior"),
        ([{"item_id": "a", "duration_s": "long"}], "duration_s"),
        ([{"item_id": "a", "remark": "?"}], r"row 0 .*: unknown columns remark; the items file has author_id, "),
        ([{"item_id": "a", "catgeory": "c"}], r"unknown columns catgeory \(for category\?\)"),
        ([{"item_id": "a", "title": object()}], "item a: a value cannot be kept"),
    ],
)
def test_items_that_cannot_be_added_are_refused(served: Recaller, rows: Any, error: str) -> None:
    before = len(served.index)
    with pytest.raises(DataError, match=error):
        served.add_items(rows)
    assert len(served.index) == before
    assert served.add_items([]) == []


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (counts(item_id=["i002"], exposures=[3]), "counts: no column clicks, first_time_ms"),
        (counts(item_id=["i002"], exposures=[3], clicks=[4], first_time_ms=[0]), "1 items have more clicks than expos"),
        (counts(item_id=["i002"], exposures=[-3], clicks=[0], first_time_ms=[0]), "exposures of 1 items is no whole"),
        (counts(item_id=["i002"], exposures=[3], clicks=["x"], first_time_ms=[0]), "clicks of 1 items is no whole"),
        (counts(item_id=["none"], exposures=[3], clicks=[1], first_time_ms=[0]), "1 of 1 ids are not in the index"),
    ],
)
def test_counts_that_make_no_sense_are_refused(served: Recaller, frame: pd.DataFrame, error: str) -> None:
    with pytest.raises(DataError, match=error):
        served.refresh_posterior(frame)


def test_items_upserted_as_vectors_have_nothing_to_encode(served: Recaller) -> None:
    served.index.upsert(["bare"], served.vectors(["i002"]))
    with pytest.raises(DataError, match=r"1 of 1 items have no features to encode.*bare"):
        served.refresh_posterior(counts(item_id=["bare"], exposures=[1], clicks=[1], first_time_ms=[0]))


def test_a_recaller_of_a_built_index_changes_nothing(recaller: Recaller) -> None:
    for change in (
        lambda: recaller.add_items([{"item_id": "x"}]),
        lambda: recaller.delete_items(["i001"]),
        lambda: recaller.refresh_posterior(counts()),
    ):
        with pytest.raises(ArtifactError, match=r"open the run with Recaller.load\(run, living=True\)"):
            change()
