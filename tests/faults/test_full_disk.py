"""A disk that is really full: one clear error, what was there is as it was, and with space the same works."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from recall.config.experiment import Config
from recall.config.index import IndexConfig
from recall.core.artifacts import HIDDEN_MANIFEST, MANIFEST, read_json, read_manifest, write_json
from recall.core.errors import ArtifactError
from recall.data.prepared import PreparedData
from recall.index import LivingIndex, build_index, load_index, save_index
from recall.runs.run import Run
from recall.serving.export.run import export_run
from recall.serving.recaller import Recaller
from tests.conftest import Experiment
from tests.helpers.damage import files_of
from tests.helpers.finished_run import CHEAP

ADVICE = r"[Ff]ree some space"


class Disk:
    """A file system of its own, 64 MB."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._filler = folder, folder / "filler"

    @contextlib.contextmanager
    def full_but_for(self, size: int) -> Iterator[None]:
        """Within the block only so many bytes are left, rounded down to pages."""
        left = os.statvfs(self.folder)
        with self._filler.open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, left.f_bavail * left.f_bsize - size // left.f_bsize * left.f_bsize)
        try:
            yield
        finally:
            self._filler.unlink()


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    folder = tmp_path_factory.mktemp("disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "recall-tests", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounting a small file system is not allowed here ({mounted.stderr.strip()})")
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", folder], check=True)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in files_of(folder)}


def fails_and_leaves(disk: Disk, folder: Path, step: Callable[[], object], *, bytes_left: int) -> None:
    """A step on a full disk is one error, and everything below a folder is as it was."""
    before = content(folder)
    with disk.full_but_for(bytes_left), pytest.raises(ArtifactError, match=ADVICE):
        step()
    assert content(folder) == before


def noted(account: Callable[..., None], what: str, times: int) -> None:
    account(f"full disk in {what}", times, "nothing", "the version before, and the next with space")


# The steps of a run

PARTS = {"prepare": "data", "train": "model", "vectors": "vectors", "index": "index"}


def opens(run: Path, part: str) -> None:
    if part == "data":
        PreparedData.load(run / part, verify=True)
    elif part == "index":
        load_index(run / part)
    else:
        read_manifest(run / part, made_by="", verify=True, name=HIDDEN_MANIFEST if part == "vectors" else MANIFEST)


def outdated(run: Path, part: str) -> None:
    """Lets a part of a run look as if it were made of something else, so that its step does it again."""
    path = {"index": run / "index" / "summary.json", "vectors": run / "vectors" / HIDDEN_MANIFEST}.get(
        part, run / part / MANIFEST
    )
    write_json(path, {**read_json(path), "fingerprint": "older"}, checksummed=True)


@pytest.fixture(scope="module")
def settings(experiment: Experiment) -> Config:
    return experiment(*CHEAP)


@pytest.fixture
def on_disk(disk: Disk, finished: Path) -> Iterator[Path]:
    """The finished run on the small disk."""
    yield Path(shutil.copytree(finished, disk.folder / "run"))
    shutil.rmtree(disk.folder / "run")


@pytest.mark.parametrize(
    "step", [pytest.param(step, marks=pytest.mark.slow if step == "train" else ()) for step in PARTS]
)
def test_a_step_on_a_full_disk_leaves_what_was_there_and_works_with_space(
    step: str, disk: Disk, on_disk: Path, settings: Config, account: Callable[..., None]
) -> None:
    part = PARTS[step]
    outdated(on_disk, part)
    before, entries = content(on_disk / part), {path.name for path in on_disk.iterdir()}
    size = sum(map(len, before.values()))
    tries = [0, size // 2] if step in ("prepare", "vectors", "index") else [size // 2]
    for bytes_left in tries:
        with disk.full_but_for(bytes_left), pytest.raises(ArtifactError, match=ADVICE) as refused:
            getattr(Run(settings, on_disk), step)()
        assert str(on_disk) in str(refused.value)
        assert content(on_disk / part) == before
        # A training that stopped may be resumed: its checkpoints stay, and the next one takes or removes them.
        assert {path.name for path in on_disk.iterdir()} - {".model-training"} == entries
        opens(on_disk, part)
    if step == "train":
        Run(settings, on_disk).train(resume=True)
    else:
        getattr(Run(settings, on_disk), step)()
    opens(on_disk, part)
    assert content(on_disk / part).keys() >= {name for name in before if name.endswith(".parquet")}
    assert {path.name for path in on_disk.iterdir()} == entries
    noted(account, step, len(tries))


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_an_export_on_a_full_disk_leaves_the_one_before(
    share: float, disk: Disk, finished: Path, account: Callable[..., None]
) -> None:
    out = disk.folder / "export"
    if not out.exists():
        export_run(finished, out, k=10)
    size = sum(map(len, content(out).values()))
    fails_and_leaves(disk, disk.folder, lambda: export_run(finished, out, k=20), bytes_left=int(size * share))
    assert read_manifest(out, made_by="", verify=True)["k"] == 10
    noted(account, f"export, {share:.0%} of it written", 1)
    if share > 0.5:
        assert export_run(finished, out, k=20)["k"] == read_manifest(out, made_by="", verify=True)["k"] == 20
        shutil.rmtree(out)


# Indexes

IDS = [f"item {number}" for number in range(3_000)]
VECTORS = np.random.default_rng(0).normal(size=(3_000, 32)).astype(np.float32)
EXACT = IndexConfig(kind="exact", k=10)


@pytest.fixture
def index_directory(disk: Disk) -> Iterator[Path]:
    directory = disk.folder / "index"
    save_index(build_index(IDS, VECTORS, config=EXACT), directory, fingerprint="model")
    yield directory
    shutil.rmtree(directory)


def test_an_index_on_a_full_disk_leaves_the_version_before(
    disk: Disk, index_directory: Path, account: Callable[..., None]
) -> None:
    other = build_index(IDS, -VECTORS, config=EXACT)
    tries = (0, 4_096, 100_000, VECTORS.nbytes, VECTORS.nbytes + 20_000)
    for bytes_left in tries:
        fails_and_leaves(
            disk,
            index_directory,
            lambda: save_index(other, index_directory, fingerprint="model"),
            bytes_left=bytes_left,
        )
        np.testing.assert_array_equal(load_index(index_directory).vectors([7])[0], VECTORS[7])
    save_index(other, index_directory, fingerprint="model")
    np.testing.assert_array_equal(load_index(index_directory).vectors([7])[0], -VECTORS[7])
    noted(account, "save_index", len(tries))


def test_what_a_full_disk_has_no_room_for_is_not_acknowledged_and_not_there(
    disk: Disk, index_directory: Path, account: Callable[..., None]
) -> None:
    ids = [f"new {number}" for number in range(2_000)]
    with LivingIndex.open(index_directory) as index:
        index.upsert(["kept"], VECTORS[:1])
        for bytes_left in (0, 4_096, 100_000):
            with disk.full_but_for(bytes_left):
                with pytest.raises(ArtifactError, match=ADVICE):
                    index.upsert(ids, VECTORS[:2_000])
                assert "new 0" not in set(index.ids)
                assert index.search(VECTORS[0], 1).ids[0, 0] in ("kept", "item 0"), "search goes on"
        index.upsert(ids[:5], VECTORS[:5])
    with LivingIndex.open(index_directory) as index:
        assert {name for name in index.ids if not str(name).startswith("item")} == {"kept", *ids[:5]}
    noted(account, "upsert (journal)", 3)


def test_the_first_change_of_an_index_on_a_full_disk_leaves_no_journal_that_is_refused(
    disk: Disk, index_directory: Path
) -> None:
    with LivingIndex.open(index_directory) as index:
        for bytes_left in (0, 4_096, 8_192, 12_288):
            with disk.full_but_for(bytes_left), contextlib.suppress(ArtifactError):
                index.upsert([f"new {bytes_left}"], VECTORS[:1])
    with LivingIndex.open(index_directory) as index:
        index.upsert(["new"], VECTORS[:1])
    with LivingIndex.open(index_directory, read_only=True) as index:
        assert "new" in set(index.ids)


@pytest.mark.parametrize("what", ["rebalance", "compaction"])
def test_a_rebalance_on_a_full_disk_leaves_index_and_journal_as_they_were(
    what: str, disk: Disk, index_directory: Path, account: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"new {number}" for number in range(2_000)]
    monkeypatch.setattr("recall.index.living.segment_writer._SEGMENT_BYTES", 1)  # several files to compact
    with LivingIndex.open(index_directory) as index:
        index.upsert(ids, VECTORS[:2_000])
        index.delete(ids[:10])
        compact = index._storage.compact if index._storage else None
        assert compact is not None
        change = compact if what == "compaction" else index.rebalance
        for bytes_left in (0, 20_000, 150_000):
            before = content(index_directory)
            with disk.full_but_for(bytes_left), pytest.raises(ArtifactError, match=ADVICE):
                change()
            assert content(index_directory) == before
            assert index.search(VECTORS[20], 2).ids[0].tolist() in (["item 20", "new 20"], ["new 20", "item 20"])
        index.upsert(["later"], VECTORS[:1])
        change()
    with LivingIndex.open(index_directory) as index:
        assert set(index.ids) - {None} == {*IDS, *ids[10:], "later"}
    assert len(list((index_directory / "journal").glob("*.compacted"))) == 1
    noted(account, what, 3)


def test_a_served_run_on_a_full_disk_goes_on_to_answer(disk: Disk, on_disk: Path) -> None:
    recaller = Recaller.load(on_disk, living=True)
    expected = recaller.recall(["u001"], k=5).ids.tolist()
    with disk.full_but_for(0):
        with pytest.raises(ArtifactError, match=re.compile(ADVICE)):
            recaller.delete_items([expected[0][0]])
        assert recaller.recall(["u001"], k=5).ids.tolist() == expected
    recaller.delete_items([expected[0][0]])
    assert expected[0][0] not in recaller.recall(["u001"], k=5).ids[0]
    recaller.close()
