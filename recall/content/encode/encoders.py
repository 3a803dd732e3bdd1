"""What turns text and images into vectors: the contract, the encoders by name, and how one is loaded.

An encoder of one's own is a class that is given by its dotted path, `package.module:Class`; it needs no more than this:

    class Lengths:
        modalities = ("text",)
        dim = 1
        fingerprint = "lengths, version 1"

        def __init__(self, model: str, *, revision: str | None = None) -> None: ...

        def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
            return np.array([[len(text)] for text in texts], np.float32)
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from recall.core.arrays import Float32s
from recall.core.artifacts import fingerprint
from recall.core.errors import ConfigError, DataError, RecallError

if TYPE_CHECKING:
    from PIL.Image import Image

MODALITIES = ("text", "image")

ENCODERS = {
    "sentence-transformers": "recall.content.encode.pretrained:SentenceTransformersEncoder",
    "vision": "recall.content.encode.pretrained:VisionEncoder",
}
"""Encoders by name; any other name is taken for the dotted path of a class."""

# To be raised when what reaches an encoder changes: how texts are joined, images turned and shrunk.
_RECIPE = 1


class Encoder(Protocol):
    """What every encoder says of itself. It is made with `(model, revision=...)`, once per process.

    Attributes:
      modalities: what it can encode, of `MODALITIES`.
      dim: length of its vectors.
      fingerprint: changes whenever the same content may get another vector, and only then: vectors are reused by it.
    """

    @property
    def modalities(self) -> Sequence[str]: ...

    @property
    def dim(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...


class TextEncoder(Encoder, Protocol):
    """An encoder with `text` among its modalities."""

    def encode_texts(self, texts: Sequence[str]) -> Float32s:
        """Vectors [texts, dim]; zeros where it finds nothing to encode."""


class ImageEncoder(Encoder, Protocol):
    """An encoder with `image` among its modalities."""

    def encode_images(self, images: Sequence[Image]) -> Float32s:
        """Vectors [images, dim] of RGB images of any size."""


@dataclass(frozen=True)
class EncoderSpec:
    """Which encoder, and which model in it; small enough to travel to workers, which load it themselves.

    Attributes:
      model: a local folder or, with a network, a name on the hub; own encoders get it as it is.
      kind: a name in `ENCODERS`, or the dotted path of a class.
      revision: branch, tag or commit on the hub; default: its main branch.
    """

    model: str
    kind: str = "sentence-transformers"
    revision: str | None = None


_loaded: dict[EncoderSpec, Encoder] = {}
_lock = threading.Lock()


def load_encoder(spec: EncoderSpec) -> Encoder:
    """The encoder; it is loaded once per process, however many threads ask for it.

    Raises:
      ConfigError: no such encoder, or the class lacks what `Encoder` asks for.
      RecallError: the model cannot be loaded, or a library is missing; says what to install.
    """
    with _lock:
        if spec not in _loaded:
            encoder = _encoder_class(spec.kind)(spec.model, revision=spec.revision)
            _check(spec.kind, encoder)
            _loaded[spec] = encoder
        return _loaded[spec]


def identity(spec: EncoderSpec, encoder: Encoder) -> str:
    """Fingerprint of all that decides which vector content gets."""
    return fingerprint(spec.kind, encoder.fingerprint, encoder.dim, _RECIPE)


def encode(encoder: Encoder, modality: str, contents: Sequence[Any]) -> Float32s:
    """Vectors [contents, dim] of texts or images.

    Raises:
      DataError: the encoder gave something else.
    """
    if modality == "text":
        vectors = cast("TextEncoder", encoder).encode_texts(contents)
    else:
        vectors = cast("ImageEncoder", encoder).encode_images(contents)
    vectors = np.asarray(vectors, np.float32)
    if vectors.shape != (len(contents), encoder.dim):
        raise DataError(
            f"{type(encoder).__name__}: expected {modality} vectors of shape {(len(contents), encoder.dim)}, "
            f"found {vectors.shape}; correct the encoder or its `dim`"
        )
    return vectors


def require_extra(module: str) -> Any:
    """A module of the optional extra.

    Raises:
      RecallError: it is not installed; says how to.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise RecallError(
            f"{module} cannot be imported ({error}); encoding text and images needs the content extra: "
            "pip install 'recall[content]'"
        ) from error


def _encoder_class(kind: str) -> Any:
    path = ENCODERS.get(kind, kind)
    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    if not (module and name):
        raise ConfigError(
            f"encoder {kind}: expected {', '.join(ENCODERS)} or the path of a class, package.module:Class"
        )
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"encoder {kind}: cannot be imported ({error}); expected {', '.join(ENCODERS)} or the path of a class, "
            "package.module:Class, that Python finds from here and from every worker (PYTHONPATH)"
        ) from error


def _check(kind: str, encoder: Any) -> None:
    wanted = [name for name in ("modalities", "dim", "fingerprint") if not hasattr(encoder, name)]
    modalities = getattr(encoder, "modalities", ())
    wanted += [
        f"encode_{name}s" for name in MODALITIES if name in modalities and not hasattr(encoder, f"encode_{name}s")
    ]
    if wanted:
        raise ConfigError(
            f"encoder {kind}: lacks {', '.join(wanted)}; see recall.content.encode.encoders for what it needs"
        )
    if not modalities or not set(modalities) <= set(MODALITIES):
        raise ConfigError(
            f"encoder {kind}: its modalities are {modalities!r}; expected some of {', '.join(MODALITIES)}"
        )
