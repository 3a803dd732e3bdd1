"""Predicts each item's CTR from its content, by models that saw neither the future nor the item.

An item that nobody was shown is smoothed towards the CTR of all events, the promising and the poor alike; its content
(and its author) often tells them apart. The prediction is taken in place of that prior CTR. Three rules make it mean
the same in training as on the day an item is published:

1. Point in time. From moment to moment models are fitted on what was known by then: again each time twice as many
   events are known, and when validation, test and serving begin.
2. Out of fold. An item's prior comes from a model that was fitted on other items. Else its own clicks would count
   twice, and a new item would look unlike anything in training.
3. First exposures. Learned from, and judged by, are the first exposures of items.

Predicting clicks of new ads from their attributes: Richardson et al., "Predicting clicks: estimating the click-through
rate for new ads", WWW 2007.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy import sparse

from recall.config.experiment import Config
from recall.config.features import Feature
from recall.core.arrays import AnyInts, Bools, Float32s, Float64s, Int64s
from recall.data.content_prior.first_exposures import FirstExposures
from recall.data.content_prior.item_priors import ItemPriors
from recall.data.content_prior.linear_ctr import ContentCtr, LogOdds, design_matrix, design_scale
from recall.data.features.table_encoder import TableEncoder
from recall.data.posterior import PosteriorHistory

_FOLDS = 4  # even: folds f and f ^ 1 share the models that choose their penalties
_INVERSE_PENALTIES = (0.003, 0.01, 0.03, 0.1)  # `C` of scikit-learn, the strongest penalty first
_FIRST_FIT, _GROWTH = 1_000, 2.0  # events
_LEAST_ITEMS, _LEAST_CLICKS = 50, 50  # below these a fold keeps the prior of all
_MOST_ITEMS = 50_000  # to fit on: with vectors of 384 numbers half a gigabyte
_ROWS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class ContentPrior:
    """Hold the priors of the catalogue's items at all moments, and the model for new items.

    Attributes:
      items: priors by item; None where nothing could be fitted: all items then keep one prior.
      serving: the mean of the folds' models when serving begins; None likewise.
      about: entry of the manifest: the moments, the counts known then, and why there is no model.
    """

    items: ItemPriors | None
    serving: ContentCtr | None
    about: dict[str, Any]


@dataclass(frozen=True)
class _Moment:
    """Hold the models of one moment, one per fold; None where too little was known."""

    models: tuple[LogOdds | None, ...]
    inverse_penalties: tuple[float | None, ...]

    def unscaled(self, scale: Float64s) -> _Moment:
        """Convert the models to a design that is not scaled."""
        models = (model and LogOdds(model.intercept, model.weights * scale) for model in self.models)
        return _Moment(tuple(models), self.inverse_penalties)

    def mean(self) -> LogOdds | None:
        """Average to one model for items that no model was fitted on; None where there is none to average."""
        models = [model for model in self.models if model is not None]
        if not models:
            return None
        weights: Float64s = np.mean([model.weights for model in models], axis=0)
        return LogOdds(float(np.mean([model.intercept for model in models])), weights)

    def predict(self, design: sparse.csr_matrix, folds: Int64s, *, out: Float32s) -> None:
        """Write the CTR of items into `out`, each by its fold's model; items without a model keep their value."""
        for fold, model in enumerate(self.models):
            if model is not None:
                own = np.flatnonzero(folds == fold)
                out[own] = model.ctr(design[own])


def fit_content_prior(
    config: Config,
    item_ids: pa.StringArray,
    table: pa.Table,
    *,
    history: PosteriorHistory,
    moments_ms: Mapping[str, int] | None,
) -> ContentPrior:
    """Fit models from moment to moment, and predict the prior of every item by them.

    Args:
      config: the experiment; `data.posterior.content_prior` and the features.
      item_ids: string [items], the catalogue.
      table: raw columns of the catalogue.
      history: counts of every item at every moment; its prior is kept where there is no model.
      moments_ms: start of validation, test and serving; None for a log without a clock.
    """
    settings = config.data.posterior.content_prior
    features = _features(config)
    if config.data.split.by != "time" or moments_ms is None:
        return ContentPrior(
            None, None, {"reason": "data.split is not by time: no moment lies before all it is used for"}
        )
    if not features:
        return ContentPrior(None, None, {"reason": "features.meta has no content to predict from"})
    encoder = TableEncoder.fit({"meta": features}, table, seed=config.seed)
    encoded, hashes = encoder.encode(table), _hashes(item_ids)
    folds = hashes % _FOLDS
    first = FirstExposures(history, limit=settings.first_exposures, items=len(table))
    growing = first.moments_of_growth(least=_FIRST_FIT, factor=_GROWTH, before_ms=moments_ms["validation"])
    moments = [*growing, *(moments_ms[name] for name in ("validation", "test", "serving"))]

    rows = np.sort(np.argsort(hashes, kind="stable")[:_MOST_ITEMS])  # of all: whose turn comes later must not matter
    design = design_matrix(encoder.columns, encoded.take(pa.array(rows)))
    scale = design_scale(encoder.columns, design)
    fitting = _Fitting(design @ sparse.diags(scale), folds[rows], strength=history.prior.strength)
    fitted, about = [], []
    for moment in moments:
        exposures, clicks = (counts[rows] for counts in first.known_at(moment))
        fitted.append(fitting.models(exposures, clicks).unscaled(scale))
        known = {"items": int((exposures > 0).sum())}
        known |= {"exposures": round(exposures.sum()), "clicks": round(clicks.sum())}
        about.append({"from_ms": moment, **known, "inverse_penalties": list(fitted[-1].inverse_penalties)})
    found = {"features": [feature.name for feature in features], "moments": about}
    serving = fitted[-1].mean()
    if serving is None:  # then nor was there one before, when less was known
        reason = f"fewer than {_LEAST_ITEMS} items, or {_LEAST_CLICKS} clicks or exposures without one, to learn from"
        return ContentPrior(None, None, {"reason": reason, **found})
    ctr = np.full((len(moments), len(table)), history.prior.ctr, np.float32)
    for start in range(0, len(table), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        chunk = design_matrix(encoder.columns, encoded.slice(start, _ROWS_AT_ONCE))
        for known_then, row in zip(fitted, ctr, strict=True):
            known_then.predict(chunk, folds[part], out=row[part])
    priors = ItemPriors.since(np.array(moments, np.int64), ctr, before=history.prior.ctr)
    return ContentPrior(priors, ContentCtr(encoder, serving), found)


@dataclass(frozen=True)
class _Fitting:
    design: sparse.csr_matrix  # [items, width], scaled
    folds: AnyInts  # [items]
    strength: float

    def models(self, exposures: Float64s, clicks: Float64s) -> _Moment:
        """Fit a model per fold on the items of the other folds, which also choose its penalty."""
        models: list[LogOdds | None] = []
        penalties: list[float | None] = []
        # The folds of a pair judge each other: both choices need only models fitted without either fold.
        judges = {pair: self._judges(pair, exposures, clicks) for pair in range(0, _FOLDS, 2)}
        for fold in range(_FOLDS):
            penalty = self._best(judges[fold & ~1], fold ^ 1, exposures, clicks)
            models.append(self._fit(self.folds != fold, exposures, clicks, penalty))
            penalties.append(penalty if models[-1] else None)
        return _Moment(tuple(models), tuple(penalties))

    def _judges(self, pair: int, exposures: Float64s, clicks: Float64s) -> list[LogOdds | None]:
        others = self.folds & ~1 != pair
        return [self._fit(others, exposures, clicks, penalty) for penalty in _INVERSE_PENALTIES]

    def _best(self, judges: list[LogOdds | None], fold: int, exposures: Float64s, clicks: Float64s) -> float:
        part = np.flatnonzero((self.folds == fold) & (exposures > 0))
        losses = [
            np.inf if judge is None else judge.loss(self.design[part], exposures[part], clicks[part])
            for judge in judges
        ]
        return _INVERSE_PENALTIES[int(np.argmin(losses))]

    def _fit(self, chosen: Bools, exposures: Float64s, clicks: Float64s, penalty: float) -> LogOdds | None:
        part = np.flatnonzero(chosen & (exposures > 0))
        shown, clicked = exposures[part], clicks[part]
        if len(part) < _LEAST_ITEMS or min(clicked.sum(), (shown - clicked).sum()) < _LEAST_CLICKS:
            return None
        return LogOdds.fit(self.design[part], shown, clicked, strength=self.strength, inverse_penalty=penalty)


def _features(config: Config) -> list[Feature]:
    """Select content and, with `ids`, ids other than the item's; their vocabulary counts items, not future clicks."""
    own, settings = config.data.items.id, config.data.posterior.content_prior
    content = [feature for feature in config.features.item if feature.type != "id"]
    ids = [feature for feature in config.features.item if feature.type == "id" and feature.source != own]
    # Clusters add nothing to their vector in a linear model, and they take long to place.
    plain = [
        feature.model_copy(update={"clusters": (), "use": "vector"})
        if feature.type == "embedding" and feature.uses_vector
        else feature
        for feature in content
    ]
    return [*plain, *(ids if settings.ids else [])]


def _hashes(item_ids: pa.StringArray) -> Int64s:
    """Hash ids alone, so that an item stays in its fold whatever the catalogue; int64 [items], >= 0."""
    hashed = pd.util.hash_array(np.array(item_ids.to_pylist(), dtype=object), categorize=False)
    return (hashed >> np.uint64(1)).astype(np.int64)
