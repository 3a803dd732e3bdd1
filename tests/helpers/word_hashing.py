"""Encodes without a model: counts words in hashed places, and cuts images to coarse mosaics.

Its model is a folder. `salt` decides which place a word gets; `loaded` and `encoded` are logs of what it did; where
there is a file `die_at`, the process is killed in the batch with the number that stands there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

DIM = 48


class WordHashing:
    modalities = ("text", "image")
    dim = DIM

    def __init__(self, model: str, *, revision: str | None = None) -> None:
        self._folder = Path(model)
        self._salt = (self._folder / "salt").read_text()
        self._batches = 0
        self.fingerprint = f"words {self._salt} {revision}"
        self._log("loaded", [os.getpid()])

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self._begin(list(texts))
        return np.stack([self.vector(text) for text in texts])

    def encode_images(self, images: Sequence[Any]) -> npt.NDArray[np.float32]:
        self._begin([image.size for image in images])
        return np.stack([np.asarray(image.resize((4, 4)), np.float32).ravel() / 255 for image in images])

    def vector(self, text: str) -> npt.NDArray[np.float32]:
        """Count words in hashed places, float32 [48]; zeros for a text without any word."""
        places = [int(hashlib.md5((self._salt + word).encode()).hexdigest(), 16) % DIM
                  for word in re.findall(r"\w+", text.lower())]  # fmt: skip
        return np.bincount(places, minlength=DIM).astype(np.float32)

    def _begin(self, contents: list[Any]) -> None:
        self._batches += 1
        self._log("encoded", contents)
        if (order := self._folder / "die_at").exists() and int(order.read_text()) == self._batches:
            os.kill(os.getpid(), signal.SIGKILL)

    def _log(self, name: str, entries: list[Any]) -> None:
        with (self._folder / name).open("a") as log:
            log.writelines(json.dumps(entry) + "\n" for entry in entries)


class Faulty:
    """Gives NaN for texts with the word `odd` in them."""

    modalities = ("text",)
    dim = 2
    fingerprint = "faulty"

    def __init__(self, model: str, *, revision: str | None = None) -> None: ...

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return np.array([[1, np.nan if "odd" in text else 1] for text in texts], np.float32)


class Narrow(Faulty):
    """Gives shorter vectors than it says."""

    fingerprint = "narrow"

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return np.ones((len(texts), 1), np.float32)


class Nothing:
    """Is no encoder."""

    def __init__(self, model: str, *, revision: str | None = None) -> None: ...
