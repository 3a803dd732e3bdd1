"""Computes item vectors: behaviour tower, meta tower, gate, and the structure that joins them.

`structures.py` joins the vectors; `gate.py` and `appeal.py` read the posterior.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from recall.config.model import ModelConfig
from recall.core.arrays import Int64s
from recall.core.errors import ConfigError
from recall.data.features.table_encoder import EncodedColumn
from recall.data.features.vocabulary import OUT_OF_VOCABULARY
from recall.model.content_term.space import ContentSpace
from recall.model.content_term.term import ContentTerm, before_last
from recall.model.fusion import content_input
from recall.model.layers.features import EmbeddingTable, FeatureInput, Features, dense_stack
from recall.model.layers.gathering import gather_rows
from recall.model.towers.appeal import Appeal, with_appeal
from recall.model.towers.audience import Audience, AudienceGate, AudienceTower, Shares
from recall.model.towers.evidence import TOTALS, posterior_features, posterior_width
from recall.model.towers.gate import Gate, gate_features, learned_feature
from recall.model.towers.structures import JoinInputs, join, join_each_code, scale


class ItemVectors(NamedTuple):
    """Hold the vectors of items at a moment."""

    vector: tf.Tensor  # [items, width], the item vector; the last dimension is the appeal
    behaviour: tf.Tensor | None  # [items, dim], of unit length with `similarity: cosine`
    meta: tf.Tensor | None  # [items, dim], likewise
    shares: Shares | None  # of the gate
    # With `model.item_codes`: `meta` is the mean of an item's meta vectors; these are the vectors of each code.
    vectors: tf.Tensor | None = None  # [items, codes, width]
    metas: tf.Tensor | None = None  # [items, codes, dim]
    audience: tf.Tensor | None = None  # [items, dim], where the data has audiences
    likeness: tf.Tensor | None = None  # [items, content dim], weighted content vectors: a part of `vector`
    appeal: tf.Tensor | None = None  # [items, 1] of `model.base_appeal`, with which each tower is trained

    def first(self, count: tf.Tensor) -> ItemVectors:
        """Return the vectors of the first `count` items alone."""

        def cut(part: tf.Tensor | None) -> tf.Tensor | None:
            return None if part is None else part[:count]

        parts = {name: cut(part) for name, part in self._asdict().items() if name != "shares"}
        return ItemVectors(**parts, shares=None if self.shares is None else Shares(*map(cut, self.shares)))

    def per_code(self) -> ItemVectors:
        """Return the vectors of each code in the place of `vector` and `meta`, if there are several per item."""
        return self if self.vectors is None else self._replace(vector=self.vectors, meta=self.metas)

    @property
    def share(self) -> tf.Tensor | None:
        """Return the behaviour share of the gate, the mean over its dimensions, [items]; None without a gate."""
        return None if self.shares is None else tf.reduce_mean(self.shares.behaviour, axis=-1)

    def share_or_nan(self) -> tf.Tensor:
        """Return the behaviour shares, float32 [items]; NaN for a structure without a gate."""
        return self._or_nan(self.share)

    def audience_share_or_nan(self) -> tf.Tensor:
        """Return the audience shares, float32 [items]; NaN for a model without audiences."""
        audience = None if self.shares is None else self.shares.audience
        return self._or_nan(None if audience is None else tf.reduce_mean(audience, axis=-1))

    def _or_nan(self, values: tf.Tensor | None) -> tf.Tensor:
        return tf.fill(tf.shape(self.vector)[:1], float("nan")) if values is None else values


class ItemContent(NamedTuple):
    """Hold the parts of items that do not depend on the moment, computed once per distinct item of a batch."""

    identity: tf.Tensor | None  # [items, dim], the item id's embedding
    content: tf.Tensor | None  # [items, content], input of the meta tower: features concatenated or fused
    meta: tf.Tensor | None  # [items, dim], as in `ItemVectors`
    known: tf.Tensor  # bool [items], whether the id has a trained embedding; True if items have no id feature
    learned: tf.Tensor  # [items], `learned_feature` of the id; 0 if it is unknown or items have no id feature
    metas: tf.Tensor | None = None  # [items, codes, dim], as in `ItemVectors`
    space: tf.Tensor | None = None  # [items, content dim], vectors of the content term

    def at(self, places: tf.Tensor) -> ItemContent:
        """Gather the items at int32 [n] places; a place may occur several times."""
        return ItemContent(*(None if part is None else gather_rows(part, places) for part in self))


class TowerOutputs(NamedTuple):
    """Hold what item vectors are made of and no moment changes: one computation serves any number of moments."""

    known: tf.Tensor  # bool [items], as in `ItemContent`
    learned: tf.Tensor  # [items], likewise
    behaviour: tf.Tensor | None = None  # [items, dim], as in `ItemVectors`
    meta: tf.Tensor | None = None  # [items, dim], likewise
    metas: tf.Tensor | None = None  # [items, codes, dim], likewise
    space: tf.Tensor | None = None  # [items, content dim], as in `ItemContent`
    inputs: tf.Tensor | None = None  # [items, inputs] of the MLP of `single`, but for the posterior


class ItemSide(tf.keras.layers.Layer):
    """Compute item vectors, and the tokens that stand for items in histories and triggers.

    Structures (Content recall with multimodal information, Taobao Guangguang):
      gated: v = b + (1 - g) m; g b + (1 - g) m with `gate: sum`; [b, (1 - g) m] with `gate: concat`; and the
        posterior's appeal. A behaviour vector without a trained id still has the author and other features. Where the
        data has audiences, the gate divides one among three, and (1 - g) m becomes h a + (1 - g - h) m.
      base: v = b + m where the id is known, m where it is not; and the posterior's appeal with `base_appeal`, twice
        where both are added.
      single: one MLP over all features and the posterior.
      behaviour_only, meta_only: b, m.
    With `similarity: cosine` b, m and every sum are scaled to unit length; with `dot` their lengths are learned. Every
    item vector ends in one more dimension, the appeal or 0, which is added to its score for every query. The meta tower
    (or the MLP of `single`) reads the output of `model.fusion`. With `model.item_codes` it reads several vectors per
    item; each m gives a v, and the best of them counts for a query.

    Args:
      columns: encoded columns of the items.
      id_name: name of the column with the item id; None if it is no behaviour feature.
      config: settings of the model.
      prior_ctr: CTR of an item without exposures.
      prior_strength: pseudo-exposures of the prior; None unless each item has a prior CTR of its own
        (`data.posterior.content_prior`).
      half_lives: half-lives of the fresh evidence in posteriors.
      has_audience: whether the data has audiences; the structure `gated` reads them, others do not.
      id_clicks: int64 [codes], training clicks by code of the item id.
      modalities: feature -> modality.
      space: content space of the catalogue; None without a content term.

    Raises:
      ConfigError: items have neither an id feature nor meta features, so that a history has no tokens.
    """

    def __init__(
        self,
        columns: Sequence[EncodedColumn],
        *,
        id_name: str | None,
        config: ModelConfig,
        prior_ctr: float,
        prior_strength: float | None = None,
        half_lives: int = 0,
        has_audience: bool = False,
        id_clicks: Int64s | None = None,
        modalities: Mapping[str, str] | None = None,
        space: ContentSpace | None = None,
    ) -> None:
        super().__init__(name="item")
        if id_name is None and not any(column.tower == "meta" for column in columns):
            raise ConfigError(
                "features: found neither the item id under `behaviour` nor anything under `meta`; clicked items enter "
                "the query side by these, so list at least one of them"
            )
        self.config, self.prior_ctr, self.id_name = config, prior_ctr, id_name
        structure = config.structure
        dim, hidden, dropout = config.dim, config.hidden, config.dropout
        self.has_audience = has_audience and structure == "gated"
        self.prior_strength, self._evidence_width = prior_strength, posterior_width(half_lives)
        self.posterior_width = self._evidence_width + (dim + 1 if self.has_audience else 0)
        by_name = {column.name: column for column in columns}
        context = [column for column in columns if column.tower == "behaviour" and column.name != id_name]
        meta = [column for column in columns if column.tower == "meta"]
        self.identity = EmbeddingTable(by_name[id_name].size, dim, name="item_id", of=id_name) if id_name else None
        clicks = np.zeros(by_name[id_name].size if id_name else 1) if id_clicks is None else id_clicks
        self.id_clicks = tf.Variable(clicks.astype(np.float32), trainable=False, name="id_clicks")
        self.context = FeatureInput(context, dim=dim, name="context") if context and structure != "meta_only" else None
        self.content = content_input(meta, modalities=modalities or {}, config=config) if meta else None
        # Only layers that the structure uses: an unused layer would have no weights to save or to train.
        if structure in ("gated", "base", "behaviour_only"):
            self.behaviour_stack = dense_stack(
                hidden, dim, dropout=dropout, name="behaviour", starts_at_zero=config.shared_space
            )
        if meta:
            self.meta_stack = dense_stack(hidden, dim, dropout=dropout, name="meta")
            self.meta_shortcut = tf.keras.layers.Dense(dim, name="meta_shortcut")
        if meta and not config.shared_space:
            self.token_projection = tf.keras.layers.Dense(dim, name="token")
        if structure == "single":
            self.single_stack = dense_stack(hidden, dim, dropout=dropout, name="single")
        if structure == "gated":
            width = dim if config.gate_shape == "per_dimension" else 1
            self.gate = Gate(width, hidden=config.gate_hidden, monotone=config.gate_monotone, half_lives=half_lives)
        self.appeal = Appeal(hidden=config.gate_hidden) if config.has_appeal else None
        if self.has_audience:
            self.audience_tower = AudienceTower(dim, hidden=hidden, dropout=dropout)
            self.audience_gate = AudienceGate(hidden=config.gate_hidden, monotone=config.audience_monotone)
        self.content_term = None
        if space is not None:
            self.content_term = ContentTerm(space, temperature=config.start_temperature)

    @property
    def width(self) -> int:
        """Return the length of an item vector."""
        return (2 if self.is_concat else 1) * self.config.dim + self.content_dim + 1

    @property
    def content_dim(self) -> int:
        """Return the number of dimensions of the content term; 0 without."""
        return self.content_term.dim if self.content_term is not None else 0

    @property
    def new_posterior(self) -> tf.Tensor:
        """Return the posterior of an item without exposures, float32 [width]."""
        return tf.constant([0.0, 0.0, self.prior_ctr, 0.0] + [0.0] * (self.posterior_width - TOTALS))

    def as_new(self, posterior: tf.Tensor) -> tf.Tensor:
        """Replace posteriors by those of items without exposures: float32 [items, width] -> [items, width] or [width].

        Where items have their own prior CTRs, a new item has one, too. It follows from the smoothed CTR:
        (ctr (exposures + strength) - clicks) / strength.
        """
        if self.prior_strength is None:
            return self.new_posterior
        exposures, clicks, ctr, *others = tf.unstack(posterior, axis=-1)
        prior_ctr = ctr + (ctr * exposures - clicks) / self.prior_strength
        none = tf.zeros_like(ctr)
        # At a million exposures float32 gives the prior to about 1e-3 of its value; clipping keeps it in (0, 1).
        return tf.stack([none, none, tf.clip_by_value(prior_ctr, 1e-6, 1 - 1e-6), *[none] * len(others)], axis=-1)

    @property
    def is_concat(self) -> bool:
        """Tell whether the item vector is [b, (1 - g) m]."""
        return self.config.structure == "gated" and self.config.gate == "concat"

    @property
    def meta_variables(self) -> list[tf.Variable]:
        """List the trainable variables of the meta tower and its input; empty without a meta tower."""
        if self.content is None:
            return []
        layers = (self.content, self.meta_stack, self.meta_shortcut)
        return [variable for layer in layers for variable in layer.trainable_variables]

    def content_of(self, features: Features, *, training: bool = False) -> ItemContent:
        """Compute the parts of items that do not depend on the moment.

        Args:
          features: features of `FeatureTable.gather` for [items] rows.
          training: whether dropout is on.
        """
        content = self.content.fused(features, training=training).vector if self.content is not None else None
        space = self.content_term.vectors(features) if self.content_term is not None else None
        meta = self._meta(content, training=training) if content is not None else None
        metas = None
        if meta is not None and meta.shape.rank == 3:  # [items, codes, dim]
            are_needed = self.config.item_codes is not None and self.config.item_codes.are_trained_apart
            metas, meta = meta if are_needed else None, self._scale(tf.reduce_mean(meta, axis=1))
        if self.identity is None or self.id_name is None:
            count = tf.shape(next(iter(features.values())))[0]
            known, learned = tf.ones([count], tf.bool), tf.zeros([count])
            return ItemContent(None, content, meta, known=known, learned=learned, metas=metas, space=space)
        codes = features[self.id_name]
        known = codes > OUT_OF_VOCABULARY
        learned = tf.where(known, learned_feature(tf.gather(self.id_clicks, codes)), 0.0)
        return ItemContent(self.identity(codes), content, meta, known=known, learned=learned, metas=metas, space=space)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Return the names of the modalities that the fusion weighs; empty without weights."""
        return self.content.modalities if self.content is not None else ()

    def modality_weights(self, features: Features) -> tf.Tensor | None:
        """Return the weights of `modalities` in the meta vectors of items.

        Args:
          features: features of `FeatureTable.gather` for [items] rows.

        Returns:
          float32 [items, modalities], 0 where missing, else they sum to 1 per item; None without weights.
        """
        return self.content.fused(features).weights if self.content is not None else None

    def tokens(self, content: ItemContent) -> tf.Tensor:
        """Return the tokens of items in histories and triggers: id embedding + meta vector, float32 [items, dim].

        The meta vector is projected, except with `shared_space`, where both are the vectors of the item side. With a
        content term the item's vector for it follows: float32 [items, dim + content dim].
        """
        parts = [content.identity] if content.identity is not None else []
        if content.meta is not None:
            parts.append(content.meta if self.config.shared_space else self.token_projection(content.meta))
        tokens = tf.add_n(parts)
        return tokens if content.space is None else tf.concat([tokens, content.space], axis=-1)

    def hide_ids(self, content: ItemContent, hidden: tf.Tensor) -> ItemContent:
        """Replace the id embedding by the out-of-vocabulary row where `hidden`, bool [items], is true."""
        if self.identity is None:
            return content
        unknown = self.identity(tf.constant([OUT_OF_VOCABULARY]))  # [1, dim]
        identity = tf.where(hidden[:, tf.newaxis], unknown, content.identity)
        learned = tf.where(hidden, 0.0, content.learned)
        return content._replace(identity=identity, known=content.known & ~hidden, learned=learned)

    def vectors(
        self, content: ItemContent, features: Features, posterior: tf.Tensor, *, training: bool = False
    ) -> ItemVectors:
        """Compute item vectors at a moment.

        Args:
          content: content of [items] items.
          features: features of the same items, of which the other behaviour features (author, ...) are read.
          posterior: float32 [items, width]: `Posterior.stacked` as of the moment; with audiences `Audience.columns`
            of the moment behind it.
          training: whether dropout is on.
        """
        return self.at_moment(self.towers(content, features, training=training), posterior, training=training)

    def towers(self, content: ItemContent, features: Features, *, training: bool = False) -> TowerOutputs:
        """Compute what item vectors are made of and no moment changes; arguments as of `vectors`."""
        structure = self.config.structure
        context = self.context(features) if self.context else None
        known, learned = content.known, content.learned
        if structure == "single":
            parts = [part for part in (content.identity, context, content.content) if part is not None]
            return TowerOutputs(known, learned, space=content.space, inputs=tf.concat(parts, axis=-1))
        behaviour = None
        if structure != "meta_only":
            behaviour = self._behaviour(content.identity, context, training=training)
        if structure == "behaviour_only":
            return TowerOutputs(known, learned, behaviour=behaviour)
        return TowerOutputs(
            known, learned, behaviour=behaviour, meta=content.meta, metas=content.metas, space=content.space
        )

    def at_moment(self, towers: TowerOutputs, posterior: tf.Tensor, *, training: bool = False) -> ItemVectors:
        """Compute item vectors from the towers' outputs and the posterior, float32 [items, width], of a moment."""
        evidence = posterior[:, : self._evidence_width]
        inputs = posterior_features(evidence, prior_ctr=self.prior_ctr)  # [items, features]
        if towers.inputs is not None:
            vector = self._scale(self.single_stack(tf.concat([towers.inputs, inputs], axis=-1), training=training))
            return self._with_likeness(ItemVectors(with_appeal(vector), None, None, None), towers)
        behaviour, meta, is_gated = towers.behaviour, towers.meta, self.config.structure == "gated"
        if meta is None:
            return ItemVectors(with_appeal(behaviour), behaviour, None, None)
        shares = self._shares(gate_features(inputs, towers.learned), posterior) if is_gated else None
        appeal = self.appeal(inputs, towers.known) if self.appeal else None
        audience = None
        if self.has_audience:
            audience = self._scale(self.audience_tower(self._audience(posterior), training=training))
        beside = JoinInputs(behaviour, shares, appeal, towers.known, audience)
        result = ItemVectors(join(meta, beside, config=self.config), behaviour, meta, shares, audience=audience)
        if not is_gated:
            result = result._replace(appeal=appeal)
        if towers.metas is not None:
            result = result._replace(
                vectors=join_each_code(towers.metas, beside, config=self.config), metas=towers.metas
            )
        return self._with_likeness(result, towers)

    def _audience(self, posterior: tf.Tensor) -> Audience:
        return Audience.of_columns(posterior[:, self._evidence_width :])

    def _shares(self, features: tf.Tensor, posterior: tf.Tensor) -> Shares:
        """Divide items among behaviour, content and audience, from `gate_features` and the audience of a posterior."""
        if self.config.gate_blind:
            features = tf.zeros_like(features)
        if not self.has_audience:
            return Shares.of_two(self.gate(features))
        audience = self._audience(posterior)
        seen = audience
        if self.config.gate_blind:  # that there is an audience at all is seen: without one there is nothing to trust
            seen = audience._replace(size=tf.zeros_like(audience.size))
        return Shares.of_three(self.gate.logits(features), self.audience_gate(features, seen), audience.size)

    def served(self, vectors: ItemVectors) -> tf.Tensor:
        """Return the vectors for an index: float32 [items, width], or [items, codes, width] with several per item."""
        codes = self.config.item_codes
        return (vectors.per_code() if codes and codes.are_served_apart else vectors).vector

    def _with_likeness(self, result: ItemVectors, towers: TowerOutputs) -> ItemVectors:
        """Put the weighted content vectors into the item vectors, before the appeal."""
        if self.content_term is None:
            return result
        left = None if result.shares is None else tf.reduce_mean(result.shares.content, axis=-1, keepdims=True)
        likeness = self.content_term.weighted(towers.space, left)
        result = result._replace(vector=before_last(result.vector, likeness), likeness=likeness)
        return result if result.vectors is None else result._replace(vectors=before_last(result.vectors, likeness))

    def _behaviour(self, identity: tf.Tensor | None, context: tf.Tensor | None, *, training: bool) -> tf.Tensor:
        parts = [part for part in (identity, context) if part is not None]
        output = self.behaviour_stack(tf.concat(parts, axis=-1), training=training)  # [items, dim]
        if identity is not None:
            output += identity
        return self._scale(output)

    def _meta(self, content: tf.Tensor, *, training: bool) -> tf.Tensor:
        return self._scale(self.meta_stack(content, training=training) + self.meta_shortcut(content))

    def _scale(self, vectors: tf.Tensor) -> tf.Tensor:
        return scale(vectors, self.config)
