"""The experiment file: one YAML that says where the data is, what the model sees, and how it is judged."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from recall.errors import ConfigError
from recall.experiment_file import apply_override, describe, plain, read_yaml, resolve_paths
from recall.histories import HistoryConfig
from recall.schema import FeatureSchema, Strict
from recall.weights import WeightConfig

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def parse_duration_ms(value: Any) -> int:
    """Milliseconds of '500ms', '90s', '30m', '1h' or '7d'; whole numbers are milliseconds already."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*", str(value))
    if not match:
        raise ValueError("expected a duration like 30m, 1h or 7d")
    return round(float(match[1]) * _UNITS_MS[match[2]])


def parse_auto_or_number(value: Any) -> float | Literal["auto"]:
    """'auto', or a finite number."""
    if value == "auto":
        return "auto"
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("expected auto or a finite number, e.g. 0.05")
    return number


DurationMs = Annotated[int, BeforeValidator(parse_duration_ms), Field(ge=0)]
AutoOrNumber = Annotated[Literal["auto"] | float, BeforeValidator(parse_auto_or_number)]
Probability = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
HistoryName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
HistoryTime = Literal["none", "gap", "age", "both"]


class ClickRule(Strict):
    """A row is a click when `column` is at least `at_least`."""

    column: str
    at_least: float = 1.0


class EventsConfig(Strict):
    """The exposure log: one row per exposure, with whether it was clicked."""

    path: str = Field(description="file or glob; CSV, TSV (gz too), JSON lines or Parquet by the ending")
    format: Literal["auto", "csv", "tsv", "jsonl", "parquet", "sequences"] = "auto"
    user: str = "user_id"
    item: str = "item_id"
    time: str = "time"
    time_unit: Literal["s", "ms", "us", "ns", "iso", "order"] = "ms"
    click: ClickRule | None = Field(default=None, description="without it every row is a click")
    trigger: str | None = Field(default=None, description="column with the item the user came from (i2i)")
    weight: WeightConfig | None = Field(default=None, description="without it every click counts once")

    @model_validator(mode="before")
    @classmethod
    def _column_alone_is_a_rule(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            values = dict(values)
            if isinstance(values.get("click"), str):
                values["click"] = {"column": values["click"]}
            if values.get("format") == "sequences":
                values["time_unit"] = "order"
        return values

    @model_validator(mode="after")
    def _sequences_have_no_columns(self) -> EventsConfig:
        if self.format == "sequences" and self.weight:
            raise ValueError("weight: lines of format sequences hold ids alone; use another format, or remove weight")
        return self


class ItemsConfig(Strict):
    """The catalogue: one row per item, cold items included."""

    path: Path
    format: Literal["auto", "csv", "tsv", "jsonl", "parquet", "attributes"] = "auto"
    id: str = "item_id"
    title: str | None = Field(default=None, description="column shown to people in reports and queries")
    unknown: Literal["reject", "add"] = Field(
        default="reject", description="events of items that the file lacks: set aside, or add the item without content"
    )


class UsersConfig(Strict):
    """User profiles; users that the file lacks have a missing profile."""

    path: Path
    format: Literal["auto", "csv", "tsv", "jsonl", "parquet"] = "auto"
    id: str = "user_id"


class SplitConfig(Strict):
    """Which examples are held out.

    `time`: the last `test` of the events by time, before them `validation`. `last_click`: of users with
    at least three clicks the last one is test, the one before it validation.
    """

    by: Literal["time", "last_click"] = "time"
    validation: Fraction = 0.1
    test: Fraction = 0.1

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> SplitConfig:
        if self.by == "time" and self.validation + self.test >= 1:
            raise ValueError("validation + test must stay below 1, or nothing is left to train on")
        return self


class PosteriorConfig(Strict):
    """What an example may know of an item: events in buckets that closed `delay` before the example."""

    bucket: DurationMs = Field(default=3_600_000, ge=1)
    delay: DurationMs = 3_600_000
    prior_strength: PositiveFloat = Field(default=20.0, description="pseudo-exposures behind the prior CTR")


class TriggerConfig(Strict):
    """i2i pairs: the user's previous click, if it is at most `window` old."""

    window: DurationMs = 3_600_000


class DataConfig(Strict):
    """Input files and how they become training examples."""

    events: EventsConfig
    items: ItemsConfig
    users: UsersConfig | None = None
    history: PositiveInt = Field(default=50, description="clicks of the user that an example carries")
    layout: Literal["click", "user"] = Field(
        default="click", description="training records: one per click, or one per user with all ordered clicks"
    )
    split: SplitConfig = SplitConfig()
    posterior: PosteriorConfig = PosteriorConfig()
    trigger: TriggerConfig = TriggerConfig()
    histories: dict[HistoryName, HistoryConfig] = Field(
        default={}, description="further lists of items per user, e.g. {likes: {column: is_like}}"
    )
    shards: PositiveInt = 4

    @property
    def further_logs(self) -> dict[str, EventsConfig]:
        """What further histories are read from, by name: logs whose clicks are the entries."""
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
    def _order_has_no_clock(self) -> DataConfig:
        if self.events.time_unit == "order" and self.split.by == "time":
            raise ValueError(
                "events without timestamps (time_unit: order) have no common clock; use split: {by: last_click}"
            )
        return self


class TransformerConfig(Strict):
    """The transformer over the ordered history."""

    layers: PositiveInt = 2
    heads: PositiveInt = 2


class InterestsConfig(Strict):
    """Several query vectors for a user: how many, and what makes them of the history."""

    count: PositiveInt = Field(default=4, description="query vectors per user; 1 is the model without interests")
    extractor: Literal["attention", "routing"] = Field(
        default="attention", description="self-attentive pooling (ComiRec-SA), or dynamic routing (MIND)"
    )
    objective: Literal["served", "chosen"] = Field(
        default="served",
        description="a candidate of the softmax is scored by its own best interest, as in search; or by the one "
        "that scores the clicked item best (ComiRec)",
    )


class ColdSimulation(Strict):
    """Shows candidates in training as they would look if they were new.

    The id is replaced by the out-of-vocabulary row with probability max / (1 + exposures / half), and besides with
    probability `unseen` whatever the exposures: an item published after the training is served without a trained id,
    but soon with a posterior. `brand_new` takes away the posterior too.
    """

    enabled: bool = True
    max_probability: Probability = 0.8
    half_exposures: PositiveFloat = Field(default=5.0, description="exposures at which the probability has halved")
    unseen: Probability = Field(default=0.15, description="share of candidates shown without id, but with posterior")
    brand_new: Probability = Field(default=0.0, description="share of candidates shown without id and posterior")


class LossConfig(Strict):
    """The training objective: weights of its terms and where negatives come from."""

    item: NonNegativeFloat = Field(default=1.0, description="query against the item vector that is served")
    behaviour: NonNegativeFloat = Field(default=1.0, description="query against the behaviour tower alone")
    meta: NonNegativeFloat = Field(default=1.0, description="query against the meta tower alone")
    towers_move_query: bool = Field(
        default=False, description="whether the two losses above also train the query side, or the item towers alone"
    )
    triplet: NonNegativeFloat = Field(default=0.3, description="alignment of both towers of the same item")
    margin: NonNegativeFloat = 0.2
    triplet_negatives: Literal["all", "hard"] = "all"
    softmax: Literal["sampled", "full"] = Field(
        default="sampled",
        description="against drawn negatives, or against the whole catalogue (`negatives` says which part of it)",
    )
    logq: bool = Field(default=True, description="subtract the log of how often a candidate is drawn")
    negatives: Literal["none", "exposed", "catalogue"] = Field(
        default="exposed", description="what uniform negatives are drawn from, beside the in-batch ones"
    )
    uniform_negatives: NonNegativeInt = Field(default=512, description="uniform negatives per batch")

    @model_validator(mode="after")
    def _full_softmax_has_negatives(self) -> LossConfig:
        if self.softmax == "full" and self.negatives == "none":
            raise ValueError(
                "softmax: full ranks against the catalogue, but negatives: none leaves nothing of it; "
                "use negatives: exposed or negatives: catalogue"
            )
        return self


class ModelConfig(Strict):
    """The towers and how they are joined."""

    query: Literal["user", "trigger", "both"] = "user"
    structure: Literal["gated", "base", "single", "behaviour_only", "meta_only"] = "gated"
    gate: Literal["sum", "concat"] = "sum"
    gate_shape: Literal["scalar", "per_dimension"] = "scalar"
    gate_monotone: bool = Field(default=False, description="the behaviour share never falls as exposures grow")
    gate_hidden: PositiveInt = 16
    appeal: bool = Field(default=True, description="gated: a score for everybody, learned from the posterior")
    dim: PositiveInt = 64
    hidden: tuple[PositiveInt, ...] = (128,)
    dropout: float = Field(default=0.2, ge=0, lt=1)
    history_encoder: Literal["mean", "attention", "transformer"] = "attention"
    transformer: TransformerConfig = TransformerConfig()
    interests: InterestsConfig | None = Field(default=None, description="several query vectors per user; default: one")
    history_time: Literal["auto", "none", "gap", "age", "both"] = Field(
        default="none",
        description="what the user tower sees of a click's time: the gap to the next click, its age at the query, both;"
        " auto: both where the log has a clock",
    )
    history_time_hidden: Probability = Field(
        default=0.1, description="share of training histories without times, for users whose times are unknown"
    )
    similarity: Literal["cosine", "dot"] = Field(
        default="dot", description="vectors of unit length, or of a length that is learned and speaks in the score"
    )
    shared_space: bool = Field(
        default=False,
        description="histories, queries and items share one space from the start: id and meta vectors enter a history "
        "unprojected, a query is the history's state plus an MLP that starts at zero, and so is the behaviour vector",
    )
    temperature: PositiveFloat | None = Field(
        default=None, description="start value of what scores are divided by; default: 1 for dot, 0.08 for cosine"
    )
    learn_temperature: bool = True
    cold_simulation: ColdSimulation = ColdSimulation()
    loss: LossConfig = LossConfig()

    @property
    def start_temperature(self) -> float:
        """`temperature`, or what suits the similarity."""
        return self.temperature or {"dot": 1.0, "cosine": 0.08}[self.similarity]

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> ModelConfig:
        if self.history_encoder == "transformer" and self.dim % self.transformer.heads:
            raise ValueError(f"dim {self.dim} has to be a multiple of transformer.heads {self.transformer.heads}")
        return self

    @model_validator(mode="after")
    def _interests_are_of_users(self) -> ModelConfig:
        if self.interest_count > 1 and self.query == "trigger":
            raise ValueError(
                f"interests.count {self.interest_count} makes several vectors of a user's history, but query: trigger "
                "has no user tower; use query: user or both, or remove interests"
            )
        return self

    @model_validator(mode="after")
    def _something_trains_the_query(self) -> ModelConfig:
        loss = self.loss
        towers_do = self.structure == "gated" and loss.towers_move_query and (loss.behaviour or loss.meta)
        if not loss.item and not towers_do:
            raise ValueError(
                "loss.item 0 leaves nothing that trains the query side; raise it, or let both towers of a gated model "
                "do so with loss.towers_move_query: true"
            )
        return self

    @property
    def interest_count(self) -> int:
        """Query vectors per user."""
        return self.interests.count if self.interests else 1


class TrainingConfig(Strict):
    """How long, how fast, and when to stop."""

    epochs: PositiveInt = 20
    batch_size: PositiveInt = 1024
    learning_rate: PositiveFloat = 0.002
    table_optimizer: Literal["adagrad", "lazy_adam"] = "lazy_adam"
    table_learning_rate: PositiveFloat | None = Field(
        default=None, description="default: 0.1 for adagrad, the dense learning rate for lazy_adam"
    )
    ema: Literal["auto"] | Fraction | None = Field(
        default="auto",
        description="decay per step of the moving average of the weights, which is then what is judged and kept; "
        "auto: 0.99 while the tables are small, as each step touches all their rows",
    )
    patience: PositiveInt = Field(default=3, description="epochs without a better validation metric before stopping")
    metric: Literal["recall", "ndcg"] = "recall"
    metric_k: PositiveInt = 50
    shuffle_buffer: PositiveInt = 200_000


class EvaluationConfig(Strict):
    """Cut-offs, slices, and what is left out of the ranking."""

    k: tuple[PositiveInt, ...] = Field(default=(5, 10, 20, 50, 100), min_length=1)
    exclude_seen: bool = Field(default=True, description="items the user clicked before are not ranked")
    exposure_buckets: tuple[NonNegativeInt, ...] = Field(
        default=(0, 1, 10, 100, 1000), description="lower bounds of the slices by exposures before the test period"
    )

    @model_validator(mode="after")
    def _buckets_start_with_cold(self) -> EvaluationConfig:
        if self.exposure_buckets[:1] != (0,) or list(self.exposure_buckets) != sorted(set(self.exposure_buckets)):
            raise ValueError("exposure_buckets are rising lower bounds that start at 0, e.g. [0, 1, 10, 100]")
        return self


class IndexConfig(Strict):
    """How vectors are searched."""

    kind: Literal["auto", "exact", "scann"] = "auto"
    target_recall: Fraction = Field(default=0.95, description="recall@k against exact search that tuning must reach")
    k: PositiveInt = Field(default=100, description="candidates per query that the index is tuned for")
    exact_below: NonNegativeInt = Field(default=20_000, description="catalogues smaller than this are searched exactly")
    cold_bias: AutoOrNumber = Field(
        default="auto", description="added to the scores of items without exposures; auto: chosen on validation"
    )
    cold_bias_tolerance: float = Field(
        default=0.01, ge=0, lt=1, description="share of the best validation recall@50 that `auto` may give up"
    )


class Config(Strict):
    """A validated experiment; see `load_config`."""

    data: DataConfig
    features: FeatureSchema
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    index: IndexConfig = IndexConfig()
    seed: int = 1

    @property
    def history_time(self) -> HistoryTime:
        """`model.history_time` with auto resolved: a log without a clock has nothing to see."""
        chosen = self.model.history_time
        if chosen != "auto":
            return chosen
        return "none" if self.data.events.time_unit == "order" else "both"

    @model_validator(mode="after")
    def _times_need_a_clock(self) -> Config:
        if self.data.events.time_unit == "order" and self.history_time != "none":
            raise ValueError(
                f"model.history_time {self.history_time} needs times, and data.events.time_unit: order has none; "
                "use history_time: none"
            )
        return self

    @model_validator(mode="after")
    def _every_position_has_interests(self) -> Config:
        interests = self.model.interests
        if self.data.layout == "user" and interests and interests.count > 1 and interests.extractor == "routing":
            raise ValueError(
                "data.layout user learns at every position of a history, but model.interests.extractor routing makes "
                "interests of a whole history only; use extractor: attention, or layout: click"
            )
        return self

    @model_validator(mode="after")
    def _towers_have_features(self) -> Config:
        structure = self.model.structure
        if structure in ("gated", "base", "meta_only") and not self.features.meta:
            raise ValueError(
                f"model.structure {structure} needs features.meta; list content there, or use behaviour_only"
            )
        if structure in ("gated", "base", "behaviour_only") and not self.features.behaviour:
            raise ValueError(
                f"model.structure {structure} needs features.behaviour; list the item id there, or use meta_only"
            )
        has_item_id = any(
            feature.type == "id" and feature.source == self.data.items.id for feature in self.features.item
        )
        if not has_item_id and not self.features.meta:
            raise ValueError(
                "features name neither the item id nor content, so that items have no representation in a history; "
                f"add {{name: {self.data.items.id}, type: id}} to features.behaviour, or content to features.meta"
            )
        if not self.features.allow_mixed:
            for feature in self.features.meta:
                if feature.source == self.data.items.id:
                    raise ValueError(
                        f"features.meta lists {feature.name}, which is the item id; the meta tower must work for items "
                        "without behaviour. Move it to features.behaviour, or set features.allow_mixed: true"
                    )
        if self.features.user and not self.data.users:
            profile = [feature.name for feature in self.features.user if feature.type != "id"]
            if profile:
                raise ValueError(
                    f"features.user lists {', '.join(profile)}, but data.users names no file to read them from"
                )
        return self

    def replaced(self, **changes: Any) -> Config:
        """A copy with some sections replaced, validated again; e.g. `config.replaced(model={'structure': 'base'})`."""
        content = self.model_dump(mode="json")
        for section, values in changes.items():
            content[section] = {**content[section], **values} if isinstance(values, Mapping) else values
        return _validate(content)

    def to_yaml(self) -> str:
        """The resolved experiment: every default filled in, paths absolute."""
        return yaml.safe_dump(json.loads(self.model_dump_json()), sort_keys=False, allow_unicode=True)


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Reads and validates an experiment file.

    Args:
      path: the YAML; paths inside it are relative to its folder.
      overrides: `dotted.key=value` pairs, the value in YAML notation.

    Raises:
      ConfigError: says which key, what was found, and what to write.
    """
    path = Path(path)
    content = read_yaml(path)
    for override in overrides:
        apply_override(content, override)
    resolve_paths(content, path.resolve().parent)
    return _validate(content, source=path)


def _validate(content: Mapping[str, Any], source: Path | None = None) -> Config:
    try:
        return Config.model_validate(plain(content))
    except ValidationError as error:
        lines = [describe(problem) for problem in error.errors()]
        prefix = f"{source}: " if source else ""
        raise ConfigError(prefix + ("\n" + " " * 2).join(lines)) from None
