"""Makes training examples, clicks with what was known when they happened, as Arrow tables.

`click_history.py` and `posterior.py` say what was known; `tfrecords.py` encodes the tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recall.core.arrays import Bools, Float32s, Int32s, Int64s
from recall.core.ragged import Ragged
from recall.data.click_history import Ranges, earlier_clicks, first_clicks, last_clicks, previous_triggers, seen_items
from recall.data.further_histories import PREFIX, FurtherHistory
from recall.data.posterior import Posterior, PosteriorHistory
from recall.data.posterior_blocks import PosteriorBlocks
from recall.data.refusals import Refusals
from recall.data.splits import TEST, TRAIN, TimeBoundaries, split_by_last_click, split_by_time
from recall.data.tfrecords import batch_slices

_INT64_LIST = pa.list_(pa.int64())
_FLOAT_LIST = pa.list_(pa.float32())
CLICK_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("item", pa.int64()),
        ("time_ms", pa.int64()),
        ("history", _INT64_LIST),
        ("history_time_ms", _INT64_LIST),
        ("trigger", pa.int64()),
        ("exposures", pa.int64()),
        ("clicks", pa.int64()),
        ("smoothed_ctr", pa.float32()),
        ("age_hours", pa.float32()),
    ]
)
HELD_OUT_SCHEMA = CLICK_SCHEMA.append(pa.field("seen", _INT64_LIST))
USER_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("items", _INT64_LIST),
        ("time_ms", _INT64_LIST),
        ("trigger", _INT64_LIST),
        ("exposures", _INT64_LIST),
        ("clicks", _INT64_LIST),
        ("smoothed_ctr", _FLOAT_LIST),
        ("age_hours", _FLOAT_LIST),
        ("split", _INT64_LIST),
    ]
)

_WEIGHTED = {"click": pa.field("weight", pa.float32()), "user": pa.field("weight", _FLOAT_LIST)}
REFUSED = "refused"
HISTORY_SCHEMA = pa.schema(
    [("user_id", pa.string()), ("recent", _INT64_LIST), ("seen", _INT64_LIST), ("recent_time_ms", _INT64_LIST)]
)


def example_schema(
    layout: str, split: int, *, weighted: bool = False, histories: Iterable[str] = (), refused: bool = False
) -> pa.Schema:
    """Return the columns of a split's examples.

    Args:
      layout: layout of the training records.
      split: 0 train, 1 validation, 2 test.
      weighted: whether they carry the weight of the click (of each click, by user).
      histories: names of further histories, each with its items (or codes) and times.
      refused: whether training examples carry what was shown beside the click and not clicked.
    """
    if split != TRAIN:
        schema, layout = HELD_OUT_SCHEMA, "click"
    else:
        schema = CLICK_SCHEMA if layout == "click" else USER_SCHEMA
    if weighted:
        schema = schema.append(_WEIGHTED[layout])
    for name in histories:
        for column in (PREFIX + name, f"{PREFIX}{name}.time_ms"):
            schema = schema.append(pa.field(column, _INT64_LIST))
    if refused and split == TRAIN:
        schema = schema.append(pa.field(REFUSED, _INT64_LIST))
    return schema


@dataclass(frozen=True)
class UserEvents:
    """Hold all events of some users, by user and in each user's order.

    Attributes:
      users: string [users], sorted.
      user: int32 [events], positions in `users`, rising.
      rows: int64 [events], item rows.
      time_ms: int64 [events], rising within a user.
      click: bool [events].
      trigger: int64 [events], row of the item that the log names as trigger, -1 where it names none.
      split: int8 [events].
      weight: float32 [events], weight of a click; None where all count once.
    """

    users: pa.StringArray
    user: Int32s
    rows: Int64s
    time_ms: Int64s
    click: Bools
    trigger: Int64s
    split: npt.NDArray[np.int8]
    weight: Float32s | None = None

    @classmethod
    def from_table(cls, events: pa.Table, *, item_ids: pa.StringArray, boundaries: TimeBoundaries | None) -> UserEvents:
        """Look up item rows and splits.

        Args:
          events: the result of `recall.data.events.sort_events`.
          item_ids: string [items], the catalogue; holds every item of the events.
          boundaries: boundaries of a split by time; None splits by last click.
        """
        users = events["user"].combine_chunks()
        user = users.indices.to_numpy()
        time_ms, click = events["time_ms"].to_numpy(), events["click"].to_numpy()
        split = split_by_last_click(user, click) if boundaries is None else split_by_time(time_ms, boundaries)
        rows, trigger = (_rows(events[name].combine_chunks(), item_ids) for name in ("item", "trigger"))
        weight = events["weight"].to_numpy() if "weight" in events.column_names else None
        return cls(users.dictionary, user, rows, time_ms, click, trigger, split, weight)


@dataclass(frozen=True)
class ExampleBuilder:
    """Turn clicks into examples.

    Attributes:
      posterior: posterior of every item at every moment.
      history: number of clicks that an example carries.
      trigger_window_ms: largest age of a previous click that counts as trigger.
      explicit_trigger: whether triggers come from the log alone.
      refusals: which refused items the examples carry, if they do.
    """

    posterior: PosteriorHistory | PosteriorBlocks
    history: int
    trigger_window_ms: int
    explicit_trigger: bool
    refusals: Refusals | None = None

    def prepare(self, events: UserEvents) -> Clicks:
        """Compute all columns of clicks but lists: posteriors, triggers, bounds of the histories."""
        clicked = np.flatnonzero(events.click)
        user, rows = events.user[clicked], events.rows[clicked]
        time_ms, split = events.time_ms[clicked], events.split[clicked]
        earlier = earlier_clicks(user, time_ms)
        trigger = (
            events.trigger[clicked]
            if self.explicit_trigger
            else previous_triggers(rows, time_ms, earlier, window_ms=self.trigger_window_ms)
        )
        return Clicks(
            users=events.users,
            user=user,
            rows=rows,
            time_ms=time_ms,
            split=split,
            trigger=trigger,
            posterior=self._posterior(rows, time_ms, split),
            earlier=earlier,
            history=last_clicks(earlier, self.history),
            weight=None if events.weight is None else events.weight[clicked],
            refused=self._refused(events, is_training=events.split <= TRAIN),
        )

    def _posterior(self, rows: Int64s, time_ms: Int64s, split: npt.NDArray[np.int8]) -> Posterior:
        """Look up the posterior of clicks; of what is history alone nobody asks."""
        if (asked := split >= TRAIN).all():
            return self.posterior.as_of(rows, time_ms, own=split == TRAIN)
        found = self.posterior.as_of(rows[asked], time_ms[asked], own=split[asked] == TRAIN)
        place = np.cumsum(asked) - 1
        return Posterior(**{name: np.where(asked, part[place], 0) for name, part in found.columns().items()})

    def learning(self, clicks: Clicks, events: UserEvents) -> Clicks:
        """Return the clicks as what learns from the whole log sees them: nothing is held out of what was refused."""
        return replace(clicks, refused=self._refused(events, is_training=np.ones(len(events.split), bool)))

    def _refused(self, events: UserEvents, *, is_training: Bools) -> Ragged | None:
        if self.refusals is None:
            return None
        return self.refusals.beside_clicks(
            events.user, events.rows, events.time_ms, click=events.click, is_training=is_training
        )


@dataclass(frozen=True)
class Clicks:
    """Hold the clicks of some users, by user and in each user's order; all columns are [clicks].

    Attributes:
      users: string [users].
      user: positions in `users`.
      rows: item rows.
      time_ms: moments of the clicks.
      split: 0 train, 1 validation, 2 test.
      trigger: row of the trigger item or -1.
      posterior: posterior of the item as of the click.
      earlier: the user's clicks strictly before.
      history: the last of these.
      weight: weight of the click; None where all count once.
      further: further histories by name, each with the entries that every click has of it.
      refused: item rows that were shown beside the click and not clicked; None where examples carry none.
    """

    users: pa.StringArray
    user: Int32s
    rows: Int64s
    time_ms: Int64s
    split: npt.NDArray[np.int8]
    trigger: Int64s
    posterior: Posterior
    earlier: Ranges
    history: Ranges
    weight: Float32s | None = None
    further: Mapping[str, tuple[FurtherHistory, Ranges]] = field(default_factory=dict)
    refused: Ragged | None = None

    def joined(self, histories: Mapping[str, FurtherHistory]) -> Clicks:
        """Add further histories, by name, as of each click."""
        found = {
            name: (history, history.before(self.users, self.user, self.time_ms)) for name, history in histories.items()
        }
        return replace(self, further=found)

    def examples(self, split: int) -> Iterator[pa.Table]:
        """Yield one example per click of a split, as `example_schema` of layout click; training clicks are shuffled."""
        chosen = np.flatnonzero(self.split == split)
        if split == TRAIN:
            chosen = chosen[self._shuffled(chosen)]
            values = 2 * self.history.take(chosen).lengths()
            first = None
            values += 0 if self.refused is None else self.refused.lengths[chosen]
        else:
            values = self.earlier.take(chosen).lengths() + 2 * self.history.take(chosen).lengths()
            first = first_clicks(self.user, self.rows)
        values += sum(2 * ranges.take(chosen).lengths() for _, ranges in self.further.values())
        for part in batch_slices(values):
            yield self._click_table(chosen[part], first)

    def user_examples(self) -> Iterator[pa.Table]:
        """Yield one example per user with a training click, with all clicks, as `example_schema` of layout user."""
        starts = np.flatnonzero(np.diff(self.user, prepend=-1))
        stops = np.append(starts[1:], len(self.user))
        trained = np.add.reduceat(self.split == TRAIN, starts) > 0 if len(starts) else np.zeros(0, bool)
        spans = Ranges(starts[trained], stops[trained])
        schema = example_schema("user", TRAIN, weighted=self.weight is not None)
        columns = {
            "items": self.rows,
            "time_ms": self.time_ms,
            "trigger": self.trigger,
            "split": self.split.astype(np.int64),
            **self.posterior.columns(),
            **self._weights(),
        }
        for part in batch_slices(len(schema) * spans.lengths()):
            span = spans.part(part)
            clicks = span.positions()
            lists = {name: _lists(clicks, column) for name, column in columns.items()}
            users = self.users.take(pa.array(self.user[span.starts]))
            yield pa.table({"user_id": users, **lists}).select(schema.names).cast(schema)

    def sources(self) -> Int64s:
        """Find the item that each user had clicked just before each click, int64 [clicks]; -1 for a first click."""
        if not len(self.rows):
            return np.zeros(0, np.int64)
        return np.where(self.earlier.lengths() > 0, self.rows[self.earlier.stops - 1], -1)

    def serving_histories(self, length: int, *, until_ms: int | None = None) -> pa.Table:
        """List each user's clicks at the end of the log: `HISTORY_SCHEMA`, `recent` at most `length` long.

        Args:
          length: see above.
          until_ms: list the clicks before this moment alone, of the users that have any.
        """
        starts = np.flatnonzero(np.diff(self.user, prepend=-1))
        spans = Ranges(starts, np.append(starts[1:], len(self.user)) if len(starts) else starts)
        if until_ms is not None and len(starts):
            before = np.add.reduceat(self.time_ms < until_ms, starts)
            starts = starts[before > 0]
            spans = Ranges(starts, starts + before[before > 0])
        recent = last_clicks(spans, length).positions()
        columns = {
            "user_id": self.users.take(pa.array(self.user[starts])),
            "recent": _lists(recent, self.rows),
            "seen": _list_array(seen_items(self.rows, first_clicks(self.user, self.rows), spans)),
            "recent_time_ms": _lists(recent, self.time_ms),
        }
        return pa.table(columns).cast(HISTORY_SCHEMA)

    def _click_table(self, chosen: Int64s, first: Bools | None) -> pa.Table:
        """Make examples of the clicks at some positions, with `seen` if the users' first clicks are given."""
        history = self.history.take(chosen).positions()
        columns = {
            "user_id": self.users.take(pa.array(self.user[chosen])),
            "item": self.rows[chosen],
            "time_ms": self.time_ms[chosen],
            "history": _lists(history, self.rows),
            "history_time_ms": _lists(history, self.time_ms),
            "trigger": self.trigger[chosen],
            **{name: column[chosen] for name, column in self.posterior.columns().items()},
        }
        if first is not None:
            columns["seen"] = _list_array(seen_items(self.rows, first, self.earlier.take(chosen)))
        columns |= {name: column[chosen] for name, column in self._weights().items()}
        for name, (further, ranges) in self.further.items():
            entries = ranges.take(chosen).positions()
            columns[PREFIX + name] = _lists(entries, further.codes)
            columns[f"{PREFIX}{name}.time_ms"] = _lists(entries, further.time_ms)
        split = TRAIN if first is None else TEST
        if split == TRAIN and self.refused is not None:
            columns[REFUSED] = _list_array(self.refused.take(chosen))
        schema = example_schema(
            "click",
            split,
            weighted=self.weight is not None,
            histories=self.further,
            refused=self.refused is not None,
        )
        return pa.table(columns, schema=schema)

    def _weights(self) -> dict[str, Float32s]:
        return {} if self.weight is None else {"weight": self.weight}

    def _shuffled(self, chosen: Int64s) -> Int64s:
        """Shuffle by hashes of the clicks alone: a shard must not go through its users by id."""
        hashes = pd.util.hash_array(np.array(self.users.to_pylist(), object), categorize=False)
        key = hashes[self.user[chosen]] if len(hashes) else np.zeros(0, np.uint64)
        for column in (self.time_ms[chosen], self.rows[chosen]):
            key = pd.util.hash_array(key ^ column.view(np.uint64))
        order = np.argsort(key)
        # A stable sort takes twice as long, and there are few equal keys to be had from 64 bits.
        return order if (np.diff(key[order]) > 0).all() else np.argsort(key, kind="stable")


def _rows(ids: pa.DictionaryArray, item_ids: pa.StringArray) -> Int64s:
    """Look up rows of ids in the catalogue; -1 for null and for ids that it lacks."""
    rows = pc.index_in(ids.dictionary, value_set=item_ids).fill_null(-1).to_numpy().astype(np.int64)
    return np.append(rows, -1)[ids.indices.fill_null(-1).to_numpy()]


def _lists(positions: Ragged, column: npt.NDArray[np.generic]) -> pa.ListArray:
    """Read a column at lists of positions."""
    return _list_array(Ragged(column[positions.values], positions.offsets))


def _list_array(lists: Ragged) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(lists.offsets.astype(np.int32)), pa.array(lists.values))
