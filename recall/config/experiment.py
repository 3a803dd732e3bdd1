"""Reads the experiment file: one YAML that says where the data is, what the model sees, and how it is judged.

`Config` holds the sections and checks what concerns several of them; each section is a module of its own beside this
one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from recall.config.content import ContentConfig
from recall.config.data import DataConfig
from recall.config.evaluation import EvaluationConfig
from recall.config.features import ATTRIBUTES, FeatureSchema
from recall.config.index import IndexConfig
from recall.config.model import WITH_META_TOWER, ModelConfig
from recall.config.shown import config_html
from recall.config.strict import Strict
from recall.config.training import StageConfig, TrainingConfig
from recall.config.values import HistoryTime, duration_text
from recall.config.yaml_file import apply_override, describe, plain, read_yaml, resolve_paths
from recall.core.errors import ConfigError
from recall.core.times import MS_PER_HOUR

_CONTENT_DIMENSIONS = 64


class Config(Strict):
    """Hold a validated experiment; see `load_config`.

    Example:
      >>> config = recall.load_config("experiment.yaml")
      >>> config.replaced(model={"structure": "base"}).model.structure
      'base'
    """

    data: DataConfig = Field(description="input files, and how they become training examples")
    features: FeatureSchema = Field(description="which tower reads what")
    model: ModelConfig = Field(default=ModelConfig(), description="the towers, how they are joined and trained")
    training: TrainingConfig = Field(default=TrainingConfig(), description="how long, how fast, when to stop")
    evaluation: EvaluationConfig = Field(default=EvaluationConfig(), description="how models are judged")
    index: IndexConfig = Field(default=IndexConfig(), description="how vectors are searched")
    content: ContentConfig = Field(
        default=ContentConfig(), description="how `recall content train` makes content vectors"
    )
    seed: int = Field(default=1, description="of all random numbers; each part draws from a seed of its own")

    @property
    def history_time(self) -> HistoryTime:
        """Resolve auto in `model.history_time`: a log without a clock has no times."""
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

    @property
    def refresh_ms(self) -> int | None:
        """Resolve `evaluation.refresh` to milliseconds; None: there is no rolling evaluation, see `why_frozen`."""
        if self.why_frozen:
            return None
        refresh = self.evaluation.refresh
        return max(MS_PER_HOUR, self.data.posterior.bucket) if refresh == "auto" else int(refresh)

    @property
    def why_frozen(self) -> str | None:
        """Say why there is no rolling evaluation; None where there is one."""
        if self.evaluation.refresh == "none":
            return "evaluation.refresh is none"
        if self.data.events.time_unit == "order":
            return "the log has no clock (data.events.time_unit: order)"
        if self.data.split.by != "time":
            return f"data.split.by: {self.data.split.by} has no test period, and training has seen later clicks"
        return None

    @model_validator(mode="after")
    def _refresh_is_possible(self) -> Config:
        refresh, bucket = self.evaluation.refresh, self.data.posterior.bucket
        if not isinstance(refresh, int):
            return self
        if self.why_frozen:
            raise ValueError(
                f"evaluation.refresh {duration_text(refresh)} is impossible: {self.why_frozen}; use refresh: none"
            )
        if refresh < bucket:
            raise ValueError(
                f"evaluation.refresh {duration_text(refresh)} is shorter than data.posterior.bucket "
                f"{duration_text(bucket)}, within which nothing new becomes known; use refresh: "
                f"{duration_text(bucket)} or more, or a shorter bucket"
            )
        return self

    @model_validator(mode="after")
    def _items_were_younger_at_a_moment(self) -> Config:
        younger = self.model.cold_simulation.younger
        if younger and (not self.data.has_moments or self.model.loss.softmax == "full"):
            raise ValueError(
                f"model.cold_simulation.younger: {younger} shows each item at moments of its own, for which it needs a "
                "log with a clock, split: {by: time} and model.loss.softmax: sampled; use younger: 0"
            )
        return self

    @model_validator(mode="after")
    def _examples_carry_what_is_refused(self) -> Config:
        wanted, carried = self.model.loss.refused.count, self.data.refused.count
        if wanted > carried:
            raise ValueError(
                f"model.loss.refused: {wanted} needs as many refused items in an example, but data.refused is "
                f"{carried}; set data.refused: {wanted}, or model.loss.refused: {carried}"
            )
        return self

    @property
    def learns_from_all(self) -> bool:
        """Tell whether what is served learns from the held-out clicks, too: `training.refit`."""
        return self.training.refit != "none"

    @property
    def of_last_stage(self) -> Config:
        """Return the experiment of the last of `training.stages`; without stages this one."""
        return self.of_stage(self.training.stages[-1]) if self.training.stages else self

    def of_stage(self, stage: StageConfig) -> Config:
        """Derive the experiment of one of `training.stages`, which has no further stages.

        Raises:
          ConfigError: the stage makes something impossible.
        """
        loss = {**self.model.loss.model_dump(mode="json"), **stage.loss}
        return self.replaced(model={"loss": loss}, training={**stage.changes, "stages": []})

    @model_validator(mode="after")
    def _stages_are_possible(self) -> Config:
        for stage in self.training.stages:
            try:
                self.of_stage(stage)
            except ConfigError as error:
                raise ValueError(f"training.stages, {stage.name}: {error}") from None
            if stage.data.recent and self.data.split.by != "time":
                raise ValueError(
                    f"training.stages, {stage.name}: data.recent counts back from the start of the validation period, "
                    f"which split by {self.data.split.by} does not have; remove it, or split by time"
                )
            if stage.initialise and self.model.structure not in WITH_META_TOWER:
                raise ValueError(
                    f"training.stages, {stage.name}: initialises the meta tower, which structure "
                    f"{self.model.structure} does not have; use gated, base or meta_only, or remove the stage"
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

    @property
    def category(self) -> str | None:
        """Return `evaluation.category` with its default filled in."""
        head = self.model.category_head
        return self.evaluation.category or (head.feature if head else None)

    @model_validator(mode="after")
    def _categories_are_content(self) -> Config:
        head = self.model.category_head
        named = {"evaluation.category": self.evaluation.category, "model.category_head": head.feature if head else None}
        known = {feature.name: feature.type for feature in self.features.meta}
        usable = [name for name, kind in known.items() if kind in ("category", "tags")]
        for key, name in named.items():
            if name is not None and name not in usable:
                found = f"is of type {known[name]}" if name in known else "is not there"
                raise ValueError(
                    f"{key}: {name} {found}; expected a feature of features.meta of type category or tags"
                    + (f", e.g. {usable[0]}" if usable else "")
                )
        return self

    @model_validator(mode="after")
    def _fusion_has_modalities(self) -> Config:
        kind, modalities = self.model.fusion.kind, list(dict.fromkeys(self.features.modalities.values()))
        if kind == "concat":
            return self
        if len(modalities) < 2:
            found = f"{modalities[0]} only" if modalities else "none"
            raise ValueError(
                f"model.fusion {kind} joins modalities of features.meta, which has {found}; add content, give features "
                "a `modality` of their own, or use fusion: concat"
            )
        if self.features.ambiguous_modality:
            raise ValueError(
                f"features.meta: {ATTRIBUTES} is a modality by itself, and categories and numbers are one of the same "
                "name; give the feature a `modality` of another name, or the same to all that belong together"
            )
        return self

    @property
    def content_term(self) -> int:
        """Resolve `model.content_term`; auto: 64 dimensions where items have embeddings, beside a meta tower."""
        if self.model.content_term != "auto":
            return self.model.content_term
        has_embeddings = any(feature.type == "embedding" for feature in self.features.meta)
        return _CONTENT_DIMENSIONS if has_embeddings and self.model.structure in WITH_META_TOWER else 0

    @model_validator(mode="after")
    def _content_term_compares_content(self) -> Config:
        dim, structure = self.model.content_term, self.model.structure
        if not dim or dim == "auto":
            return self
        if structure == "behaviour_only":
            raise ValueError(
                f"model.content_term {dim} compares content, but structure: behaviour_only reads none; use another "
                "structure, or content_term: 0"
            )
        if not any(feature.type in ("embedding", "tags", "category") for feature in self.features.meta):
            raise ValueError(
                f"model.content_term {dim} compares embeddings, tags and categories, but features.meta has none; add "
                "one, or use content_term: 0"
            )
        return self

    @model_validator(mode="after")
    def _content_has_what_it_learns_from(self) -> Config:
        self.content.check(self.features)
        return self

    @model_validator(mode="after")
    def _towers_have_features(self) -> Config:
        structure = self.model.structure
        if structure in WITH_META_TOWER and not self.features.meta:
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

    def with_structure(self, structure: str) -> Config:
        """Derive the experiment with another structure to compare with.

        It goes without the settings that only the configured structure has.

        Raises:
          ConfigError: there are no features for it.
        """
        changes: dict[str, Any] = {"structure": structure, "student": None}  # only the configured one is served
        stages = self.training.stages
        if structure == "behaviour_only" and self.model.content_term != "auto":
            changes |= {"content_term": 0}
        if structure not in WITH_META_TOWER:
            changes |= {"category_head": None, "item_codes": None}
            stages = tuple(stage for stage in stages if not stage.initialise)
        listed = [stage.model_dump(mode="json", exclude_unset=True) for stage in stages]
        return self.replaced(model=changes, training={"stages": listed})

    def replaced(self, **changes: Any) -> Config:
        """Copy the experiment with some sections replaced, and validate it again.

        Example: `config.replaced(model={'structure': 'base'})`.
        """
        content = self.model_dump(mode="json")
        for section, values in changes.items():
            content[section] = {**content[section], **values} if isinstance(values, Mapping) else values
        return _validate(content)

    def to_yaml(self) -> str:
        """Write the resolved experiment as YAML: every default filled in, paths absolute."""
        return yaml.safe_dump(json.loads(self.model_dump_json()), sort_keys=False, allow_unicode=True)

    def _repr_html_(self) -> str:
        return config_html(self, structure=self.model.structure)


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read and validate an experiment file.

    Args:
      path: the YAML; paths inside it are relative to its folder.
      overrides: `dotted.key=value` pairs, the value in YAML notation.

    Raises:
      ConfigError: says which key, what was found, and what to write.

    Example:
      >>> config = recall.load_config("experiment.yaml", ["training.epochs=3"])
      >>> config.training.epochs, config.data.posterior.bucket  # ms
      (3, 3600000)
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
