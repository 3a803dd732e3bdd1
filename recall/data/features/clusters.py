"""Makes virtual cluster ids: a tree of k-means clusters turns a content vector into a few category values.

An id of a cluster is shared by all items that look alike, new ones too, so that its embedding collects their
behaviour. Distances are Euclidean, on the vectors as they are given.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recall.core.arrays import Bools, Float32s, Int32s, Int64s

# More vectors than this per leaf hardly move the centroids; the rest is only assigned.
_FIT_ROWS_PER_LEAF = 64
_FIT_ROWS_AT_LEAST = 20_000
# A leaf of one item would be that item's id under another name.
_MEMBERS_PER_CHILD = 2
_ITERATIONS = 25
_BLOCK_ROWS = 8_192


@dataclass(frozen=True)
class HierarchicalKMeans:
    """Hold a tree of centroids in which each node of a level is split into the same number of children.

    Attributes:
      levels: total nodes per level, e.g. (32, 512): each of 32 nodes has 16 children; child j of node p is node
        p * 16 + j of its level.
      centroids: per level, float32 [nodes, dim]; NaN rows are nodes that had too few members to exist.
    """

    levels: tuple[int, ...]
    centroids: tuple[Float32s, ...]

    @classmethod
    def fit(cls, vectors: Float32s, levels: Sequence[int], seed: int) -> HierarchicalKMeans:
        """Split vectors level by level with k-means, the same for the same seed whatever the number of threads.

        At most max(20,000, 64 per leaf) vectors, drawn without replacement, place the centroids. A node whose
        members number less than twice its children gets fewer children, down to one.

        Args:
          vectors: float32 [rows, dim], finite; at least one row.
          levels: total nodes per level, each a multiple of the one before.
          seed: seed of the draw and of the k-means starts.

        Raises:
          ValueError: no vectors, or a level is no multiple of the one before.
        """
        totals = tuple(int(total) for total in levels)
        if not len(vectors) or not totals:
            raise ValueError(f"expected vectors and levels, found {len(vectors)} vectors and levels {list(totals)}")
        if any(fine % coarse for coarse, fine in itertools.pairwise(totals)):
            raise ValueError(f"levels {list(totals)}: each has to be a multiple of the one before")
        random = np.random.default_rng(seed)
        limit = max(_FIT_ROWS_AT_LEAST, _FIT_ROWS_PER_LEAF * totals[-1])
        rows = np.sort(random.permutation(len(vectors))[:limit])
        sample = np.ascontiguousarray(vectors[rows], np.float32)
        centroids: list[Float32s] = []
        parents = np.zeros(len(sample), np.int64)
        for total, above in zip(totals, (1, *totals), strict=False):
            fan = total // above
            level = np.full((total, sample.shape[1]), np.nan, np.float32)
            nodes = np.empty(len(sample), np.int64)
            for parent, members in _groups(parents):
                children = _k_means(sample[members], fan, seed=int(random.integers(2**31)))
                first = parent * fan
                level[first : first + len(children)] = children
                nodes[members] = first + _nearest(sample[members], children)
            centroids.append(level)
            parents = nodes
        return cls(totals, tuple(centroids))

    def assign(self, vectors: Float32s, *, present: Bools | None = None) -> Int32s:
        """Assign vectors to nodes: descend the tree, from every node to the nearest of its children.

        Args:
          vectors: float32 [rows, dim], seen before or not.
          present: bool [rows], false where a row has no vector; rows with NaN or infinity have none either.

        Returns:
          int32 [rows, levels], the node on each level, -1 where there is no vector.

        Raises:
          ValueError: the vectors have another dimension than those that the tree was fitted on.
        """
        dim = self.centroids[0].shape[1]
        if vectors.ndim != 2 or vectors.shape[1] != dim:
            raise ValueError(f"expected vectors of {dim} numbers, found shape {vectors.shape}")
        usable = np.isfinite(vectors).all(axis=1)
        rows = np.flatnonzero(usable if present is None else usable & present)
        found = np.full((len(vectors), len(self.levels)), -1, np.int32)
        parents = np.zeros(len(rows), np.int64)
        for index, (level, above) in enumerate(zip(self.centroids, (1, *self.levels), strict=False)):
            fan = len(level) // above
            nodes = np.empty(len(rows), np.int64)
            for parent, members in _groups(parents):
                children = level[parent * fan : (parent + 1) * fan]
                children = children[np.isfinite(children[:, 0])]  # existing ones come first
                nodes[members] = parent * fan + _nearest(vectors[rows[members]], children)
            found[rows, index] = nodes
            parents = nodes
        return found

    def save(self, path: Path) -> None:
        """Write the tree as one .npz."""
        with path.open("wb") as stream:
            np.savez(stream, *self.centroids)

    @classmethod
    def load(cls, path: Path) -> HierarchicalKMeans:
        """Read the file of `save`; unpickles nothing."""
        with np.load(path, allow_pickle=False) as arrays:
            centroids = tuple(arrays[f"arr_{level}"] for level in range(len(arrays.files)))
        return cls(tuple(len(level) for level in centroids), centroids)


def _groups(nodes: Int64s) -> list[tuple[int, Int64s]]:
    """List the rows of each node that has any."""
    order = np.argsort(nodes, kind="stable")
    found, starts = np.unique(nodes[order], return_index=True)
    return [
        (int(node), members) for node, members in zip(found, np.split(order, starts[1:]), strict=False) if len(members)
    ]


def _k_means(vectors: Float32s, children: int, *, seed: int) -> Float32s:
    """Place at most `children` centroids, each the nearest one of some vector."""
    count = max(1, min(children, len(vectors) // _MEMBERS_PER_CHILD))
    if count == 1:
        return vectors.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
    # Imported here: it takes a second, which a serving process would wait for.
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    # One thread: several add up in whatever order they finish. The warning says that vectors repeat.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = KMeans(count, n_init=1, max_iter=_ITERATIONS, random_state=seed).fit(vectors)
    centroids = model.cluster_centers_.astype(np.float32)
    return centroids[np.unique(_nearest(vectors, centroids))]


def _nearest(vectors: Float32s, centroids: Float32s) -> Int64s:
    """Find the position of the nearest centroid, the first of equals."""
    # float64, so that a vector's node does not depend on the other vectors in its matrix product.
    points = centroids.astype(np.float64)
    half_norms = (points**2).sum(axis=1) / 2  # [centroids]
    nearest = np.empty(len(vectors), np.int64)
    for start in range(0, len(vectors), _BLOCK_ROWS):
        block = vectors[start : start + _BLOCK_ROWS].astype(np.float64)
        nearest[start : start + _BLOCK_ROWS] = np.argmin(half_norms - block @ points.T, axis=1)
    return nearest
