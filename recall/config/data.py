"""Defines the `data` section of the experiment file: input files and how they become training examples.

Sub-sections come before the section that holds them: start at `DataConfig`, the last class.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from recall.config.posterior import PosteriorConfig
from recall.config.strict import Strict
from recall.config.tunable import OneOf
from recall.config.values import GIVEN, DurationMs, HeldOut, HistoryName, LocalPath, TimeZone
from recall.core.times import MS_PER_HOUR


class ClickRule(Strict):
    """Call a row a click when `column` is at least `at_least`."""

    short_form = "column"

    column: str = Field(description="column of the log that tells clicks")
    at_least: float = Field(default=1.0, description="lowest value that is a click, e.g. 4 of a rating")


class WeightRule(Strict):
    """Count a click `weight` times when `column` is at least `at_least`."""

    column: str = Field(description="column of the log")
    at_least: float = Field(default=1.0, description="lowest value for which the rule holds")
    weight: float = Field(ge=1e-6, le=1e6, description="what the click then counts for")


class WeightConfig(Strict):
    """Weigh clicks in the loss: by the number in `column`, or by the largest of the `rules` that hold.

    In the experiment file it is a column's name or a list of rules.
    """

    short_form = "column"
    list_form = "rules"

    column: str | None = Field(default=None, description="column of the log with a weight per click")
    rules: tuple[WeightRule, ...] = Field(
        default=(), description="rules of which the largest weight counts, e.g. click 1, long view 2, like 3"
    )

    @model_validator(mode="after")
    def _one_source(self) -> WeightConfig:
        if (self.column is None) == (not self.rules):
            raise ValueError(
                "expected either the name of a column with a number per row, or a list of rules like "
                "[{column: is_like, weight: 3}]"
            )
        return self

    @property
    def columns(self) -> dict[str, str]:
        """Return columns of the log by their keys in the experiment file, below data.events."""
        named = {"weight": self.column} if self.column else {}
        return named | {f"weight[{number}]": rule.column for number, rule in enumerate(self.rules)}


class EventsConfig(Strict):
    """Describe the exposure log: one row per exposure, with whether it was clicked."""

    path: str = Field(
        default=GIVEN,
        description="file, folder or glob; CSV, TSV (gz too), JSON lines or Parquet by the ending. "
        "May be absent where the table is given to recall.Run",
    )
    format: Literal["auto", "csv", "tsv", "jsonl", "parquet", "sequences"] = Field(
        default="auto",
        description="auto: by the ending; sequences: lines `user item item ...` in order of time, without times",
    )
    user: str = Field(default="user_id", description="column with the user")
    item: str = Field(default="item_id", description="column with the item that was shown")
    time: str = Field(default="time", description="column with the time of the exposure")
    time_unit: Literal["s", "ms", "us", "ns", "iso", "order"] = Field(
        default="ms",
        description="unit of the times since 1970; iso: text like 2024-01-31T12:00:00; order: no clock, lines alone. "
        "One that does not fit is refused; events of the future, and odd ones before 1980, are set aside and counted",
    )
    time_zone: TimeZone = Field(
        default="UTC", description="zone of times that say no offset, by its IANA name, e.g. Europe/Berlin"
    )
    click: ClickRule | None = Field(
        default=None, description="a column, or {column: rating, at_least: 4}; without it every row is a click"
    )
    trigger: str | None = Field(default=None, description="column with the item the user came from (i2i)")
    weight: WeightConfig | None = Field(
        default=None, description="what a click counts for in the loss: a column, or rules; without it: once"
    )

    @model_validator(mode="before")
    @classmethod
    def _sequences_are_in_order(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("format") == "sequences":
            return {**values, "time_unit": "order"}
        return values

    @model_validator(mode="after")
    def _sequences_have_no_columns(self) -> EventsConfig:
        if self.format == "sequences" and self.weight:
            raise ValueError("weight: lines of format sequences hold ids alone; use another format, or remove weight")
        return self


class ItemsConfig(Strict):
    """Describe the catalogue: one row per item, cold items included."""

    path: LocalPath = Field(
        default=Path(GIVEN),
        description="file with a row per item; CSV, TSV (gz too), JSON lines or Parquet. "
        "May be absent where the table is given to recall.Run",
    )
    format: Literal["auto", "csv", "tsv", "jsonl", "parquet", "attributes"] = Field(
        default="auto", description="auto: by the ending; attributes: one JSON object, item id -> list of attributes"
    )
    id: str = Field(default="item_id", description="column with the item id, as the log has it")
    title: str | None = Field(default=None, description="column shown to people in reports and queries")
    attributes: tuple[str, ...] = Field(
        default=(),
        description="columns that no feature reads, kept all the same for filters and caps of what is served, e.g. "
        "[published_ms]; columns of features are kept anyway, but vectors",
    )
    published: str | None = Field(
        default=None,
        description="column with the time of publication, in the unit of the log or as text like 2024-01-31: rolling "
        "evaluation ranks an item from then on. It is an attribute, too; an item without a time is always there",
    )
    unknown: Literal["reject", "add"] = Field(
        default="reject", description="events of items that the file lacks: set aside, or add the item without content"
    )

    @model_validator(mode="before")
    @classmethod
    def _published_is_kept(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or not isinstance(named := values.get("published"), str):
            return values
        attributes = values.get("attributes", ())
        if not isinstance(attributes, list | tuple) or named in attributes:
            return values
        return {**values, "attributes": [*attributes, named]}


class UsersConfig(Strict):
    """Describe the user profiles; users that the file lacks have a missing profile."""

    path: LocalPath = Field(
        default=Path(GIVEN),
        description="file with a row per user; CSV, TSV (gz too), JSON lines or Parquet. "
        "May be absent where the table is given to recall.Run",
    )
    format: Literal["auto", "csv", "tsv", "jsonl", "parquet"] = Field(default="auto", description="auto: by the ending")
    id: str = Field(default="user_id", description="column with the user id, as the log has it")


class SplitConfig(Strict):
    """Choose the examples that are held out.

    `time`: the last `test` of the events by time, before them `validation`; as fractions of the events, or both as
    durations (`{validation: 1d, test: 7d}`: the last week of the log, and the day before it). `last_click`: of users
    with at least three clicks, the last one is test and the one before it validation.
    """

    by: Literal["time", "last_click"] = Field(default="time", description="by the clock, or leave one out")
    validation: HeldOut = Field(
        default=0.1,
        description="share of the events, before the test period, on which settings are chosen, or a duration like 1d; "
        "by: time",
    )
    test: HeldOut = Field(
        default=0.1, description="share of the events, the last ones, on which models are judged, or a duration like 7d"
    )

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> SplitConfig:
        if self.by == "time" and (self.validation < 1) != (self.test < 1):
            raise ValueError(
                "expected validation and test both as fractions, like 0.1, or both as durations, like 1d; found one of "
                "each"
            )
        if self.by == "time" and 1 <= self.validation + self.test < 2:
            raise ValueError("validation + test must stay below 1, or nothing is left to train on")
        return self


class TriggerConfig(Strict):
    """Limit i2i pairs: the trigger is the user's previous click if it is at most `window` old."""

    window: DurationMs = Field(default=3_600_000, description="age up to which a click is a trigger, e.g. 30m")


class HistoryConfig(Strict):
    """Describe a further list of items per user, strictly before the example as the clicks are.

    Without `path` its entries are the rows of the log for which `column` is at least `at_least`, clicked or not. With
    `path` they are rows of another file, among which `column` may choose, too. Column names that are not given are the
    names of data.events.
    """

    column: str | None = Field(default=None, description="column that chooses the rows of this history")
    at_least: float = Field(default=1.0, description="lowest value of the column that enters")
    length: PositiveInt | None = Field(default=None, description="entries that an example carries; as data.history")
    path: str | None = Field(default=None, description="file, folder or glob of another log")
    format: Literal["auto", "csv", "tsv", "jsonl", "parquet"] = Field(
        default="auto", description="format of that file; auto: by the ending"
    )
    user: str | None = Field(default=None, description="column with the user; default: as in data.events")
    item: str | None = Field(default=None, description="column with the item; default: as in data.events")
    time: str | None = Field(default=None, description="column with the time; default: as in data.events")
    time_unit: Literal["s", "ms", "us", "ns", "iso"] | None = Field(default=None, description="as in data.events")
    time_zone: TimeZone | None = Field(default=None, description="as in data.events")
    domain: Literal["catalogue", "own"] = Field(
        default="catalogue", description="own: its items are no items of the catalogue and get embeddings of their own"
    )
    min_count: PositiveInt = Field(default=2, description="items of an own domain seen less often share one embedding")

    @model_validator(mode="after")
    def _has_a_source(self) -> HistoryConfig:
        if self.path is None:
            if self.column is None:
                raise ValueError("name a column of the log whose rows enter this history, or a path to another file")
            if self.domain == "own":
                raise ValueError("items of the log are items of the catalogue; domain: own needs a path")
            keys = ("user", "item", "time", "time_unit", "time_zone")
            named = [name for name in keys if getattr(self, name) is not None]
            if named or self.format != "auto":
                raise ValueError(f"{', '.join(named) or 'format'} describes another file; add its path")
        return self

    def as_log(self, events: Mapping[str, Any]) -> dict[str, Any]:
        """Return the data.events section of a log whose clicks are the entries, derived from the real log's section."""
        names = ("path", "format", "user", "item", "time", "time_unit", "time_zone")
        own = {name: getattr(self, name) for name in names if self.path and getattr(self, name) is not None}
        click = {"column": self.column, "at_least": self.at_least} if self.column else None
        return {**events, **own, "click": click, "trigger": None, "weight": None}


class RefusedConfig(Strict):
    """Let training examples carry what was shown beside the click, in the same session, and not clicked.

    `refused: 4` is short for `{count: 4}`.
    """

    short_form = "count"

    count: NonNegativeInt = Field(default=0, description="items that an example carries at most; 0 for none")
    gap: DurationMs = Field(
        default=30 * 60_000, description="a longer time between two exposures of a user ends the session, e.g. 30m"
    )


class DataConfig(Strict):
    """Configure the input files and how they become training examples."""

    events: EventsConfig = Field(description="the log: what was shown to whom, when, and what was clicked")
    items: ItemsConfig = Field(description="the catalogue")
    users: UsersConfig | None = Field(default=None, description="profiles of users; without it there are none")
    history: Annotated[PositiveInt, OneOf((10, 30, 50, 100), ordered=True)] = Field(
        default=50, description="clicks of the user that an example carries"
    )
    layout: Literal["click", "user"] = Field(
        default="click",
        description="training records: one per click; or one per user with all clicks in order, with which a causal "
        "encoder (model.history_encoder: transformer) learns at every position in one pass",
    )
    split: SplitConfig = Field(default=SplitConfig(), description="which examples are held out")
    posterior: PosteriorConfig = Field(
        default=PosteriorConfig(), description="what an example knows of the exposures and clicks of an item"
    )
    trigger: TriggerConfig = Field(default=TriggerConfig(), description="which click counts as the item just clicked")
    histories: dict[HistoryName, HistoryConfig] = Field(
        default={},
        description="further lists of items per user, each encoded and fused with the clicks: likes, long views, "
        "another domain's items, e.g. {likes: {column: is_like}}; layout: click only",
    )
    refused: RefusedConfig = Field(
        default=RefusedConfig(), description="what training examples carry of refused items; a count, or a section"
    )
    shards: PositiveInt = Field(default=4, description="files that training examples are spread over")
    tail: DurationMs = Field(
        default=24 * MS_PER_HOUR,
        ge=0,
        description="how much of the end of the log is kept beside the run, for a run that goes on from it: events may "
        "come so late, and these clicks are learned from once more",
    )
    retire_after: DurationMs | None = Field(
        default=None,
        ge=1,
        description="in a run that goes on, ids of items that were not exposed, and of users that did not click, for "
        "so long give their rows to new ids, so that tables do not grow for ever; default: ids stay",
    )

    @property
    def has_moments(self) -> bool:
        """Tell whether examples can be told what the feed looked like at their moment.

        A log without a clock has no age of a click. Of a split by last click the held-out clicks lie among the
        training's, so that evidence of a moment would hold the answer.
        """
        return self.events.time_unit != "order" and self.split.by == "time"

    @property
    def half_lives_ms(self) -> tuple[int, ...]:
        """Return the half-lives of the fresh evidence; empty where there is none, see `has_moments`."""
        return self.posterior.half_lives if self.has_moments else ()

    @property
    def audience(self) -> int:
        """Return the number of sources of an item's audience; 0 without audiences."""
        return self.posterior.audience

    @property
    def further_logs(self) -> dict[str, EventsConfig]:
        """Return the logs of the further histories, by name; the clicks of such a log are the entries."""
        events = self.events.model_dump()
        return {name: EventsConfig.model_validate(history.as_log(events)) for name, history in self.histories.items()}

    @model_validator(mode="after")
    def _histories_fit(self) -> DataConfig:
        if self.histories and self.layout == "user":
            raise ValueError("histories need one record per click; use layout: click, or remove data.histories")
        if self.events.time_unit == "order":
            others = [name for name, history in self.histories.items() if history.path]
            if others or (self.histories and self.events.format == "sequences"):
                name = next(iter(others or self.histories))
                raise ValueError(
                    f"histories.{name}: a log without timestamps (time_unit: order) shares no clock with another file, "
                    "and lines of format sequences have no further columns; remove it"
                )
        return self

    @model_validator(mode="after")
    def _something_is_refused(self) -> DataConfig:
        count = self.refused.count
        if count and self.events.click is None:
            raise ValueError(
                f"refused: {count} asks for what was shown and not clicked, but without data.events.click every row is "
                "a click; name the column of clicks there, or use refused: 0"
            )
        if count and self.events.time_unit == "order":
            raise ValueError(
                f"refused: {count} asks for the session of a click, but a log without timestamps (time_unit: order) "
                "has none; use refused: 0"
            )
        if count and self.layout == "user":
            raise ValueError(f"refused: {count} needs one record per click; use layout: click, or refused: 0")
        return self

    @model_validator(mode="after")
    def _audiences_have_moments(self) -> DataConfig:
        if self.posterior.audience and not self.has_moments:
            found = "split: {by: last_click}" if self.split.by == "last_click" else "time_unit: order"
            raise ValueError(
                f"posterior.audience: {self.posterior.audience} reads the clicks before a moment, which {found} lacks "
                "(the held-out clicks would be among them); use split: {by: time} on a log with times, or set it to 0"
            )
        return self

    @model_validator(mode="after")
    def _order_has_no_clock(self) -> DataConfig:
        if self.events.time_unit == "order" and self.split.by == "time":
            raise ValueError(
                "events without timestamps (time_unit: order) have no common clock; use split: {by: last_click}"
            )
        if self.events.time_unit == "order" and self.items.published:
            raise ValueError(
                f"items.published: {self.items.published}: a log without timestamps (time_unit: order) has no clock to "
                "compare with; remove it, or list the column in items.attributes"
            )
        return self
