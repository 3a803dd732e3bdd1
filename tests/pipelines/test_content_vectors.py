"""The content vectors job: lined up with the items file, nothing encoded twice, nothing lost by a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from PIL import Image

from pipelines.content_vectors import embed_catalogue, main
from pipelines.embedding import EmbedContent, EmbeddingJob
from pipelines.exchange import Scratch
from recall.config.experiment import Config
from recall.content.encode.embedded import Batches
from recall.content.encode.encoders import EncoderSpec
from recall.content.encode.raw import RawContent
from recall.core.errors import ArtifactError, ConfigError, DataError
from recall.data.catalogue import read_items
from tests.helpers.word_hashing import DIM, WordHashing

ROOT = Path(__file__).resolve().parents[2]
TITLES = ["Der Himmel über Berlin", "七人の侍", "Amélie 🎈", None, '"Up", again', "Up", "  ", "Ran\u00a0 乱", "Up"]
PLOTS = ["Angels over a city", "Seven swordsmen", None, None, "A house flies", None, None, "An old lord", None]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return salted(tmp_path / "model", "a")


def salted(folder: Path, salt: str) -> Path:
    folder.mkdir()
    (folder / "salt").write_text(salt)
    return folder


def spec(model: Path) -> EncoderSpec:
    return EncoderSpec(str(model), "tests.helpers.word_hashing:WordHashing")


def catalogue(path: Path, **columns: list[Any]) -> Path:
    """Writes an items file in the format of its ending."""
    frame = pd.DataFrame(columns)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True, force_ascii=False)
    elif path.suffix == ".tsv":  # recall reads TSV without quotes
        rows = [frame.columns, *frame.fillna("").astype(str).itertuples(index=False)]
        path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    else:
        frame.to_csv(path, index=False)
    return path


def movies(path: Path, titles: list[str | None] = TITLES, plots: list[str | None] = PLOTS) -> RawContent:
    ids = [f"m{number}" for number in range(len(titles))]
    return RawContent(items=catalogue(path, movie=ids, title=titles, plot=plots), id="movie", text=("title", "plot"))


def many(folder: Path, count: int = 40) -> RawContent:
    return movies(folder / "items.csv", [f"film number {number}" for number in range(count)], [None] * count)


def texts(model: Path) -> list[str]:
    """What the encoder was given so far, in order."""
    log = model / "encoded"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def vectors(out: Path, modality: str = "text") -> npt.NDArray[np.float32]:
    loaded: npt.NDArray[np.float32] = np.load(out / f"{modality}.npy")
    return loaded


def parts(out: Path, modality: str = "text") -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted((out / modality).glob("*.parquet"))])


def command(source: RawContent, model: Path, out: Path, *more: str) -> list[str]:
    columns = ["--text", ",".join(source.text)] if source.text else []
    columns += ["--image", source.image] if source.image else []
    return ["--items", str(source.items), "--id", source.id, *columns, "--model", str(model), "--encoder",
            "tests.helpers.word_hashing:WordHashing", "--out", str(out), *more]  # fmt: skip


# Alignment


@pytest.mark.parametrize("name", ["items.csv", "items.tsv", "items.jsonl", "items.parquet"])
def test_row_i_is_the_vector_of_line_i_whatever_the_format(name: str, model: Path, tmp_path: Path) -> None:
    joined = ["Der Himmel über Berlin. Angels over a city", "七人の侍. Seven swordsmen", "Amélie 🎈", None,
              '"Up", again. A house flies', "Up", None, "Ran\u00a0 乱. An old lord", "Up"]  # fmt: skip
    oracle = WordHashing(str(model))
    expected = np.stack([np.zeros(DIM, np.float32) if text is None else oracle.vector(text) for text in joined])

    manifest = embed_catalogue(movies(tmp_path / name), spec(model), tmp_path / "out", batch_size=2)

    np.testing.assert_array_equal(vectors(tmp_path / "out"), expected)
    table = parts(tmp_path / "out")
    assert table["item_id"].to_pylist() == [f"m{number}" for number in range(9)]
    assert [row is None for row in table["vector"].to_pylist()] == [text is None for text in joined]
    np.testing.assert_array_equal([row for row in table["vector"].to_pylist() if row], expected[expected.any(axis=1)])
    assert sorted(texts(model)) == sorted({text for text in joined if text}), "equal texts are encoded once"
    made = manifest["vectors"]["text"]
    assert made["dim"] == DIM
    assert made["counts"] == {"embedded": 7, "reused": 0, "missing": 2, "failed": {}, "encoded": 6}


def test_the_npy_is_read_as_an_embedding_feature(model: Path, tmp_path: Path) -> None:
    embed_catalogue(movies(tmp_path / "items.csv"), spec(model), tmp_path / "out")
    config = Config.model_validate(
        {
            "data": {
                "events": {"path": "log.csv", "user": "user", "item": "movie", "time": "time", "time_unit": "s"},
                "items": {"path": tmp_path / "items.csv", "id": "movie"},
            },
            "features": {"meta": [{"name": "text", "type": "embedding", "path": tmp_path / "out" / "text.npy"}]},
            "model": {"structure": "meta_only"},
        }
    )
    column = read_items(config).table["text"].combine_chunks()
    assert column.type == pa.list_(pa.float32(), DIM)
    assert column.is_null().to_pylist() == [title is None or not title.strip() for title in TITLES]


# Reuse


def test_a_second_run_encodes_nothing_and_changes_nothing(model: Path, tmp_path: Path) -> None:
    source = movies(tmp_path / "items.csv")
    embed_catalogue(source, spec(model), tmp_path / "out")
    before, encoded = vectors(tmp_path / "out"), texts(model)
    counts = embed_catalogue(source, spec(model), tmp_path / "out")["vectors"]["text"]["counts"]
    assert texts(model) == encoded
    assert counts == {"embedded": 0, "reused": 7, "missing": 2, "failed": {}, "encoded": 0}
    np.testing.assert_array_equal(vectors(tmp_path / "out"), before)


def test_only_what_changed_is_encoded_and_rows_follow_the_items(model: Path, tmp_path: Path) -> None:
    embed_catalogue(movies(tmp_path / "items.csv", ["a", "b", "c"], [None] * 3), spec(model), tmp_path / "out")
    old, encoded = vectors(tmp_path / "out"), len(texts(model))
    later = movies(tmp_path / "items.csv", ["new", "c", "b changed", "a"], [None] * 4)
    counts = embed_catalogue(later, spec(model), tmp_path / "out")["vectors"]["text"]["counts"]
    assert sorted(texts(model)[encoded:]) == ["b changed", "new"]
    assert (counts["embedded"], counts["reused"]) == (2, 2)
    np.testing.assert_array_equal(vectors(tmp_path / "out")[[3, 1]], old[[0, 2]])


def test_another_model_encodes_everything_anew(model: Path, tmp_path: Path) -> None:
    source, other = movies(tmp_path / "items.csv"), salted(tmp_path / "other", "b")
    embed_catalogue(source, spec(model), tmp_path / "out")
    embed_catalogue(source, spec(other), tmp_path / "out")
    assert sorted(texts(other)) == sorted(texts(model))
    np.testing.assert_array_equal(vectors(tmp_path / "out")[5], WordHashing(str(other)).vector("Up"))


def test_a_copy_of_the_model_elsewhere_is_the_same_model(model: Path, tmp_path: Path) -> None:
    source, copy = movies(tmp_path / "items.csv"), salted(tmp_path / "copy", "a")
    embed_catalogue(source, spec(model), tmp_path / "out")
    assert embed_catalogue(source, spec(copy), tmp_path / "out")["vectors"]["text"]["counts"]["embedded"] == 0
    assert texts(copy) == []


def test_vectors_that_were_damaged_are_made_again(model: Path, tmp_path: Path) -> None:
    source = movies(tmp_path / "items.csv")
    embed_catalogue(source, spec(model), tmp_path / "out")
    before = vectors(tmp_path / "out")
    path = tmp_path / "out" / "text" / "part-00000.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    counts = embed_catalogue(source, spec(model), tmp_path / "out")["vectors"]["text"]["counts"]
    assert counts["reused"] == 0
    np.testing.assert_array_equal(vectors(tmp_path / "out"), before)


def test_a_killed_run_leaves_nothing_that_loads_and_its_batches_are_not_encoded_again(
    model: Path, tmp_path: Path
) -> None:
    source, out = many(tmp_path), tmp_path / "out"
    (model / "die_at").write_text("6")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed = subprocess.run(
        [sys.executable, "-m", "pipelines.content_vectors", *command(source, model, out, "--batch-size", "3")],
        env=environment, cwd=tmp_path, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    (model / "die_at").unlink()
    first = texts(model)

    counts = embed_catalogue(source, spec(model), out, batch_size=3)["vectors"]["text"]["counts"]

    again = Counter(texts(model))
    in_flight = [text for text, times in again.items() if times > 1]
    assert set(again) == {f"film number {number}" for number in range(40)}
    assert 1 <= len(in_flight) <= 3, "the one batch that the kill interrupted"
    assert counts["reused"] == len(first) - len(in_flight) > 0
    undisturbed = tmp_path / "undisturbed"
    embed_catalogue(source, spec(model), undisturbed)
    np.testing.assert_array_equal(vectors(out), vectors(undisturbed))
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_two_workers_give_what_one_gives_and_load_the_model_once_each(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = many(tmp_path)
    embed_catalogue(source, spec(model), tmp_path / "one", batch_size=2)
    (model / "loaded").unlink()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    options = PipelineOptions(["--direct_num_workers=2", "--direct_running_mode=multi_processing"])
    embed_catalogue(source, spec(model), tmp_path / "two", batch_size=2, options=options)
    np.testing.assert_array_equal(vectors(tmp_path / "two"), vectors(tmp_path / "one"))
    workers = Counter((model / "loaded").read_text().split())
    assert str(os.getpid()) not in workers
    assert set(workers.values()) == {1}


def test_a_worker_with_another_version_of_the_model_is_refused(model: Path, tmp_path: Path) -> None:
    job = EmbeddingJob(spec(model), "what the driver has", "", Scratch(""), {"text": Batches("")}, {"text": 1}, 1)
    with pytest.raises(DataError, match=r"a worker loaded another version .* give --revision"):
        EmbedContent(job).setup()


# Images


def picture(path: Path, colour: tuple[int, ...], *, mode: str = "RGB", **save: Any) -> str:
    Image.new(mode, (40, 20), colour[0] if mode in "LP" else colour).save(path, **save)
    return path.name


def test_images_that_cannot_be_used_are_set_aside_with_their_reason(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    red = picture(folder / "red.png", (255, 0, 0))
    shutil.copy(folder / red, folder / "same red 赤.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: the camera was turned by 90 degrees
    turned = picture(folder / "turned.jpg", (0, 255, 0), exif=exif)
    grey = picture(folder / "grey.png", (128,), mode="L")
    clear = picture(folder / "clear.webp", (0, 0, 255, 255), mode="RGBA", lossless=True)
    noise = np.random.default_rng(1).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:2000])
    (folder / "words.png").write_text("this is no picture")
    (folder / "empty.png").touch()
    (folder / "folder.png").mkdir()
    bad = ["cut.jpg", "words.png", "empty.png", "folder.png", "absent.png"]
    names = [red, "same red 赤.png", turned, grey, str(folder / clear), *bad, None]
    items = catalogue(tmp_path / "items.csv", id=list(range(len(names))), file=names)
    source = RawContent(items=items, id="id", image="file", image_root=folder)

    manifest = embed_catalogue(source, spec(model), tmp_path / "out")

    assert manifest["vectors"]["image"]["counts"] == {
        "embedded": 5, "reused": 0, "missing": 1, "encoded": 4,
        "failed": {"not an image that can be decoded": 2, "empty file": 1, "not a file": 1, "no such file": 1},
    }  # fmt: skip
    rejected = pq.read_table(tmp_path / "out" / "rejected.parquet").to_pylist()
    assert {row["content"]: row["reason"] for row in rejected} == {
        "cut.jpg": "not an image that can be decoded",
        "words.png": "not an image that can be decoded",
        "empty.png": "empty file",
        "folder.png": "not a file",
        "absent.png": "no such file",
    }
    assert [(row["row"], row["item_id"], row["modality"]) for row in rejected] == [
        (row, str(row), "image") for row in range(5, 10)
    ]
    colours = vectors(tmp_path / "out", "image").reshape(-1, 16, 3)
    np.testing.assert_allclose(colours[[0, 1]], np.broadcast_to([1, 0, 0], (2, 16, 3)))
    np.testing.assert_allclose(colours[3], 128 / 255, atol=1e-6)
    np.testing.assert_allclose(colours[4], np.broadcast_to([0, 0, 1], (16, 3)))
    assert not colours[5:].any()
    assert [20, 40] in texts(model), "the turned picture stands upright"


def test_a_repaired_image_is_encoded_in_the_next_run_and_no_other(model: Path, tmp_path: Path) -> None:
    picture(tmp_path / "good.png", (1, 2, 3))
    (tmp_path / "bad.png").write_bytes(b"\x89PNG")
    items = catalogue(tmp_path / "items.csv", id=["a", "b"], file=["good.png", "bad.png"])
    source = RawContent(items=items, id="id", image="file")
    embed_catalogue(source, spec(model), tmp_path / "out")
    assert not vectors(tmp_path / "out", "image")[1].any()
    picture(tmp_path / "bad.png", (9, 9, 9))
    counts = embed_catalogue(source, spec(model), tmp_path / "out")["vectors"]["image"]["counts"]
    assert (counts["encoded"], counts["reused"], counts["failed"]) == (1, 1, {})
    assert vectors(tmp_path / "out", "image").any(axis=1).all()


def test_texts_and_images_in_one_run_and_neither_is_lost_to_a_later_one(model: Path, tmp_path: Path) -> None:
    picture(tmp_path / "a.png", (1, 2, 3))
    items = catalogue(tmp_path / "items.parquet", id=[7, 8], title=[None, "eight"], file=["a.png", None])
    both = RawContent(items=items, id="id", text=("title",), image="file")
    embed_catalogue(both, spec(model), tmp_path / "out")
    assert vectors(tmp_path / "out", "text").any(axis=1).tolist() == [False, True]
    assert vectors(tmp_path / "out", "image").any(axis=1).tolist() == [True, False]
    with pytest.raises(ArtifactError, match=r"holds image vectors, which this run .* give --image as well"):
        embed_catalogue(RawContent(items=items, id="id", text=("title",)), spec(model), tmp_path / "out")
    assert (tmp_path / "out" / "image.npy").exists()


# Bad input


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"movie": ["a"], "name": ["b"]}, r"items\.csv: has no column title; its columns are movie, name"),
        ({"movie": ["a", "b", "a"], "title": ["x", "y", "z"]}, r"1 ids more than once: a \(lines 2 and 4\)"),
        ({"movie": ["a", None], "title": ["x", "y"]}, r"1 rows without an id \(lines 3\)"),
        ({"movie": [], "title": []}, r"has no rows"),
        ({"movie": ["a", "b"], "title": [None, " "]}, r"text: none of 2 items got a vector \(2 without content\)"),
        ({"movie": ["a"], "title": ["?!"]}, r"none of 1 items got a vector .*1 the encoder gave zeros"),
    ],
)
def test_input_that_cannot_be_used_is_one_clear_error_and_leaves_nothing(
    columns: dict[str, list[Any]], message: str, model: Path, tmp_path: Path
) -> None:
    source = RawContent(items=catalogue(tmp_path / "items.csv", **columns), id="movie", text=("title",))
    with pytest.raises(DataError, match=message):
        embed_catalogue(source, spec(model), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out.*"))


def test_columns_of_lists_and_no_columns_at_all_are_refused(model: Path, tmp_path: Path) -> None:
    items = catalogue(tmp_path / "items.parquet", id=["a"], tags=[["x", "y"]])
    with pytest.raises(DataError, match=r"column tags holds values of type list<.*expected one text per row"):
        embed_catalogue(RawContent(items=items, id="id", text=("tags",)), spec(model), tmp_path / "out")
    with pytest.raises(ConfigError, match="neither text nor image columns"):
        RawContent(items=items, id="id")


def test_a_folder_of_something_else_is_not_replaced(model: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "letter.txt").write_text("dear")
    with pytest.raises(ArtifactError, match="holds something other than content vectors; choose another --out"):
        embed_catalogue(movies(tmp_path / "items.csv"), spec(model), tmp_path / "precious")
    assert (tmp_path / "precious" / "letter.txt").read_text() == "dear"


def test_an_encoder_that_fails_some_texts_keeps_the_others(tmp_path: Path) -> None:
    source = movies(tmp_path / "items.csv", ["fine", "odd", "good"], [None] * 3)
    manifest = embed_catalogue(source, EncoderSpec("any", "tests.helpers.word_hashing.Faulty"), tmp_path / "out")
    assert manifest["vectors"]["text"]["counts"]["failed"] == {"the encoder gave NaN or infinity": 1}
    assert vectors(tmp_path / "out").tolist() == [[1, 1], [0, 0], [1, 1]]


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        (
            "tests.helpers.word_hashing:Narrow",
            DataError,
            r"Narrow: expected text vectors of shape \(\d, 2\), found \(\d, 1\)",
        ),
        ("tests.helpers.word_hashing:Nothing", ConfigError, "lacks modalities, dim, fingerprint"),
        ("tests.helpers.word_hashing:Absent", ConfigError, "cannot be imported .*package.module:Class"),
        ("nonsense", ConfigError, "expected sentence-transformers, vision or the path of a class"),
    ],
)
def test_an_encoder_that_is_none_is_one_clear_error(
    kind: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        embed_catalogue(movies(tmp_path / "items.csv"), EncoderSpec("any", kind), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_of_texts_does_not_take_images(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", (1, 2, 3))
    items = catalogue(tmp_path / "items.csv", id=["a"], file=["a.png"])
    with pytest.raises(ConfigError, match="encodes text, not image; choose another model"):
        embed_catalogue(
            RawContent(items=items, id="id", image="file"),
            EncoderSpec("any", "tests.helpers.word_hashing:Faulty"),
            tmp_path / "out",
        )


# The command line


def test_the_command_prints_what_became_of_the_items(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(movies(tmp_path / "items.csv"), model, tmp_path / "out")) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["embedded", "7"] in rows
    assert ["without", "content", "2"] in rows
    assert vectors(tmp_path / "out").shape == (9, DIM)


def test_a_missing_extra_is_one_line_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)  # as if it were not installed
    source = movies(tmp_path / "items.csv")
    arguments = ["--items", str(source.items), "--id", "movie", "--text", "title", "--model", "m", "--out", "out"]
    assert main(arguments) == 1
    printed = capsys.readouterr().err
    assert "pip install 'recall-towers[content]'" in printed
    assert "Traceback" not in printed
