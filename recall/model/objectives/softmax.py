"""Training objectives: the softmax in chunks (sampled or full), logQ terms, and the alignment of both item towers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

CHUNK = 512
Mask = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""Of the queries from start to stop: which candidates take no part, bool [stop - start, candidates]; a query's own
candidate takes part all the same."""
_Gradients = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
_ChunkResult = tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]  # where it ends, loss, both gradients


class Seen(NamedTuple):
    """What each query's user clicked before: candidates that the evaluation would not rank either."""

    places: tf.Tensor  # int32 [queries, most], of items among the distinct ones; -1 is padding
    count: tf.Tensor  # int32 scalar, distinct items
    of_candidates: tf.Tensor | None  # int32 [candidates], places among the distinct items; None: they are the distinct

    def columns(self, start: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
        """Of the queries from start to stop: bool [stop - start, candidates]."""
        places = self.places[start:stop]
        pairs = tf.where(places >= 0)  # [pairs, 2]
        pairs = tf.stack([tf.cast(pairs[:, 0], tf.int32), tf.gather_nd(places, pairs)], axis=1)
        shape = tf.stack([tf.shape(places)[0], self.count])
        is_seen = tf.scatter_nd(pairs, tf.ones(tf.shape(pairs)[:1], tf.int32), shape) > 0  # [chunk, distinct]
        return is_seen if self.of_candidates is None else tf.gather(is_seen, self.of_candidates, axis=1)


def drawn_mask(query_items: tf.Tensor, candidate_items: tf.Tensor, seen: Seen | None) -> Mask:
    """Of drawn candidates: other occurrences of the query's own item (accidental hits), and what was seen.

    Args:
      query_items: int [queries].
      candidate_items: int [candidates].
      seen: of the same queries and candidates.
    """

    def is_masked(start: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
        masked = candidate_items[tf.newaxis, :] == query_items[start:stop, tf.newaxis]  # [chunk, candidates]
        return masked if seen is None else masked | seen.columns(start, stop)

    return is_masked


def pool_mask(pool_sizes: tf.Tensor, candidates: tf.Tensor, seen: Seen | None) -> Mask:
    """Of candidates in the order in which items enter the pool: what comes later than the query, and what was seen.

    Args:
      pool_sizes: int32 [queries], leading candidates that take part.
      candidates: int32 scalar, how many of the leading candidates are looked at.
      seen: of the same queries and of all candidates.
    """

    def is_masked(start: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
        masked = tf.range(candidates)[tf.newaxis, :] >= pool_sizes[start:stop, tf.newaxis]  # [chunk, candidates]
        return masked if seen is None else masked | seen.columns(start, stop)[:, :candidates]

    return is_masked


def sampled_softmax(
    queries: tf.Tensor,
    candidates: tf.Tensor,
    *,
    query_items: tf.Tensor,
    candidate_items: tf.Tensor,
    seen: Seen | None = None,
    log_q: tf.Tensor | None = None,
    weights: tf.Tensor | None = None,
    chunk: int = CHUNK,
) -> tf.Tensor:
    """Softmax cross-entropy of each query's own candidate among all candidates of the batch.

    Candidate i belongs to query i; further candidates are shared negatives. The logits of a chunk of queries
    are reduced at once to their loss and their gradients, so that [queries, candidates] never exists as a whole.
    With `log_q` it is the sampled softmax of Bengio & Senecal (2008, IEEE TNN 19(4), eq. 6) as used for two
    towers by Yi et al. (RecSys 2019, eq. 3); without extra candidates it equals `tfrs.tasks.Retrieval`
    (mean reduction). Departures: accidental hits are taken out by selection, not by adding a large
    number, and no probability is clipped.

    Args:
      queries: float32 [queries, dim], already divided by the temperature.
      candidates: float32 [candidates, dim], candidates >= queries.
      query_items: int [queries], the item that each query is to find.
      candidate_items: int [candidates]; other columns with the query's own item are masked (accidental hits).
      seen: candidates that are masked besides, unless they are the query's own.
      log_q: float32 [candidates], log of the expected number of times that the candidate is drawn.
      weights: float32 [queries], >= 0; the loss is the weighted mean. Default: all one.
      chunk: queries whose logits are held at once. Chunks of 512 keep them in L2.

    Returns:
      float32 scalar.
    """
    count = tf.shape(queries)[0]
    log_q = tf.zeros(tf.shape(candidates)[:1]) if log_q is None else log_q
    weights = tf.ones([count]) if weights is None else weights
    weights = weights / tf.maximum(tf.reduce_sum(weights), 1e-12)  # [queries]
    is_masked = drawn_mask(query_items, candidate_items, seen)
    hidden = tf.fill([tf.minimum(chunk, count), tf.shape(candidates)[0]], queries.dtype.min)  # [chunk, candidates]

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
        logits = tf.compat.v1.where(is_masked(start, stop), hidden[: stop - start], logits)
        share = tf.nn.softmax(logits)  # [chunk, candidates], of the rivals among themselves
        rivals = tf.reduce_max(logits, axis=1) - tf.math.log(tf.reduce_max(share, axis=1))  # [chunk], their logsumexp
        loss = tf.reduce_sum(weight * tf.math.softplus(rivals - positive))
        pull = (weight * tf.sigmoid(rivals - positive))[:, tf.newaxis]  # [chunk, 1]
        query_gradient = pull * (tf.matmul(share, candidates) - own)  # [chunk, dim]
        candidate_gradient = tf.matmul(share, pull * query, transpose_a=True)  # [candidates, dim]
        return stop, loss, tf.concat([query_gradient, pull], axis=1), candidate_gradient

    @tf.custom_gradient
    def fused(queries: tf.Tensor, candidates: tf.Tensor) -> tuple[tf.Tensor, _Gradients]:
        loss, parts, candidate_gradient = sum_over_chunks(reduce_chunk, queries, candidates, chunk=chunk)
        query_gradient, pull = parts[:, :-1], parts[:, -1:]
        candidate_gradient -= tf.pad(pull * queries, [[0, tf.shape(candidates)[0] - count], [0, 0]])

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return upstream * query_gradient, upstream * candidate_gradient

        return loss, gradient

    return fused(queries, candidates)


def full_softmax(
    queries: tf.Tensor,
    candidates: tf.Tensor,
    *,
    targets: tf.Tensor,
    pool_sizes: tf.Tensor,
    seen: Seen | None = None,
    weights: tf.Tensor | None = None,
    chunk: int = CHUNK,
) -> tf.Tensor:
    """Softmax cross-entropy of each query's target among all items that it could have been shown.

    The loss that `sampled_softmax` estimates. Nothing is drawn, so nothing is corrected and nothing is masked but
    what comes later or was seen. The logits of a chunk of queries are reduced at once to their loss and their
    gradients, so that [queries, candidates] never exists as a whole.

    Args:
      queries: float32 [queries, dim], already divided by the temperature.
      candidates: float32 [candidates, dim], in the order in which items enter the pool.
      targets: int32 [queries], place of the query's own item among the candidates.
      pool_sizes: int32 [queries], leading candidates that take part for the query; its target does in any case.
      seen: candidates that take no part, unless they are the target.
      weights: float32 [queries], >= 0; the loss is the weighted mean. Default: all one.
      chunk: queries whose logits are held at once.

    Returns:
      float32 scalar.
    """
    count = tf.shape(queries)[0]
    # What no query of the batch could have been shown takes no time.
    used = tf.maximum(tf.reduce_max(pool_sizes), tf.reduce_max(targets) + 1)
    candidates = candidates[:used]
    is_open = tf.reduce_min(pool_sizes) >= used
    weights = tf.ones([count]) if weights is None else weights
    weights = weights / tf.maximum(tf.reduce_sum(weights), 1e-12)  # [queries]
    columns = tf.range(used)[tf.newaxis, :]  # [1, candidates]
    is_masked = pool_mask(pool_sizes, used, seen)

    def reduce_chunk(start: tf.Tensor, queries: tf.Tensor, candidates: tf.Tensor) -> _ChunkResult:
        stop = tf.minimum(start + chunk, count)
        query, target, weight = queries[start:stop], targets[start:stop], weights[start:stop]
        logits = tf.matmul(query, candidates, transpose_b=True)  # [chunk, candidates]

        def hide_others() -> tf.Tensor:
            masked = is_masked(start, stop) & (columns != target[:, tf.newaxis])  # [chunk, candidates]
            return tf.where(masked, logits.dtype.min, logits)

        logits = hide_others() if seen is not None else tf.cond(is_open, lambda: logits, hide_others)
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

    @tf.custom_gradient
    def fused(queries: tf.Tensor, candidates: tf.Tensor) -> tuple[tf.Tensor, _Gradients]:
        loss, query_gradient, candidate_gradient = sum_over_chunks(reduce_chunk, queries, candidates, chunk=chunk)
        pull = weights[:, tf.newaxis]
        query_gradient -= pull * tf.gather(candidates, targets)
        own = tf.math.unsorted_segment_sum(pull * queries, targets, tf.shape(candidates)[0])  # [candidates, dim]
        candidate_gradient -= own

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return upstream * query_gradient, upstream * candidate_gradient

        return loss, gradient

    return fused(queries, candidates)


def lead_over_mean(
    queries: tf.Tensor,
    candidates: tf.Tensor,
    *,
    targets: tf.Tensor,
    pool_sizes: tf.Tensor,
    weights: tf.Tensor | None = None,
) -> tf.Tensor:
    """By how much the scores of targets exceed the mean score of all items that their queries could have been shown.

    What label smoothing adds (Szegedy et al., CVPR 2016, section 7): against a distribution that gives the share e to n
    items alike and the rest to the target, the cross-entropy is that of the target alone plus e times this. Departure:
    the mean is over all items of the pool, with those that `full_softmax` leaves out because they were seen.

    Args:
      queries: as all that follow, of `full_softmax`; float32 [queries, dim].
      candidates: float32 [candidates, dim].
      targets: int32 [queries].
      pool_sizes: int32 [queries].
      weights: float32 [queries].

    Returns:
      float32 scalar, the weighted mean.
    """
    weights = tf.ones(tf.shape(targets)) if weights is None else weights
    weights = weights / tf.maximum(tf.reduce_sum(weights), 1e-12)  # [queries]
    sizes = tf.maximum(pool_sizes, 1)
    means = tf.gather(tf.cumsum(candidates), sizes - 1) / tf.cast(sizes, tf.float32)[:, tf.newaxis]  # [queries, dim]
    leads = tf.reduce_sum(queries * (tf.gather(candidates, targets) - means), axis=1)  # [queries]
    return tf.reduce_sum(weights * leads)


def sum_over_chunks(
    reduce_chunk: Callable[..., _ChunkResult], queries: tf.Tensor, candidates: tf.Tensor, *, chunk: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Loss, what chunks say of their queries [queries, ...] (the gradient at least), and gradient of the candidates."""
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


def log_expected_draws(
    frequency: tf.Tensor, *, batch_size: tf.Tensor, ranks: tf.Tensor, pool_sizes: tf.Tensor
) -> tf.Tensor:
    """logQ of candidates from both sources: in-batch positives and uniform negatives.

    An item is expected batch_size * count / total times among the positives of a batch, and 1 / n times in each uniform
    draw from a pool of n items that holds it (mixed negative sampling, Yang et al., WWW 2020 companion). One
    correction for both sources keeps a popular and a never-clicked item on one scale. Counts are exact;
    Yi et al. (RecSys 2019) estimate them from the stream.

    Args:
      frequency: float32 [candidates], training examples that have the candidate as target, divided by all
        training examples.
      batch_size: int scalar, in-batch positives.
      ranks: int [candidates], place of the candidate in the order in which items enter the pool.
      pool_sizes: int [draws], size of the pool of each uniform draw; an empty pool counts as its first item alone.

    Returns:
      float32 [candidates]. A candidate that no source can draw gets the smallest positive float's log.
    """
    in_batch = frequency * tf.cast(batch_size, tf.float32)  # [candidates]
    # The first item serves an empty pool. Not counted, its logQ could be that of an impossible candidate: a bonus
    # of 85 on its logits, which would drown every other candidate of the batch.
    sizes = tf.sort(tf.maximum(pool_sizes, 1))  # [draws]
    inverse = 1.0 / tf.cast(sizes, tf.float32)  # [draws]
    suffix = tf.concat([tf.cumsum(inverse, reverse=True), [0.0]], axis=0)  # [draws + 1]
    uniform = tf.gather(suffix, tf.searchsorted(sizes, ranks, side="right"))  # [candidates]: sum of 1/n over n > rank
    return tf.math.log(tf.maximum(in_batch + uniform, 1e-37))


def triplet_alignment(
    behaviour: tf.Tensor,
    meta: tf.Tensor,
    *,
    items: tf.Tensor,
    known: tf.Tensor,
    margin: float,
    negatives: str = "all",
    limit: int = 1024,
) -> tf.Tensor:
    """Pulls an item's meta vector to its behaviour vector and away from other items' behaviour vectors.

    mean_i [margin - m_i . b_i + m_i . b_j]_+ over in-batch j (FaceNet, Schroff et al., CVPR 2015, eq. 2, with the
    content side as anchor). Departure: the behaviour vector is a fixed target (stop gradient), so that content
    follows behaviour and never the other way round.

    Args:
      behaviour: float32 [batch, dim]; compared by cosine.
      meta: float32 [batch, dim]; compared by cosine.
      items: int [batch]; pairs of the same item are no negatives.
      known: bool [batch]; rows whose id was hidden have no behaviour to align with and are left out.
      margin: in cosine, >= 0.
      negatives: `all` averages over the others, `hard` takes the nearest.
      limit: at most this many rows of the batch are compared (they come shuffled).

    Returns:
      float32 scalar; 0 where the batch holds no pair.
    """
    behaviour, meta, items, known = (part[:limit] for part in (tf.stop_gradient(behaviour), meta, items, known))
    behaviour, meta = tf.math.l2_normalize(behaviour, axis=1), tf.math.l2_normalize(meta, axis=1)
    similarity = tf.matmul(meta, behaviour, transpose_b=True)  # [rows, rows]
    violation = tf.nn.relu(margin - tf.linalg.diag_part(similarity)[:, tf.newaxis] + similarity)  # [rows, rows]
    is_pair = (items[:, tf.newaxis] != items[tf.newaxis, :]) & known[:, tf.newaxis] & known[tf.newaxis, :]
    violation = tf.where(is_pair, violation, 0.0)
    if negatives == "hard":
        rows = tf.cast(tf.reduce_any(is_pair, axis=1), tf.float32)  # [rows]
        return tf.math.divide_no_nan(tf.reduce_sum(tf.reduce_max(violation, axis=1)), tf.reduce_sum(rows))
    return tf.math.divide_no_nan(tf.reduce_sum(violation), tf.reduce_sum(tf.cast(is_pair, tf.float32)))
