"""Recomputes the training data in plain Python, one row at a time: slow, and simple enough to be believed.

Written from the definitions alone; shares no code with the library.
"""

from __future__ import annotations

import bisect
import datetime
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_FLOOR, Decimal, InvalidOperation
from typing import Any

import numpy as np

Row = dict[str, Any]


@dataclass
class Settings:
    """Hold the settings of an experiment file."""

    unit: str = "ms"
    at_least: float | None = 1.0
    explicit_trigger: bool = False
    split: str = "time"
    validation: str = "0.1"
    test: str = "0.1"
    history: int = 50
    bucket_ms: int = 3_600_000
    delay_ms: int = 3_600_000
    strength: float = 20.0
    window_ms: int = 3_600_000
    # A column of numbers, or (column, at least, weight) each; a click counts the most that any of them says.
    weight: str | tuple[tuple[str, float, float], ...] | None = None


@dataclass
class Event:
    user: str
    item: str
    time: int
    click: bool
    trigger: str | None
    split: int = 0
    weight: float = 1.0

    def key(self) -> tuple[Any, ...]:
        return (self.user, self.time, self.item, self.click, self.trigger or "")


@dataclass
class Expected:
    """Hold the answers. Items are rows of the catalogue."""

    rejected: list[tuple[int, str]]
    duplicates: int
    events: list[Event]
    boundaries: tuple[int, int] | None
    prior_ctr: float
    examples: list[Row]
    sampling_counts: list[int]
    snapshots: dict[str, list[tuple[int, int, np.float32, np.float32]]]
    user_clicks: Counter[str] = field(default_factory=Counter)


def recompute(rows: Iterable[Row], item_ids: Sequence[str], settings: Settings) -> Expected:
    """Recompute the training data from rows.

    Args:
        rows: mappings with user, item, time and, where there is one, click, trigger and the columns of weights.
        item_ids: items of the catalogue, in its order.
        settings: settings of the experiment.
    """
    row_of = {item: row for row, item in enumerate(item_ids)}
    rejected, kept = validate(rows, row_of, settings)
    lightest_first = sorted(kept, key=lambda event: event.weight)  # of duplicates the last one stays
    events = sorted({event.key(): event for event in lightest_first}.values(), key=Event.key)
    boundaries = split(events, settings)
    training = [event for event in events if event.split == 0]
    prior = min(max(sum(event.click for event in training) / len(training), 1e-6), 1 - 1e-6)
    by_item = defaultdict(list)
    for event in events:
        by_item[event.item].append(event)
    return Expected(
        rejected=rejected,
        duplicates=len(kept) - len(events),
        events=events,
        boundaries=boundaries,
        prior_ctr=prior,
        examples=list(examples(events, by_item, row_of, prior, settings)),
        sampling_counts=[sum(event.click and event.split == 0 for event in by_item[item]) for item in item_ids],
        snapshots=snapshots(events, by_item, item_ids, boundaries, prior, settings),
        user_clicks=Counter(event.user for event in training if event.click),
    )


def validate(rows: Iterable[Row], row_of: dict[str, int], settings: Settings) -> tuple[list[Any], list[Event]]:
    rejected, kept = [], []
    for number, row in enumerate(rows):
        user, item = clean_id(row["user"]), clean_id(row["item"])
        time, click = to_ms(row["time"], settings.unit), to_number(row.get("click"))
        reason = None
        if user is None:
            reason = "user is missing"
        elif item is None:
            reason = "item is missing"
        elif time is None:
            reason = "time is missing"
        elif time == "unreadable":
            reason = "time cannot be read"
        elif settings.at_least is not None and click is None:
            reason = "click is missing"
        elif settings.at_least is not None and click == "wrong":
            reason = "click is not a number"
        elif item not in row_of:
            reason = "item is not in the items file"
        is_click = reason is None and (settings.at_least is None or click >= settings.at_least)
        weight: Any = 1.0
        if is_click and settings.weight is not None:
            weight = click_weight(row, settings.weight)
            if isinstance(weight, str):
                reason = weight
        if reason:
            rejected.append((number, reason))
        else:
            kept.append(Event(user, item, time, is_click, clean_id(row.get("trigger")), weight=weight))
    return rejected, kept


def click_weight(row: Row, rules: str | tuple[tuple[str, float, float], ...]) -> float | str:
    """Return the weight as a float32 number, or the reason why there is none."""
    if isinstance(rules, str):
        number = to_number(row[rules])
        if number is None:
            return "weight is missing"
        if number == "wrong":
            return "weight is not a number"
        if not 0 < number < 3.5e38 or np.float32(number) == 0:
            return "weight is not above 0"
        return float(np.float32(number))
    found = [(to_number(row[column]), at_least, weight) for column, at_least, weight in rules]
    if any(number == "wrong" for number, _, _ in found):
        return "weight is not a number"
    holding = [weight for number, at_least, weight in found if number is not None and number >= at_least]
    return max(holding, default=1.0)


def clean_id(value: Any) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip() or None


def to_ms(value: Any, unit: str) -> Any:
    text = clean_id(value)
    if text is None:
        return None
    if unit == "iso":
        try:
            moment = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
        except ValueError:
            return "unreadable"
        moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)
        since = moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
        return since // datetime.timedelta(milliseconds=1)
    try:
        number = Decimal(text)
    except InvalidOperation:
        return "unreadable"
    if not number.is_finite():
        return "unreadable"
    scale = {"s": Decimal(1000), "us": Decimal("0.001"), "ns": Decimal("0.000001")}.get(unit, Decimal(1))
    return int((number * scale).to_integral_value(ROUND_FLOOR))


def to_number(value: Any) -> Any:
    text = clean_id(value)
    if text is None or text.lower() == "nan":
        return None
    if text.lower() in ("true", "false"):
        return float(text.lower() == "true")
    try:
        number = float(text)
    except ValueError:
        return "wrong"
    return number if math.isfinite(number) else "wrong"


def split(events: list[Event], settings: Settings) -> tuple[int, int] | None:
    """Sets `split` of every event."""
    if settings.split == "time":
        times = sorted(event.time for event in events)
        test, held_out = Decimal(settings.test), Decimal(settings.validation) + Decimal(settings.test)
        starts = [times[math.floor(len(times) * (1 - share))] for share in (held_out, test)]
        for event in events:
            event.split = sum(event.time >= start for start in starts)
        return starts[0], starts[1]
    by_user = defaultdict(list)
    for event in events:
        by_user[event.user].append(event)
    for own in by_user.values():
        clicked = [position for position, event in enumerate(own) if event.click]
        if len(clicked) >= 3:
            for position, event in enumerate(own):
                event.split = 2 if position >= clicked[-1] else 1 if position >= clicked[-2] else 0
    return None


def examples(
    events: list[Event], by_item: dict[str, list[Event]], row_of: dict[str, int], prior: float, settings: Settings
) -> Iterable[Row]:
    clicks_of = defaultdict(list)
    for event in events:
        if event.click:
            clicks_of[event.user].append(event)
    known = {item: Known(own, settings) for item, own in by_item.items()}
    for clicks in clicks_of.values():
        for example in clicks:
            earlier = [click for click in clicks if click.time < example.time]
            last = earlier[-settings.history :]
            trigger = -1
            if settings.explicit_trigger:
                trigger = row_of.get(example.trigger or "", -1)
            elif last and example.time - last[-1].time <= settings.window_ms:
                trigger = row_of[last[-1].item]
            exposures, clicked, age = known[example.item].at(example)
            yield {
                "split": example.split,
                "user_id": example.user,
                "item": row_of[example.item],
                "time_ms": example.time,
                "history": [row_of[click.item] for click in last],
                "history_time_ms": [click.time for click in last],
                "trigger": trigger,
                "exposures": exposures,
                "clicks": clicked,
                "smoothed_ctr": ctr(clicked, exposures, prior, settings),
                "age_hours": age,
                "seen": sorted({row_of[click.item] for click in earlier}) if example.split else None,
                "weight": example.weight,
            }


@dataclass(frozen=True)
class Entry:
    """Hold one action of a user, for a further history."""

    user: str
    item: str
    time: int


def entries_before(entries: Iterable[Entry], asked: Iterable[tuple[str, int]], *, length: int) -> list[list[Entry]]:
    """Find for each user and moment the last distinct entries strictly before, oldest first, equal times by item."""
    by_user = defaultdict(list)
    for entry in sorted(set(entries), key=lambda entry: (entry.time, entry.item)):
        by_user[entry.user].append(entry)
    return [[entry for entry in by_user[user] if entry.time < time][-length:] for user, time in asked]


def ctr(clicks: int, exposures: int, prior: float, settings: Settings) -> np.float32:
    return np.float32((clicks + prior * settings.strength) / (exposures + settings.strength))


class Known:
    """Keep the counts that could be known of one item: an event becomes visible `delay` after its bucket has closed."""

    def __init__(self, own: list[Event], settings: Settings) -> None:
        self.clock = settings.unit != "order"
        self.trained = [event for event in own if event.split == 0]
        self.first = min(event.time for event in own)
        bucket, delay = settings.bucket_ms, settings.delay_ms

        def visible_from(event: Event) -> int:
            return (event.time // bucket + 1) * bucket + delay

        self.events = sorted(visible_from(event) for event in own)
        self.clicks = sorted(visible_from(event) for event in own if event.click)

    def at(self, example: Event) -> tuple[int, int, np.float32]:
        if not self.clock:
            itself = example.split == 0
            return len(self.trained) - itself, sum(event.click for event in self.trained) - itself, np.float32(0)
        exposures = bisect.bisect_right(self.events, example.time)
        age = (example.time - self.first) / 3.6e6 if exposures else 0
        return exposures, bisect.bisect_right(self.clicks, example.time), np.float32(age)


def snapshots(
    events: list[Event],
    by_item: dict[str, list[Event]],
    item_ids: Sequence[str],
    boundaries: tuple[int, int] | None,
    prior: float,
    settings: Settings,
) -> dict[str, list[tuple[int, int, np.float32, np.float32]]]:
    end = max(event.time for event in events)
    if boundaries:
        moments = {"validation": (boundaries[0], (0,)), "test": (boundaries[1], (0, 1)), "serving": (end, (0, 1, 2))}
    else:
        trained = max(event.time for event in events if event.split == 0)
        moments = {"validation": (trained, (0,)), "test": (trained, (0,)), "serving": (end, (0, 1, 2))}
    result = {}
    for name, (moment, splits) in moments.items():
        result[name] = []
        for item in item_ids:
            known = [event for event in by_item[item] if event.split in splits]
            clicks = sum(event.click for event in known)
            age = (moment - min(event.time for event in known)) / 3.6e6 if known and settings.unit != "order" else 0
            result[name].append((len(known), clicks, ctr(clicks, len(known), prior, settings), np.float32(age)))
    return result
