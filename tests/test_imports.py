"""Who may import what: the layout's rules, the choice of Keras, and how little `import recall` costs."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import recall

ROOT = Path(__file__).resolve().parents[1]
FLOOR = (
    "core", "config", "data", "index", "evaluation", "model",
    "content", "training", "pipelines", "serving", "runs", "cli",
)  # fmt: skip
"""The packages from the ground up: each may import those before it, and no other."""
HOME = {  # dependency -> the only folders that may import it, inside functions too
    "tensorflow": ("recall/model", "recall/content", "recall/training", "recall/serving", "recall/runs", "pipelines"),
    "apache_beam": ("pipelines",),
    "scann": ("recall/index",),
    "fastapi": ("recall/serving/http",),
    "starlette": ("recall/serving/http",),
    "uvicorn": ("recall/serving/http",),
    "matplotlib": ("recall/runs/report",),
}
ALSO = {"tensorflow": ("tf_keras", "keras", "tensorflow_recommenders")}  # names of the same dependency
WITHOUT_TENSORFLOW = ("core", "config", "data", "evaluation")
HEAVY = ("tensorflow", "apache_beam", "scann", "numpy", "pandas", "pyarrow", "pydantic", "rich")


def files(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert found, folders
    return found


def imported_modules(path: Path) -> Iterator[str]:
    """Dotted names of everything that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importers_of(module: str, paths: list[Path]) -> set[str]:
    prefix = f"{module}."
    return {
        str(path.relative_to(ROOT))
        for path in paths
        if any(f"{name}.".startswith(prefix) for name in imported_modules(path))
    }


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a fresh interpreter whose environment says nothing about Keras."""
    clean = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**clean, **environment}, timeout=120
    )


def modules_after(code: str) -> set[str]:
    """Top-level modules that are loaded when code has run."""
    finished = python(f"{code}\nimport json, sys; print(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))")
    assert finished.returncode == 0, finished.stderr
    return set(json.loads(finished.stdout.splitlines()[-1]))


def package_of(module: str) -> str:
    """The entry of `FLOOR` that a dotted name belongs to; empty for `recall` itself and for other libraries."""
    first, _, rest = module.partition(".")
    package = first if first == "pipelines" else rest.partition(".")[0] if first == "recall" else ""
    return package if package in FLOOR else ""


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def graph() -> dict[str, set[str]]:
    """Module -> the modules of recall and pipelines that it imports, inside functions too."""
    paths = {module_of(path): path for path in files("recall", "pipelines")}
    found = {}
    for module, path in paths.items():
        names = set()
        for name in imported_modules(path):
            while name and name not in paths:  # the name of a function or class: its module
                name = name.rpartition(".")[0]
            names.add(name)
        found[module] = names - {module, "", "recall"}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("dependency", HOME)
def test_a_dependency_stays_at_home(dependency: str) -> None:
    names = (dependency, *ALSO.get(dependency, ()))
    users = set[str]().union(*(importers_of(name, files("recall", "pipelines")) for name in names))
    assert users, "nobody imports it: the rule is out of date"
    strangers = {user for user in users if not user.startswith(tuple(f"{home}/" for home in HOME[dependency]))}
    assert not strangers


def test_no_package_imports_one_above_it() -> None:
    upward = {
        f"{module} -> {name}"
        for module, names in graph().items()
        for name in names
        if package_of(module) and FLOOR.index(package_of(name)) > FLOOR.index(package_of(module))
    }
    assert not upward


@pytest.mark.slow
def test_users_and_search_import_items_and_not_each_other() -> None:
    below = {"items": (), "users": ("items",), "search": ("items",)}
    parts = {part: f"recall.serving.{part}." for part in below}
    strangers = {
        f"{module} -> {name}"
        for module, names in graph().items()
        for part, allowed in below.items()
        if f"{module}.".startswith(parts[part])
        for name in names
        for other in parts.keys() - {part, *allowed}
        if f"{name}.".startswith(parts[other])
    }
    assert not strangers


def test_every_package_has_its_floor() -> None:
    packages = {path.parent.name for path in (ROOT / "recall").glob("*/__init__.py")}
    assert packages | {"pipelines"} == set(FLOOR)


def test_only_runs_and_the_command_line_import_the_pipelines() -> None:
    users = {module for module, names in graph().items() if any(package_of(name) == "pipelines" for name in names)}
    assert {package_of(user) for user in users} <= {"pipelines", "runs", "cli"}


def test_no_modules_import_each_other_in_a_circle() -> None:
    imports = graph()
    left = dict(imports)
    while free := [module for module, names in left.items() if not names & left.keys()]:
        for module in free:
            del left[module]
    assert not left, "these import each other, or a circle"


def test_every_package_says_what_it_may_import() -> None:
    for path in (ROOT / "recall").rglob("__init__.py"):
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        assert text.splitlines()[0].endswith("."), f"{path}: the first line says in a sentence what the package is for"
        if path.parent != ROOT / "recall":
            assert "mports " in text, f"{path}: says nothing of what it imports"


def test_the_top_of_the_library_is_small() -> None:
    entries = [
        path for path in (ROOT / "recall").iterdir() if path.name not in ("__init__.py", "py.typed", "__pycache__")
    ]
    assert len(entries) <= 12


@pytest.mark.parametrize("package", WITHOUT_TENSORFLOW)
def test_data_preparation_loads_no_tensorflow(package: str) -> None:
    modules = sorted(module_of(path) for path in files(f"recall/{package}"))
    loaded = modules_after("\n".join(f"import {module}" for module in modules))
    assert not loaded & {"tensorflow", "apache_beam", "scann"}


def test_import_recall_loads_nothing_heavy() -> None:
    # 50 ms is the budget; any of these alone takes longer or brings what does.
    assert not modules_after("import recall") & set(HEAVY)


def test_help_of_the_command_loads_no_tensorflow() -> None:
    loaded = modules_after(
        "import sys\n"
        "from recall.cli.main import main\n"
        "sys.argv = ['recall', '--help']\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code"
    )
    assert not loaded & {"tensorflow", "apache_beam", "scann"}


def test_every_public_name_is_there_and_listed() -> None:
    for name in recall.__all__:
        assert getattr(recall, name).__name__ == name
    assert set(recall.__all__) <= set(dir(recall))


def test_public_names_come_in_the_order_of_the_data_flow() -> None:
    flow = [
        "load_config", "Run", "PreparedData", "train", "build_index", "Recaller", "UserQuery", "SearchOptions",
        "Candidates", "evaluate", "RecallError",
    ]  # fmt: skip
    assert [name for name in recall.__all__ if name in flow] == flow


def test_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        recall.nonsense  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.slow
@pytest.mark.parametrize(
    ("order", "environment"), [("recall, tensorflow", {}), ("tensorflow, recall", {"TF_USE_LEGACY_KERAS": "1"})]
)
def test_tensorflow_gets_keras_2(order: str, environment: dict[str, str]) -> None:
    finished = python(f"import {order}; print(tensorflow.keras.Model.__module__)", **environment)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("tf_keras.")


@pytest.mark.slow
def test_tensorflow_imported_before_with_keras_3_is_one_clear_error() -> None:
    finished = python("import tensorflow, recall")
    assert finished.returncode != 0
    message = finished.stderr.splitlines()[-1]
    assert message.startswith("recall.core.errors.RecallError: TensorFlow was imported with Keras 3 before recall")
    assert "import recall before tensorflow" in message
    assert "TF_USE_LEGACY_KERAS=1" in message


def test_an_environment_that_asks_for_keras_3_is_one_clear_error() -> None:
    finished = python("import recall", TF_USE_LEGACY_KERAS="0")
    message = finished.stderr.splitlines()[-1]
    assert message.startswith("recall.core.errors.RecallError: the environment variable TF_USE_LEGACY_KERAS is '0'")
