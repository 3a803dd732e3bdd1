"""Encodes raw features with TensorFlow operations, as `TableEncoder` does: raw columns -> inputs of the towers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from recall.config.features import NumberFeature
from recall.data.features.encoder import FeatureEncoder
from recall.data.features.encoders import BucketEncoder, EmbeddingEncoder, NumberEncoder
from recall.data.features.named_values import TagsEncoder, ValueEncoder
from recall.data.features.table_encoder import TableEncoder
from recall.data.features.vocabulary import FIRST_CODE, MISSING, OUT_OF_VOCABULARY, Vocabulary
from recall.model.layers.features import Features


class GraphEncoder(tf.Module):
    """Encode raw features by name, in the forms that JSON has.

    id and category: string [batch], "" is missing. tags: string [batch, tags], one tag each, padded with "". number:
    float64 [batch], NaN and infinities are missing. embedding: float32 [batch, dim], zeros or NaN are missing.

    Args:
      encoder: encoder of the trained model.
      id_column: raw column of the user ids, where a missing value is out of vocabulary, as unknown users are.
    """

    def __init__(self, encoder: TableEncoder, *, id_column: str | None = None) -> None:
        super().__init__()
        self._encoders = [fitted for _, fitted in encoder.features]
        self._missing = {
            fitted.feature.name: OUT_OF_VOCABULARY if fitted.feature.source == id_column else MISSING
            for fitted in self._encoders
        }
        self._tables = {
            fitted.feature.name: _lookup(fitted.vocabulary)
            for fitted in self._encoders
            if isinstance(fitted, ValueEncoder | TagsEncoder)
        }

    @property
    def inputs(self) -> dict[str, tf.TensorSpec]:
        """Describe the input of each feature, by name."""
        return {fitted.feature.name: _spec(fitted) for fitted in self._encoders}

    def __call__(self, raw: Mapping[str, tf.Tensor]) -> Features:
        """Encode raw features by name to columns by name, of the shapes that `FeatureTable` describes."""
        encoded: Features = {}
        for fitted in self._encoders:
            arrays = self._encode(fitted, raw[fitted.feature.name])
            encoded |= {output.name: array for output, array in zip(fitted.outputs, arrays, strict=True)}
        return encoded

    def _encode(self, fitted: FeatureEncoder, raw: tf.Tensor) -> list[tf.Tensor]:
        """Encode one feature to its output columns."""
        name = fitted.feature.name
        match fitted:
            case ValueEncoder():
                text = _stripped(raw)
                return [tf.where(text == "", self._missing[name], self._tables[name].lookup(text))]
            case TagsEncoder():
                text = _stripped(raw)
                kept = _first_of_each(text, limit=fitted.feature.max_tags)
                return [tf.where(kept, self._tables[name].lookup(text), MISSING)]
            case NumberEncoder():
                values = _numbers(fitted.feature, raw)
                missing = tf.math.is_nan(values)
                scale = fitted.scale
                if scale.low is not None and scale.high is not None:
                    values = tf.clip_by_value(values, scale.low, scale.high)
                scaled = tf.where(missing, tf.zeros_like(values), (values - scale.mean) / scale.std)
                return [tf.stack([tf.cast(scaled, tf.float32), tf.cast(missing, tf.float32)], axis=1)]
            case BucketEncoder():
                values = _numbers(fitted.feature, raw)
                edges = tf.constant(fitted.edges, tf.float64)
                # A value on an edge belongs to the bucket above.
                buckets = tf.reduce_sum(tf.cast(values[:, tf.newaxis] >= edges, tf.int32), axis=1)
                return [tf.where(tf.math.is_nan(values), MISSING, FIRST_CODE + buckets)]
            case EmbeddingEncoder():
                finite = tf.reduce_all(tf.math.is_finite(raw), axis=1)
                present = finite & tf.reduce_any(raw != 0, axis=1)  # [batch]
                vectors = tf.where(present[:, tf.newaxis], raw, tf.zeros_like(raw))
                if fitted.longest is not None:
                    vectors = _shortened(vectors, fitted.longest)
                missing = tf.cast(~present, tf.float32)[:, tf.newaxis]
                whole = [tf.concat([vectors, missing], axis=1)] if fitted.feature.uses_vector else []
                return [*whole, *_clusters(fitted, vectors, present)]
        raise TypeError(f"{type(fitted).__name__} has no TensorFlow form")


def _spec(fitted: FeatureEncoder) -> tf.TensorSpec:
    """Describe the raw input of a feature."""
    name = fitted.feature.name
    match fitted:
        case ValueEncoder():
            return tf.TensorSpec([None], tf.string, name=name)
        case TagsEncoder():
            return tf.TensorSpec([None, None], tf.string, name=name)
        case EmbeddingEncoder():
            return tf.TensorSpec([None, fitted.dim], tf.float32, name=name)
    return tf.TensorSpec([None], tf.float64, name=name)


def _lookup(vocabulary: Vocabulary) -> tf.lookup.StaticHashTable:
    """Build the table from values to codes."""
    keys = tf.constant(vocabulary.values.to_pylist(), tf.string)
    codes = tf.range(FIRST_CODE, vocabulary.size, dtype=tf.int32)
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, codes), default_value=OUT_OF_VOCABULARY)


def _stripped(text: tf.Tensor) -> tf.Tensor:
    """Remove white space at both ends of texts."""
    return tf.strings.regex_replace(text, r"^[\s\pZ]+|[\s\pZ]+$", "")


def _first_of_each(tags: tf.Tensor, *, limit: int) -> tf.Tensor:
    """Mark tags, string [batch, tags], that are not empty, not repeated, and among the first `limit` of their row."""
    before = tf.range(tf.shape(tags)[1])[:, tf.newaxis] > tf.range(tf.shape(tags)[1])  # [tags, tags]
    same = (tags[:, :, tf.newaxis] == tags[:, tf.newaxis, :]) & before  # [batch, tags, tags]
    kept = (tags != "") & ~tf.reduce_any(same, axis=2)
    return kept & (tf.cumsum(tf.cast(kept, tf.int32), axis=1) <= limit)


def _numbers(feature: NumberFeature, raw: tf.Tensor) -> tf.Tensor:
    """Read numbers, float64 [batch], NaN where missing; signed log1p where the feature asks for it."""
    values = tf.where(tf.math.is_finite(raw), raw, tf.constant(np.nan, tf.float64))
    return tf.sign(values) * tf.math.log1p(tf.abs(values)) if feature.log else values


def _shortened(vectors: tf.Tensor, longest: float) -> tf.Tensor:
    """Shorten vectors that are longer than `longest`, as `embeddings.shortened` does; float32 [batch, dim]."""
    norms = tf.norm(tf.cast(vectors, tf.float64), axis=1, keepdims=True)
    share = tf.where(norms > longest * (1 + 1e-5), longest / norms, tf.ones_like(norms))
    return tf.cast(tf.cast(vectors, tf.float64) * share, tf.float32)


def _clusters(fitted: EmbeddingEncoder, vectors: tf.Tensor, present: tf.Tensor) -> list[tf.Tensor]:
    """Assign vectors to clusters as `HierarchicalKMeans.assign` does: codes of each level, int32 [batch]."""
    if fitted.clusters is None:
        return []
    codes, above = [], 1
    points = tf.cast(vectors, tf.float64)  # as in `assign`, so that a vector gets the same node
    parents = tf.zeros_like(present, tf.int32)
    for total, centroids in zip(fitted.clusters.levels, fitted.clusters.centroids, strict=True):
        exists = np.isfinite(centroids[:, :1])
        places = np.where(exists, centroids, 0).astype(np.float64).reshape(above, total // above, -1)
        half_norms = np.where(exists[:, 0], np.nansum(centroids.astype(np.float64) ** 2, axis=1) / 2, np.inf)
        children = tf.gather(tf.constant(places), parents)  # [batch, children, dim]
        products = tf.linalg.matvec(children, points)  # [batch, children]
        distances = tf.gather(tf.constant(half_norms.reshape(above, -1)), parents) - products
        parents = parents * (total // above) + tf.argmin(distances, axis=1, output_type=tf.int32)
        codes.append(tf.where(present, FIRST_CODE + parents, MISSING))
        above = total
    return codes
