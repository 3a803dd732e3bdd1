"""Item and query vectors as a trained two-tower model leaves them, for any catalogue size; and the truth about them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]

K = 100
_BLOCK = 1 << 22


def catalogue(items: int, *, dim: int = 64, seed: int = 1) -> Matrix:
    """Vectors of items, float32 [items, dim]: clustered, anisotropic, of different lengths.

    Trained catalogues are far from isotropic noise, on which every approximate index looks bad. As in ours: a topic of
    Zipf-like size each (sqrt(items) of them), scattered around its centre; standard deviations that fall along the
    axes as rank^-0.4, for centres and scatter alike; a common offset, since popularity is a direction; lengths around 1
    with a deviation of a tenth, since the gate mixes vectors of different lengths. Axes are rotated, so that
    no index finds the large ones by chance.
    """
    random = np.random.default_rng(seed)
    topics = max(8, round(items**0.5))
    spectrum = (np.arange(1, dim + 1) ** -0.4).astype(np.float32)
    rotation = np.linalg.qr(random.standard_normal((dim, dim)))[0].astype(np.float32)
    centres = random.standard_normal((topics, dim)).astype(np.float32) * spectrum
    sizes = np.arange(1, topics + 1) ** -0.7
    topic = random.choice(topics, items, p=sizes / sizes.sum())
    vectors = random.standard_normal((items, dim), dtype=np.float32)
    vectors *= 0.7 * spectrum
    vectors += centres[topic]
    vectors += 0.5 * spectrum * random.standard_normal(dim).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors *= 1 + 0.1 * random.standard_normal((items, 1), dtype=np.float32)
    return vectors @ rotation


def queries_of(vectors: Matrix, count: int, *, seed: int = 2) -> Matrix:
    """Users, float32 [count, dim]: an item's neighbourhood, away from the item by half its length."""
    random = np.random.default_rng(seed)
    dim = vectors.shape[1]
    liked = vectors[random.integers(0, len(vectors), count)]  # [count, dim]
    noise = random.standard_normal((count, dim), dtype=np.float32)
    noise *= 0.5 * np.linalg.norm(liked, axis=1, keepdims=True) / np.sqrt(dim)
    return liked + noise


def stored(scratch: Path, items: int, *, dim: int = 64, queries: int = 2_000) -> tuple[Matrix, Matrix, Matrix]:
    """Items, queries and the exact scores of the first queries, written once for all systems of a row.

    Returns:
      float32 [items, dim]; float32 [queries, dim]; float32 [500, K], falling.
    """
    folder = scratch / f"vectors-{items}x{dim}"
    if not (folder / "best.npy").exists():
        folder.mkdir(parents=True, exist_ok=True)
        vectors = catalogue(items, dim=dim)
        asked = queries_of(vectors, queries)
        np.save(folder / "items.npy", vectors)
        np.save(folder / "queries.npy", asked)
        np.save(folder / "best.npy", exact_scores(vectors, asked[:500], K))
    vectors, asked, best = (np.load(folder / f"{name}.npy") for name in ("items", "queries", "best"))
    return vectors, asked, best


def exact_scores(vectors: Matrix, asked: Matrix, k: int) -> Matrix:
    """The k highest inner products of each query, float32 [queries, k], falling."""
    block = max(1, _BLOCK // len(vectors))
    parts = []
    for start in range(0, len(asked), block):
        scores = asked[start : start + block] @ vectors.T  # [block, items]
        parts.append(-np.sort(-np.partition(scores, len(vectors) - k, axis=1)[:, -k:], axis=1))
    return np.concatenate(parts)


def recall_of(rows: npt.NDArray[np.integer], vectors: Matrix, asked: Matrix, best: Matrix) -> float:
    """Recall@k by rows found, [queries, k]; negative rows are none.

    Scores are computed here from the same vectors for every system: some report distances, some rounded scores.
    """
    scores = np.einsum("qd,qkd->qk", asked, vectors[np.maximum(rows, 0)])
    least = best[:, -1:] - 1e-5 * np.abs(best[:, :1])
    return float(((scores >= least) & (rows >= 0)).sum(axis=1).clip(max=best.shape[1]).mean() / best.shape[1])


def ids_of(items: int) -> list[str]:
    """Item ids as logs have them."""
    return [f"item-{row:08d}" for row in range(items)]
