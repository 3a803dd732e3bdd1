"""Computes query vectors of users in NumPy, and stores the weights for it.

One user with 21 clicks, one core: SavedModel 720 us, NumPy 30 us (benchmarks/speed, recall_user).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from recall.core.arrays import Float32s, Float64s, Int64s, Intps
from recall.core.ragged import Ragged
from recall.core.times import MS_PER_HOUR
from recall.data.prepared import PreparedData
from recall.model.numpy_tower.head import NumpyQueryHead

Weights = Mapping[str, Float32s]

NUMPY_TOWER = "user_arrays"
"""The folder of the arrays in a model directory, beside the SavedModels."""
_TINY = np.float32(1e-12)  # of tf.math.l2_normalize
_WEIGHTS, _SETTINGS = "weights.npz", "settings.json"
_LARGE = ("tokens", "profiles", "contents")  # a row per item and per user: files of their own, read as memory maps


@dataclass(frozen=True)
class TowerSettings:
    """Hold the settings of a tower that its weights do not tell.

    Attributes:
      length: number of clicks that the tower reads, the last ones of a history.
      layers: number of dense layers of the head, including the linear one.
      unit_length: whether vectors have unit length, each of the `parts` by itself.
      parts: 2 if the query is twice as wide as the state of the history, else 1.
    """

    length: int
    layers: int
    unit_length: bool
    parts: int


class NumpyUserTower:
    """Compute query vectors of users from pooled histories.

    Covers the history encoders `mean` and `attention`, with or without times. Everything that depends on a single item
    or a single user is computed beforehand: the tokens of the items, and the product of each profile with the head's
    first layer. The result equals the user tower's up to the rounding of float32.

    Attributes:
      settings: as given.
      reads_times: whether the times of the clicks change the result.

    Args:
      settings: settings of the tower.
      weights: float32 arrays by name.
        tokens [items, dim]; empty [dim], the state without clicks; profiles [users + 1, units], the last row for
        unknown users, and only this row where users have no features;
        for attention: recency [length] and item_scores [items], or, where gaps change the scores, hidden_kernel,
        hidden_bias and score_kernel to compute them;
        for times: gap [buckets, dim], age [buckets, 1];
        for a content term: contents [items, content dim];
        for the head: state_kernel [dim, units], kernel_i and bias_i of the following layers, and shortcut
        [dim, parts * dim], unless the state itself is added.
      users: user ids by row of the profiles, without the unknown user.
      items: item ids by row of the tokens.
    """

    def __init__(
        self, settings: TowerSettings, weights: Weights, *, users: Sequence[str], items: Sequence[str]
    ) -> None:
        self.settings, self._weights = settings, weights
        known = users if len(weights["profiles"]) > 1 else ()
        self._user_rows = {user: row for row, user in enumerate(known)}
        self._items = items
        self.reads_times = "gap" in weights or "age" in weights
        # As plain arrays: every result computed from a memory map is a memory map again, which costs 20 us each time.
        self._tokens, self._profiles = np.asarray(weights["tokens"]), np.asarray(weights["profiles"])
        self._contents = np.asarray(weights["contents"]) if "contents" in weights else None
        self._head = NumpyQueryHead(
            weights, layers=settings.layers, unit_length=settings.unit_length, parts=settings.parts
        )

    @cached_property
    def _item_rows(self) -> dict[str, int]:
        return {item: row for row, item in enumerate(self._items)}

    def save(self, directory: Path) -> None:
        """Write the weights and settings, without the ids, into a new folder."""
        directory.mkdir()
        for name in _LARGE:
            if name in self._weights:
                np.save(directory / f"{name}.npy", self._weights[name])
        small: dict[str, Any] = {name: own for name, own in self._weights.items() if name not in _LARGE}
        np.savez(directory / _WEIGHTS, **small)
        (directory / _SETTINGS).write_text(json.dumps(vars(self.settings)))

    @classmethod
    def load(cls, directory: Path, *, users: Sequence[str], items: Sequence[str]) -> NumpyUserTower | None:
        """Read a folder of `save`, or return None where there is none, since the tower has no NumPy form."""
        if not directory.exists():
            return None
        weights: dict[str, Float32s] = {
            name: np.load(path, mmap_mode="r", allow_pickle=False)
            for name in _LARGE
            if (path := directory / f"{name}.npy").exists()
        }
        with np.load(directory / _WEIGHTS, allow_pickle=False) as stored:
            weights |= {name: stored[name] for name in stored.files}
        settings = TowerSettings(**json.loads((directory / _SETTINGS).read_text()))
        return cls(settings, weights, users=users, items=items)

    @classmethod
    def of_run(cls, run: Path, prepared: PreparedData) -> NumpyUserTower | None:
        """Read the tower of a run directory, or return None where it has no NumPy form."""
        users, items = prepared.user_ids.to_pylist(), prepared.item_ids.to_pylist()
        return cls.load(run / "model" / NUMPY_TOWER, users=users, items=items)

    def vectors(
        self,
        users: Sequence[str],
        histories: Sequence[Sequence[str]],
        ages_hours: Sequence[Sequence[float]] | None = None,
    ) -> Float32s:
        """Return query vectors of users and their clicked items.

        Args:
          users: user ids; unknown users have no profile.
          histories: clicked item ids of each user, oldest first; unknown items are skipped.
          ages_hours: hours since each click, per user; negative, NaN, or None is unknown.

        Returns:
          float32 [users, width].
        """
        row_of = self._item_rows
        rows = np.array([row_of.get(item, -1) for history in histories for item in history], np.int64)
        lengths = np.array([len(history) for history in histories], np.int64)
        hours = None if ages_hours is None else np.array(list(chain.from_iterable(ages_hours)), float)
        return self.vectors_by_row(users, Ragged.from_lengths(rows, lengths), hours)

    def vectors_by_row(self, users: Sequence[str], clicks: Ragged, ages_hours: Float64s | None = None) -> Float32s:
        """Return query vectors of users whose clicks are given as rows of the tokens.

        Args:
          users: user ids; unknown users have no profile.
          clicks: rows of each user, oldest first; -1 is skipped.
          ages_hours: float64 [clicks], hours since each click; negative, NaN, or None is unknown.

        Returns:
          float32 [users, width].
        """
        age_ms = None
        if self.reads_times:
            if ages_hours is None:
                age_ms = np.full(len(clicks.values), -1)
            else:  # NaN is not >= 0
                age_ms = np.where(ages_hours >= 0, np.round(ages_hours * MS_PER_HOUR), -1.0).astype(np.int64)
        clicks, age_ms = self._known_last(clicks, age_ms)
        states = self._states(clicks, age_ms)  # [users, dim]
        unknown = len(self._user_rows)
        places = np.array([self._user_rows.get(user, unknown) for user in users], np.int64)
        profiles = self._profiles.take(places, axis=0)
        queries = self._head.queries(states, profiles)
        if self._contents is None:
            return queries
        return np.concatenate([queries[:, :-1], self._interests(clicks, self._contents), queries[:, -1:]], axis=1)

    def _known_last(self, clicks: Ragged, age_ms: Int64s | None) -> tuple[Ragged, Int64s | None]:
        """Keep the last clicks of known items, as many as the tower reads."""
        if clicks.values.size and np.minimum.reduce(clicks.values) < 0:
            is_known = clicks.values >= 0
            clicks, age_ms = clicks.where(is_known), None if age_ms is None else age_ms[is_known]
        if len(clicks.values) > self.settings.length and clicks.lengths.max() > self.settings.length:
            is_last = _to_last(clicks.lengths) < self.settings.length
            clicks, age_ms = clicks.where(is_last), None if age_ms is None else age_ms[is_last]
        return clicks, age_ms

    def _states(self, clicks: Ragged, age_ms: Int64s | None) -> Float32s:
        """Pool the clicks of each history into its state, float32 [users, dim]."""
        weights, rows, lengths = self._weights, clicks.values, clicks.lengths
        if not len(rows):
            return np.tile(weights["empty"], (len(lengths), 1))  # [users, dim]
        if len(lengths) == 1:  # skips what several users need: half the time
            to_last = np.arange(len(rows) - 1, -1, -1)
            tokens = self._timed_tokens(rows, to_last, age_ms)
            scores = self._scores(rows, tokens, to_last, age_ms)
            scores -= np.maximum.reduce(scores)  # the methods max and sum take a microsecond more
            shares = np.exp(scores, out=scores)
            state = shares @ tokens
            state /= np.add.reduce(shares)
            return state[np.newaxis]
        to_last = _to_last(lengths)  # [clicks]
        is_any = lengths > 0
        counts = lengths[is_any]
        ends = np.cumsum(counts)
        starts = ends - counts
        tokens = self._timed_tokens(rows, to_last, age_ms)
        scores = self._scores(rows, tokens, to_last, age_ms)
        shares = np.exp(scores - np.repeat(np.maximum.reduceat(scores, starts), counts))
        totals = np.add.reduceat(shares, starts)  # [users with clicks]
        # A product with a sparse matrix is faster than np.add.reduceat. The tokens are gathered before: read from their
        # places all over memory, the product would wait for each.
        pooling = csr_array((shares, np.arange(len(rows)), np.append(0, ends)), shape=(len(counts), len(rows)))
        states = np.empty((len(lengths), tokens.shape[1]), np.float32)
        states[is_any] = (pooling @ tokens) / totals[:, np.newaxis]
        states[~is_any] = weights["empty"]
        return states

    def _interests(self, clicks: Ragged, contents: Float32s) -> Float32s:
        """Return the content interests of histories, float32 [users, content dim], as `content_interest` does."""
        chosen = contents.take(clicks.values, axis=0)
        if len(clicks.lengths) == 1:
            sums = np.add.reduce(chosen, axis=0, keepdims=True)
        else:
            ones = np.ones(len(chosen), np.float32)
            shape = (len(clicks.lengths), len(chosen))
            sums = csr_array((ones, np.arange(len(chosen)), clicks.offsets), shape=shape) @ chosen
        squares = np.einsum("ud,ud->u", sums, sums)[:, np.newaxis]
        interests: Float32s = sums / np.sqrt(np.maximum(squares, _TINY))
        return interests

    def _timed_tokens(self, rows: Int64s, to_last: Int64s, age_ms: Int64s | None) -> Float32s:
        """Gather the tokens of clicks and add the vectors of their gaps: float32 [clicks, dim]."""
        tokens = self._tokens.take(rows, axis=0)
        if age_ms is not None and "gap" in self._weights:
            tokens += self._weights["gap"][_gap_buckets(age_ms, to_last)]
        return tokens

    def _scores(
        self,
        rows: Int64s,
        tokens: Float32s,
        to_last: Int64s,
        age_ms: Int64s | None,
    ) -> Float32s:
        """Return the scores whose softmax weighs the clicks, float32 [clicks]; equal scores for a mean.

        Args:
          rows: int64 [clicks], rows of the clicked items.
          tokens: float32 [clicks, dim], read only where the scores of items are not known beforehand.
          to_last: int64 [clicks], as from `_to_last`.
          age_ms: int64 [clicks], milliseconds since each click, negative where unknown; None without times.
        """
        weights = self._weights
        if "recency" in weights:
            known = weights.get("item_scores")
            scores = attention_scores(tokens, weights) if known is None else known.take(rows)
            scores += weights["recency"].take(to_last, mode="clip")
        else:
            scores = np.zeros(len(rows), np.float32)
        if age_ms is not None and "age" in weights:
            scores = scores + weights["age"][numpy_duration_buckets(age_ms), 0]
        return scores


def _to_last(lengths: Int64s) -> Int64s:
    """Count the clicks after each click in its history, int64 [clicks]."""
    ends = np.cumsum(lengths)
    clicks = np.arange(int(ends[-1]) if len(ends) else 0)
    return np.repeat(ends - 1, lengths) - clicks


def attention_scores(tokens: Float32s, weights: Weights) -> Float32s:
    """Return the part of the attention scores that depends on tokens alone: float32 [n, dim] -> [n]."""
    hidden = np.tanh(tokens @ weights["hidden_kernel"] + weights["hidden_bias"])
    scores: Float32s = (hidden @ weights["score_kernel"])[:, 0]
    return scores


# As in recall.model.layers.history_time, which needs TensorFlow: a test compares the two.
_BOUNDS_MS = np.array([1000.0 * (2**k - 1) for k in range(31)], np.float32)


def numpy_duration_buckets(duration_ms: Int64s) -> Intps:
    """Return the bucket of each duration, as `duration_buckets` of the towers; a negative duration gives 0, unknown."""
    return np.searchsorted(_BOUNDS_MS, duration_ms.astype(np.float32), side="right")


def _gap_buckets(age_ms: Int64s, to_last: Int64s) -> Intps:
    """Return the bucket of the time from each click to the next one of its history, or from the last to the query."""
    following = np.where(to_last > 0, np.append(age_ms[1:], 0), 0)
    return numpy_duration_buckets(np.where((age_ms >= 0) & (following >= 0), age_ms - following, -1))
