"""Every file of every artefact cut, with a flipped bit, or gone: what reads the artefact refuses, naming the file."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recall.config.index import IndexConfig
from recall.content.teach.artifact import TrainedContent
from recall.core.artifacts import read_manifest
from recall.core.errors import ArtifactError, RecallError
from recall.data.prepared import PreparedData
from recall.data.settled import STATE
from recall.evaluation.ranks import Ranks
from recall.index import LivingIndex, build_index, load_index, load_shard, save_index
from recall.model.vector_table import GateShares, ItemVectorTable
from recall.runs.content_step import run_content_training
from recall.runs.run import Run
from recall.serving.export.run import export_run
from recall.serving.recaller import Recaller
from recall.training.published import load_model
from tests.conftest import Experiment
from tests.helpers.damage import DAMAGES, cut, damaged, files_of, flip, possible

Reader = Callable[[Path], object]
QUICK = (
    "content.dim=8", "content.hidden=[8]", "content.clusters=[4]", "content.training.batch_size=64",
    "content.training.epochs=1", "content.training.epoch_steps=2", "content.noisy_pairs.warmup_epochs=0",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(finished: Path, variant: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished run with content vectors and an export."""
    directory = Path(shutil.copytree(finished, tmp_path_factory.mktemp("damaged") / "run"))
    run_content_training(variant(*QUICK), directory)
    export_run(directory, directory / "export", k=10)
    (directory / "config.yaml").write_bytes((finished / "config.yaml").read_bytes())
    return directory


def every_damage_is_refused(folder: Path, reader: Reader, *, but: tuple[str, ...] = ()) -> int:
    """Damages the files of a folder one by one and asks who reads them; returns how many damages were tried.

    Args:
      folder: of the artefact.
      reader: what opens it, given the folder.
      but: names of files that are not looked at.
    """
    reader(folder)  # what is whole is read
    tried = 0
    for path in files_of(folder):
        name = str(path.relative_to(folder))
        if name in but:
            continue
        for damage in possible(path):
            with damaged(path, damage):
                with pytest.raises(ArtifactError) as refused:
                    reader(folder)
                assert str(path) in str(refused.value), f"{name}, {damage.__name__}: the error does not name it"
                tried += 1
    return tried


def noted(account: Callable[..., None], artefact: str, tried: int) -> None:
    assert tried
    account(f"files of {artefact} cut, flipped, removed", tried, "nothing", "refused by name")


def test_prepared_data_is_refused(run: Path, account: Callable[..., None]) -> None:
    tried = every_damage_is_refused(run / "data", lambda data: PreparedData.load(data, verify=True))
    noted(account, "data/", tried)


def test_prepared_data_is_refused_by_whoever_reads_the_damaged_part(run: Path) -> None:
    def read_everything(folder: Path) -> None:
        data = PreparedData.load(folder)
        for split in ("train", "validation", "test"):
            data.shards(split)
        for moment in ("serving", "validation", "test"):
            data.posterior(moment)
        _ = (data.items, data.users, data.attributes, data.titles, data.posterior_history, data.content_prior)
        _ = (data.sampling_counts, data.histories, data.further_histories, data.history_vocabularies)
        for name in data.manifest["files"]:
            if name.startswith(STATE):  # what a run reads that goes on from this one
                data.file(name)

    # What was rejected is for people.
    every_damage_is_refused(run / "data", read_everything, but=("rejected.parquet",))


def test_a_flipped_bit_in_a_training_shard_is_one_clear_error_of_training(run: Path, tmp_path: Path) -> None:
    settings = Run.open(run).config
    shutil.copytree(run / "data", tmp_path / "run" / "data")
    shard = sorted((tmp_path / "run" / "data").glob("train-*.tfrecord"))[0]
    with damaged(shard, flip), pytest.raises(ArtifactError, match=rf"{shard.name}: its checksum differs"):
        Run(settings, tmp_path / "run").train()
    assert not (tmp_path / "run" / "model").exists()


def test_a_model_is_refused(run: Path, account: Callable[..., None]) -> None:
    data = PreparedData.load(run / "data")
    noted(account, "model/", every_damage_is_refused(run / "model", lambda model: load_model(model, data)))


def test_vectors_are_refused(run: Path, account: Callable[..., None]) -> None:
    tried = every_damage_is_refused(run / "vectors", ItemVectorTable.read)
    tried += every_damage_is_refused(run / "vectors", GateShares.read)
    noted(account, "vectors/", tried)


def test_ranks_are_refused(run: Path, account: Callable[..., None]) -> None:
    tried = every_damage_is_refused(run / "ranks", lambda ranks: Ranks.load(ranks.parent))
    noted(account, "ranks/", tried)


def test_content_is_refused(run: Path, account: Callable[..., None]) -> None:
    noted(account, "content/", every_damage_is_refused(run / "content", TrainedContent.load))


def test_an_export_is_refused_by_its_manifest(run: Path, account: Callable[..., None]) -> None:
    def check(folder: Path) -> None:
        read_manifest(folder, made_by="recall export", verify=True)

    noted(account, "export/", every_damage_is_refused(run / "export", check))


def test_a_report_reads_no_damaged_metrics_ranks_or_index_summary(run: Path) -> None:
    settings = Run.open(run).config
    for name in ("metrics.json", "index/summary.json", "ranks/test.parquet", "ranks/manifest.json"):
        for damage in DAMAGES:
            with damaged(run / name, damage), pytest.raises(ArtifactError, match=re.escape(name)):
                Run(settings, run).report()


def test_a_served_run_is_refused_whatever_part_of_it_is_damaged(run: Path, account: Callable[..., None]) -> None:
    """One damage each, as opening takes its time; the parts by themselves get all three."""
    Recaller.load(run)
    tried = 0
    for part in ("data", "model", "index"):
        for path in files_of(run / part):
            if path.suffix == ".tfrecord" or path.name in ("CURRENT", "summary.json", ".publishing"):
                continue  # serving reads no examples; of the others see here
            with damaged(path, flip), pytest.raises(ArtifactError, match=re.escape(str(path))):
                Recaller.load(run)
            tried += 1
    noted(account, "a run that is to be served", tried)


# Indexes

IDS = [f"item {number}" for number in range(600)]
VECTORS = np.random.default_rng(0).normal(size=(600, 8)).astype(np.float32)


@pytest.mark.parametrize(("kind", "shards"), [("exact", 1), ("scann", 1), ("exact", 3)])
def test_an_index_is_refused(kind: str, shards: int, tmp_path: Path, account: Callable[..., None]) -> None:
    index = build_index(IDS, VECTORS, config=IndexConfig(kind=kind, shards=shards, k=10))
    save_index(index, tmp_path, fingerprint="model")
    # The lock holds nothing; CURRENT is looked at below.
    tried = every_damage_is_refused(tmp_path, load_index, but=(".publishing", "CURRENT"))
    if shards > 1:
        only = tmp_path / "versions" / "0001" / "shards" / "00001"
        tried += every_damage_is_refused(only, lambda folder: load_shard(tmp_path, 1))
    noted(account, f"index/ ({kind}, {shards} shard{'s' * (shards > 1)})", tried)


def test_current_names_a_whole_version_or_is_refused(tmp_path: Path, account: Callable[..., None]) -> None:
    for _ in range(2):
        index = build_index(IDS, VECTORS, config=IndexConfig(kind="exact", k=10))
        save_index(index, tmp_path, fingerprint="model")
    current, tried = tmp_path / "CURRENT", 0
    whole = current.read_bytes()
    for place in range(len(whole)):
        for bit in range(8):
            current.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            tried += 1
            try:
                found = load_index(tmp_path)
            except ArtifactError as error:
                assert str(current) in str(error)  # noqa: PT017 - which of both it is depends on the bit
            else:
                assert len(found) == len(IDS)
    noted(account, "index/CURRENT", tried)


@pytest.mark.parametrize("is_compacted", [False, True], ids=["segments", "compacted"])
def test_a_journal_is_refused_a_cut_at_its_end_too(
    is_compacted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, account: Callable[..., None]
) -> None:
    monkeypatch.setattr("recall.index.living.segment_writer._SEGMENT_BYTES", 200)
    save_index(build_index(IDS, VECTORS, config=IndexConfig(kind="exact", k=10)), tmp_path, fingerprint="model")
    with LivingIndex.open(tmp_path) as index:
        for number in range(6):
            index.upsert([f"new {number}"], VECTORS[[number]])
            if is_compacted and number == 3:
                index.rebalance()
    journal = tmp_path / "journal"
    assert len(list(journal.glob("*.segment"))) >= 1 + (not is_compacted)
    assert len(list(journal.glob("*.compacted"))) == is_compacted

    def read(folder: Path) -> LivingIndex:
        return LivingIndex.open(tmp_path, read_only=True)

    # Its list and the number of the last change vouch for the journal, one without the other if need be.
    tried = every_damage_is_refused(journal, read, but=("lock", "files.json"))
    for path, damages in ((journal / "files.json", (flip, cut)), (tmp_path / "ACKNOWLEDGED", (flip, cut))):
        for damage in damages:
            with damaged(path, damage), pytest.raises(ArtifactError, match=re.escape(str(path))):
                read(journal)
            tried += 1
        with damaged(path, Path.unlink):
            assert {"new 0", "new 5"} < set(read(journal).ids.tolist())
    noted(account, f"index/journal ({'compacted' if is_compacted else 'segments'})", tried)


# What has no checksum


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
def test_a_damaged_experiment_of_a_run_is_one_clear_error_or_another_experiment(part: float, run: Path) -> None:
    path = run / "config.yaml"
    place = int(path.stat().st_size * part)
    whole = path.read_bytes()
    for changed in (whole[:place], whole[:place] + bytes([whole[place] ^ 128]) + whole[place + 1 :], b"", b"[]"):
        with damaged(path, lambda file, changed=changed: file.write_bytes(changed)):
            for use in (Run.open, lambda directory: Recaller.load(directory, living=True).close()):
                try:
                    use(run)
                except RecallError as error:
                    assert "config.yaml" in str(error)  # noqa: PT017 - some cuts leave an experiment
