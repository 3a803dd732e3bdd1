"""Reads which arms are compared: what fills the feed, and with which settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import yaml

from recall.core.errors import ConfigError
from recall.serving.search.options import check_budget

MODELS: Mapping[str, Mapping[str, Any]] = {
    "gated": {"model.structure": "gated", "data.posterior.audience": 50},
    "gated_two": {"model.structure": "gated", "data.posterior.audience": 0},
    "single": {"model.structure": "single"},
    "base": {"model.structure": "base"},
    "base_appeal": {"model.structure": "base", "model.base_appeal": True},
    "behaviour_only": {"model.structure": "behaviour_only"},
    "meta_only": {"model.structure": "meta_only"},
}
"""Arms that train a model -> the settings of the experiment that make them."""
RULES = ("trending", "popularity", "random", "oracle")
"""Arms without a model."""
DEFAULT_ARMS = (*MODELS, *RULES)

_ALLOWED = {
    "retrain": ("daily", "weekly", "never"), "from": ("nothing", "yesterday"), "refresh": ("hourly", "none"),
}  # fmt: skip
_NUMBERS = ("explore", "explore_new", "min_cold_share", "budget", "exploration")
Retrain = Literal["daily", "weekly", "never"]
Refresh = Literal["hourly", "none"]


@dataclass(frozen=True)
class Arm:
    """Describe one way to fill the feed.

    Attributes:
      name: as it was asked for.
      kind: one of `DEFAULT_ARMS`.
      retrain: how often the model learns anew; never: once, from the log before the loop.
      goes_on: whether a training goes on from the model of the one before (`from=yesterday`), or starts from nothing.
      refresh: hourly: items are made again from what is known an hour before; none: they stay as they were when the
        model was trained, and items that come later count as new all the time.
      explore: share of the slots that get a random item that the user may be shown.
      explore_new: share of the slots that get a random item younger than a day.
      min_cold_share: share of a slate for items without known exposures, as a served request asks for it.
      budget: exposures up to which an item counts as cold for this share, as `SearchOptions.budget`; 20/100 as text.
      exploration: weight of the draw from what is uncertain of an item's CTR, see `recall.evaluation.exploration`.
      overrides: further settings of the experiment, dotted key -> value.
    """

    name: str
    kind: str
    retrain: Retrain = "daily"
    goes_on: bool = False
    refresh: Refresh = "hourly"
    explore: float = 0.0
    explore_new: float = 0.0
    min_cold_share: float = 0.0
    budget: tuple[int, ...] = ()
    exploration: float = 0.0
    overrides: tuple[tuple[str, Any], ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings of the experiment that make the arm's model."""
        learns_on = {"training.refit": "continue"} if self.goes_on else {}
        return {**MODELS.get(self.kind, {}), **learns_on, **dict(self.overrides)}

    @property
    def days_between_trainings(self) -> int | None:
        """Return after how many days the model learns anew; None: never."""
        return {"daily": 1, "weekly": 7, "never": None}[self.retrain]

    @classmethod
    def parse(cls, text: str) -> Arm:
        """Read an arm: a kind, and settings of it with a plus before each, like `gated+retrain=weekly+explore=0.1`.

        A setting with a dot in its name is a setting of the experiment, e.g. `gated+index.cold_bias=0`.

        Raises:
          ConfigError: says what is not known, and what would be.
        """
        kind, *settings = text.strip().split("+")
        if kind not in DEFAULT_ARMS:
            raise ConfigError(f"--arms {text}: found {kind!r}, expected one of {', '.join(DEFAULT_ARMS)}")
        arm = cls(text.strip(), kind)
        for setting in settings:
            arm = arm._with(setting)
        if arm.budget and not arm.min_cold_share:
            raise ConfigError(f"--arms {text}: budget says which items min_cold_share is for; add +min_cold_share=0.2")
        return arm

    def _with(self, setting: str) -> Arm:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(
                f"--arms {self.name}: {setting!r} is no setting; write KIND+key=value, e.g. gated+explore=0.1"
            )
        if "." in key:
            if self.kind not in MODELS:
                raise ConfigError(f"--arms {self.name}: {key} is a setting of a model, and {self.kind} trains none")
            return replace(self, overrides=(*self.overrides, (key, _value(text, of=self.name))))
        if key in _ALLOWED and self.kind in MODELS:
            if text not in _ALLOWED[key]:
                raise ConfigError(f"--arms {self.name}: {key} is {text}, expected {', '.join(_ALLOWED[key])}")
            if key == "from":
                return replace(self, goes_on=text == "yesterday")
            return replace(self, **{key: text})  # type: ignore[arg-type]
        if key == "exploration" and self.kind in MODELS:
            weight = _value(text, of=self.name)
            if not isinstance(weight, int | float) or weight < 0:
                raise ConfigError(f"--arms {self.name}: exploration is {text}, expected a weight of at least 0")
            return replace(self, exploration=float(weight))
        if key == "budget":
            if not all(step.isdecimal() for step in text.split("/")):
                raise ConfigError(f"--arms {self.name}: budget is {text}, expected exposures, e.g. 20/100")
            return replace(self, budget=check_budget([int(step) for step in text.split("/")]))
        if key in ("explore", "explore_new", "min_cold_share"):
            share = _value(text, of=self.name)
            if not isinstance(share, int | float) or not 0 <= share <= 1:
                raise ConfigError(f"--arms {self.name}: {key} is {text}, expected a share from 0 to 1")
            return replace(self, **{key: float(share)})  # type: ignore[arg-type]
        known = [*_ALLOWED, *(field.name for field in fields(self) if field.name in _NUMBERS)]
        raise ConfigError(
            f"--arms {self.name}: {self.kind} has no setting {key}; expected {', '.join(known)}, or a dotted key "
            "of the experiment, where it trains a model"
        )


def _value(text: str, *, of: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--arms {of}: {text!r} is not valid YAML") from None


def parse_arms(text: str) -> tuple[Arm, ...]:
    """Read arms, separated by commas.

    Raises:
      ConfigError: an arm is not known or named twice.
    """
    arms = tuple(Arm.parse(part) for part in text.split(",") if part.strip())
    if not arms:
        raise ConfigError(f"--arms: names none; expected some of {', '.join(DEFAULT_ARMS)}")
    names = [arm.name for arm in arms]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"--arms: {', '.join(twice)} is there twice")
    return arms
