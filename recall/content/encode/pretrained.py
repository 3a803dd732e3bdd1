"""Wraps pretrained encoders, from a local folder or, with a network, from the Hugging Face hub.

Needs `pip install 'recall-towers[content]'`; nothing is imported before an encoder is made.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recall.content.encode.encoders import MODALITIES, require_extra
from recall.core.arrays import Float32s
from recall.core.artifacts import checksum, fingerprint
from recall.core.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

# Copies of the weights for other frameworks, often several times the size of what is needed.
_OTHER_FRAMEWORKS = ["onnx/*", "openvino/*", "*.onnx", "*.h5", "*.msgpack", "*.ot", "*.tflite", "*.mlmodel", "*.gguf"]


class SentenceTransformersEncoder:
    """Encode by any model of sentence-transformers: texts, and images where the model takes them (e.g. CLIP).

    The library cuts texts at the model's `max_seq_length`.
    Source: Reimers and Gurevych, "Sentence-BERT", EMNLP 2019.
    """

    def __init__(self, model: str, *, revision: str | None = None) -> None:
        library = require_extra("sentence_transformers")
        folder = _model_folder(model, revision=revision, owner="sentence-transformers")
        _silence()
        try:
            self._model = library.SentenceTransformer(str(folder))
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise _not_loaded(model, "sentence-transformers", error) from error
        # Releases before 5.4 do not say it; of their models only CLIP takes images.
        before = MODALITIES if type(self._model[0]).__name__ == "CLIPModel" else ("text",)
        self.modalities = tuple(name for name in MODALITIES if name in getattr(self._model, "modalities", before))
        probe: list[Any] = ["a"] if "text" in self.modalities else [_blank_image()]
        self.dim = int(self._encode(probe).shape[1])  # what the library says of CLIP's dimensions differs by release
        self.fingerprint = _folder_fingerprint(folder)

    def encode_texts(self, texts: Sequence[str]) -> Float32s:
        """Encode texts as vectors [texts, dim]."""
        return self._encode(list(texts))

    def encode_images(self, images: Sequence[Image]) -> Float32s:
        """Encode images as vectors [images, dim]."""
        return self._encode(list(images))

    def _encode(self, contents: list[Any]) -> Float32s:
        return np.asarray(self._model.encode(contents, show_progress_bar=False, convert_to_numpy=True), np.float32)


class VisionEncoder:
    """Encode by the pooled output of an image model of transformers: DINOv2, ViT, Swin, ConvNeXt, CLIP, SigLIP, ...

    CLIP and SigLIP give image features in the space of their texts. Where a checkpoint was saved without the pooling
    layer, which transformers would fill with random numbers, the class token is the vector.
    """

    modalities = ("image",)

    def __init__(self, model: str, *, revision: str | None = None) -> None:
        library = require_extra("transformers")
        self._torch = require_extra("torch")
        folder = _model_folder(model, revision=revision, owner=None)
        _silence()
        try:
            self._processor = library.AutoImageProcessor.from_pretrained(str(folder))
            loaded, found = library.AutoModel.from_pretrained(str(folder), output_loading_info=True)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise _not_loaded(model, "transformers", error) from error
        missing = {str(name) for name in found["missing_keys"]}
        self._pooled = not any("pooler" in name for name in missing)
        if others := sorted(name for name in missing if "pooler" not in name):
            raise DataError(f"model {model}: its weights lack {', '.join(others[:3])}; is the download complete?")
        self._device = "cuda" if self._torch.cuda.is_available() else "cpu"
        self._model = loaded.eval().to(self._device)
        self.dim = int(self.encode_images([_blank_image()]).shape[1])
        self.fingerprint = _folder_fingerprint(folder)

    def encode_images(self, images: Sequence[Image]) -> Float32s:
        """Encode images as vectors [images, dim]."""
        inputs = self._processor(images=list(images), return_tensors="pt").to(self._device)
        with self._torch.inference_mode():
            if hasattr(self._model, "get_image_features"):
                output = self._model.get_image_features(**inputs)
            else:
                output = self._model(**inputs)
        if isinstance(output, self._torch.Tensor):
            vectors = output
        elif self._pooled and output.pooler_output is not None:
            vectors = output.pooler_output
        else:
            vectors = output.last_hidden_state[:, 0]  # the class token
        return np.asarray(vectors.flatten(1).float().cpu().numpy(), np.float32)


def _model_folder(model: str, *, revision: str | None, owner: str | None) -> Path:
    """Find the folder of a model; a model of the hub is downloaded unless it is in the hub's cache."""
    folder = Path(model)
    if folder.is_dir():
        return folder
    name = f"{owner}/{model}" if owner and "/" not in model else model
    hub = require_extra("huggingface_hub")
    try:
        return Path(hub.snapshot_download(name, revision=revision, ignore_patterns=_OTHER_FRAMEWORKS))
    except Exception as error:  # of the hub's HTTP library, which differs between releases
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(
            f"model {model}: is no folder here, and {name} did not come from the hub ({first}); "
            "give the path of a folder with the model, or its name on the hub and a network"
        ) from error


def _folder_fingerprint(folder: Path) -> str:
    """Hash all files that can change vectors: copies of a model in different folders have the same fingerprint."""
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file() and path.suffix != ".md"}
    seen = {name: path for name, path in files.items() if not any(part.startswith(".") for part in name.parts)}
    return fingerprint({name.as_posix(): [path.stat().st_size, checksum(path)] for name, path in seen.items()})


def _silence() -> None:
    """Turn off progress bars of loading; the pipeline has its own line on the terminal."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else it warns in every forked worker
    logging = require_extra("transformers").utils.logging
    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _blank_image() -> Image:
    image: Image = require_extra("PIL.Image").new("RGB", (64, 64))
    return image


def _not_loaded(model: str, library: str, error: Exception) -> DataError:
    first = next(iter(str(error).splitlines()), type(error).__name__)
    return DataError(f"model {model}: {library} cannot load it ({first}); expected a model made for {library}")
