"""What pages tell readers to write works: Python parses, experiments validate, commands and their options exist."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from docs.generate.configuration import all_keys
from recall.cli.main import app
from recall.config.experiment import load_config

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path for path in (ROOT / "docs" / "pages").rglob("*.md") if path.parent.name != "notebooks"
)  # those are made by `make notebooks`
BLOCK = re.compile(r"^```(?P<language>\w+)(?P<about>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str, *, about: str = "") -> Iterator[Any]:
    """All fenced blocks of a language, as parameters of a test, but those of other libraries."""
    for page in PAGES:
        for number, found in enumerate(BLOCK.finditer(page.read_text()), start=1):
            others = any(name in found["about"] for name in ("TFRS", "implicit", "LightFM"))
            if found["language"] == language and about in found["about"]:
                name = f"{page.relative_to(ROOT / 'docs' / 'pages')}-{number}"
                yield pytest.param(found["text"], others, id=name)


def merged(base: Any, change: Any) -> Any:
    if isinstance(base, dict) and isinstance(change, dict):
        return {**base, **{key: merged(base.get(key), value) for key, value in change.items()}}
    return change


@pytest.mark.parametrize(("text", "of_others"), blocks("python"))
def test_python_parses_and_imports_what_exists(text: str, of_others: bool) -> None:
    tree = ast.parse(text)
    for node in ast.walk(tree) if not of_others else ():
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("recall"):
            module = __import__(str(node.module), fromlist=["_"])
            assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


@pytest.mark.parametrize(("text", "of_others"), blocks("yaml"))
def test_an_experiment_is_valid(text: str, of_others: bool, tmp_path: Path) -> None:
    """A part of one is valid in the place of the same part of the demo's file; a search space names keys that exist."""
    content = yaml.safe_load(text)
    if any("." in key for key in content):
        assert content.keys() <= all_keys().keys()
        return
    if not {"data", "features"} <= content.keys():
        content = merged(yaml.safe_load((ROOT / "examples" / "demo.yaml").read_text()), content)
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(content))
    load_config(tmp_path / "experiment.yaml")


def commands_in(text: str) -> Iterator[list[str]]:
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|\|", line):
            if part.strip().startswith("recall "):
                yield shlex.split(part, comments=True)


def indented(page: Path) -> str:
    """The indented code of a page, outside of fenced blocks."""
    lines = BLOCK.sub("", page.read_text()).splitlines()
    return "\n".join(line.strip() for line in lines if line.startswith("    "))


@pytest.mark.parametrize(
    "text",
    [
        *(pytest.param(block.values[0], id=block.id) for block in [*blocks("sh"), *blocks("text")]),
        *(pytest.param(indented(page), id=f"{page.stem}-indented") for page in PAGES if "recall " in indented(page)),
    ],
)
def test_a_command_and_its_options_exist(text: str) -> None:
    for words in commands_in(text):
        command: Any = typer.main.get_command(app)
        rest = words[1:]
        while rest and rest[0] in getattr(command, "commands", {}):
            command, rest = command.commands[rest[0]], rest[1:]
        assert not (getattr(command, "commands", {}) and rest and not rest[0].startswith("-")), " ".join(words)
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)} <= known, " ".join(words)
        missing = [p.name for p in command.params if p.required and p.param_type_name == "option"]
        given = " ".join(rest)
        assert all(any(f"{o} " in f"{given} " for o in p.opts) for p in command.params if p.name in missing), words
