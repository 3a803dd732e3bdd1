"""Fits the content space: one short vector per item, from all its content, whose inner products are cosines.

`content_space` fits it to the encoded items of a catalogue -> `ContentSpace` maps these and new items into it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, svds

from recall.core.arrays import Float32s
from recall.data.features.table_encoder import EncodedColumn
from recall.data.features.vocabulary import FIRST_CODE

# The directions of most energy hardly change with more items than this.
_FITTED = 20_000


@dataclass(frozen=True)
class ContentSpace:
    """Hold the linear map of content into the space.

    An item has up to two blocks of unit length: its vectors joined, each of unit length before; and its tags and
    categories, weighted by their rarity. The item's vector is unit((blocks - mean) P), where P has the directions in
    which the catalogue differs most.

    Attributes:
      kernels: column -> float32 [size, dim], the rows of P that its values stand for.
      rarity: column of codes -> float32 [size], log((items + 1) / (items with it + 1)); 0 for codes of no value.
      mean: float32 [dim], mean of the blocks in the space.
    """

    kernels: Mapping[str, Float32s]
    rarity: Mapping[str, Float32s]
    mean: Float32s

    @property
    def dim(self) -> int:
        """Return the number of dimensions."""
        return len(self.mean)

    def vectors(self, features: Mapping[str, np.ndarray]) -> Float32s:
        """Map items into the space, as `ContentTerm.vectors` does in TensorFlow.

        Args:
          features: of `dense_features`, for [items] rows.

        Returns:
          float32 [items, dim], of unit length; zeros for an item without content.
        """
        blocks = _blocks(self.kernels, self.rarity, features)
        kernel = np.concatenate([self.kernels[name] for name in self.kernels])
        vectors = blocks @ kernel - self.mean
        vectors[np.diff(blocks.indptr) == 0] = 0
        return _unit(np.asarray(vectors, np.float32))


def content_space(
    columns: Sequence[EncodedColumn], features: Mapping[str, np.ndarray], *, dim: int
) -> ContentSpace | None:
    """Fit the space to the items of a catalogue.

    Reads the vectors, tags and categories of `features.meta`; the virtual clusters of vectors are left out, as they say
    nothing that the vectors do not. Truncated SVD of the centred blocks: of all maps to `dim` dimensions it keeps their
    inner products best (Eckart & Young, 1936).

    Args:
      columns: encoded columns of the items.
      features: of `dense_features`, for the whole catalogue.
      dim: dimensions at most.

    Returns:
      The space; None where items have no such content, or fewer than two of them have.
    """
    meta = [column for column in columns if column.tower == "meta"]
    read = [column for column in meta if column.kind == "vector" or _is_named(column)]
    if not read:
        return None
    sizes = {column.name: column.size for column in read}
    rarity = {column.name: _rarity(features[column.name], column.size) for column in read if column.kind != "vector"}
    empty = {name: np.zeros((size, 0), np.float32) for name, size in sizes.items()}
    blocks = _blocks(empty, rarity, features)
    blocks = blocks[np.flatnonzero(np.diff(blocks.indptr))]
    if blocks.shape[0] < 2:
        return None
    if blocks.shape[0] > _FITTED:
        blocks = blocks[np.sort(np.random.default_rng(0).permutation(blocks.shape[0])[:_FITTED])]
    mean = np.asarray(blocks.mean(axis=0)).ravel()  # [sizes]
    directions = _directions(blocks, mean, dim=dim)  # [sizes, dim]
    parts = np.split(directions, np.cumsum(list(sizes.values()))[:-1])
    return ContentSpace(dict(zip(sizes, parts, strict=True)), rarity, mean=(mean @ directions).astype(np.float32))


def _is_named(column: EncodedColumn) -> bool:
    """Tell whether a column has values that a person gave: tags and categories, not clusters."""
    return column.kind in ("code", "codes") and column.name == column.feature


def _rarity(codes: np.ndarray, size: int) -> Float32s:
    """Weigh codes, int [items] or [items, tags], by how few items have them."""
    values = np.asarray(codes).reshape(len(codes), -1)
    having = np.bincount(values.ravel(), minlength=size)
    rarity = np.log((len(values) + 1) / (having + 1)).astype(np.float32)
    rarity[:FIRST_CODE] = 0
    return rarity


def _blocks(
    kernels: Mapping[str, Float32s], rarity: Mapping[str, Float32s], features: Mapping[str, np.ndarray]
) -> sparse.csr_array:
    """Put both blocks of items side by side, sparse [items, sizes], by the order of `kernels`."""
    vectors, named = [], []
    for name, kernel in kernels.items():
        values = np.asarray(features[name])
        if name not in rarity:
            vectors.append((name, _unit(values[:, :-1])))
            continue
        codes = values.reshape(len(values), -1)
        rows = np.repeat(np.arange(len(codes)), codes.shape[1])
        weights = rarity[name][codes.ravel()]
        hot = sparse.coo_array((weights, (rows, codes.ravel())), shape=(len(codes), len(kernel))).tocsr()
        hot.eliminate_zeros()
        named.append((name, hot))
    parts: dict[str, sparse.csr_array] = {}
    squares = sum((np.square(unit).sum(axis=1) for _, unit in vectors), np.zeros(1))
    parts |= {name: _divided(sparse.csr_array(unit), np.sqrt(squares)) for name, unit in vectors}
    squares = sum((np.asarray(hot.power(2).sum(axis=1)).ravel() for _, hot in named), np.zeros(1))
    parts |= {name: _divided(hot, np.sqrt(squares)) for name, hot in named}
    return sparse.hstack([parts[name] for name in kernels], format="csr")


def _directions(blocks: sparse.csr_array, mean: np.ndarray, *, dim: int) -> Float32s:
    """Return the leading right singular vectors of centred blocks, float32 [sizes, at most dim]."""
    rows, sizes = blocks.shape
    dim = min(dim, sizes, rows - 1)
    if dim < min(rows, sizes) - 1 and sizes > 4 * dim:
        ones = np.ones(rows)
        centred = LinearOperator(
            (rows, sizes),
            matvec=lambda x: blocks @ x.ravel() - ones * float(mean @ x.ravel()),
            rmatvec=lambda y: blocks.T @ y.ravel() - mean * float(y.sum()),
            dtype=np.float64,
        )
        _, energies, found = svds(centred, k=dim, v0=np.random.default_rng(0).standard_normal(min(rows, sizes)))
    else:
        _, energies, found = np.linalg.svd(blocks.toarray().astype(np.float64) - mean, full_matrices=False)
    order = np.argsort(-energies, kind="stable")[:dim]
    kept = found[order].T  # [sizes, dim]
    # The sign of a singular vector is arbitrary: the largest entry is made positive, so that every machine agrees.
    signs = np.sign(kept[np.argmax(np.abs(kept), axis=0), np.arange(kept.shape[1])])
    return (kept * np.where(signs == 0, 1, signs)).astype(np.float32)


def _divided(part: sparse.csr_array, lengths: np.ndarray) -> sparse.csr_array:
    """Divide rows by lengths, where these are above 0."""
    factors = np.divide(1.0, lengths, out=np.zeros(len(lengths)), where=lengths > 0)
    return sparse.csr_array(sparse.diags_array(factors) @ part)


def _unit(vectors: np.ndarray) -> Float32s:
    """Scale vectors [n, dim] to unit length; zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors, np.float32), where=lengths > 0)
