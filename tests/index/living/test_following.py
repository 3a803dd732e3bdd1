"""Checks a read-only index that follows a writer, whatever the writer does between any two lines of the reader."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recall.core.errors import ArtifactError
from recall.index import LivingIndex, build_index, save_index
from tests.helpers.interrupting import Interruption
from tests.helpers.living_oracle import KINDS, Vectors, drawn, saved

Sources = dict[str, str]
ITEMS = 12


def compact(writer: LivingIndex) -> None:
    assert writer._journal is not None
    writer._journal.compact()


def change(writer: LivingIndex, *, seed: int) -> None:
    """Replace an item with a source, delete another, and bring a new one: earlier records become void."""
    writer.upsert(["replaced", f"new {seed}"], drawn(2, seed=seed), sources=[f"replaced {seed}", f"new {seed}"])
    writer.delete(["i0"], missing_ok=True)
    writer.delete(["short-lived"], missing_ok=True)


def change_and_compact(writer: LivingIndex) -> None:
    change(writer, seed=50)
    compact(writer)


def change_and_rebalance(writer: LivingIndex) -> None:
    change(writer, seed=50)
    writer.rebalance()
    change(writer, seed=51)
    compact(writer)


def publish_twice(writer: LivingIndex) -> None:
    """Remove the version that the reader stands on."""
    for seed in (50, 51, 52):
        change(writer, seed=seed)
        writer.rebalance()


def new_segments(writer: LivingIndex) -> None:
    for seed in (50, 51, 52):
        change(writer, seed=seed)


MEANWHILE: dict[str, Callable[[LivingIndex], None]] = {
    "compaction": compact,
    "changes and compaction": change_and_compact,
    "rebalance": change_and_rebalance,
    "three versions": publish_twice,
    "new segments": new_segments,
}


def writer_acts(writer: LivingIndex, meanwhile: str, *, before_line: int) -> Interruption:
    """Let the writer act before a line of the reader."""
    return Interruption(lambda: MEANWHILE[meanwhile](writer), before_line=before_line, within="recall/index/")


def content(index: LivingIndex) -> tuple[Vectors, Sources]:
    """Return vectors and sources of all items."""
    names = [name for name in index.ids if name is not None]
    with_sources = index.with_sources
    sources = dict(zip(with_sources, index.sources(with_sources), strict=True))
    return dict(zip(names, index.vectors(names), strict=True)), sources


def is_same(one: tuple[Vectors, Sources], other: tuple[Vectors, Sources]) -> bool:
    (vectors, sources), (others, other_sources) = one, other
    if vectors.keys() != others.keys() or sources != other_sources:
        return False
    return all(np.array_equal(vectors[name], others[name]) for name in vectors)


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index with a journal of several segments."""
    monkeypatch.setattr("recall.index.living.segment_writer._SEGMENT_BYTES", 300)
    saved(tmp_path / "before", items=ITEMS)
    with LivingIndex.open(tmp_path / "before") as index:
        change(index, seed=20)
    return tmp_path / "before"


@pytest.mark.slow
@pytest.mark.parametrize("meanwhile", MEANWHILE)
def test_a_reader_that_catches_up_is_never_wrong_whatever_the_writer_does_meanwhile(
    meanwhile: str, prepared: Path, tmp_path: Path
) -> None:
    """At every 17th line; step 1, which takes minutes, finds no more."""
    line, happened = 3 * list(MEANWHILE).index(meanwhile), True
    while happened:
        directory = tmp_path / "now"
        shutil.copytree(prepared, directory)
        with LivingIndex.open(directory) as writer, LivingIndex.open(directory, read_only=True) as reader:
            writer.upsert(["short-lived", "i1"], drawn(2, seed=30), sources=["short", None])
            change(writer, seed=31)
            before = content(reader)
            earlier = content(writer)
            interruption = writer_acts(writer, meanwhile, before_line=line)
            with interruption.armed():
                reader.refresh()  # never says that anything is damaged
            seen = content(reader) if not interruption.happened else None
            assert seen is None or is_same(seen, earlier)
            later = content(writer)
            between = {frozenset(vectors) for vectors, _ in (before, earlier, later)}
            assert frozenset(name for name in reader.ids if name is not None) - {"new 50", "new 51", "new 52"} in {
                names - {"new 50", "new 51", "new 52"} for names in between
            }
            reader.refresh()
            assert is_same(content(reader), later)
        shutil.rmtree(directory)
        line, happened = line + 17, interruption.happened
    assert line > 100


@pytest.mark.slow
@pytest.mark.parametrize("meanwhile", MEANWHILE)
def test_a_reader_that_is_opened_is_never_wrong_whatever_the_writer_does_meanwhile(
    meanwhile: str, prepared: Path, tmp_path: Path
) -> None:
    line, happened = 2 * list(MEANWHILE).index(meanwhile), True
    while happened:
        directory = tmp_path / "now"
        shutil.copytree(prepared, directory)
        with LivingIndex.open(directory) as writer:
            interruption = writer_acts(writer, meanwhile, before_line=line)
            with interruption.armed():
                reader = LivingIndex.open(directory, read_only=True)
            reader.refresh()
            assert is_same(content(reader), content(writer))
            reader.close()
        shutil.rmtree(directory)
        line, happened = line + 23, interruption.happened
    assert line > 100


def test_the_first_change_of_an_index_is_no_damage_to_a_reader_at_any_moment(tmp_path: Path) -> None:
    saved(tmp_path / "before", items=ITEMS)
    line, happened = 0, True
    while happened:
        directory = tmp_path / "now"
        shutil.copytree(tmp_path / "before", directory)
        with LivingIndex.open(directory) as writer, LivingIndex.open(directory, read_only=True) as reader:
            # The other way round: the reader looks between any two lines of the writer.
            interruption = Interruption(reader.refresh, before_line=line, within="recall/index/")
            with interruption.armed():
                change(writer, seed=20)
            reader.refresh()
            assert is_same(content(reader), content(writer))
        shutil.rmtree(directory)
        line, happened = line + 9, interruption.happened


def test_vectors_of_the_model_that_comes_next_are_not_shown_in_the_space_of_this_one(tmp_path: Path) -> None:
    saved(tmp_path, items=ITEMS)
    with LivingIndex.open(tmp_path, read_only=True) as reader:
        wide = build_index([f"i{row}" for row in range(ITEMS)], drawn(ITEMS, seed=5), config=KINDS["exact"])

        def next_model() -> None:
            save_index(wide, tmp_path, fingerprint="next")
            with LivingIndex.open(tmp_path) as writer:
                writer.upsert(["i1", "of the next model"], drawn(2, seed=6))

        # Right after it looked for a new version.
        original = reader.vectors(["i1"])
        line, seen = 0, 0
        while seen < 1:
            interruption = Interruption(next_model, before_line=line, within="recall/index/living/storage")
            # The version that is current is of the next model.
            with interruption.armed(), contextlib.suppress(ArtifactError):
                reader.refresh()
            seen, line = interruption.happened, line + 1
            np.testing.assert_array_equal(reader.vectors(["i1"]), original)
            assert "of the next model" not in set(reader.ids)


def test_an_error_while_a_reader_catches_up_leaves_it_as_it_was_and_the_step_is_taken_later(tmp_path: Path) -> None:
    saved(tmp_path, items=ITEMS)
    with LivingIndex.open(tmp_path) as writer, LivingIndex.open(tmp_path, read_only=True) as reader:
        change(writer, seed=20)
        reader.refresh()
        before, sequence = content(reader), reader.sequence
        change(writer, seed=21)
        segment = max((tmp_path / "journal").glob("*.segment"))
        whole = segment.read_bytes()
        for damaged in (whole[:-30] + b"x" * 30, whole[: len(whole) // 2]):
            segment.write_bytes(damaged)
            with pytest.raises(ArtifactError, match=segment.name):
                reader.refresh()
            assert reader.sequence == sequence
            assert is_same((content(reader)[0], before[1]), before)
        segment.write_bytes(whole)
        reader.refresh()
        assert is_same(content(reader), content(writer))


def test_a_reader_says_so_when_another_journal_has_taken_the_place_of_its_own(tmp_path: Path) -> None:
    saved(tmp_path, items=ITEMS)
    with LivingIndex.open(tmp_path) as writer:
        change(writer, seed=20)
    reader = LivingIndex.open(tmp_path, read_only=True)
    shutil.rmtree(tmp_path / "journal")
    (tmp_path / "ACKNOWLEDGED").unlink()
    with LivingIndex.open(tmp_path) as writer:
        for seed in (30, 31, 32):
            change(writer, seed=seed)
    with pytest.raises(ArtifactError, match="another journal has taken its place; open the index again"):
        reader.refresh()
    reader.close()
