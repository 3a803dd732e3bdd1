"""Computes the softmax cross-entropy of ranked queries in chunks, sampled or full, with any score.

`ranked_queries.py` builds the input; `scores.py` has the scores of several interests or several codes.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from recall.model.objectives.ranked_queries import RankedQueries
from recall.model.objectives.scores import Score, score_of

CHUNK = 512
_Gradients = tuple[tf.Tensor, tf.Tensor]
_ChunkResult = tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]  # where it ends, loss, both gradients
_Reduce = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], _ChunkResult]
_Finish = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], _Gradients]


def softmax_loss(ranked: RankedQueries, *, pick: str = "highest", chunk: int = CHUNK) -> tf.Tensor:
    """Return the softmax cross-entropy of each query's own candidate among the candidates that take part.

    The logits of a chunk of queries are reduced at once to their loss and their gradients, so that [queries,
    candidates] never exists as a whole. Of `RankedQueries.sampled` with `log_q` it is the sampled softmax of Bengio &
    Senecal (2008, IEEE TNN 19(4), eq. 6) as used for two towers by Yi et al. (RecSys 2019, eq. 3); without extra
    candidates it equals `tfrs.tasks.Retrieval` (mean reduction). Departures: accidental hits are taken out by
    selection, not by adding a large number, and no probability is clipped. Of `RankedQueries.full` it is the loss that
    the sampled softmax estimates: nothing is drawn, so nothing is corrected.

    Args:
      ranked: the queries and their candidates. Of several interests of a query the best scores each candidate. Of
        several codes of a candidate `pick` decides.
      pick: `highest` or `attention`, see `scores.score_of`; has no effect where candidates have one vector.
      chunk: rows of logits, one per query and interest or code, that are held at once. Chunks of 512 keep them in L2.

    Returns:
      float32 scalar, the weighted mean.
    """
    score = score_of(ranked.queries, ranked.candidates, pick=pick)
    if score is not None:
        vectors = ranked.queries if ranked.queries.shape.rank == 3 else ranked.candidates
        return _scored_softmax(ranked, score, chunk=max(1, chunk // vectors.shape[1]))
    return _paired_softmax(ranked, chunk=chunk) if ranked.own is None else _placed_softmax(ranked, chunk=chunk)


def lead_over_mean(ranked: RankedQueries, *, pool_sizes: tf.Tensor) -> tf.Tensor:
    """Return by how much the scores of targets exceed the mean score of all items that their queries could be shown.

    What label smoothing adds (Szegedy et al., CVPR 2016, section 7): against a distribution that gives the share e to n
    items alike and the rest to the target, the cross-entropy is that of the target alone plus e times this. Departure:
    the mean is over all items of the pool, also over the items that the softmax leaves out because they were seen.

    Args:
      ranked: of `RankedQueries.full`, with one vector per query and candidate.
      pool_sizes: int32 [queries], as `RankedQueries.full` takes them.

    Returns:
      float32 scalar, the weighted mean.
    """
    queries, candidates = ranked.queries, ranked.candidates
    sizes = tf.maximum(pool_sizes, 1)
    means = tf.gather(tf.cumsum(candidates), sizes - 1) / tf.cast(sizes, tf.float32)[:, tf.newaxis]  # [queries, dim]
    leads = tf.reduce_sum(queries * (tf.gather(candidates, ranked.places) - means), axis=1)  # [queries]
    return tf.reduce_sum(ranked.weights * leads)


def _paired_softmax(ranked: RankedQueries, *, chunk: int) -> tf.Tensor:
    """Return the loss of inner products where candidate i belongs to query i, with masks in every chunk."""
    count, weights = tf.shape(ranked.queries)[0], ranked.weights
    log_q = tf.zeros(tf.shape(ranked.candidates)[:1]) if ranked.log_q is None else ranked.log_q
    hidden = tf.fill([tf.minimum(chunk, count), tf.shape(ranked.candidates)[0]], ranked.queries.dtype.min)

    def reduce_chunk(start: tf.Tensor, queries: tf.Tensor, candidates: tf.Tensor) -> _ChunkResult:
        stop = tf.minimum(start + chunk, count)
        query, own, weight = queries[start:stop], candidates[start:stop], weights[start:stop]
        positive = tf.reduce_sum(query * own, axis=1) - log_q[start:stop]  # [chunk]
        # A pass over the logits takes up to a fifth of what a product does. So logQ is one more dimension of the
        # product, masks select from a tensor (a scalar takes 1.5 times as long), and the softmax is one kernel in place
        # of difference, exponential, sum and scaling (2.6 times). The positive, masked like all of its item, comes back
        # in the narrow: with rivals' logsumexp r it loses log(1 + e^(r - positive)).
        lifted = tf.concat([query, tf.ones_like(weight)[:, tf.newaxis]], axis=1)  # [chunk, dim + 1]
        lowered = tf.concat([candidates, -log_q[:, tf.newaxis]], axis=1)  # [candidates, dim + 1]
        logits = tf.matmul(lifted, lowered, transpose_b=True)  # [chunk, candidates]
        logits = tf.compat.v1.where(ranked.is_masked(start, stop), hidden[: stop - start], logits)
        share = tf.nn.softmax(logits)  # [chunk, candidates], of the rivals among themselves
        rivals = tf.reduce_max(logits, axis=1) - tf.math.log(tf.reduce_max(share, axis=1))  # [chunk], their logsumexp
        loss = tf.reduce_sum(weight * tf.math.softplus(rivals - positive))
        pull = (weight * tf.sigmoid(rivals - positive))[:, tf.newaxis]  # [chunk, 1]
        query_gradient = pull * (tf.matmul(share, candidates) - own)  # [chunk, dim]
        candidate_gradient = tf.matmul(share, pull * query, transpose_a=True)  # [candidates, dim]
        return stop, loss, tf.concat([query_gradient, pull], axis=1), candidate_gradient

    def finish(
        queries: tf.Tensor, candidates: tf.Tensor, parts: tf.Tensor, candidate_gradient: tf.Tensor
    ) -> _Gradients:
        query_gradient, pull = parts[:, :-1], parts[:, -1:]
        own = tf.pad(pull * queries, [[0, tf.shape(candidates)[0] - count], [0, 0]])
        return query_gradient, candidate_gradient - own

    return _in_chunks(ranked, reduce_chunk, finish, chunk=chunk)


def _placed_softmax(ranked: RankedQueries, *, chunk: int) -> tf.Tensor:
    """Return the loss of inner products where own candidates stand anywhere; logits that are all open need no mask."""
    assert ranked.log_q is None, "candidates that are not drawn have no logQ"
    targets, weights = ranked.places, ranked.weights

    def reduce_chunk(start: tf.Tensor, queries: tf.Tensor, candidates: tf.Tensor) -> _ChunkResult:
        stop = tf.minimum(start + chunk, tf.shape(queries)[0])
        query, target, weight = queries[start:stop], targets[start:stop], weights[start:stop]
        logits = tf.matmul(query, candidates, transpose_b=True)  # [chunk, candidates]

        def hide_others() -> tf.Tensor:
            return tf.where(ranked.is_left_out(start, stop), logits.dtype.min, logits)

        logits = hide_others() if ranked.is_open is None else tf.cond(ranked.is_open, lambda: logits, hide_others)
        positive = tf.gather(logits, target, batch_dims=1)  # [chunk]
        peak = tf.reduce_max(logits, axis=1, keepdims=True)  # [chunk, 1]
        exponentials = tf.exp(logits - peak)  # [chunk, candidates]
        total = tf.reduce_sum(exponentials, axis=1, keepdims=True)  # [chunk, 1]
        loss = tf.reduce_sum(weight * (tf.squeeze(tf.math.log(total) + peak, 1) - positive))
        # Not the exponentials but the narrow factors are scaled to the weighted softmax.
        scale = weight[:, tf.newaxis] / total  # [chunk, 1]
        query_gradient = tf.matmul(exponentials, candidates) * scale  # [chunk, dim]
        candidate_gradient = tf.matmul(exponentials, query * scale, transpose_a=True)  # [candidates, dim]
        return stop, loss, query_gradient, candidate_gradient

    def finish(
        queries: tf.Tensor, candidates: tf.Tensor, query_gradient: tf.Tensor, candidate_gradient: tf.Tensor
    ) -> _Gradients:
        pull = weights[:, tf.newaxis]
        own = tf.math.unsorted_segment_sum(pull * queries, targets, tf.shape(candidates)[0])  # [candidates, dim]
        return query_gradient - pull * tf.gather(candidates, targets), candidate_gradient - own

    return _in_chunks(ranked, reduce_chunk, finish, chunk=chunk)


def _scored_softmax(ranked: RankedQueries, score: Score, *, chunk: int) -> tf.Tensor:
    """Return the loss of any score, of `chunk` queries at once."""
    weights = ranked.weights

    def reduce_chunk(start: tf.Tensor, queries: tf.Tensor, candidates: tf.Tensor) -> _ChunkResult:
        stop = tf.minimum(start + chunk, tf.shape(queries)[0])
        weight = weights[start:stop]  # [chunk]
        own = ranked.is_own(start, stop)  # [chunk, candidates]
        scores, pulled = score(queries[start:stop], candidates)  # [chunk, candidates]
        logits = scores if ranked.log_q is None else scores - ranked.log_q
        logits = tf.where(ranked.is_masked(start, stop) & ~own, logits.dtype.min, logits)
        positive = tf.boolean_mask(logits, own)  # [chunk]
        loss = tf.reduce_sum(weight * (tf.reduce_logsumexp(logits, axis=1) - positive))
        slope = tf.nn.softmax(logits, axis=1) - tf.cast(own, tf.float32)  # [chunk, candidates]
        return stop, loss, *pulled(slope * weight[:, tf.newaxis])

    def finish(
        queries: tf.Tensor, candidates: tf.Tensor, query_gradient: tf.Tensor, candidate_gradient: tf.Tensor
    ) -> _Gradients:
        del queries, candidates
        return query_gradient, candidate_gradient

    return _in_chunks(ranked, reduce_chunk, finish, chunk=chunk)


def _in_chunks(ranked: RankedQueries, reduce_chunk: _Reduce, finish: _Finish, *, chunk: int) -> tf.Tensor:
    """Return the loss of all chunks, with the gradients that the chunks computed beside it."""

    @tf.custom_gradient
    def fused(
        queries: tf.Tensor, candidates: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
        loss, parts, candidate_gradient = sum_over_chunks(reduce_chunk, queries, candidates, chunk=chunk)
        query_gradient, candidate_gradient = finish(queries, candidates, parts, candidate_gradient)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return upstream * query_gradient, upstream * candidate_gradient

        return loss, gradient

    return fused(ranked.queries, ranked.candidates)


def sum_over_chunks(
    reduce_chunk: _Reduce, queries: tf.Tensor, candidates: tf.Tensor, *, chunk: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Sum the losses of all chunks of queries.

    Returns:
      The loss; the part of each chunk that is about its queries [queries, ...], which holds at least their gradient;
      and the gradient of the candidates.
    """
    chunks = (tf.shape(queries)[0] + chunk - 1) // chunk
    part_shape = [None] * queries.shape.rank
    parts = tf.TensorArray(tf.float32, size=chunks, infer_shape=False, element_shape=part_shape)

    def body(index, start, loss, parts, candidate_gradient):  # type: ignore[no-untyped-def]
        stop, chunk_loss, query_part, candidate_part = reduce_chunk(start, queries, candidates)
        parts = parts.write(index, query_part)
        return index + 1, stop, loss + chunk_loss, parts, candidate_gradient + candidate_part

    _, _, loss, parts, candidate_gradient = tf.while_loop(
        lambda index, *_: index < chunks,
        body,
        (0, 0, 0.0, parts, tf.zeros_like(candidates)),
        parallel_iterations=1,
    )
    return loss, parts.concat(), candidate_gradient
