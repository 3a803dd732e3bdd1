"""Runs the feed of the simulated community: what it shows, and what is clicked.

Hour by hour the users who are active get a slate each. A slot is filled from what is popular, from what fits the
user's interests as far as the feed knows them, from what is fresh, or at random; nobody is shown an item twice.
Popularity feeds on itself, as in any feed, while fresh and random slots give new items their first exposures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from recall.core.arrays import AnyFloats, Bools, Float32s, Float64s, Int64s
from recall.core.errors import ConfigError
from recall.data.datasets.community import Community, sigmoid, unit

START_MS = 1_704_067_200_000  # 2024-01-01T00:00:00Z, a Monday
HOUR_MS = 3_600_000
SLATE = 10

# What fills a slot of the slate. These and the figures below were chosen together, so that with the default sizes
# exposures are as unequal as in a real feed (Gini above 0.4) and a tenth of the clicks of the last tenth of the log
# are on items without any earlier exposure; tests hold both.
_POPULAR, _PERSONAL, _FRESH, _RANDOM = 0.37, 0.36, 0.22, 0.05
_FRESH_HOURS = 16.0
_POPULARITY_HALF_LIFE_HOURS = 36.0
# How sharply personal slots follow the feed's estimate of the match, and all slots the smoothed CTR.
_PERSONAL_SHARPNESS = 7.0
_CTR_SHARPNESS = 2.0
_RICH_GET_RICHER = 1.25
_REACH_SPREAD = 1.0


@dataclass(frozen=True)
class Log:
    """Hold exposures in order of time; all arrays [exposures]."""

    user: Int64s
    item: Int64s
    time_ms: Int64s
    click: Bools


class Feed:
    """Hold the feed's beliefs about users and items, and fill slates from them."""

    def __init__(self, rng: np.random.Generator, community: Community) -> None:
        self._interests = _blurred(rng, community.interests, 0.6)
        self._content = _blurred(rng, community.content, 0.4)
        # Fresh items of some authors are shown more than those of others, as if they had more followers.
        self._reach = rng.lognormal(sigma=_REACH_SPREAD, size=community.author.max() + 1)[community.author]
        items = len(community.content)
        self._recent_clicks = np.zeros(items)
        self._recent_exposures = np.zeros(items)

    def personal(self, users: Int64s) -> Float32s:
        """Compute the unnormalised share of each item in personal slots; float32 [given users, items]."""
        return np.exp(_PERSONAL_SHARPNESS * (self._interests[users] @ self._content.T))

    def slate(
        self,
        rng: np.random.Generator,
        users: Int64s,
        *,
        available: Bools,
        age_hours: Float64s,
    ) -> tuple[Int64s, Bools]:
        """Draw a slate for each user without replacement from the mixture of all sources.

        Args:
          rng: source of randomness.
          users: rows of users [active].
          available: items that each may be shown, bool [active, items].
          age_hours: hours since publication [items], negative before.

        Returns:
          Rows of items, int64 [active, slate], and whether a slot could be filled, bool [active, slate].
        """
        published = (age_hours >= 0).astype(np.float32)
        # CTR shrunk to a fifth with ten pseudo-exposures.
        liked = ((self._recent_clicks + 2) / (self._recent_exposures + 10)) ** _CTR_SHARPNESS  # [items]
        popular = published * self._recent_clicks**_RICH_GET_RICHER * liked
        fresh = published * self._reach * np.exp(-np.maximum(age_hours, 0) / _FRESH_HOURS)
        shared = _POPULAR * _shares(popular) + _FRESH * _shares(fresh) + _RANDOM * _shares(published)  # [items]
        personal = self.personal(users) * (published * liked).astype(np.float32)  # [active, items]
        mixture = (shared.astype(np.float32) + _PERSONAL * _shares(personal)) * available  # [active, items]
        # The smallest of exponential draws over their weights are a weighted sample without replacement.
        draws = rng.standard_exponential(mixture.shape, dtype=np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            keys = draws / mixture
        wide = min(SLATE, keys.shape[1])
        chosen = np.argpartition(keys, wide - 1, axis=1)[:, :wide]
        return chosen, np.isfinite(np.take_along_axis(keys, chosen, axis=1))

    def learn(self, items: Int64s, clicks: Bools) -> None:
        """Take in the exposures of one hour; older ones fade."""
        fade = 0.5 ** (1 / _POPULARITY_HALF_LIFE_HOURS)
        size = len(self._recent_clicks)
        self._recent_exposures = fade * self._recent_exposures + np.bincount(items, minlength=size)
        self._recent_clicks = fade * self._recent_clicks + np.bincount(items, weights=clicks, minlength=size)


def _blurred(rng: np.random.Generator, vectors: Float32s, noise: float) -> Float32s:
    return unit(vectors + noise * unit(rng.normal(size=vectors.shape)))


def _shares(weights: AnyFloats) -> AnyFloats:
    """Scale weights to sum to 1 along the last axis; zeros where all are zero."""
    return weights / np.maximum(weights.sum(axis=-1, keepdims=True), np.finfo(np.float32).tiny)


def with_bias(rng: np.random.Generator, community: Community, feed: Feed, *, ctr: float) -> Community:
    """Set the bias so that about `ctr` of what the feed shows is clicked, by bisection on a sample of users."""
    sample = rng.choice(len(community.interests), size=min(300, len(community.interests)), replace=False)
    logits = community.click_logits(sample)  # [sample, items]
    # Popular items are those of high quality: without a log, exp(2 quality) stands in for their popularity.
    popular = _shares(np.exp(2 * community.quality))
    weights = _PERSONAL * _shares(feed.personal(sample)) + _POPULAR * popular
    weights = weights + (_FRESH + _RANDOM) / logits.shape[1]  # [sample, items]
    low, high = -20.0, 20.0
    for _ in range(40):
        middle = (low + high) / 2
        too_many = np.average(sigmoid(logits + np.float32(middle)), weights=weights) > ctr
        low, high = (low, middle) if too_many else (middle, high)
    return replace(community, bias=float(low))


def run_feed(
    rng: np.random.Generator,
    community: Community,
    feed: Feed,
    published_ms: Int64s,
    activity: Float64s,
    *,
    days: int,
    exposures: int,
) -> Log:
    """Run the feed hour by hour.

    Args:
      rng: source of randomness.
      community: the truth, its bias set.
      feed: a feed at its beginning.
      published_ms: Unix ms [items].
      activity: relative activity [users].
      days: length of the log.
      exposures: approximate number of exposures.

    Raises:
      ConfigError: so few exposures were asked for that there is none.
    """
    users, items = len(activity), len(published_ms)
    steps = 24 * days
    rhythm = busyness(np.arange(steps))
    sessions_per_hour = activity / activity.mean() * exposures / (SLATE * users * steps)  # [users]
    unseen = np.ones((users, items), dtype=bool)
    parts: list[Log] = []
    for step in range(steps):
        start_ms = START_MS + step * HOUR_MS
        active = np.flatnonzero(rng.random(users) < sessions_per_hour * rhythm[step])
        if not len(active):
            continue
        age_hours = (start_ms - published_ms) / HOUR_MS
        slates, filled = feed.slate(rng, active, available=unseen[active], age_hours=age_hours)
        times = session_times(rng, start_ms, slates.shape)
        user, item, time_ms = np.repeat(active, filled.sum(axis=1)), slates[filled], times[filled]
        click = rng.random(len(user), dtype=np.float32) < community.true_click_probability(user, item)
        unseen[user, item] = False
        feed.learn(item, click)
        order = np.argsort(time_ms, kind="stable")
        parts.append(Log(user[order], item[order], time_ms[order], click[order]))
    if not parts or not sum(len(part.user) for part in parts):
        raise ConfigError(f"simulate: nobody was shown anything; raise exposures (found {exposures}) or days ({days})")
    return Log(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("user", "item", "time_ms", "click"))
    )


def busyness(hours: Int64s) -> Float64s:
    """Compute how busy hours are against the mean hour, [hours]; evenings are four times as busy as early mornings."""
    return 1 + 0.6 * np.sin((hours % 24 - 13) * np.pi / 12)


def session_times(rng: np.random.Generator, start_ms: int, shape: tuple[int, ...]) -> Int64s:
    """Draw Unix ms [active, slate]: sessions start in the hour's first 55 minutes, each slot takes 4 to 30 s."""
    sessions, slots = shape
    start = rng.integers(0, 55 * 60_000, size=(sessions, 1))
    spent = np.cumsum(rng.integers(4_000, 30_000, size=(sessions, slots)), axis=1)
    return np.asarray(start_ms + start + spent, np.int64)
