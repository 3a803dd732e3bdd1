"""Holds the docstrings of recall/ and pipelines/ to their rules, and runs the examples of the public names.

Each public name of `import recall` has an `Example:` section in its docstring, in the form of a doctest. An example
runs alone, in a folder of its own that holds

    experiment.yaml                               the experiment of a small simulated community, one epoch
    events.parquet, items.parquet, users.parquet  its data: users u000 .. u119, items i000 .. i149
    runs/mine/                                    a finished run of that experiment: every step is done, nothing is out
                                                  of date, so that `prepare()`, `train()` ... return at once

and it knows the names `recall`, `np` (NumPy) and `pd` (pandas) without importing them. `...` in what it prints stands
for anything, and runs of white space are equal. An example may write into its folder.
"""

from __future__ import annotations

import ast
import doctest
import inspect
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import recall
from recall.config.experiment import Config

ROOT = Path(__file__).resolve().parents[1]

# Examples

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture
def folder(
    community: Path,
    settings: Config,
    finish: Callable[[Config], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """Make the folder that an example runs in, and go there."""
    for source in ("events", "items", "users"):
        shutil.copy2(community / f"{source}.parquet", tmp_path)
    (tmp_path / "experiment.yaml").write_text(settings.to_yaml())
    shutil.copytree(finish(settings), tmp_path / "runs" / "mine")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def example_of(docstring: str) -> str:
    """Return the text of the `Example:` section; empty where there is none."""
    found = re.search(r"^Examples?:\n(.*?)(?=^\S|\Z)", inspect.cleandoc(docstring), re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


@pytest.mark.parametrize("name", recall.__all__)
def test_the_example_of_a_public_name_runs_as_it_is_written(name: str, folder: Path) -> None:
    text = example_of(getattr(recall, name).__doc__ or "")
    names = {"recall": recall, "np": np, "pd": pd}
    example = doctest.DocTestParser().get_doctest(text, names, name, None, None)
    assert example.examples, f"recall.{name} has no `Example:` with a line that begins with >>>"
    failures: list[str] = []
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    runner.run(example, out=failures.append)
    assert not runner.failures, "".join(failures)


# First words

VERBS = frozenset((Path(__file__).parent / "verbs.txt").read_text().split())


def third_person(verb: str) -> str:
    """Return the form of a verb that follows "it"."""
    irregular = {"be": "is", "have": "has"}
    if verb in irregular:
        return irregular[verb]
    if verb.endswith(("s", "x", "z", "ch", "sh", "o")):
        return f"{verb}es"
    return f"{verb[:-1]}ies" if verb.endswith("y") and verb[-2] not in "aeiou" else f"{verb}s"


def docstrings(path: Path) -> Iterator[tuple[ast.AST, str, str]]:
    """Yield every node of a file that has a docstring, its place for people, and the docstring's first line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            place = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"
            if text := ast.get_docstring(node):
                yield node, place, text.splitlines()[0].rstrip()


@pytest.mark.parametrize("package", ["recall", "pipelines"])
def test_a_docstring_begins_with_a_verb_and_its_first_line_with_a_whole_sentence(package: str) -> None:
    """Modules may say what they do in the third person; the verbs are in verbs.txt, where a new one is added."""
    modules, others = {third_person(verb) for verb in VERBS} | VERBS, VERBS
    paths = sorted((ROOT / package).rglob("*.py"))
    assert paths, package
    wrong = [
        f"{place}: {line}"
        for path in paths
        for node, place, line in docstrings(path)
        if not line.endswith((".", ":"))
        or line.split()[0].strip(",.:").lower() not in (modules if isinstance(node, ast.Module) else others)
    ]
    assert not wrong, "\n".join(["begin these with a verb, and end their first line with a period:", *wrong])
