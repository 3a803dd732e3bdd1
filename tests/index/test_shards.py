"""Checks an index in shards: the same answers as one index, parts that load alone, and refusals."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recall.config.index import IndexConfig
from recall.core.errors import ArtifactError, ConfigError, DataError
from recall.index import (  # fmt: skip
    Index,
    SearchResult,
    ShardedIndex,
    build_index,
    build_saved_index,
    load_index,
    load_shard,
    measure,
    merge_results,
    save_index,
    shard_of,
)
from recall.index.build.shard_build import ShardBuild
from recall.index.build.tuning import recall_of_scores, tuning_queries
from recall.index.items import Items

ITEMS, DIM, SHARDS = 3000, 12, 4
IDS = [f"item {row}" for row in range(ITEMS)]
EXACT = IndexConfig(kind="exact", shards=SHARDS)


def whole_numbers(rows: int, *, seed: int) -> np.ndarray:
    """Draw vectors whose inner products are exact in float32, with many exact ties."""
    return np.random.default_rng(seed).integers(-3, 4, size=(rows, DIM)).astype(np.float32)


def clustered(rows: int, *, seed: int) -> np.ndarray:
    centres = np.random.default_rng(0).normal(size=(150, DIM))
    random = np.random.default_rng(seed)
    return (centres[random.integers(150, size=rows)] + 0.7 * random.normal(size=(rows, DIM))).astype(np.float32)


VECTORS, QUERIES = whole_numbers(ITEMS, seed=1), whole_numbers(25, seed=2)


@pytest.fixture(scope="module")
def one() -> Index:
    return build_index(IDS, VECTORS, config=IndexConfig(kind="exact"))


@pytest.fixture(scope="module")
def sharded() -> ShardedIndex:
    index = build_index(IDS, VECTORS, config=EXACT)
    assert isinstance(index, ShardedIndex)
    return index


@pytest.fixture
def saved(sharded: ShardedIndex, tmp_path: Path) -> Path:
    save_index(sharded, tmp_path / "index", fingerprint="abc")
    return tmp_path / "index"


def shard_folder(directory: Path, number: int) -> Path:
    return next((directory / "versions").glob(f"*/shards/{number:05d}"))


# Which shard


def test_the_hash_is_the_published_one():
    # FIPS 180-4's own example: SHA-256("abc") = ba7816bf 8f01cfea ...
    for shards in (1, 7, 1000):
        assert shard_of(["abc"], shards).tolist() == [0xBA7816BF8F01CFEA % shards]
    # printf é | sha256sum = 4a99557e4033c353 ...: the text's UTF-8, not its Latin-1.
    assert shard_of(["é"], 1009).tolist() == [0x4A99557E4033C353 % 1009]


NAMES: dict[str, Callable[[int], str]] = {
    "numbers": str,
    "padded": "{:08d}".format,
    "multiples of 16": lambda number: str(number * 16),
    "cyrillic": lambda number: f"видео-{number}",
    "emoji": lambda number: f"🎬{number:x}",
    "one character": lambda number: chr(0x4E00 + number),
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("shards", [2, 8, 13])
def test_every_shard_gets_its_part_of_any_kind_of_ids(name: Callable[[int], str], shards: int):
    sizes = np.bincount(shard_of([name(number) for number in range(16_000)], shards), minlength=shards)
    # Items fall into shards as dice do: five standard deviations of a binomial count.
    deviation = np.sqrt(16_000 * (1 / shards) * (1 - 1 / shards))
    assert np.abs(sizes - 16_000 / shards).max() < 5 * deviation


def test_an_item_stays_in_its_shard_whatever_else_is_in_the_catalogue(sharded):
    others = build_index(IDS[::-7], VECTORS[::-7], config=EXACT)
    for before, after in zip(sharded.shards, others.shards, strict=True):
        assert set(after.index.ids) == set(before.index.ids) & set(IDS[::-7])


# One index and its shards


@pytest.mark.parametrize("k", [1, 10, 900, ITEMS + 3])
def test_exact_shards_answer_as_one_exact_index_ties_included(k, one, sharded):
    expected, found = one.search(QUERIES, k), sharded.search(QUERIES, k)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.ids, expected.ids)


def test_ids_rows_and_vectors_are_those_of_one_index(one, sharded):
    assert sharded.ids.tolist() == IDS
    wanted = ["item 2999", "item 0", "item 17", "item 0"]
    assert sharded.rows(wanted).tolist() == [2999, 0, 17, 0]
    np.testing.assert_array_equal(sharded.vectors(wanted), one.vectors(wanted))
    np.testing.assert_array_equal(sharded.vectors(np.arange(ITEMS)), VECTORS)


@pytest.fixture(scope="module")
def approximate() -> tuple[ShardedIndex, np.ndarray]:
    vectors = clustered(22_000, seed=1)
    config = IndexConfig(kind="scann", k=50, target_recall=0.95, shards=4)  # 5,500 items in a shard have a tree
    ids = [str(row) for row in range(len(vectors))]
    index = build_index(ids, vectors, config=config, sample_queries=clustered(400, seed=2))
    assert isinstance(index, ShardedIndex)
    return index, vectors


def test_merged_lists_of_scann_shards_reach_the_target_on_queries_they_were_not_tuned_with(approximate):
    index, vectors = approximate
    queries = clustered(300, seed=3)
    assert {shard.index.kind for shard in index.shards} == {"scann"}
    assert all(shard.index.settings["leaves"] > 0 for shard in index.shards)
    truth = np.argpartition(-(queries @ vectors.T), 50, axis=1)[:, :50]
    found = index.search(queries, 50).rows
    recall = np.mean([len(set(a) & set(b)) / 50 for a, b in zip(truth, found, strict=True)])
    assert recall >= 0.94
    assert measure(index, queries, k=50).recall == pytest.approx(recall, abs=2e-4)
    merged = index.report["measured"]["merged"]
    assert (merged["k"], merged["queries"]) == (50, 400)
    assert merged["recall"] >= 0.95
    assert index.report["shards"]["scann"] == 4


def test_saved_scann_shards_answer_as_before(approximate, tmp_path):
    index, _ = approximate
    save_index(index, tmp_path, fingerprint="abc")
    queries = clustered(40, seed=4)
    expected, found = index.search(queries, 70), load_index(tmp_path).search(queries, 70)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_a_shard_has_to_find_its_share_of_the_best_of_all_and_no_more():
    # The best four of all score 9, 8, 7, 6; this shard holds 9 and 6 of the first query's, 8 alone of the second's.
    exact = np.array([[9, 6, 5, 4], [8, 3, 2, 1]], np.float32)
    worst = np.array([[6], [6]], np.float32)
    found = np.array([[9, 5, 4, 1], [8, 2, 1, 0]], np.float32)  # 6 is missed, and much that nobody waits for
    recall, error = recall_of_scores(found, exact, worst=worst)
    assert recall == pytest.approx(2 / 3)
    # hits - recall * due: 1 - 4/3 and 1 - 2/3, a deviation of 1/3, over 1.5 due on average and two queries.
    assert error == pytest.approx((1 / 3) / 1.5 / np.sqrt(2))
    assert recall_of_scores(found, exact)[0] == pytest.approx((3 + 3) / 8)
    assert recall_of_scores(found, exact, worst=np.array([[10], [10]], np.float32)) == (1, 0), "nothing to find"


def test_auto_chooses_for_every_shard_by_its_own_size():
    sizes = np.bincount(shard_of(IDS, SHARDS))
    config = IndexConfig(kind="auto", exact_below=int(sizes.max()) + 1, shards=SHARDS)
    index = build_index(IDS, VECTORS, config=config)
    assert index.report["shards"] == {
        "exact": SHARDS, "fewest_items": sizes.min(), "most_items": sizes.max()
    }  # fmt: skip
    assert index.is_exact


# Building one at a time


class Watched(ShardBuild):
    """Refuses to build a shard while one of those before is still held."""

    def shard(self, number):
        held = [reference() for reference in getattr(self, "made", [])]
        assert not any(index is not None for index in held), "a shard is still held"
        made = super().shard(number)
        self.made = [*getattr(self, "made", []), weakref.ref(made.index), weakref.ref(made.index.items.vectors)]
        return made


@pytest.mark.parametrize("kind", ["exact", "scann"])
def test_a_shard_is_written_and_let_go_before_the_next_is_built(kind, one, tmp_path):
    items = Items.checked(IDS, VECTORS)
    config = IndexConfig(kind=kind, shards=SHARDS, k=10)
    build = Watched(items, config=config, queries=lambda: tuning_queries(items, QUERIES, seed=1))
    save_index(build, tmp_path, fingerprint="abc")
    assert len(build.made) == 2 * SHARDS
    found = load_index(tmp_path)
    assert found.search(QUERIES, 10).scores.mean() >= 0.95 * one.search(QUERIES, 10).scores.mean()


def test_an_index_built_and_saved_at_once_is_the_one_built_in_memory(sharded, tmp_path):
    index = build_saved_index(IDS, VECTORS, tmp_path, fingerprint="abc", config=EXACT, report={"cold_bias": 0.5})
    assert index.report == {**sharded.report, "cold_bias": 0.5}
    assert load_index(tmp_path, fingerprint="abc").report == index.report
    np.testing.assert_array_equal(index.search(QUERIES, 30).rows, sharded.search(QUERIES, 30).rows)
    flat = build_saved_index(IDS, VECTORS, tmp_path, fingerprint="abc", report={"cold_bias": 0.1})
    assert (flat.kind, load_index(tmp_path).kind, load_index(tmp_path).report["cold_bias"]) == ("exact", "exact", 0.1)


def test_the_same_items_give_the_same_files(tmp_path):
    for name in ("a", "b"):
        build_saved_index(IDS, VECTORS, tmp_path / name, fingerprint="abc", config=EXACT)
    manifests = [json.loads((tmp_path / name / "versions/0001/manifest.json").read_text()) for name in ("a", "b")]
    assert manifests[0] == manifests[1]  # the checksums of the shards' manifests, which hold those of all their files
    assert [shard["folder"] for shard in manifests[0]["shards"]] == [f"shards/{number:05d}" for number in range(SHARDS)]
    assert sum(shard["items"] for shard in manifests[0]["shards"]) == manifests[0]["items"] == ITEMS


@pytest.mark.parametrize(
    ("items", "shards", "message"),
    [
        (3, 4, r"index.shards: expected at most one per item, found 4 for 3 items"),
        (200, 190, r"index.shards: \d+ of 190 shards would be empty; 200 items are too few"),
    ],
)
def test_shards_that_cannot_be_filled_are_refused(items, shards, message, tmp_path):
    config = IndexConfig(shards=shards)
    with pytest.raises(ConfigError, match=message):
        build_index(IDS[:items], VECTORS[:items], config=config)
    with pytest.raises(ConfigError, match=message):
        build_saved_index(IDS[:items], VECTORS[:items], tmp_path / "index", fingerprint="abc", config=config)
    assert not (tmp_path / "index").exists()


# One shard by itself


SEARCH_ONE_SHARD = """
import pickle, sys
from recall.index import (load_shard)
queries, k = pickle.load(sys.stdin.buffer)
shard = load_shard(sys.argv[1], int(sys.argv[2]), fingerprint="abc")
sys.stdout.buffer.write(pickle.dumps(shard.search(queries, k)))
"""


@pytest.mark.slow
def test_a_fleet_with_a_shard_in_each_process_answers_as_one_index(saved, one, tmp_path):
    results = []
    for number in (2, 0, 3, 1):  # whichever answers first
        machine = tmp_path / f"machine {number}"
        own = shard_folder(saved, number).relative_to(saved)
        shutil.copytree(saved / own, machine / own)
        for name in ("CURRENT", "versions/0001/manifest.json"):
            shutil.copy(saved / name, machine / name)
        done = subprocess.run(
            [sys.executable, "-c", SEARCH_ONE_SHARD, str(machine), str(number)],
            input=pickle.dumps((QUERIES, 40)), capture_output=True, check=True,
        )  # fmt: skip
        results.append(pickle.loads(done.stdout))
    merged, expected = merge_results(results), one.search(QUERIES, 40)
    np.testing.assert_array_equal(merged.rows, expected.rows)
    np.testing.assert_array_equal(merged.scores, expected.scores)
    np.testing.assert_array_equal(merged.ids, expected.ids)


def test_what_a_shard_sends_does_not_grow_with_the_catalogue(saved):
    sent = pickle.dumps(load_shard(saved, 0).search(QUERIES[:1], 5))
    assert len(sent) < 1500, "five rows, scores and ids"
    result = pickle.loads(sent)
    again = SearchResult.of_ids(result.rows, result.scores, result.ids)
    assert again.ids.tolist() == result.ids.tolist()


def test_a_list_longer_than_a_shard_is_padded_and_merges(saved, one):
    results = [load_shard(saved, number).search(QUERIES, ITEMS) for number in range(SHARDS)]
    assert all((result.rows[:, -1] == -1).all() for result in results)
    assert results[0].ids[0, -1] is None
    np.testing.assert_array_equal(merge_results(results).rows, one.search(QUERIES, ITEMS).rows)


def test_merging_takes_the_best_by_score_and_then_by_row():
    def result(rows, scores):
        ids = np.array([[None if row < 0 else f"i{row}" for row in lists] for lists in rows], object)
        return SearchResult.of_ids(np.array(rows, np.int32), np.array(scores, np.float32), ids)

    low = -np.inf
    merged = merge_results(
        [result([[4, 8], [5, -1]], [[3, 1], [2, low]]), result([[7, 3], [-1, -1]], [[3, 3], [low, low]])]
    )
    assert merged.rows.tolist() == [[3, 4], [5, -1]]
    assert merged.scores.tolist() == [[3, 3], [2, low]]
    assert merged.ids.tolist() == [["i3", "i4"], ["i5", None]]


def test_results_that_do_not_belong_together_are_refused(saved):
    first = load_shard(saved, 0)
    with pytest.raises(DataError, match=r"two of them hold the same item"):
        merge_results([first.search(QUERIES, 4), first.search(QUERIES, 4)])
    with pytest.raises(DataError, match=r"found \(24, 4\), \(25, 4\)"):
        merge_results([first.search(QUERIES, 4), load_shard(saved, 1).search(QUERIES[1:], 4)])
    with pytest.raises(DataError, match=r"found none"):
        merge_results([])


def test_a_shard_that_there_is_not_is_refused(saved, one, tmp_path):
    with pytest.raises(DataError, match=r"shard: expected 0 to 3, found 4"):
        load_shard(saved, 4)
    with pytest.raises(ArtifactError, match=r"vectors of model abc, but the model is def"):
        load_shard(saved, 0, fingerprint="def")
    save_index(one, tmp_path / "flat", fingerprint="abc")
    with pytest.raises(ArtifactError, match=r"holds one index of kind exact, no shards; open it with load_index"):
        load_shard(tmp_path / "flat", 0)


# What is missing, damaged or foreign


def test_a_missing_shard_is_named_and_the_others_open_alone(saved):
    shutil.rmtree(shard_folder(saved, 2))
    for load in (lambda: load_index(saved), lambda: load_shard(saved, 2)):
        with pytest.raises(ArtifactError, match=r"shards/00002/.*: shard 2 of 4 is missing; copy it again"):
            load()
    assert len(load_shard(saved, 1).index) > 0


@pytest.mark.parametrize("name", ["manifest.json", "ids.parquet", "vectors.npy"])
def test_a_damaged_shard_is_named(name, saved):
    path = shard_folder(saved, 3) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    for load in (lambda: load_index(saved), lambda: load_shard(saved, 3)):
        with pytest.raises(ArtifactError, match=rf"(?=.*shard 3 of 4)(?=.*00003/{name})"):
            load()
    load_shard(saved, 0)


def test_a_shard_of_another_index_is_refused_by_name(saved, tmp_path):
    # Of the same model, the same items and the same size: only the vectors differ.
    build_saved_index(IDS, VECTORS + 1, tmp_path / "other", fingerprint="abc", config=EXACT)
    shutil.rmtree(shard_folder(saved, 1))
    shutil.copytree(shard_folder(tmp_path / "other", 1), saved / "versions/0001/shards/00001")
    for load in (lambda: load_index(saved), lambda: load_shard(saved, 1)):
        with pytest.raises(ArtifactError, match=r"shard 1 of 4 is damaged or belongs to another index"):
            load()


def test_shards_that_changed_places_are_refused(saved):
    first, second = shard_folder(saved, 0), shard_folder(saved, 1)
    first.rename(first.with_name("aside"))
    second.rename(first)
    first.with_name("aside").rename(second)
    with pytest.raises(ArtifactError, match=r"shard 0 of 4 is damaged or belongs to another index"):
        load_index(saved)


def test_shards_of_different_catalogues_make_no_index(sharded):
    with pytest.raises(ValueError, match=r"do not hold every row of one catalogue once"):
        ShardedIndex([sharded.shards[0], sharded.shards[0], *sharded.shards[2:]])
