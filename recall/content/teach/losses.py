"""Computes the losses of content vectors: contrast of modalities, of clicks and of common tags, and tag prediction.

Keys of earlier batches are further negatives: `KeyQueue` holds them, and `follow` moves the encoder that makes them.
"""

from __future__ import annotations

import tensorflow as tf

from recall.model.batches.seen import Seen
from recall.model.objectives.ranked_queries import RankedQueries
from recall.model.objectives.softmax import softmax_loss


def modality_contrast(
    queries: tf.Tensor,
    keys: tf.Tensor,
    *,
    items: tf.Tensor,
    temperature: tf.Tensor,
    further: tuple[tf.Tensor, tf.Tensor] | None = None,
    weights: tf.Tensor | None = None,
) -> tf.Tensor:
    """Compute InfoNCE in one direction: a modality of an item finds another modality of the same item.

    mean_i -log exp(q_i . k_i / t) / sum_j exp(q_i . k_j / t) (van den Oord et al., 2018, eq. 4; both directions
    together are CLIP's loss, Radford et al., ICML 2021). With `further` keys the queue of MoCo (He et al., CVPR
    2020, eq. 1). Departures: the keys of the batch are negatives beside the keys of the queue, and a key of the same
    item, which the queue of a small catalogue holds, is no negative.

    Args:
      queries: float32 [rows, dim], of unit length.
      keys: float32 [rows, dim], likewise, key i of the same item as query i.
      items: int [rows].
      temperature: scalar > 0.
      further: keys float32 [more, dim] and their items int [more].
      weights: float32 [rows], of a weighted mean; default: all one.

    Returns:
      float32 scalar; 0 without rows.
    """
    key_items = items
    if further is not None:
        keys = tf.concat([keys, further[0]], axis=0)  # [rows + more, dim]
        key_items = tf.concat([items, further[1]], axis=0)  # [rows + more]

    def loss() -> tf.Tensor:
        return softmax_loss(
            RankedQueries.sampled(
                queries / temperature, keys, query_items=items, candidate_items=key_items, weights=weights
            )
        )

    return tf.cond(tf.size(items) > 0, loss, lambda: tf.constant(0.0))


def agreement_weights(left: tf.Tensor, right: tf.Tensor, *, items: tf.Tensor, strength: float) -> tf.Tensor:
    """Weigh items by how well their two modalities agree.

    1 - strength * (1 - max(0, 2 r - 1)), where r is the share of the batch's other items whose right side is less
    similar to the left one, averaged over both directions: 1/2 for unrelated sides, 1 for sides that are most
    similar to each other. A network fits clean pairs first, so that pairs which still disagree after a warm-up are
    suspect: Huang et al., "Learning with Noisy Correspondence for Cross-modal Matching" (NeurIPS 2021), who split the
    losses with a mixture model. Departure: the weight by rank needs no fit and does not depend on the temperature.

    Args:
      left: float32 [rows, dim], of unit length.
      right: float32 [rows, dim], likewise; row i is of the same item.
      items: int [rows]; the same item twice is compared with neither.
      strength: in [0, 1].

    Returns:
      float32 [rows], in [1 - strength, 1], without gradient.
    """
    similarity = tf.matmul(left, right, transpose_b=True)  # [rows, rows]
    own = tf.linalg.diag_part(similarity)  # [rows]
    is_other = items[:, tf.newaxis] != items[tf.newaxis, :]  # [rows, rows]
    others = tf.reduce_sum(tf.cast(is_other, tf.float32), axis=1)  # [rows], of rows and columns alike
    less = [
        tf.reduce_sum(tf.cast(is_other & (similarity < own[:, tf.newaxis]), tf.float32), axis=1),
        tf.reduce_sum(tf.cast(is_other & (similarity < own[tf.newaxis, :]), tf.float32), axis=0),
    ]
    share = tf.where(others > 0, tf.math.divide_no_nan(less[0] + less[1], 2 * others), 1.0)  # [rows]
    return tf.stop_gradient(1 - strength * (1 - tf.nn.relu(2 * share - 1)))


def crowd_contrast(
    before: tf.Tensor,
    after: tf.Tensor,
    *,
    items_before: tf.Tensor,
    items_after: tf.Tensor,
    log_q: tf.Tensor,
    temperature: tf.Tensor,
) -> tf.Tensor:
    """Compute InfoNCE of an item and the same user's next item, corrected for the popularity of the negatives.

    The sampled softmax of Yi et al. (RecSys 2019, eq. 3) with items on both sides. With the whole log_q the cosines
    learn log p(next | item), in which popular items are near to all. With none they learn log p(next | item) / p(next):
    a batch holds popular items as often as negatives as they are next items (as in skip-gram: Levy & Goldberg, NeurIPS
    2014). Other users' next items are the negatives, except the item itself and its own next item.

    Args:
      before: float32 [pairs, dim], of unit length.
      after: float32 [pairs, dim], likewise.
      items_before: int [pairs].
      items_after: int [pairs].
      log_q: float32 [pairs], subtracted from the logits of each next item; a common constant changes nothing.
      temperature: scalar > 0.

    Returns:
      float32 scalar.
    """
    distinct, place = tf.unique(tf.concat([items_before, items_after], axis=0))
    count = tf.shape(items_before)[0]
    return softmax_loss(
        RankedQueries.sampled(
            before / temperature,
            after,
            query_items=items_after,
            candidate_items=items_after,
            seen=Seen(place[:count, tf.newaxis], tf.size(distinct), place[count:]),
            log_q=log_q,
        )
    )


def shared_tags_contrast(
    vectors: tf.Tensor, overlap: tf.Tensor, *, items: tf.Tensor, temperature: tf.Tensor
) -> tf.Tensor:
    """Compute the supervised contrastive loss: items that share tags find each other.

    mean_i sum_p w_ip -log exp(z_i . z_p / t) / sum_{a != i} exp(z_i . z_a / t) over items with positives
    (Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, eq. 2, L_out). Departures: items have several
    labels, so that w_ip is not 1 / |P(i)| but the overlap of their tags, scaled to sum 1: with the cosine of TF-IDF
    weights two items that share a rare tag pull more than two that share a common one. And an item occurs once, not
    in two augmented views.

    Args:
      vectors: float32 [rows, dim], of unit length.
      overlap: float32 [rows, rows], >= 0, overlap of the tags of two items; 0 without a common tag.
      items: int [rows]; the same item twice is neither positive nor negative.
      temperature: scalar > 0.

    Returns:
      float32 scalar; 0 if no two items share a tag.
    """
    is_other = items[:, tf.newaxis] != items[tf.newaxis, :]  # [rows, rows]
    overlap = tf.where(is_other, overlap, 0.0)  # [rows, rows]
    total = tf.reduce_sum(overlap, axis=1, keepdims=True)  # [rows, 1]
    logits = tf.matmul(vectors, vectors, transpose_b=True) / temperature  # [rows, rows]
    log_share = logits - tf.reduce_logsumexp(tf.where(is_other, logits, logits.dtype.min), axis=1, keepdims=True)
    loss = -tf.reduce_sum(tf.math.divide_no_nan(overlap, total) * log_share, axis=1)  # [rows]
    return tf.math.divide_no_nan(tf.reduce_sum(loss), tf.math.count_nonzero(total > 0, dtype=tf.float32))


def tag_cross_entropy(logits: tf.Tensor, tags: tf.Tensor) -> tf.Tensor:
    """Compute the softmax cross-entropy over tags with the items' TF-IDF weights as the target distribution.

    Mahajan et al., "Exploring the Limits of Weakly Supervised Pretraining" (ECCV 2018, section 2.2), give each of
    an image's k hashtags 1/k. Departure: a tag counts by its TF-IDF weight.

    Args:
      logits: float32 [rows, tags].
      tags: float32 [rows, tags], of sum 1; zeros where an item has no tag, which then does not count.

    Returns:
      float32 scalar; 0 if no item has a tag.
    """
    loss = -tf.reduce_sum(tags * tf.nn.log_softmax(logits), axis=1)  # [rows]
    has_tag = tf.reduce_any(tags > 0, axis=1)  # [rows]
    return tf.math.divide_no_nan(tf.reduce_sum(loss), tf.math.count_nonzero(has_tag, dtype=tf.float32))


class KeyQueue(tf.Module):
    """Keep the last `size` keys of a modality and their items.

    This is the dictionary of He et al., "Momentum Contrast for Unsupervised Visual Representation Learning" (CVPR
    2020): new keys replace the oldest ones.
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.size = size
        self._keys = tf.Variable(tf.zeros([size, dim]), trainable=False, name="keys")
        self._items = tf.Variable(tf.fill([size], -1), trainable=False, name="items")
        self._pushed = tf.Variable(0, trainable=False, dtype=tf.int64, name="pushed")

    def entries(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Return keys float32 [kept, dim] and their items int32 [kept]; kept grows from 0 to `size`."""
        kept = tf.minimum(self._pushed, self.size)
        return self._keys[:kept], self._items[:kept]

    def push(self, keys: tf.Tensor, items: tf.Tensor) -> None:
        """Add keys float32 [rows, dim] of items int32 [rows]; rows <= size."""
        rows = tf.shape(items, tf.int64)[0]
        places = (self._pushed + tf.range(rows)) % self.size  # [rows]
        self._keys.scatter_update(tf.IndexedSlices(keys, places))
        self._items.scatter_update(tf.IndexedSlices(items, places))
        self._pushed.assign_add(rows)


def follow(slow: tf.keras.layers.Layer, fast: tf.keras.layers.Layer, *, momentum: float) -> None:
    """Move the weights of one layer towards another layer of the same shape: s <- m s + (1 - m) f (eq. 2)."""
    for behind, ahead in zip(slow.weights, fast.weights, strict=True):
        behind.assign_sub((1 - momentum) * (behind - ahead))
