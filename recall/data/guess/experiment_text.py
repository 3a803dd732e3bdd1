"""Writes a guessed experiment as YAML: each line with its reason, and what is not sure above it."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from recall.config.schema import MODELINE
from recall.data.guess.choices import Choice
from recall.data.guess.clocks import ClockGuess
from recall.data.guess.kinds import Feature, LeftOut, Place
from recall.data.guess.log import ClickGuess
from recall.data.guess.tables import TableGuess
from recall.data.guess.words import UNWANTED, has_word

_WIDTH = 116
_ABOUT: dict[Place, str] = {
    "user": "What is known of users beside their clicks.",
    "behaviour": "Only ids: what behaviour says of an item, and of what it belongs to.",
    "meta": "Only content: known of an item that was published a minute ago.",
}


class Guessed(NamedTuple):
    """Hold everything that was guessed of three files."""

    paths: Mapping[str, str]
    user: Choice
    item: Choice
    clock: ClockGuess
    time_zone: Choice | None
    click: ClickGuess
    item_id: Choice
    unknown: Choice | None
    items: TableGuess
    user_id: Choice | None
    users: TableGuess | None
    log_left_out: Sequence[LeftOut]
    looked_at: str

    @property
    def features(self) -> dict[Place, list[Feature]]:
        """Return the features by their place."""
        all_of_them = [*(self.users.features if self.users else ()), *self.items.features]
        places: tuple[Place, ...] = ("user", "behaviour", "meta")
        return {place: [one for one in all_of_them if one.place == place] for place in places}

    @property
    def choices(self) -> list[Choice]:
        """Return all choices that are no features, in the order of the file."""
        several = (
            self.user, self.item, self.clock.time, self.clock.unit, self.time_zone, self.click.click, self.item_id,
            self.items.title, self.items.published, self.unknown, self.user_id,
        )  # fmt: skip
        return [choice for choice in several if choice]


def experiment_text(guessed: Guessed, *, folder: Path, name: str) -> str:
    """Write the experiment file.

    Args:
      guessed: what was guessed.
      folder: folder of the file, from which its paths lead on.
      name: name of the file, for the command in its head.

    Returns:
      YAML with comments, that `load_config` reads.
    """
    lines = [
        MODELINE,
        "#",
        *_wrapped(
            f"Guessed by `recall init` from {guessed.looked_at}. Behind a line stands what it was guessed from; look "
            "at the lines that say `unsure` first. An editor that reads YAML schemas knows all other settings."
        ),
        "#",
        f"#   recall run {name} --out runs/first",
        "",
        "data:",
        *_events(guessed, folder),
        *_items(guessed, folder),
        *_users(guessed, folder),
        *_examples(guessed),
        "",
        "features:",
    ]
    for place, features in guessed.features.items():
        lines += _features(place, features, folder)
    lines += _left_out(guessed)
    lines += ["", *_model(guessed)]
    return "\n".join(lines) + "\n"


def _events(guessed: Guessed, folder: Path) -> list[str]:
    clock, click = guessed.clock, guessed.click
    lines = ["  events:", f"    path: {_scalar(_relative(guessed.paths['events'], folder))}"]
    lines += _choice("user", guessed.user) + _choice("item", guessed.item)
    lines += _choice("time", clock.time) + _choice("time_unit", clock.unit)
    if guessed.time_zone:
        lines += _choice("time_zone", guessed.time_zone)
    if click.click.value == "every row":
        lines += [*_unsure(click.click), f"    # click: COLUMN   # {click.click.why}: every row is a click"]
    elif click.at_least is None:
        lines += _choice("click", click.click)
    else:
        least = int(click.at_least) if click.at_least.is_integer() else click.at_least
        rule = _flow({"column": click.click.value, "at_least": least})
        lines += [*_unsure(click.click), f"    click: {rule}   # {click.click.why}"]
    if click.others:
        wanted = [name for name in click.others if not has_word(name, UNWANTED)]
        rules = ", ".join(_flow({"column": name, "weight": 2}) for name in wanted[:3])
        lines += [
            f"    # Also 0 and 1: {', '.join(click.others)}. To have some clicks count more, e.g.",
            f"    # weight: [{rules}]",
        ]
    return lines


def _items(guessed: Guessed, folder: Path) -> list[str]:
    lines = ["  items:", f"    path: {_scalar(_relative(guessed.paths['items'], folder))}"]
    lines += _choice("id", guessed.item_id)
    for key, choice in (
        ("title", guessed.items.title),
        ("published", guessed.items.published),
        ("unknown", guessed.unknown),
    ):
        if choice:
            lines += _choice(key, choice)
    return lines


def _users(guessed: Guessed, folder: Path) -> list[str]:
    if not guessed.user_id:
        return []
    lines = ["  users:", f"    path: {_scalar(_relative(guessed.paths['users'], folder))}"]
    return lines + _choice("id", guessed.user_id)


def _examples(guessed: Guessed) -> list[str]:
    lines = ["  history: 50   # clicks of the user that an example carries"]
    if guessed.clock.unit.value == "order":
        return [*lines, "  split: {by: last_click}   # positions of different users cannot be compared"]
    bucket = "1d" if guessed.clock.by_day else "1h"
    why = "times are days" if guessed.clock.by_day else "an example sees of an item what was known an hour before"
    return [
        *lines,
        "  split: {by: time, validation: 0.1, test: 0.1}   # the last fifth of the events is held out",
        f"  posterior: {{bucket: {bucket}, delay: {bucket}}}   # {why}",
    ]


def _features(place: Place, features: Iterable[Feature], folder: Path) -> list[str]:
    listed = list(features)
    if not listed:
        return []
    lines = [f"  # {_ABOUT[place]}", f"  {place}:"]
    for feature in listed:
        settings = dict(feature.settings)
        if "path" in settings:
            settings["path"] = _relative(settings["path"], folder)
        if feature.unsure:
            lines += _wrapped(f"unsure: {feature.unsure}", indent="    ")
        line = f"    - {_flow(settings)}"
        lines.append(f"{line}   # {feature.why}" if len(line) + len(feature.why) < _WIDTH else line)
    return lines


def _left_out(guessed: Guessed) -> list[str]:
    """List the columns that nothing reads, with the reasons, by table."""
    lines: list[str] = []
    tables = (("items", guessed.items.left_out), ("users", guessed.users.left_out if guessed.users else ()))
    for table, columns in (*tables, ("the log", guessed.log_left_out)):
        if columns:
            lines += [f"  # Left out of {table}:"]
            lines += [line for one in columns for line in _wrapped(f"  {one.column}: {one.why}", indent="  ")]
    return lines


def _model(guessed: Guessed) -> list[str]:
    structure = "gated" if guessed.features["meta"] else "behaviour_only"
    why = (
        "decides per item how far to trust behaviour, and how far content"
        if structure == "gated"
        else "no content was found, so that new items cannot be recalled; gated with content"
    )
    return [
        "model:",
        f"  structure: {structure}   # {why}",
        "",
        "training: {epochs: 20}   # stops before where validation no longer gets better",
        "",
        "seed: 1",
    ]


def _choice(key: str, choice: Choice) -> list[str]:
    return [*_unsure(choice), f"    {key}: {_scalar(choice.value)}   # {choice.why}"]


def _unsure(choice: Choice) -> list[str]:
    return _wrapped(f"unsure: {choice.unsure}", indent="    ") if choice.unsure else []


def _wrapped(text: str, indent: str = "") -> list[str]:
    start = f"{indent}# "
    body = text.lstrip(" ")
    inner = start + " " * (len(text) - len(body))
    return textwrap.wrap(
        " ".join(body.split()), _WIDTH, initial_indent=inner, subsequent_indent=inner + "  " * (start != "# "),
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _scalar(value: Any) -> str:
    """Write one value as YAML, in quotes where it would be read as something else."""
    return yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000).splitlines()[0]


def _flow(settings: Mapping[str, Any]) -> str:
    dumped = yaml.safe_dump(dict(settings), default_flow_style=True, sort_keys=False, allow_unicode=True, width=10_000)
    return dumped.strip()


def _relative(path: str, folder: Path) -> str:
    """Return a path as the file has it: from its folder on, or absolute where both have no folder in common."""
    absolute = os.path.abspath(path)
    common = os.path.commonpath([absolute, folder])
    return absolute if os.path.dirname(common) == common else os.path.relpath(absolute, folder)


def terminal_rows(guessed: Guessed) -> list[tuple[str, str, str]]:
    """List the guesses for a table on the terminal: key, value, and what is not sure about it or else the reason."""
    rows = [
        (choice.key, choice.value, f"unsure: {choice.unsure}" if choice.unsure else choice.why)
        for choice in guessed.choices
    ]
    for place, features in guessed.features.items():
        names = ", ".join(feature.settings["name"] for feature in features)
        unsure = "; ".join(f"{one.settings['name']}: {one.unsure}" for one in features if one.unsure)
        if features:
            rows.append((f"features.{place}", names, f"unsure: {unsure}" if unsure else f"in all {len(features)}"))
    left_out = [*guessed.items.left_out, *(guessed.users.left_out if guessed.users else ()), *guessed.log_left_out]
    if left_out:
        rows.append(("left out", ", ".join(one.column for one in left_out), "reasons in the file"))
    return rows
