"""Scores items with a model as a service does: items made hourly from what is known, histories up to the moment."""

from __future__ import annotations

import numpy as np

from recall.core.arrays import Float32s
from recall.data.datasets.feed import HOUR_MS
from recall.data.datasets.live_community import DAY_MS, Visits
from recall.data.posterior import Posterior
from recall.evaluation.cold_bias import with_cold_bias
from recall.evaluation.exploration import sampled_lift
from recall.model.inference import CatalogueVectors, encode_users
from recall.runs.loop.arms import Arm
from recall.runs.loop.knowledge import Knowledge
from recall.runs.loop.learner import Learned, Learner


class ModelPolicy:
    """Serve the model of an arm.

    It uses the functions that serve a run (`CatalogueVectors`, `with_cold_bias`, `encode_users`), and exact search over
    their vectors. Publishing a whole run each day and an index each hour would answer alike, and take several times as
    long.

    Args:
      arm: how often it trains and refreshes.
      knowledge: the log so far.
      learner: trains.
    """

    def __init__(self, arm: Arm, knowledge: Knowledge, learner: Learner) -> None:
        self._arm, self._knowledge, self._learner = arm, knowledge, learner
        self._user_ids = knowledge.community.users["user_id"].to_numpy()
        self._learned: Learned | None = None
        self._catalogue: CatalogueVectors | None = None
        self._vectors = np.zeros((0, 0), np.float32)
        self._trained_ms = 0

    def begin_day(self, day: int, now_ms: int) -> None:
        """Train if it is the day for it."""
        every = self._arm.days_between_trainings
        if not (day % every == 0 if every else day == 0):
            return
        until_ms = min(now_ms + every * DAY_MS, self._end_ms) if every else self._end_ms
        self._learned = self._catalogue = None  # not two in memory
        self._learned = self._learner.learn(self._knowledge, now_ms=now_ms, until_ms=until_ms)
        self._catalogue, self._trained_ms = CatalogueVectors(self._learned.model), now_ms
        if self._arm.refresh == "none":
            self._vectors = self._vectors_at(now_ms)

    @property
    def _end_ms(self) -> int:
        return self._knowledge.community.end_ms

    def refresh(self, now_ms: int) -> None:
        """Make the items anew from what is known at the moment, unless the arm does not."""
        if self._arm.refresh == "hourly":
            self._vectors = self._vectors_at(now_ms)

    def _vectors_at(self, now_ms: int) -> Float32s:
        assert self._learned
        assert self._catalogue
        posterior = self._posterior(self._learned, now_ms)
        vectors, _ = self._catalogue.at(posterior)
        vectors = with_cold_bias(vectors, posterior.exposures, self._learned.cold_bias)
        if weight := self._arm.exploration:
            prior = self._learned.prepared.posterior_history.prior
            rng = np.random.default_rng([self._knowledge.community.seed, now_ms // HOUR_MS])
            lift = sampled_lift(posterior.exposures, posterior.clicks, prior_ctr=prior.ctr, rng=rng)
            vectors[:, -1] += weight * float(self._learned.model.temperature) * lift
        return vectors

    def _posterior(self, learned: Learned, now_ms: int) -> Posterior:
        """Look up what is known of the items of the model."""
        trained = learned.prepared.posterior_history
        rows = np.arange(learned.model.item_table.size)
        moments = np.full(len(rows), now_ms)
        posterior = self._knowledge.posteriors(trained.prior, half_lives_ms=trained.half_lives_ms).as_of(rows, moments)
        if learned.prepared.audience:
            sources = self._knowledge.audiences().as_of(rows, moments, last=learned.prepared.audience)
            posterior = posterior._replace(sources=sources)
        return posterior

    def scores(self, visits: Visits) -> Float32s:
        """Score the items of the model; those that come after its next training get -inf."""
        assert self._learned
        history, age_ms = self._knowledge.histories(visits.users, now_ms=visits.start_ms)
        queries = encode_users(self._learned.model, self._user_ids[visits.users], history, age_ms=age_ms)
        scores = np.full((len(queries), len(self._knowledge.community.published_ms)), -np.inf, np.float32)
        scores[:, : len(self._vectors)] = queries @ self._vectors.T
        return scores
