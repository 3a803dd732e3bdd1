"""Loads a version of a run, from which all answers come until it is swapped as a whole."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from recall.core.artifacts import read_manifest
from recall.core.errors import ArtifactError, RecallError
from recall.index.saved.versions import MADE_BY, current_version
from recall.model.vector_table import GateShares
from recall.serving.items.served import Living
from recall.serving.recaller import Recaller

_ATTEMPTS = 5


@dataclass(frozen=True)
class Published:
    """Identify the version that a run has published: it differs when there is something new to load.

    Attributes:
      index: number of the current index, "" without an index.
      model: inode, size and time of the last change in ns of the model's manifest; None without a model.
    """

    index: str
    model: tuple[int, int, int] | None

    @classmethod
    def of(cls, run: Path) -> Published:
        """Read the version on the disk. Cheap: two small files, one of which is not even read."""
        try:
            index = (run / "index" / "CURRENT").read_text().strip()
        except (OSError, UnicodeDecodeError):
            index = ""
        try:
            found = (run / "model" / "manifest.json").stat()
        except OSError:
            return cls(index, None)
        return cls(index, (found.st_ino, found.st_size, found.st_mtime_ns))


@dataclass(frozen=True)
class Snapshot:
    """Hold one loaded version: a recaller and its origin.

    Attributes:
      recaller: answers.
      version: fingerprint of the model / number of the index.
      published: the version on the disk that it was loaded from.
      shares: gate shares of the catalogue, if the run has its vectors.
    """

    recaller: Recaller
    version: str
    published: Published
    shares: GateShares | None = field(repr=False, default=None)

    @classmethod
    def load(cls, run: Path, *, living: Living = False) -> Snapshot:
        """Load the version that a run has published, and query it once, so that the first request finds it warm.

        Args:
          run: the run directory.
          living: see `Recaller.load`.

        Raises:
          ArtifactError: see `Recaller.load`; or the run is published faster than it can be loaded.
        """
        for _ in range(_ATTEMPTS):
            published = Published.of(run)
            recaller = Recaller.load(run, living=living)
            if Published.of(run) == published:
                fingerprint = _model_of(run)
                _warm_up(recaller)
                return cls(recaller, f"{fingerprint}/{published.index}", published, _shares(run, fingerprint))
            recaller.close()  # it may be half of one version and half of another
        raise ArtifactError(f"{run}: changed {_ATTEMPTS} times while it was loaded; is something publishing in a loop?")

    def refreshed(self, published: Published) -> Snapshot:
        """Move the recaller to a newer index of the same model, with later additions and deletions on top.

        Args:
          published: the newer version.

        Raises:
          ArtifactError: the index cannot be opened; nothing has changed.
        """
        self.recaller.refresh()
        model, _, _ = self.version.partition("/")
        return replace(self, version=f"{model}/{published.index}", published=published)

    def behaviour(self, items: Sequence[str]) -> list[Mapping[str, float | int]]:
        """Return gate share and exposures behind the vectors of items, as far as they are known."""
        changed = self.recaller.behaviour(items)
        return [
            cast("Mapping[str, float | int]", changed[item])
            if item in changed
            else self.shares.of(item)
            if self.shares
            else {}
            for item in items
        ]

    def freeze(self) -> None:
        """Keep the index as it is, and let another recaller open the run for writing."""
        self.recaller.freeze()


def require_one_model(run: Path) -> None:
    """Check that a run's index belongs to its model, which it does not between two steps.

    Raises:
      ArtifactError: the index belongs to another model.
    """
    index, model = _index_model_of(run), _model_of(run)
    if index != model:
        raise ArtifactError(
            f"{run}: the index is of model {index}, and the model is {model} by now; run `recall index --run {run}`"
        )


def _model_of(run: Path) -> str:
    return str(read_manifest(run / "model", made_by=f"recall train --run {run}")["fingerprint"])


def _index_model_of(run: Path) -> str:
    version = current_version(run / "index")
    return str(read_manifest(version, made_by=MADE_BY)["fingerprint"])


def _warm_up(recaller: Recaller) -> None:
    """Query once: the first call of a TensorFlow function takes a hundred times as long as the next."""
    for batch in (1, 2):
        with contextlib.suppress(RecallError):  # a model of one side has no answer for the other
            recaller.recall(["\0"] * batch, k=1)
        with contextlib.suppress(RecallError):
            recaller.similar(recaller.index.ids[:1].tolist() * batch, k=1)


def _shares(run: Path, fingerprint: str) -> GateShares | None:
    """Read the gate shares; None where they are missing, as only people look at them."""
    try:
        shares = GateShares.read(run / "vectors")
    except ArtifactError:
        return None
    return shares if shares.fingerprint == fingerprint else None
