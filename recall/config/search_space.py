"""Collects the settings that tuning may change, with the values to try: the marks of the sections, and the user's.

`tunable.py` has the marks. `recall.runs.tuning` draws from the dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import yaml

from recall.config.experiment import Config
from recall.config.strict import Strict
from recall.config.tunable import Between, OneOf, Tunable
from recall.core.errors import ConfigError

DEFAULTS = "defaults"
"""Key of a user's search space that says whether the settings that it does not name are tuned, too."""
_DIGITS = 3  # of a number that is drawn: 0.00318 in the best file, not 0.0031823771


@dataclass(frozen=True)
class Dimension:
    """Hold one setting of a search space.

    Attributes:
      key: dotted, e.g. `model.dim`.
      configured: its value in the experiment, resolved where that is null.
      space: the values to try; the configured one is among them.
    """

    key: str
    configured: Any
    space: OneOf | Between

    @property
    def name(self) -> str:
        """Return the key without its section."""
        return self.key.partition(".")[2]

    @property
    def is_fixed(self) -> bool:
        """Tell whether there is one value alone."""
        if isinstance(self.space, OneOf):
            return len(self.space.values) < 2
        return self.space.low == self.space.high

    @property
    def text(self) -> str:
        """Write the space for people: `16, 32, 64` or `0.0005 to 0.01 (log)`."""
        if isinstance(self.space, OneOf):
            return ", ".join(map(value_text, self.space.values))
        scale = " (log)" if self.space.log else ""
        return f"{value_text(self.space.low)} to {value_text(self.space.high)}{scale}"


def value_text(value: Any) -> str:
    """Write a value as an experiment file has it, in one line."""
    if isinstance(value, str):
        return value
    text = yaml.safe_dump(value, default_flow_style=True, width=math.inf).removesuffix("\n...\n").strip()
    return str(text)


def rounded(value: float) -> float:
    """Round a number that was drawn to three significant digits."""
    return float(f"{value:.{_DIGITS}g}")


def setting(config: Config, key: str) -> Any:
    """Return a setting by its dotted key, as YAML has it.

    Raises:
      ConfigError: there is no such setting.
    """
    section, _, name = _find(config, key)
    return section.model_dump(mode="json", include={name})[name]


def with_settings(config: Config, settings: Mapping[str, Any]) -> Config:
    """Copy an experiment with some settings replaced.

    Args:
      config: the experiment.
      settings: dotted key -> value as an experiment file has it.

    Raises:
      ConfigError: a setting is unknown, or the result is impossible.
    """
    content: dict[str, Any] = config.model_dump(mode="json")
    for key, value in settings.items():
        _find(config, key)
        *parents, leaf = key.split(".")
        node = content
        for parent in parents:
            node = node[parent]
        node[leaf] = value
    return config.replaced(**content)


def search_space(config: Config, given: Mapping[str, Any] | None = None) -> list[Dimension]:
    """List the settings to tune.

    Args:
      config: the experiment; its own values are always among the values to try.
      given: a user's search space: dotted key -> a list of values; `{low, high, log}`; true for the values that recall
        suggests; or false for a setting that stays as it is. The key `defaults`, true or false, says whether the
        settings that are not named are tuned.

    Raises:
      ConfigError: a key is unknown, a value cannot be set, or nothing is left to tune.
    """
    given = dict(given or {})
    defaults = given.pop(DEFAULTS, True)
    if not isinstance(defaults, bool):
        raise ConfigError(f"space: {DEFAULTS}: expected true or false, found {defaults!r}")
    marks = {key: mark for key, mark in _marks(config) if mark.by_default and defaults and _has(config, mark.needs)}
    suggested = dict(_marks(config))
    for key, wish in given.items():
        mark = _wished(config, key, wish, suggested=suggested.get(key))
        marks.pop(key, None)
        if mark is not None:
            marks[key] = mark
    found = [_dimension(config, key, mark, strict=key in given) for key, mark in marks.items()]
    found = [dimension for dimension in found if not dimension.is_fixed]
    if not found:
        raise ConfigError("space: no setting is left to tune; name one with at least two values")
    return found


def _marks(section: Strict, prefix: str = "") -> Iterator[tuple[str, OneOf | Between]]:
    """Yield the marks of a section and of those in it, by dotted key."""
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        yield from ((prefix + name, mark) for mark in info.metadata if isinstance(mark, OneOf | Between))
        if isinstance(value, Strict):
            yield from _marks(value, f"{prefix}{name}.")


def _find(config: Config, key: str) -> tuple[Strict, Tunable | None, str]:
    """Find a setting: its section, its mark if it has one, and its name there."""
    *parents, name = key.split(".")
    section: Any = config
    for parent in parents:
        section = getattr(section, parent, None) if isinstance(section, Strict) else None
    if not parents or not isinstance(section, Strict) or name not in type(section).model_fields:
        raise ConfigError(f"space: {key}: the experiment has no such setting; write it as in model.dim")
    mark = next((mark for mark in type(section).model_fields[name].metadata if isinstance(mark, Tunable)), None)
    return section, mark, name


def _has(config: Config, needs: Mapping[str, tuple[Any, ...]]) -> bool:
    return all(setting(config, key) in values for key, values in needs.items())


def _wished(config: Config, key: str, wish: Any, *, suggested: OneOf | Between | None) -> OneOf | Between | None:
    """Read one entry of a user's search space; None: the setting is not tuned."""
    _find(config, key)
    if wish is False:
        return None
    if wish is True:
        if suggested is None:
            raise ConfigError(f"space: {key}: recall suggests no values for it; list some, or give low and high")
        return suggested
    if isinstance(wish, list | tuple):
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in wish)
        return OneOf(tuple(sorted(wish) if numbers else wish), ordered=numbers)
    if isinstance(wish, Mapping) and {"low", "high"} <= wish.keys() <= {"low", "high", "log"}:
        low, high, log = wish["low"], wish["high"], wish.get("log", False)
        if (
            all(_is_number(end) for end in (low, high))
            and low < high
            and isinstance(log, bool)
            and (low > 0 or not log)
        ):
            return Between(float(low), float(high), log=log)
    raise ConfigError(
        f"space: {key}: expected a list of values, {{low: 0.001, high: 0.01, log: true}} with low below high (above 0 "
        f"with log), true or false, found {wish!r}"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _dimension(config: Config, key: str, mark: OneOf | Between, *, strict: bool) -> Dimension:
    """Put the configured value among the values to try, and leave out the ones that cannot be set.

    Args:
      config: the experiment.
      key: of the setting.
      mark: the values to try.
      strict: raise for a value that cannot be set.
    """
    section, own, _ = _find(config, key)
    configured = setting(config, key)
    if configured is None and own is not None and own.resolved:
        configured = getattr(section, own.resolved)
    if isinstance(mark, Between):
        if not _is_number(configured):
            raise ConfigError(f"space: {key}: is {configured!r} in the experiment, which no range holds; list values")
        for end in (mark.low, mark.high) if strict else ():
            with_settings(config, {key: end})
        low, high = min(mark.low, configured), max(mark.high, configured)
        return Dimension(key, configured, replace(mark, low=low, high=high, log=mark.log and low > 0))
    values: list[Any] = []
    for value in mark.values:
        try:
            changed = setting(with_settings(config, {key: value}), key)
        except ConfigError:
            if strict:
                raise
            continue
        values.append(value)
        if changed == configured:
            configured = value  # as it is written there: 2h, not 7200000
    if configured not in values:
        values.append(configured)
    if mark.ordered:
        values.sort()
    return Dimension(key, configured, replace(mark, values=tuple(values)))
