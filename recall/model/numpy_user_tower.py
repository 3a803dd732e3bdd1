"""The user tower in NumPy: what a call of TensorFlow costs is more than the tower itself where one user is asked for.

One user with 21 clicks, one core: SavedModel 720 us, this 30 us (benchmarks/speed, recall_user).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
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
from recall.model.user_head import UserHead

Weights = Mapping[str, Float32s]

USER_ARRAYS = "user_arrays"
"""Their folder, beside the SavedModels."""
_WEIGHTS, _SETTINGS = "weights.npz", "settings.json"
_LARGE = ("tokens", "profiles")  # a row per item and per user: files of their own, read as memory maps


@dataclass(frozen=True)
class TowerSettings:
    """What weights alone do not say.

    Attributes:
      length: clicks that the tower reads, the last ones.
      layers: dense layers of the head, the linear one included.
      unit_length: whether vectors have unit length, each of `parts` by itself.
      parts: 2 where the query is twice as wide as the history's state.
    """

    length: int
    layers: int
    unit_length: bool
    parts: int


class UserArrays:
    """Query vectors of users by pooled histories: the encoders `mean` and `attention`, with or without times.

    Everything that depends on one item or one user alone is computed beforehand: tokens of items, and what a profile
    gives to the head's first layer. The result is that of the user tower up to the rounding of float32.

    Attributes:
      settings: see there.
      reads_times: whether it makes a difference when items were clicked.

    Args:
      settings: see there.
      weights: float32 arrays.
        tokens [items, dim], empty [dim], profiles [users + 1, units], the last one of unknown users; it alone
        where there are no profiles;
        of attention: recency [length], and item_scores [items], or, where gaps change them, hidden_kernel,
        hidden_bias and score_kernel to make them with;
        of times: gap [buckets, dim], age [buckets, 1];
        of the head: state_kernel [dim, units], kernel_i and bias_i of the layers that follow, and shortcut
        [dim, parts * dim], unless the state itself is added.
      users: ids by row of the profiles; the unknown user not among them.
      items: ids by row of the tokens.
    """

    def __init__(
        self, settings: TowerSettings, weights: Weights, *, users: Sequence[str], items: Sequence[str]
    ) -> None:
        self.settings, self._weights = settings, weights
        known = users if len(weights["profiles"]) > 1 else ()
        self._user_rows = {user: row for row, user in enumerate(known)}
        self._items = items
        self.reads_times = "gap" in weights or "age" in weights
        # As plain arrays: a memory map makes every array that comes of it one, 20 us a time.
        self._tokens, self._profiles = np.asarray(weights["tokens"]), np.asarray(weights["profiles"])
        self._head = UserHead(weights, layers=settings.layers, unit_length=settings.unit_length, parts=settings.parts)

    @cached_property
    def _item_rows(self) -> dict[str, int]:
        return {item: row for row, item in enumerate(self._items)}

    def save(self, directory: Path) -> None:
        """Writes all but the ids into a new folder."""
        directory.mkdir()
        for name in _LARGE:
            np.save(directory / f"{name}.npy", self._weights[name])
        small: dict[str, Any] = {name: own for name, own in self._weights.items() if name not in _LARGE}
        np.savez(directory / _WEIGHTS, **small)
        (directory / _SETTINGS).write_text(json.dumps(vars(self.settings)))

    @classmethod
    def load(cls, directory: Path, *, users: Sequence[str], items: Sequence[str]) -> UserArrays | None:
        """Reads what `save` wrote; None if there is nothing, since the tower is of another kind."""
        if not directory.exists():
            return None
        weights: dict[str, Float32s] = {
            name: np.load(directory / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _LARGE
        }
        with np.load(directory / _WEIGHTS, allow_pickle=False) as stored:
            weights |= {name: stored[name] for name in stored.files}
        settings = TowerSettings(**json.loads((directory / _SETTINGS).read_text()))
        return cls(settings, weights, users=users, items=items)

    @classmethod
    def of_run(cls, run: Path, prepared: PreparedData) -> UserArrays | None:
        """Those of a run directory, if it has some."""
        users, items = prepared.user_ids.to_pylist(), prepared.item_ids.to_pylist()
        return cls.load(run / "model" / USER_ARRAYS, users=users, items=items)

    def vectors(
        self,
        users: Sequence[str],
        histories: Sequence[Sequence[str]],
        ages_hours: Sequence[Sequence[float]] | None = None,
    ) -> Float32s:
        """Query vectors of users.

        Args:
          users: ids; who is unknown has no profile.
          histories: per user the clicked item ids, oldest first; unknown ones are passed over.
          ages_hours: per user how long ago each was clicked; negative, NaN, or None is unknown.

        Returns:
          float32 [users, width].
        """
        row_of = self._item_rows
        rows = np.array([row_of.get(item, -1) for history in histories for item in history], np.int64)
        lengths = np.array([len(history) for history in histories], np.int64)
        hours = None if ages_hours is None else np.array(list(chain.from_iterable(ages_hours)), float)
        return self.vectors_by_row(users, Ragged.from_lengths(rows, lengths), hours)

    def vectors_by_row(self, users: Sequence[str], clicks: Ragged, ages_hours: Float64s | None = None) -> Float32s:
        """Query vectors of users whose clicks are known as rows of the tokens.

        Args:
          users: ids; who is unknown has no profile.
          clicks: per user rows, oldest first; -1 is passed over.
          ages_hours: float64 [clicks], how long ago each was; negative, NaN, or None is unknown.

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
        return self._head.queries(states, profiles)

    def _known_last(self, clicks: Ragged, age_ms: Int64s | None) -> tuple[Ragged, Int64s | None]:
        """The last clicks of known items, as many as the tower reads."""
        if clicks.values.size and np.minimum.reduce(clicks.values) < 0:
            is_known = clicks.values >= 0
            clicks, age_ms = clicks.where(is_known), None if age_ms is None else age_ms[is_known]
        if len(clicks.values) > self.settings.length and clicks.lengths.max() > self.settings.length:
            is_last = _to_last(clicks.lengths) < self.settings.length
            clicks, age_ms = clicks.where(is_last), None if age_ms is None else age_ms[is_last]
        return clicks, age_ms

    def _states(self, clicks: Ragged, age_ms: Int64s | None) -> Float32s:
        """States of histories, float32 [users, dim]."""
        weights, rows, lengths = self._weights, clicks.values, clicks.lengths
        if not len(rows):
            return np.tile(weights["empty"], (len(lengths), 1))  # [users, dim]
        if len(lengths) == 1:  # without what many users need: half the time
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
        # A product with a sparse matrix is faster than np.add.reduceat; and of tokens that were gathered before, rather
        # than as they lie about in memory, where it would wait for each.
        pooling = csr_array((shares, np.arange(len(rows)), np.append(0, ends)), shape=(len(counts), len(rows)))
        states = np.empty((len(lengths), tokens.shape[1]), np.float32)
        states[is_any] = (pooling @ tokens) / totals[:, np.newaxis]
        states[~is_any] = weights["empty"]
        return states

    def _timed_tokens(self, rows: Int64s, to_last: Int64s, age_ms: Int64s | None) -> Float32s:
        """Tokens of clicks, float32 [clicks, dim]."""
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
        """What a softmax makes weights of, float32 [clicks]: equal ones for a mean.

        Tokens are those of the clicks, and read only where no scores of items are known.
        """
        weights = self._weights
        if "recency" in weights:
            known = weights.get("item_scores")
            scores = _attention_scores(tokens, weights) if known is None else known.take(rows)
            scores += weights["recency"].take(to_last, mode="clip")
        else:
            scores = np.zeros(len(rows), np.float32)
        if age_ms is not None and "age" in weights:
            scores = scores + weights["age"][duration_buckets(age_ms), 0]
        return scores


def _to_last(lengths: Int64s) -> Int64s:
    """Clicks between each and the last one of its history, int64 [clicks]."""
    ends = np.cumsum(lengths)
    clicks = np.arange(int(ends[-1]) if len(ends) else 0)
    return np.repeat(ends - 1, lengths) - clicks


def _attention_scores(tokens: Float32s, weights: Weights) -> Float32s:
    """What attention makes of tokens alone: float32 [n, dim] -> [n]."""
    hidden = np.tanh(tokens @ weights["hidden_kernel"] + weights["hidden_bias"])
    scores: Float32s = (hidden @ weights["score_kernel"])[:, 0]
    return scores


# As recall.model.layers.history_time, which needs TensorFlow: a test compares the two.
_BOUNDS_MS = np.array([1000.0 * (2**k - 1) for k in range(31)], np.float32)


def duration_buckets(duration_ms: Int64s) -> Intps:
    """Buckets of durations as the towers' tables have them; 0 is unknown, which a negative duration means."""
    return np.searchsorted(_BOUNDS_MS, duration_ms.astype(np.float32), side="right")


def _gap_buckets(age_ms: Int64s, to_last: Int64s) -> Intps:
    """Buckets of the time from each click to the next one of its history, or to the query after the last."""
    following = np.where(to_last > 0, np.append(age_ms[1:], 0), 0)
    return duration_buckets(np.where((age_ms >= 0) & (following >= 0), age_ms - following, -1))


def arrays_of_tower(
    model: Any, tokens: Callable[[], Float32s], *, users: Sequence[str], items: Sequence[str]
) -> UserArrays | None:
    """The user tower of a `RecallModel` as arrays; None where it is none of those that are known here.

    Args:
      model: with its weights.
      tokens: makes float32 [items, dim], `RecallModel.item_tokens` of the catalogue; asked only if they are needed.
      users: ids by row of the user table.
      items: ids by row.
    """
    tower = model.user_tower
    if tower is None or tower.interests is not None or tower.fusion is not None:
        return None
    history, head = tower.history, tower.head
    if history.name not in ("mean_history", "attention_history"):
        return None
    weights: dict[str, Float32s] = {"tokens": tokens(), "empty": history.empty.numpy()}
    if history.name == "attention_history":
        weights["recency"] = history.recency.numpy()
        scoring = dict(zip(("hidden_kernel", "hidden_bias"), history.hidden.get_weights(), strict=True))
        scoring["score_kernel"] = history.score.get_weights()[0]
        weights |= scoring if tower.gap is not None else {"item_scores": _attention_scores(weights["tokens"], scoring)}
    if tower.gap is not None:
        weights["gap"] = tower.gap.rows.numpy()
    if history.age_bias is not None:
        weights["age"] = history.age_bias.rows.numpy()
    layers = [layer.get_weights() for layer in head.stack.layers if layer.get_weights()]
    dim = len(weights["empty"])
    (kernel, bias), *others = layers
    weights["state_kernel"], weights["profiles"] = kernel[:dim], _profiles(model, kernel[dim:]) + bias
    for number, (kernel, bias) in enumerate(others, start=1):
        weights[f"kernel_{number}"], weights[f"bias_{number}"] = kernel, bias
    if head.shortcut is not None:
        weights["shortcut"] = head.shortcut.get_weights()[0]
    settings = TowerSettings(
        length=model.config.data.history, layers=len(layers), unit_length=head.unit_length, parts=head.parts
    )
    return UserArrays(settings, weights, users=users, items=items)


def _profiles(model: Any, kernel: Float32s, *, batch_size: int = 8192) -> Float32s:
    """What each user's profile adds to the first layer, float32 [users + 1, units]; [1, units] without profiles."""
    if model.user_tower.profile is None:
        return np.zeros((1, kernel.shape[1]), np.float32)
    starts = range(0, model.user_table.size, batch_size)
    rows = (np.arange(start, min(start + batch_size, model.user_table.size), dtype=np.int32) for start in starts)
    return np.concatenate([model.user_tower.profile_of(model.user_table.gather(own)).numpy() @ kernel for own in rows])
