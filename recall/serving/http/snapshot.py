"""A loaded version of a run: all that answers come from, swapped as a whole."""

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
    """What a run has published: it changes when there is something new to load.

    Attributes:
      index: the number of the current index, "" without.
      model: of the model's manifest: inode, size and time of the last change in ns; None without.
    """

    index: str
    model: tuple[int, int, int] | None

    @classmethod
    def of(cls, run: Path) -> Published:
        """As it is on the disk now. Cheap: two small files, of which one is not even read."""
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
    """A recaller, and what is known about it.

    Attributes:
      recaller: answers.
      version: fingerprint of the model / number of the index.
      published: what it was loaded from.
      shares: of the catalogue, where the run's vectors are there.
    """

    recaller: Recaller
    version: str
    published: Published
    shares: GateShares | None = field(repr=False, default=None)

    @classmethod
    def load(cls, run: Path, *, living: Living = False) -> Snapshot:
        """Opens what a run has published, and asks it once, so that the first request finds everything warm.

        Args:
          run: the run directory.
          living: as of `Recaller.load`.

        Raises:
          ArtifactError: as `Recaller.load`; or the run is published faster than it can be loaded.
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
        """The same recaller on a newer index of the same model, with what was added and deleted meanwhile on top.

        Raises:
          ArtifactError: the index cannot be opened; everything is as it was.
        """
        self.recaller.refresh()
        model, _, _ = self.version.partition("/")
        return replace(self, version=f"{model}/{published.index}", published=published)

    def behaviour(self, items: Sequence[str]) -> list[Mapping[str, float | int]]:
        """Gate share and exposures of items as their vectors were made with, as far as they are known."""
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
        """Goes on answering as it does, and lets another recaller open the run for writing."""
        self.recaller.freeze()


def require_one_model(run: Path) -> None:
    """Raises ArtifactError while a run's index belongs to another model than it has, as between two of its steps."""
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
    """The first call of a TensorFlow function takes a hundred times as long as the next."""
    for batch in (1, 2):
        with contextlib.suppress(RecallError):  # a model of one side has no answer for the other
            recaller.recall(["\0"] * batch, k=1)
        with contextlib.suppress(RecallError):
            recaller.similar(recaller.index.ids[:1].tolist() * batch, k=1)


def _shares(run: Path, fingerprint: str) -> GateShares | None:
    """Shares are for people to look at: without them the service is as good."""
    try:
        shares = GateShares.read(run / "vectors")
    except ArtifactError:
        return None
    return shares if shares.fingerprint == fingerprint else None
