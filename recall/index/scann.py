"""Searches approximately with ScaNN: a tree of partitions, asymmetric hashing inside, exact rescoring of the best.

Settings follow ScaNN's documentation (github.com/google-research/google-research, scann/docs/algorithms.md)
except where a comment gives a reason. Importing this module does not import scann; building or reading does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from recall.core.arrays import Float32s, Int32s
from recall.core.errors import ArtifactError
from recall.index.base import VectorIndex
from recall.index.exact import ExactIndex
from recall.index.items import Items

# Below it the tree saves less than the call costs: 22 us without, 11 us with, at 5,000 x 64.
_TREE_FROM = 5_000
_DIMS_PER_BLOCK = 2
_TRAINING_SAMPLE = 100_000
_INT32 = np.dtype(np.int32)
# Anisotropic partition centres: 35 us instead of 57 us per query at equal recall, 200,000 x 64 with norms 0.7-1.
_TREE_AVQ = 2.5
# All that ScaNN writes there, and nothing else: it would open any path that it is given.
_ASSETS = re.compile(r'(assets \{\s+asset_type: \w+\s+asset_path: "[\w.]+"\s+\}\s*)+')


@dataclasses.dataclass(frozen=True)
class ScannSettings:
    """Hold the layout of an index and the effort of its searches.

    Attributes:
      leaves: partitions of the tree; 0 is no tree.
      leaves_to_search: partitions scanned per query.
      reorder: hashed candidates rescored exactly per query.
      k: candidates per query that the two above were chosen for; a larger k raises both in proportion.
      anisotropic_threshold: weight of quantisation errors along the vector (Guo et al., ICML 2020); None is off.
    """

    leaves: int
    leaves_to_search: int
    reorder: int
    k: int
    anisotropic_threshold: float | None

    @classmethod
    def for_vectors(cls, vectors: Float32s, k: int) -> ScannSettings:
        """Choose settings to start tuning from, by the catalogue's size and norms."""
        items = len(vectors)
        leaves = round(math.sqrt(items)) if items >= _TREE_FROM else 0
        return cls(
            leaves=leaves,
            leaves_to_search=max(1, math.ceil(leaves / 20)) if leaves else 0,
            reorder=min(items, 3 * k),
            k=k,
            anisotropic_threshold=_anisotropic_threshold(vectors),
        )

    def effort(self, k: int, items: int) -> tuple[int, int]:
        """Return the leaves to search and the candidates to rescore for any k; -1 leaves where there is no tree."""
        if k <= self.k:  # the usual case, in which nothing needs to be computed
            return self.leaves_to_search if self.leaves else -1, min(items, max(k, self.reorder))
        factor = k / self.k
        leaves = min(self.leaves, math.ceil(self.leaves_to_search * factor)) if self.leaves else -1
        return leaves, min(items, max(k, math.ceil(self.reorder * factor)))


class ScannIndex(VectorIndex):
    """Search with a ScaNN searcher, and look up ids.

    A saved index always gives the same answers; an index that is built again differs slightly, since ScaNN's
    clustering sums in no fixed order.

    Args:
      items: ids and vectors, as the searcher holds them.
      searcher: a ScannSearcher over the same vectors, without ids.
      settings: the settings that it was built with.
      report: see `Index`.

    Attributes:
      searcher: ScaNN's own searcher.
      scann_settings: settings that the searcher was built with.
    """

    kind: ClassVar[str] = "scann"
    is_exact = False

    def __init__(
        self, items: Items, *, searcher: Any, settings: ScannSettings, report: Mapping[str, Any] | None = None
    ):
        super().__init__(items, report=report)
        self.searcher = searcher
        self._search_one = searcher.searcher.search  # past a wrapper that looks up ids, of which it has none
        self.scann_settings = settings

    @classmethod
    def build(cls, items: Items, settings: ScannSettings) -> ScannIndex:
        """Train the partitions and the codebooks on all cores.

        Raises:
          ArtifactError: ScaNN is not installed.
        """
        _require_scann()
        from scann.scann_ops.py import scann_ops_pybind  # `import scann` rebinds scann.scann_ops; this form works.

        builder = scann_ops_pybind.builder(items.vectors, settings.k, "dot_product")
        sample = min(len(items.vectors), _TRAINING_SAMPLE)
        if settings.leaves:
            builder = builder.tree(
                settings.leaves, settings.leaves_to_search, training_sample_size=sample, avq=_TREE_AVQ
            )
        threshold = math.nan if settings.anisotropic_threshold is None else settings.anisotropic_threshold
        builder = builder.score_ah(
            _DIMS_PER_BLOCK, anisotropic_quantization_threshold=threshold, training_sample_size=sample
        )
        with _native_log_only_on_failure():
            searcher = builder.reorder(settings.reorder).build()
        return cls(items, searcher=searcher, settings=settings)

    def with_effort(self, *, leaves_to_search: int, reorder: int) -> ScannIndex:
        """Return the same index with another effort of search; shares all data with this one."""
        settings = dataclasses.replace(self.scann_settings, leaves_to_search=leaves_to_search, reorder=reorder)
        return ScannIndex(self.items, searcher=self.searcher, settings=settings, report=self.report)

    @property
    def settings(self) -> dict[str, Any]:
        """Return the fields of `ScannSettings`."""
        return dataclasses.asdict(self.scann_settings)

    @staticmethod
    def exact_over(items: Items) -> ExactIndex:
        """Return an exact index of items; of the index's own they are the vectors that the searcher rescores with."""
        return ExactIndex(items)

    def best_and_spare(self, queries: Float32s, k: int, *, spare: int) -> tuple[Int32s, Float32s]:
        """Search as many leaves as for k, and rescore as many candidates as for k + `spare`.

        Recall of the first 100 allowed items, where 5 to 11 of the best are excluded: 0.958, with leaves for all 0.960,
        with rescoring for k alone 0.930; of a search without exclusions 0.942 (300,000 x 65). Leaves cost the most.
        """
        if self._several > 1:
            return super().best_and_spare(queries, k, spare=spare)
        leaves, _ = self.scann_settings.effort(k, self._entries)
        _, reorder = self.scann_settings.effort(k + spare, self._entries)
        return self._search_among(queries, k + spare, leaves=leaves, reorder=reorder)

    def best_entries(self, queries: Float32s, k: int) -> tuple[Int32s, Float32s]:
        """Find the best entries; see `VectorIndex.best_entries`."""
        leaves, reorder = self.scann_settings.effort(k, self._entries)
        return self._search_among(queries, k, leaves=leaves, reorder=reorder)

    def _search_among(self, queries: Float32s, k: int, *, leaves: int, reorder: int) -> tuple[Int32s, Float32s]:
        """Find the best entries with the given effort; ask exactly where ScaNN finds fewer than k."""
        if len(queries) == 1:
            found, scores = self._search_one(queries[0], k, reorder, leaves)
            if len(found) < k:
                return self._search_exactly(queries, k)
            return found.view(_INT32).reshape(1, k), scores.reshape(1, k)
        found, scores = self.searcher.search_batched_parallel(queries, k, reorder, leaves)
        rows = found.view(np.int32)  # [queries, k]; they are uint32 below 2^31
        # Where the searched leaves held fewer than k items ScaNN fills up with row 0 and score NaN.
        short = np.isnan(scores).any(axis=1)
        if short.any():
            rows[short], scores[short] = self._search_exactly(queries[short], k)
        return rows, scores

    def _search_exactly(self, queries: Float32s, k: int) -> tuple[Int32s, Float32s]:
        """Find the best entries by comparing all."""
        return self.exact().best_entries(queries, k)

    def write(self, directory: Path) -> None:
        """Write the searcher into scann/ and open it once to check it; see `VectorIndex.write`."""
        folder = directory / "scann"
        folder.mkdir()
        try:
            # The searcher knows rows, not ids, so ScaNN has no ids to write as a pickle.
            self.searcher.serialize(str(folder), relative_path=True)
            # ScaNN may take a short write for a whole one; what cannot be opened must not be published.
            _open(folder)
        except (RuntimeError, ValueError) as error:
            raise ArtifactError(f"{folder}: could not be written ({error}); is the disk full?") from error

    @classmethod
    def read(cls, directory: Path, ids: pa.StringArray, *, settings: Any, report: Mapping[str, Any]) -> ScannIndex:
        """Open the searcher in scann/; see `VectorIndex.read`."""
        searcher, vectors = _open(directory / "scann")
        return cls(Items(ids, vectors), searcher=searcher, settings=ScannSettings(**settings), report=report)


def is_installed() -> bool:
    """Tell whether ScaNN is there; for macOS and Windows it has no wheels."""
    return find_spec("scann") is not None


def _require_scann() -> None:
    """Check that ScaNN is there.

    Raises:
      ArtifactError: it is not.
    """
    if not is_installed():
        raise ArtifactError(
            "expected ScaNN, which is not installed here (it has wheels for Linux alone); use `recall index --set "
            "index.kind=exact`, or a Linux machine"
        )


def tensorflow_ops() -> Any:
    """Import ScaNN's TensorFlow ops, which load TensorFlow; this package by itself needs only the NumPy ones.

    Raises:
      ArtifactError: ScaNN is not installed.
    """
    _require_scann()
    from scann.scann_ops.py import scann_ops  # `import scann` rebinds scann.scann_ops; this form works.

    return scann_ops


def _open(folder: Path) -> tuple[Any, Float32s]:
    """Open the searcher in a folder, and the vectors that it rescores with as a memory map [items, dim]."""
    _require_scann()
    from scann.scann_ops.py import scann_ops_pybind

    # Not ScaNN's load_searcher: that one would unpickle a scann_docids.pkl if somebody put one there.
    assets = (folder / "scann_assets.pbtxt").read_text()
    names = re.findall(r'asset_path: "([\w.]+)"', assets) if _ASSETS.fullmatch(assets) else []
    if not names or not all((folder / name).is_file() for name in names):
        raise ValueError("scann_assets.pbtxt: expected names of files beside it")
    with _native_log_only_on_failure():
        native = scann_ops_pybind.scann_pybind.ScannNumpy(str(folder), assets)
    vectors = np.load(folder / "dataset.npy", mmap_mode="r", allow_pickle=False)
    if native.size() != len(vectors):
        raise ValueError(f"the searcher holds {native.size():,} items, dataset.npy {len(vectors):,}")
    return scann_ops_pybind.ScannSearcher(native), vectors


def _anisotropic_threshold(vectors: Float32s) -> float | None:
    """Choose the threshold: 0.2 for unit vectors of up to 100 dimensions, scaled to other norms and dimensions.

    ScaNN weighs errors along a vector x by (dim - 1) t^2 / (1 - t^2) with t = threshold / |x|: about 4 for
    t = 0.2 and 100 dimensions. Kept at most 4 for longer vectors, and for 95% of the norms; where the norm
    falls below the threshold the weight has no meaning, hence the low quantile.
    """
    dim = vectors.shape[1]
    norm = float(np.quantile(np.linalg.norm(vectors, axis=1), 0.05))
    return norm * min(0.2, math.sqrt(4 / (dim + 3))) if norm > 0 else None


@contextlib.contextmanager
def _native_log_only_on_failure() -> Iterator[None]:
    """Hold back the output of ScaNN's C++ to file descriptor 2, and show it if the block fails."""
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        except BaseException:
            held_back.seek(0)
            os.write(original, held_back.read())
            raise
        finally:
            os.dup2(original, 2)
            os.close(original)
