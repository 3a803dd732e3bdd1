"""The retrieval loss of a batch: queries against item vectors, as the structure and `model.loss` ask for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import tensorflow as tf

from recall.config.model import ModelConfig
from recall.model.batches.targets import Candidates
from recall.model.objectives.code_losses import code_full_softmax, code_softmax
from recall.model.objectives.interest_losses import best_interest_full_softmax, best_interest_softmax
from recall.model.objectives.softmax import Seen, full_softmax, lead_over_mean, sampled_softmax
from recall.model.towers.item import ItemVectors


class Ranking(NamedTuple):
    """What queries are trained to rank, and how scores become logits."""

    candidates: Candidates
    seen: Seen | None  # of the queries' users, where the model masks it
    temperature: tf.Tensor  # float32 scalar, what inner products are divided by
    config: ModelConfig
    # Of several workers: the part of the loss that queries of some weights, [targets], have; a worker alone has all.
    share: Callable[[tf.Tensor], tf.Tensor] | None = None


def retrieval_terms(
    queries: tf.Tensor, vectors: ItemVectors, ranking: Ranking, *, weights: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Weighted terms of the loss, by the part of the item side that each is about.

    Args:
      queries: float32 [targets, width], or [targets, interests, width].
      vectors: of the candidates.
      ranking: the candidates.
      weights: float32 [targets], how much each counts.
    """
    config, vectors = ranking.config, vectors.apart()
    plain = queries[..., :-1]  # without the 1 for appeal, which both towers alone lack
    is_concat = config.structure == "gated" and config.gate == "concat"
    behaviour_query, meta_query = tf.split(plain, 2, axis=-1) if is_concat else (plain, plain)
    served = (queries, vectors.vector) if config.has_appeal else (plain, vectors.vector[..., :-1])  # which is 0
    parts = [("item", *served, config.loss.item)]
    if config.structure == "gated":
        if not config.loss.towers_move_query:
            # Each tower follows the query space that the served vectors span. If both pulled at the query as well,
            # the weaker one would bend it.
            behaviour_query, meta_query = tf.stop_gradient(behaviour_query), tf.stop_gradient(meta_query)
        parts.append(("behaviour", behaviour_query, vectors.behaviour, config.loss.behaviour))
        parts.append(("meta", meta_query, vectors.meta, config.loss.meta))
    elif config.structure == "base":  # both towers are trained on their own; their sum only serves
        parts = [
            ("behaviour", plain, vectors.behaviour, config.loss.item),
            ("meta", plain, vectors.meta, config.loss.item),
        ]
    terms = {
        name: weight * retrieval_loss(query, items, ranking, weights=weights)
        for name, query, items, weight in parts
        if weight
    }
    if ranking.share is None:
        return terms
    share = ranking.share(weights)
    return {name: share * term for name, term in terms.items()}


def retrieval_loss(queries: tf.Tensor, items: tf.Tensor, ranking: Ranking, *, weights: tf.Tensor) -> tf.Tensor:
    """Softmax cross-entropy of each target among the candidates, float32 scalar.

    Args:
      queries: float32 [targets, dim]; of interests [targets, interests, dim] each candidate is scored by the best.
      items: float32 [candidates, dim], or [candidates, codes, dim] of which `model.item_codes.pick` has its pick.
      ranking: the candidates.
      weights: float32 [targets].
    """
    candidates, seen, queries = ranking.candidates, ranking.seen, queries / ranking.temperature
    sampled, full = sampled_softmax, full_softmax
    if queries.shape.rank == 3:
        sampled, full = best_interest_softmax, best_interest_full_softmax
    elif (codes := ranking.config.item_codes) and items.shape.rank == 3:
        sampled, full = (partial(softmax, pick=codes.pick) for softmax in (code_softmax, code_full_softmax))
    if ranking.config.loss.softmax == "full":
        places = {"targets": candidates.own, "pool_sizes": candidates.pool_sizes, "weights": weights}
        loss, smoothing = full(queries, items, seen=seen, **places), ranking.config.loss.label_smoothing
        return loss + smoothing * lead_over_mean(queries, items, **places) if smoothing else loss
    return sampled(
        queries,
        items,
        query_items=tf.gather(candidates.rows, candidates.own),
        candidate_items=candidates.rows,
        seen=seen,
        log_q=candidates.log_q,
        weights=weights,
    )
