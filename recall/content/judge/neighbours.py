"""Measures whether near content has common tags, and how vectors lie on the sphere: alignment and uniformity."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import sparse

from recall.core.arrays import Float32s, Intps
from recall.index.results import top_rows

_BLOCK_NUMBERS = 1 << 22
_RANDOM_OTHERS = 100
_UNIFORMITY_T = 2.0


def nearest(unit: Float32s, queries: Intps, k: int) -> Intps:
    """Find the k nearest rows of some rows by cosine, without the row itself; intp [queries, k] in any order.

    Args:
      unit: float32 [items, dim], of unit length.
      queries: intp [queries], rows of it.
      k: at most the number of items less one.
    """
    block = max(1, _BLOCK_NUMBERS // len(unit))
    found = [np.empty((0, k), np.intp)]
    for start in range(0, len(queries), block):
        asked = queries[start : start + block]
        scores = unit[asked] @ unit.T  # [block, items]
        scores[np.arange(len(asked)), asked] = -np.inf
        found.append(top_rows(scores, k))
    return np.concatenate(found)


def share_with_common_tag(tags: sparse.csr_array, rows: Intps, others: Intps) -> float:
    """Compute the share of pairs that have a tag in common.

    Args:
      tags: sparse [items, tags], 1 where an item has a tag.
      rows: intp [rows], one side of the pairs.
      others: intp [rows, k], the k other sides of each row.
    """
    left = np.repeat(rows, others.shape[1])
    common = tags[left].multiply(tags[others.ravel()]).sum(axis=1)
    return float((np.asarray(common) > 0).mean())


def tag_agreement(
    unit: Float32s, tags: sparse.csr_array, *, k: int, limit: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Compute the share of an item's k nearest items that have a tag in common with it, beside random items.

    The k-nearest-neighbour test of representations with sets of labels in place of classes, as a share of the
    neighbours and without a vote. Items without a tag are neither queries nor neighbours: they may be of any kind.

    Args:
      unit: float32 [items, dim], of unit length; zeros for items without a vector, which are left out.
      tags: sparse [items, tags], 1 where an item has a tag.
      k: neighbours per item.
      limit: largest number of queries, drawn at random; neighbours are searched among all items.
      rng: source of randomness.

    Returns:
      {"items": number of queries, "share@k": ..., "chance": ...}; chance is the share among a hundred random others per
      item. None where fewer than two items have both vector and tag. k is the argument, even of a smaller catalogue.
    """
    eligible = np.flatnonzero(unit.any(axis=1) & (np.diff(tags.indptr) > 0))
    if len(eligible) < 2:
        return {"items": 0, f"share@{k}": None, "chance": None}
    unit, tags = unit[eligible], tags[eligible]
    asked = np.sort(rng.permutation(len(eligible))[:limit])
    found = nearest(unit, asked, min(k, len(eligible) - 1))
    random = rng.integers(0, len(eligible) - 1, size=(len(asked), _RANDOM_OTHERS))
    random += random >= asked[:, np.newaxis]  # never the item itself
    return {
        "items": len(asked),
        f"share@{k}": share_with_common_tag(tags, asked, found),
        "chance": share_with_common_tag(tags, asked, random),
    }


def alignment(left: Float32s, right: Float32s) -> float | None:
    """Compute the mean squared distance of vectors that belong together; 0 is best.

    E |f(x) - f(y)|^2, Wang & Isola, "Understanding Contrastive Representation Learning through Alignment and
    Uniformity on the Hypersphere" (ICML 2020), with their exponent of 2.

    Args:
      left: float32 [pairs, dim], of unit length.
      right: likewise.

    Returns:
      A number in [0, 4]; None without pairs.
    """
    if not len(left):
        return None
    return float(np.square(left.astype(np.float64) - right).sum(axis=1).mean())


def uniformity(unit: Float32s) -> float | None:
    """Measure how evenly vectors spread over the sphere; lower is more even.

    log E exp(-2 |f(x) - f(y)|^2) over pairs of different items, in blocks (Wang & Isola, ICML 2020, t = 2).

    Args:
      unit: float32 [items, dim], of unit length.

    Returns:
      A number in [-8, 0], 0 if all vectors are one; None for fewer than two.
    """
    count = len(unit)
    if count < 2:
        return None
    block = max(1, _BLOCK_NUMBERS // count)
    total = 0.0
    for start in range(0, count, block):
        cosine = unit[start : start + block] @ unit.T  # [block, items]
        # |x - y|^2 = 2 - 2 cos on the sphere; rounding may take the cosine beyond 1.
        kernel = np.exp(-2 * _UNIFORMITY_T * (1 - np.minimum(cosine, 1)))
        kernel[np.arange(len(kernel)), np.arange(start, start + len(kernel))] = 0  # not with itself
        total += float(kernel.sum(dtype=np.float64))
    return math.log(total / (count * (count - 1)))
