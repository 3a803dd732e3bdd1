"""How many targets are among the best k of the whole catalogue: exact ranks against TFRS's metric."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

import recall  # noqa: F401 - asks TensorFlow for Keras 2, without which TFRS does not start
from benchmarks.speed.vectors import Matrix, catalogue, queries_of

_KS = (1, 5, 10, 50, 100)


def measure(
    scratch: Path, *, system: str, items: int, queries: int = 20_000, dim: int = 64, query_batch: int = 0,
    item_batch: int = 0,
) -> dict[str, float]:  # fmt: skip
    """Seconds for hit rates at 1, 5, 10, 50 and 100 of all queries, and the hit rate at 100 as a check.

    Args:
      scratch: is not needed; vectors are made in a second.
      system: `recall`; `tfrs-streaming` or `tfrs-brute`, the two exact layers that FactorizedTopK takes.
      items: size of the catalogue.
      queries: one target each.
      dim: width of the vectors.
      query_batch: of TFRS, queries per call.
      item_batch: of TFRS's streaming layer, candidates per step.
    """
    del scratch
    vectors = catalogue(items, dim=dim)
    asked = queries_of(vectors, queries)
    targets = _likely_targets(vectors, asked)
    if system == "recall":
        return _recall(vectors, asked, targets)
    return _tfrs(vectors, asked, targets, system=system, query_batch=query_batch, item_batch=item_batch)


def _likely_targets(vectors: Matrix, asked: Matrix) -> np.ndarray:
    """Of 200 items at random the one that a user likes best, int32 [queries]; ranks then spread over orders of size."""
    drawn = np.random.default_rng(3).integers(0, len(vectors), (len(asked), 200))
    blocks = [slice(start, start + 1_000) for start in range(0, len(asked), 1_000)]
    best = [np.einsum("qd,qnd->qn", asked[rows], vectors[drawn[rows]]).argmax(axis=1) for rows in blocks]
    return np.take_along_axis(drawn, np.concatenate(best)[:, np.newaxis], axis=1)[:, 0].astype(np.int32)


def _recall(vectors: Matrix, asked: Matrix, targets: np.ndarray) -> dict[str, float]:
    from recall.core.ragged import Ragged
    from recall.evaluation.ranking import EvaluationSet, ranks
    from recall.evaluation.scorers import VectorScorer

    nothing = Ragged.empty(len(asked))
    examples = EvaluationSet(np.arange(len(asked)), targets, nothing, nothing)
    started = time.perf_counter()
    found = ranks(VectorScorer(asked, vectors), examples, exclude_seen=False)
    rates = [float((found <= k).mean()) for k in _KS]
    return {"seconds": time.perf_counter() - started, "hit_rate": rates[-1]}


def _tfrs(
    vectors: Matrix, asked: Matrix, targets: np.ndarray, *, system: str, query_batch: int, item_batch: int
) -> dict[str, float]:
    import tensorflow as tf
    import tensorflow_recommenders as tfrs

    layers = tfrs.layers.factorized_top_k
    if system == "tfrs-brute":
        layer = layers.BruteForce(k=max(_KS)).index(vectors)
    else:
        candidates = tf.data.Dataset.from_tensor_slices(vectors).batch(item_batch)
        layer = layers.Streaming(k=max(_KS)).index_from_dataset(candidates)
    metric = tfrs.metrics.FactorizedTopK(layer, ks=_KS)

    @tf.function(reduce_retracing=True)
    def update(some: tf.Tensor, of_targets: tf.Tensor) -> None:
        metric.update_state(some, of_targets)

    update(tf.constant(asked[:query_batch]), tf.constant(vectors[targets[:query_batch]]))  # traces
    metric.reset_states()
    started = time.perf_counter()
    for start in range(0, len(asked), query_batch):
        part = slice(start, start + query_batch)
        update(tf.constant(asked[part]), tf.constant(vectors[targets[part]]))
    rates = [float(value) for value in metric.result()]
    return {"seconds": time.perf_counter() - started, "hit_rate": rates[-1]}
