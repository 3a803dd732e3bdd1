"""Trains retrieval: queries against item vectors, as the structure and `model.loss` ask for it."""

from __future__ import annotations

import tensorflow as tf

from recall.config.model import ModelConfig
from recall.model.objectives.objective import Asking, EncodedBatch, Ranking, Terms
from recall.model.objectives.ranked_queries import RankedQueries
from recall.model.objectives.scores import best_interest
from recall.model.objectives.softmax import lead_over_mean, softmax_loss
from recall.model.towers.appeal import with_appeal_factor
from recall.model.towers.item import ItemVectors


class Retrieval:
    """Train the queries of one tower to rank what was clicked above the other candidates.

    Of several interests each candidate is scored by the best; with `interests.objective: chosen` only the interest
    that scores the positive highest asks.

    Args:
      config: weights of the losses, and the structure of the item side.
      asking: the tower.
    """

    def __init__(self, config: ModelConfig, *, asking: Asking) -> None:
        self._asking = asking
        self._chooses = bool(config.interests and config.interests.objective == "chosen")
        self.needs: frozenset[Asking] = frozenset({asking})

    def terms(self, encoded: EncodedBatch) -> Terms:
        """Return the weighted terms of the loss, by the part of the item side that each is about."""
        queries, weights = encoded.asked(self._asking)
        if self._chooses and queries.shape.rank == 3:
            queries = best_interest(queries, tf.gather(encoded.vectors.vector, encoded.own))
        return retrieval_terms(queries, encoded.ranked, encoded.ranking, weights=weights)


def retrieval_terms(queries: tf.Tensor, vectors: ItemVectors, ranking: Ranking, *, weights: tf.Tensor) -> Terms:
    """Return the weighted terms of the loss, by the part of the item side that each is about.

    Args:
      queries: float32 [targets, width], or [targets, interests, width].
      vectors: vectors of the candidates.
      ranking: the candidates.
      weights: float32 [targets], how much each counts.
    """
    config, vectors = ranking.config, vectors.per_code()
    plain, likeness = queries[..., :-1], vectors.likeness  # without the 1 for appeal, which both towers alone lack
    if likeness is not None:
        plain, interest = plain[..., : -likeness.shape[-1]], plain[..., -likeness.shape[-1] :]
    is_concat = config.structure == "gated" and config.gate == "concat"
    behaviour_query, meta_query = tf.split(plain, 2, axis=-1) if is_concat else (plain, plain)
    # Without an appeal the last dimension of the vectors is 0.
    served = (queries, vectors.vector) if config.has_appeal else (queries[..., :-1], vectors.vector[..., :-1])

    def content_side(query: tf.Tensor, meta: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Add the content term, which says part of what the meta tower would say without it."""
        if likeness is None:
            return query, meta
        beside = likeness if meta.shape.rank == 2 else tf.repeat(likeness[:, tf.newaxis], meta.shape[1], axis=1)
        return tf.concat([query, interest], axis=-1), tf.concat([meta, beside], axis=-1)

    def lifted(query: tf.Tensor, tower: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Add the appeal of `base_appeal` to what a tower says, if there is one."""
        if vectors.appeal is None:
            return query, tower
        appeal = (
            vectors.appeal if tower.shape.rank == 2 else tf.repeat(vectors.appeal[:, tf.newaxis], tower.shape[1], 1)
        )
        return with_appeal_factor(query), tf.concat([tower, appeal], axis=-1)

    parts, with_audience = [("item", *served, config.loss.item)], weights
    if config.structure == "gated":
        if not config.loss.towers_move_query:
            # Each tower follows the query space that the served vectors span. If both pulled at the query as well,
            # the weaker one would bend it.
            behaviour_query, meta_query = tf.stop_gradient(behaviour_query), tf.stop_gradient(meta_query)
        parts.append(("behaviour", behaviour_query, vectors.behaviour, config.loss.behaviour))
        parts.append(("meta", *content_side(meta_query, vectors.meta), config.loss.meta))
        if vectors.shares is not None and vectors.shares.audience is not None:
            parts.append(("audience", meta_query, vectors.audience, config.loss.audience))
            # A target without an audience has no audience vector that could be trained.
            shares = tf.gather(vectors.shares.audience[:, 0], ranking.candidates.own)
            with_audience = weights * tf.cast(shares > 0, tf.float32)
    elif config.structure == "base":  # both towers are trained on their own; their sum only serves
        parts = [
            ("behaviour", *lifted(plain, vectors.behaviour), config.loss.item),
            ("meta", *lifted(*content_side(plain, vectors.meta)), config.loss.item),
        ]
    terms = {
        name: weight * retrieval_loss(query, items, ranking, weights=with_audience if name == "audience" else weights)
        for name, query, items, weight in parts
        if weight
    }
    if ranking.share is None:
        return terms
    share = ranking.share(weights)
    return {name: share * term for name, term in terms.items()}


def retrieval_loss(queries: tf.Tensor, items: tf.Tensor, ranking: Ranking, *, weights: tf.Tensor) -> tf.Tensor:
    """Return the softmax cross-entropy of each target among the candidates, float32 scalar.

    Args:
      queries: float32 [targets, dim]; of interests [targets, interests, dim] each candidate is scored by the best.
      items: float32 [candidates, dim], or [candidates, codes, dim] of which `model.item_codes.pick` has its pick.
      ranking: the candidates.
      weights: float32 [targets].
    """
    ranked, codes = ranked_queries(queries, items, ranking, weights=weights), ranking.config.item_codes
    loss = softmax_loss(ranked, pick=codes.pick) if codes and items.shape.rank == 3 else softmax_loss(ranked)
    smoothing = ranking.config.loss.label_smoothing
    if not smoothing:
        return loss
    return loss + smoothing * lead_over_mean(ranked, pool_sizes=ranking.candidates.pool_sizes)


def ranked_queries(queries: tf.Tensor, items: tf.Tensor, ranking: Ranking, *, weights: tf.Tensor) -> RankedQueries:
    """Rank queries against items, sampled or full as `model.loss.softmax` asks; arguments as of `retrieval_loss`."""
    candidates, seen, queries = ranking.candidates, ranking.seen, queries / ranking.temperature
    if ranking.config.loss.softmax == "full":
        return RankedQueries.full(
            queries, items, targets=candidates.own, pool_sizes=candidates.pool_sizes, seen=seen, weights=weights
        )
    return RankedQueries.sampled(
        queries,
        items,
        query_items=tf.gather(candidates.rows, candidates.own),
        candidate_items=candidates.rows,
        seen=seen,
        log_q=candidates.log_q,
        weights=weights,
    )
