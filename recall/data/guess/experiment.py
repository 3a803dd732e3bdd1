"""Guesses an experiment for a log and a catalogue: reads samples of the files and puts the guesses together."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import cast

import numpy as np

from recall.core.errors import ConfigError
from recall.core.times import TimeUnit, parse_times
from recall.data.guess.choices import Choice, Named
from recall.data.guess.clocks import ClockGuess, guess_clock, says_no_zone, unit_of
from recall.data.guess.columns import Column, columns_of
from recall.data.guess.experiment_text import Guessed
from recall.data.guess.kinds import Feature, LeftOut, usable_name
from recall.data.guess.log import guess_click, guess_item, guess_item_id, guess_user, share_known
from recall.data.guess.samples import Sample, read_sample
from recall.data.guess.tables import TableGuess, guess_items, guess_users, vectors_beside
from recall.data.guess.words import USER, names_one_of

_ITEMS_READ = 200_000


def guess_experiment(
    events: str, items: str, users: str | None = None, *, named: Named | None = None, now_ms: int | None = None
) -> Guessed:
    """Guess an experiment for input files.

    Reads a sample of each file, so that a log of any length takes seconds.

    Args:
      events: path or glob of the log.
      items: path of the items file.
      users: path of the users file; None without.
      named: what the caller says himself.
      now_ms: the moment of the run; default: now. No time of a log is later.

    Raises:
      ConfigError: a column that is needed is not there; says which columns are, and which option names one.
      DataError: a file cannot be read.
    """
    named = named or Named()
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    log_sample, item_sample = read_sample(events), read_sample(items, most=_ITEMS_READ)
    log, catalogue = columns_of(log_sample.table), columns_of(item_sample.table)
    item_id = guess_item_id(catalogue, log, named=named, file=items)
    ids = catalogue[item_id.value]
    item = guess_item(log, ids, named=named, file=events, is_whole=item_sample.is_whole)
    user_columns = columns_of(read_sample(users, most=_ITEMS_READ).table) if users else {}
    user = guess_user(log, user_columns, item.value, named=named, file=events)
    taken = {user.value, item.value}
    clock = guess_clock(log, taken=taken, named=named, now_ms=now_ms, file=events)
    taken.add(clock.time.value)
    click = guess_click(log, taken, named=named, file=events)
    end_ms = _end_ms(log[clock.time.value], clock)
    found = guess_items(catalogue, item_id.value, clock, log_end_ms=end_ms, now_ms=now_ms)
    if clock.is_typed and found.published:
        clock = _in_unit_of(catalogue[found.published.value], clock, now_ms=now_ms)
    names = {*catalogue, *(feature.settings["name"] for feature in found.features)}
    beside = vectors_beside(item_sample.path, item_sample.rows, names)
    found = found._replace(features=(*found.features, *beside))
    user_id, profile = _users(user_columns, log[user.value], users, now_ms=now_ms)
    profile = _with_user_id(profile, user_id.value if user_id else user.value)
    return Guessed(
        paths={"events": events, "items": items, **({"users": users} if users else {})},
        user=user,
        item=item,
        clock=clock,
        time_zone=_zone(log[clock.time.value], clock),
        click=click,
        item_id=item_id,
        unknown=_unknown(share_known(log[item.value], ids), item_sample),
        items=found,
        user_id=user_id,
        users=profile,
        log_left_out=_left_of_log(log, {*taken, click.click.value, *click.others}),
        looked_at=_looked_at(log_sample),
    )


def _end_ms(column: Column, clock: ClockGuess) -> int:
    """Return the latest time in the sample, in milliseconds; 0 of a log without a clock."""
    if clock.unit.value == "order":
        return 0
    times = parse_times(column.values, cast("TimeUnit", clock.unit.value))
    return int(np.max(times.ms[~(times.missing | times.unreadable)], initial=0))


def _in_unit_of(published: Column, clock: ClockGuess, *, now_ms: int) -> ClockGuess:
    """Give a log of typed moments the unit of the catalogue's times: the log's own need none."""
    unit = unit_of(published, now_ms=now_ms)
    if unit in (None, "iso"):
        return clock
    why = f"of items.published ({published.name}); the log's times are typed"
    return clock._replace(unit=Choice(clock.unit.key, str(unit), why))


def _zone(column: Column, clock: ClockGuess) -> Choice | None:
    naive = column.values.type.tz is None if clock.is_typed else says_no_zone(column, clock.unit.value)
    if clock.by_day or not naive:
        return None
    unsure = "the times say no offset from UTC; set their zone, e.g. Europe/Berlin"
    return Choice("events.time_zone", "UTC", "the usual one", unsure)


def _unknown(share: float, items: Sample) -> Choice | None:
    """Choose what happens to events of items that the file lacks."""
    if not items.is_whole or share >= 0.999:
        return None
    why = f"{1 - share:.1%} of the log's ids are not in the items file"
    unsure = f"{why}; `reject` sets their events aside"
    return Choice("items.unknown", "add", "keeps the events of such items", unsure)


def _users(
    columns: Mapping[str, Column], of_log: Column, file: str | None, *, now_ms: int
) -> tuple[Choice | None, TableGuess | None]:
    """Choose the id of the users file and the features of users.

    Raises:
      ConfigError: no column of the file fits the users of the log.
    """
    if not file:
        return None, None
    keys = [column for column in columns.values() if column.is_key and column.kind in ("text", "whole")]
    scores = {
        one.name: 3.0 * (one.name == of_log.name) + 2.0 * names_one_of(one.name, USER) + share_known(of_log, one)
        for one in keys
    }
    if not scores or max(scores.values()) < 0.5:
        raise ConfigError(
            f"init: {file}: no column has the users of the log's column {of_log.name}, one row each; its columns are "
            f"{', '.join(columns)}"
        )
    chosen = max(scores, key=scores.__getitem__)
    share = share_known(of_log, columns[chosen])
    unsure = f"{1 - share:.0%} of the users in the sample of the log are not in it" if share < 0.5 else ""
    return Choice("users.id", chosen, "one value a row", unsure), guess_users(columns, chosen, now_ms=now_ms)


def _with_user_id(profile: TableGuess | None, user_id: str) -> TableGuess:
    """Add the id of users to their features: what is learned of a user himself."""
    name = usable_name(user_id)
    settings = {"name": name, **({"column": user_id} if name != user_id else {}), "type": "id", "min_count": 5}
    identity = Feature("user", settings, "users with fewer training clicks share one row")
    if profile is None:
        return TableGuess((identity,), ())
    return profile._replace(features=(identity, *profile.features))


def _left_of_log(columns: Mapping[str, Column], used: set[str]) -> list[LeftOut]:
    return [
        LeftOut(name, "is of the single event: known when it is over, and of no item or user")
        for name in columns
        if name not in used
    ]


def _looked_at(sample: Sample) -> str:
    rows = len(sample.table)
    if sample.is_whole:
        return f"the {rows:,} rows of {sample.path.name}"
    total = f" of {sample.rows:,}" if sample.rows else ""
    return f"{rows:,} rows{total} of {sample.path.name}, of several places"
