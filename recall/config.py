"""The experiment file: one YAML that says where the data is, what the model sees, and how it is judged."""

from __future__ import annotations

import json
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
from recall.schema import FeatureSchema, Strict

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def parse_duration_ms(value: Any) -> int:
    """Milliseconds of '500ms', '90s', '30m', '1h' or '7d'; whole numbers are milliseconds already."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*", str(value))
    if not match:
        raise ValueError("expected a duration like 30m, 1h or 7d")
    return round(float(match[1]) * _UNITS_MS[match[2]])


DurationMs = Annotated[int, BeforeValidator(parse_duration_ms), Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


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
    shards: PositiveInt = 4

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


class ColdSimulation(Strict):
    """Shows candidates in training as they would look if they were new.

    The id is replaced by the out-of-vocabulary row with probability max / (1 + exposures / half). And a share of all
    candidates is shown as brand-new: without id and without posterior, as a just published item is served.
    """

    enabled: bool = True
    max_probability: Probability = 0.8
    half_exposures: PositiveFloat = Field(default=5.0, description="exposures at which the probability has halved")
    brand_new: Probability = Field(default=0.1, description="share of candidates shown without id and posterior")


class LossConfig(Strict):
    """The training objective: weights of its terms and where negatives come from."""

    item: NonNegativeFloat = Field(default=1.0, description="query against the item vector that is served")
    behaviour: NonNegativeFloat = Field(default=0.3, description="query against the behaviour tower alone")
    meta: NonNegativeFloat = Field(default=0.3, description="query against the meta tower alone")
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
    dim: PositiveInt = 64
    hidden: tuple[PositiveInt, ...] = (128,)
    dropout: float = Field(default=0.2, ge=0, lt=1)
    history_encoder: Literal["mean", "attention", "transformer"] = "attention"
    transformer: TransformerConfig = TransformerConfig()
    similarity: Literal["cosine", "dot"] = Field(
        default="cosine", description="vectors of unit length, or of a length that is learned and speaks in the score"
    )
    shared_space: bool = Field(
        default=False,
        description="histories, queries and items share one space from the start: id and meta vectors enter a history "
        "unprojected, a query is the history's state plus an MLP that starts at zero, and so is the behaviour vector",
    )
    temperature: PositiveFloat = Field(
        default=0.08, description="start value of what scores are divided by; 1 fits similarity: dot"
    )
    learn_temperature: bool = True
    cold_simulation: ColdSimulation = ColdSimulation()
    loss: LossConfig = LossConfig()

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> ModelConfig:
        if self.history_encoder == "transformer" and self.dim % self.transformer.heads:
            raise ValueError(f"dim {self.dim} has to be a multiple of transformer.heads {self.transformer.heads}")
        return self


class TrainingConfig(Strict):
    """How long, how fast, and when to stop."""

    epochs: PositiveInt = 20
    batch_size: PositiveInt = 1024
    learning_rate: PositiveFloat = 0.001
    table_optimizer: Literal["adagrad", "lazy_adam"] = "lazy_adam"
    table_learning_rate: PositiveFloat | None = Field(
        default=None, description="default: 0.1 for adagrad, the dense learning rate for lazy_adam"
    )
    ema: Fraction | None = Field(
        default=None,
        description="decay per step of the moving average of the weights, which is then what is judged and kept",
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


class Config(Strict):
    """A validated experiment; see `load_config`."""

    data: DataConfig
    features: FeatureSchema
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    index: IndexConfig = IndexConfig()
    seed: int = 1

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
