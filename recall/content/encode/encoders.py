"""Defines the contract of encoders of text and images, names the built-in ones, and loads them.

A user's encoder is a class, given by its dotted path, `package.module:Class`. This is all it needs:

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
"""Encoders by name; any other name is read as the dotted path of a class."""

# Raise it when the input of encoders changes: how texts are joined, images turned and shrunk.
_RECIPE = 1


class Encoder(Protocol):
    """Describe an encoder: the members that each has. It is made with `(model, revision=...)`, once per process.

    Attributes:
      modalities: kinds of content that it can encode, of `MODALITIES`.
      dim: length of its vectors.
      fingerprint: changes whenever the same content may get another vector, and only then: vectors are reused by it.
    """

    @property
    def modalities(self) -> Sequence[str]:
        """Return the kinds of content that it can encode."""

    @property
    def dim(self) -> int:
        """Return the length of its vectors."""

    @property
    def fingerprint(self) -> str:
        """Return the identity of its weights."""


class TextEncoder(Encoder, Protocol):
    """Encode texts: an encoder with `text` among its modalities."""

    def encode_texts(self, texts: Sequence[str]) -> Float32s:
        """Return vectors [texts, dim]; zeros where a text has nothing to encode."""


class ImageEncoder(Encoder, Protocol):
    """Encode images: an encoder with `image` among its modalities."""

    def encode_images(self, images: Sequence[Image]) -> Float32s:
        """Return vectors [images, dim] of RGB images of any size."""


@dataclass(frozen=True)
class EncoderSpec:
    """Name an encoder and its model; small enough to send to workers, which load the model themselves.

    Attributes:
      model: a local folder or, with a network, a name on the hub; a user's encoder gets it unchanged.
      kind: a name in `ENCODERS`, or the dotted path of a class.
      revision: branch, tag or commit on the hub; default: its main branch.
    """

    model: str
    kind: str = "sentence-transformers"
    revision: str | None = None


_loaded: dict[EncoderSpec, Encoder] = {}
_lock = threading.Lock()


def load_encoder(spec: EncoderSpec) -> Encoder:
    """Load an encoder, once per process, however many threads ask for it.

    Raises:
      ConfigError: no such encoder, or the class lacks a member of `Encoder`.
      RecallError: the model cannot be loaded, or a library is missing; the message says how to install it.
    """
    with _lock:
        if spec not in _loaded:
            encoder = _encoder_class(spec.kind)(spec.model, revision=spec.revision)
            _check(spec.kind, encoder)
            _loaded[spec] = encoder
        return _loaded[spec]


def identity(spec: EncoderSpec, encoder: Encoder) -> str:
    """Compute the fingerprint of everything that decides the vector of some content."""
    return fingerprint(spec.kind, encoder.fingerprint, encoder.dim, _RECIPE)


def encode(encoder: Encoder, modality: str, contents: Sequence[Any]) -> Float32s:
    """Encode texts or images as vectors [contents, dim].

    Raises:
      DataError: the encoder returns another shape.
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
    """Import a module of the optional extra.

    Raises:
      RecallError: it is not installed; the message says how to install it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise RecallError(
            f"{module} cannot be imported ({error}); encoding text and images needs the content extra: "
            "pip install 'recall-towers[content]'"
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
