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
WITHOUT_TENSORFLOW = (
    "events", "posterior", "history", "vocabulary", "sampling", "metrics", "ranks", "statistics", "comparison",
)  # fmt: skip
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


def test_beam_stays_in_the_pipelines() -> None:
    assert importers_of("apache_beam", files("recall")) == set()
    assert importers_of("apache_beam", files("pipelines"))


def test_scann_stays_in_the_index() -> None:
    users = importers_of("scann", files("recall", "pipelines"))
    assert users
    assert all(user.startswith("recall/index/") for user in users)


def test_nothing_imports_the_command_line() -> None:
    assert importers_of("recall.cli", files("recall", "pipelines")) == set()


@pytest.mark.parametrize("module", WITHOUT_TENSORFLOW)
def test_data_preparation_names_no_tensorflow(module: str) -> None:
    names = {name.split(".")[0] for name in imported_modules(ROOT / "recall" / f"{module}.py")}
    assert not names & {"tensorflow", "tf_keras", "keras", "tensorflow_recommenders"}


def test_data_preparation_loads_no_tensorflow() -> None:
    loaded = modules_after("\n".join(f"import recall.{module}" for module in WITHOUT_TENSORFLOW))
    assert "numpy" in loaded
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
    flow = ["load_config", "Run", "PreparedData", "train", "build_index", "Recaller", "evaluate", "RecallError"]
    assert [name for name in recall.__all__ if name in flow] == flow


def test_version_is_that_of_the_metadata() -> None:
    lines = (ROOT / "setup.cfg").read_text().splitlines()
    assert f"version = {recall.__version__}" in lines


def test_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        recall.nonsense  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize(
    ("order", "environment"), [("recall, tensorflow", {}), ("tensorflow, recall", {"TF_USE_LEGACY_KERAS": "1"})]
)
def test_tensorflow_gets_keras_2(order: str, environment: dict[str, str]) -> None:
    finished = python(f"import {order}; print(tensorflow.keras.Model.__module__)", **environment)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("tf_keras.")


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
