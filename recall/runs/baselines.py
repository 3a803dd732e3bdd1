"""Makes the answers of the baselines that stand beside the models of a run: by clicks, and by content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from recall.config.experiment import Config
from recall.content.vectors import JoinedVectors, joined_vectors
from recall.core.arrays import Float32s
from recall.core.ragged import Ragged
from recall.data.posterior import Posterior
from recall.data.prepared import PreparedData
from recall.data.settled import SINCE
from recall.evaluation.baselines import ItemKnnScorer, PopularityScorer, item_similarities
from recall.evaluation.content_knn import ContentTop3Scorer, content_knn
from recall.evaluation.rolling import Window, windows
from recall.evaluation.scorers import Scorer
from recall.evaluation.trending import DecayedClicks, choose_half_life
from recall.model.batches.dataset import Examples, read_examples, training_clicks
from recall.model.content_term.space import content_space
from recall.model.layers.features import dense_features
from recall.runs.judging import Answer, Judge
from recall.runs.moments import counts_as_of, decayed_clicks

CONTENT_BASELINES: dict[str, Callable[[Float32s, Ragged], Scorer]] = {
    "content_knn": content_knn,
    "content_knn_top3": ContentTop3Scorer,
}
"""The baselines by content by name: make a scorer from the vectors of the catalogue and the histories."""
_NAMED_DIM = 256  # dimensions that stand for tags and categories


def content_vectors(prepared: PreparedData) -> JoinedVectors | None:
    """Return what the baselines by content compare: the embeddings of items, else their tags and categories.

    Tags and categories are weighted by rarity and centred, in a content space; see `content_space`.
    """
    if (joined := joined_vectors(prepared)) is not None:
        return joined
    columns = prepared.item_encoder.columns
    named = [column for column in columns if column.tower == "meta" and column.kind in ("code", "codes")]
    features = dense_features(named, prepared.items)
    space = content_space(named, features, dim=_NAMED_DIM)
    return None if space is None else JoinedVectors(tuple(space.kernels), space.vectors(features))


@dataclass(frozen=True)
class Trend:
    """Hold the baseline `trending`: the clicks of the log, and how fast they are forgotten."""

    clicks: DecayedClicks
    half_life_hours: float
    refresh_ms: int

    @classmethod
    def of(cls, config: Config, prepared: PreparedData) -> Trend | None:
        """Choose the half-life on the validation clicks; None where there is no rolling evaluation."""
        if config.refresh_ms is None:
            return None
        clicks, examples = decayed_clicks(prepared), read_examples(prepared.shards("validation"))
        cut = windows(examples.times_ms, refresh_ms=config.refresh_ms)
        chosen = choose_half_life(clicks, examples, cut, exclude_seen=config.evaluation.exclude_seen)
        return cls(clicks, chosen, config.refresh_ms)

    def answer(self, examples: Examples, *, start_ms: int) -> Answer:
        """Answer examples of a period that begins at a moment."""
        [frozen] = self.clicks.at([start_ms], half_life_hours=self.half_life_hours)
        moments_ms = [window.moment_ms for window in windows(examples.times_ms, refresh_ms=self.refresh_ms)]
        counts = self.clicks.at(moments_ms, half_life_hours=self.half_life_hours)
        # Windows are asked for once each, in their order.
        return Answer(PopularityScorer(frozen), lambda window: PopularityScorer(next(counts)))


@dataclass(frozen=True)
class Baselines:
    """Hold what the baselines learned.

    Attributes:
      prepared: the data.
      similarities: result of `item_similarities`, from training clicks, as models learn from them; None where the run
        goes on from another one, whose clicks are not there.
      content: content vectors of the catalogue; None where items have none, see `content_vectors`.
      trend: None where there is no rolling evaluation.
    """

    prepared: PreparedData
    similarities: sparse.csr_array | None
    content: JoinedVectors | None
    trend: Trend | None

    @classmethod
    def of(cls, config: Config, prepared: PreparedData) -> Baselines:
        """Learn the baselines of an experiment."""
        similarities = None
        if SINCE not in prepared.manifest:
            similarities = item_similarities(*training_clicks(prepared), item_count=len(prepared.item_ids))
        return cls(prepared, similarities, content_vectors(prepared), Trend.of(config, prepared))

    def judge(self, judge: Judge, asked: Examples, *, by_trigger: bool) -> None:
        """Evaluate the baselines.

        Args:
          judge: of the split.
          asked: the examples that the configured model is asked about.
          by_trigger: see `asked_categories`.
        """
        judge("popularity", popularity(self.prepared, judge.posterior), asked, by_trigger=by_trigger)
        if self.trend:
            start_ms = self.prepared.manifest["split"][f"{judge.split}_start_ms"]
            answer = self.trend.answer(asked, start_ms=start_ms)
            judge("trending", answer, asked, by_trigger=by_trigger, half_life_hours=self.trend.half_life_hours)
        if self.similarities is not None:
            judge("item_knn", Answer(ItemKnnScorer(self.similarities, asked.history)), asked, by_trigger=by_trigger)
        if self.content is not None:
            for name, scorer in CONTENT_BASELINES.items():
                answer = Answer(scorer(self.content.unit, asked.history))
                judge(name, answer, asked, by_trigger=by_trigger, features=list(self.content.features))


def popularity(prepared: PreparedData, posterior: Posterior) -> Answer:
    """Answer with the items of most clicks; `posterior` has them as of the start of the period."""
    known, rows = counts_as_of(prepared), np.arange(len(prepared.item_ids))

    def as_of(window: Window) -> Scorer:
        _, clicks = known(rows, np.full(len(rows), window.moment_ms))
        return PopularityScorer(clicks)

    return Answer(PopularityScorer(posterior.clicks), as_of)
