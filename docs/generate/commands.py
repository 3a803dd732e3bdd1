"""Makes the page of the commands from the `recall` command itself: every command, its arguments and its options."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator
from typing import Any

import typer

from recall.cli.main import app

_NAMES = {str: "TEXT", int: "N", float: "NUMBER"}


def commands() -> Iterator[tuple[str, Any]]:
    """Yield every command with its full name, groups before the commands in them."""
    todo = [("recall", typer.main.get_command(app))]
    while todo:
        name, command = todo.pop(0)
        below = [(f"{name} {key}", part) for key, part in getattr(command, "commands", {}).items()]
        if name != "recall":
            yield name, command
            yield from _in_order(below)
        else:
            todo = below


def page() -> str:
    """Write the page in Markdown."""
    lines = [
        "# Commands",
        "",
        "`recall COMMAND --help` prints the same. A command exits with 0, or with one line that says what was",
        "expected, what was found and what to do. The pipelines of Beam are modules of their own:",
        "[Scale out](guides/scale-out.md).",
        "",
    ]
    for name, command in commands():
        level = "##" if name.count(" ") == 1 else "###"
        lines += [f"{level} {name} {{ #{name.replace(' ', '-')} }}", "", inspect.cleandoc(command.help or ""), ""]
        lines += ["```text", _usage(name, command), "```", ""]
        lines += _parameters(command)
    return "\n".join(lines)


def options_of(name: str) -> set[str] | None:
    """Return the option names of a command, `--run` or `-k`; None where there is no such command."""
    found = dict(commands()).get(name)
    if found is None:
        return None
    return {text for part in found.params for text in part.opts if text.startswith("-")} | {"--help"}


def _in_order(below: list[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    for name, command in below:
        yield name, command
        yield from _in_order([(f"{name} {key}", part) for key, part in getattr(command, "commands", {}).items()])


def _usage(name: str, command: Any) -> str:
    parts = [name]
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            shown = (parameter.metavar or parameter.name.upper()).strip("[]")
            parts.append(shown if parameter.required else f"[{shown}]")
        elif parameter.required:
            parts.append(f"{_flags(parameter)[0]} {_value(parameter)}")
    parts.append("[OPTIONS]")
    if getattr(command, "commands", None):
        parts.append("[COMMAND]")
    return " ".join(parts)


def _parameters(command: Any) -> list[str]:
    lines = []
    for parameter in command.params:
        if parameter.name == "help" or getattr(parameter, "hidden", False):
            continue
        if parameter.param_type_name == "argument":
            label = (parameter.metavar or parameter.name.upper()).strip("[]")
        else:
            label = ", ".join(_flags(parameter))
            label += "" if parameter.is_flag else f" {_value(parameter)}"
        facts = ["required"] if parameter.required else []
        if parameter.multiple:
            facts.append("may be repeated")
        if parameter.default not in (None, False, "") and not callable(parameter.default):
            facts.append(f"default {parameter.default}")
        help_text = (parameter.help or "").strip()
        text = "; ".join(part for part in (help_text, ", ".join(facts)) if part)
        lines += [f"`{label}`", f":   {text[:1].upper()}{text[1:]}." if text else ":   –", ""]
    return lines


def _flags(parameter: Any) -> list[str]:
    return sorted((text for text in parameter.opts if text.startswith("-")), key=lambda text: -len(text))


def _value(parameter: Any) -> str:
    if parameter.metavar:
        return str(parameter.metavar)
    annotation = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        annotation = next(part for part in typing.get_args(annotation) if part is not type(None))
    if typing.get_origin(annotation) is list:
        annotation = typing.get_args(annotation)[0]
    return _NAMES.get(annotation, "PATH")  # type: ignore[arg-type]
