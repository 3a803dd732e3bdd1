"""Checks that a journal which lost a file, its end or its place is refused by name: nothing is lost silently."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from recall.core.artifacts import write_json
from recall.core.errors import ArtifactError
from recall.index import LivingIndex, load_index, new_journal, save_index
from tests.helpers.damage import files_of
from tests.helpers.living_oracle import drawn, saved


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Copy an index after each of several changes, the newest last. Two segments follow a compacted file."""
    monkeypatch.setattr("recall.index.living.segment_writer._SEGMENT_BYTES", 400)
    saved(tmp_path / "index", items=12)
    copies: list[Path] = []

    def copy() -> None:
        copies.append(Path(shutil.copytree(tmp_path / "index", tmp_path / f"stage {len(copies)}")))

    copy()
    with LivingIndex.open(tmp_path / "index") as index:
        for number in range(4):
            index.upsert([f"n{number}"], drawn(1, seed=number), sources=[number])
            copy()
        index.delete(["i0", "n1"])
        index.rebalance()
        copy()
        for number in range(4, 10):
            index.upsert([f"n{number}"], drawn(1, seed=number), sources=[number])
            index.delete([f"i{number}"])
            copy()
    assert len(list((copies[-1] / "journal").glob("*.segment"))) >= 2
    return copies


def held(directory: Path, *, read_only: bool = False) -> set[str]:
    with LivingIndex.open(directory, read_only=read_only) as index:
        return set(index.ids) - {None}


def damages(path: Path, earlier: list[Path]) -> Iterator[tuple[str, bytes | None]]:
    """Yield what may stand in the place of a file: nothing, its beginnings, and its earlier contents."""
    whole = path.read_bytes()
    yield "removed", None
    for size in sorted({0, 1, len(whole) // 3, len(whole) // 2, len(whole) - 1} - {len(whole), -1}):
        yield f"cut to {size} bytes", whole[:size]
    for content in {other.read_bytes() for other in earlier if other.exists()} - {whole}:
        yield "replaced by an older one", content


def test_a_file_that_is_lost_cut_or_replaced_by_an_older_one_is_refused_by_name_or_nothing_is_lost(
    stages: list[Path], tmp_path: Path
) -> None:
    *earlier, newest = stages
    expected, refused, harmless = held(newest), 0, 0
    for path in files_of(newest):
        name = path.relative_to(newest)
        for damage, content in damages(path, [stage / name for stage in earlier]):
            for read_only in (True, False):
                directory = Path(shutil.copytree(newest, tmp_path / "damaged"))
                if content is None:
                    (directory / name).unlink()
                else:
                    (directory / name).write_bytes(content)
                try:
                    found = held(directory, read_only=read_only)
                except ArtifactError as error:
                    assert str(directory) in str(error), f"{name} {damage}: {error}"  # noqa: PT017
                    refused += 1
                else:
                    assert found == expected, f"{name} {damage}"
                    harmless += 1
                shutil.rmtree(directory)
    assert refused > harmless > 0


def test_a_journal_cut_between_two_acknowledged_records_is_refused_and_not_shortened(tmp_path: Path) -> None:
    saved(tmp_path, items=12)
    sizes = []
    with LivingIndex.open(tmp_path) as index:
        for number in range(3):
            index.upsert([f"n{number}"], drawn(1, seed=number))
            (segment,) = (tmp_path / "journal").glob("*.segment")
            sizes.append(segment.stat().st_size)
    whole = segment.read_bytes()
    for size in (*sizes[:2], sizes[2] - 1, 8, 0):
        segment.write_bytes(whole[:size])
        for read_only in (True, False):
            with pytest.raises(
                ArtifactError, match=rf"{segment.name}: ends at record \d, but 3 were acknowledged.*new-jou"
            ):
                held(tmp_path, read_only=read_only)
        assert segment.stat().st_size == size, "what is left of it is evidence"
    segment.write_bytes(whole)
    assert {"n0", "n1", "n2"} < held(tmp_path)


@pytest.mark.parametrize("has_rebalanced", [False, True])
@pytest.mark.parametrize("lost", ["the journal", "the list and the last segment", "all but the lock"])
def test_a_lost_journal_is_refused_until_a_new_one_is_begun(lost: str, has_rebalanced: bool, tmp_path: Path) -> None:
    saved(tmp_path, items=12)
    with LivingIndex.open(tmp_path) as index:
        index.upsert(["before"], drawn(1, seed=1))
        if has_rebalanced:
            index.rebalance()
        index.upsert(["after"], drawn(1, seed=2))
        index.delete(["i0"])
    journal = tmp_path / "journal"
    if lost == "the journal":
        shutil.rmtree(journal)
    else:
        removed = [journal / "files.json", max(journal.glob("*.segment"))]
        for path in removed if lost == "the list and the last segment" else set(files_of(journal)) - {journal / "lock"}:
            path.unlink()
    for _ in range(2):
        for read_only in (True, False):
            with pytest.raises(ArtifactError, match=rf"{re.escape(str(journal))}.*recall index new-journal"):
                held(tmp_path, read_only=read_only)
    begun = new_journal(tmp_path)
    assert begun.given_up == 3 - has_rebalanced
    version = set(load_index(tmp_path).ids)
    assert held(tmp_path, read_only=True) == held(tmp_path) == version
    assert ("before" in version) == has_rebalanced
    with LivingIndex.open(tmp_path) as index:
        index.upsert(["later"], drawn(1, seed=3))
        assert index.sequence == 4, "numbers go on, so that no reader takes it for an old change"
    assert held(tmp_path) == {*version, "later"}


def test_a_journal_that_a_version_of_an_earlier_release_promises_is_asked_for(tmp_path: Path) -> None:
    saved(tmp_path, items=12)
    with LivingIndex.open(tmp_path) as index:
        index.upsert(["before"], drawn(1, seed=1))
        index.rebalance()
    (tmp_path / "ACKNOWLEDGED").unlink()
    assert "before" in held(tmp_path), "its files and their list vouch for it"
    (tmp_path / "ACKNOWLEDGED").unlink()
    shutil.rmtree(tmp_path / "journal")
    with pytest.raises(ArtifactError, match=r"journal: holds no records, but the version .* number 1 .*new-journal"):
        held(tmp_path)
    assert new_journal(tmp_path).given_up is None
    assert "before" in held(tmp_path)


@pytest.mark.parametrize(
    "names", [["x"], ["1.segment"], [7], "x", None, ["../00000000000000000001.segment"], ["٣" * 20 + ".segment"]]
)
def test_an_odd_name_in_the_list_of_files_is_refused_by_name(names: object, tmp_path: Path) -> None:
    saved(tmp_path, items=12)
    with LivingIndex.open(tmp_path) as index:
        index.upsert(["a"], drawn(1, seed=1))
    write_json(tmp_path / "journal" / "files.json", {"files": names}, checksummed=True)
    for read_only in (True, False):
        with pytest.raises(ArtifactError, match=r"files.json: expected names of the journal's files, found"):
            held(tmp_path, read_only=read_only)


def test_a_writer_whose_lock_was_removed_writes_no_more(tmp_path: Path) -> None:
    saved(tmp_path, items=12)
    with LivingIndex.open(tmp_path) as first:
        first.upsert(["a"], drawn(1, seed=1))
        (tmp_path / "journal" / "lock").unlink()
        with LivingIndex.open(tmp_path) as second:
            with pytest.raises(ArtifactError, match="lock: was removed or replaced while this process held it"):
                first.upsert(["b"], drawn(1, seed=2))
            second.upsert(["c"], drawn(1, seed=3))
    assert {"a", "c"} < held(tmp_path)


def test_what_a_writer_that_died_in_a_compaction_left_is_cleared_away(tmp_path: Path) -> None:
    saved(tmp_path, items=12)
    journal = tmp_path / "journal"
    with LivingIndex.open(tmp_path) as index:
        index.upsert(["a"], drawn(1, seed=1))
        left = {path.name: path.read_bytes() for path in journal.glob("*.segment")}
        index.rebalance()
        index.upsert(["b"], drawn(1, seed=2))
    for name, content in {**left, ".compacting": b"half of it"}.items():
        (journal / name).write_bytes(content)
    assert {"a", "b"} < held(tmp_path, read_only=True)
    assert {"a", "b"} < held(tmp_path)
    assert not {*left, ".compacting"} & {path.name for path in journal.iterdir()}


def test_a_new_journal_is_refused_while_another_process_writes(tmp_path: Path) -> None:
    saved(tmp_path, items=12)
    with LivingIndex.open(tmp_path) as index:
        index.upsert(["a"], drawn(1, seed=1))
        with pytest.raises(ArtifactError, match="held by another writer"):
            new_journal(tmp_path)
    save_index(load_index(tmp_path), tmp_path, fingerprint="m")
    assert "a" in held(tmp_path)
