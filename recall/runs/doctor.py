"""Looks at a machine and its packages: what recall needs and finds, what is missing, and what works without it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from packaging.requirements import Requirement

from recall.core.errors import RecallError
from recall.runs.run import Run

State = Literal["good", "note", "bad"]

_DISTRIBUTION = "recall-towers"
_NOT_FOR_USERS = ("test", "docs", "benchmarks", "notebooks", "all")
_GIB = 1 << 30
_LEAST_MEMORY = 4 * _GIB
_LEAST_DISK = 2 * _GIB
# In a process of its own: TensorFlow takes seconds, and what it does when it breaks may be to end the process.
_PROBE = """
import json, os
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import recall
import recall.model
import tensorflow as tf
import tf_keras as legacy
found = {"tensorflow": tf.__version__, "scann": "not installed",
         "keras": legacy.__version__ if tf.keras.Model is legacy.Model else "3",
         "gpus": [gpu.name for gpu in tf.config.list_physical_devices("GPU")]}
from recall.index.scann import is_installed, tensorflow_ops
if is_installed():
    try:
        tensorflow_ops()
        found["scann"] = "loads"
    except Exception as error:
        found["scann"] = f"{type(error).__name__}: {error}"
print(json.dumps(found))
"""


class Finding(NamedTuple):
    """Hold what was looked at.

    Attributes:
      name: what was looked at.
      state: `bad` is to be mended; `note` may be missing, and the text says what then works.
      text: what was found, and what to do.
    """

    name: str
    state: State
    text: str


def examine(run: Path | None = None) -> list[Finding]:
    """Look at this machine, its packages, and a run directory where one is given; takes some seconds."""
    found = [_platform(), *_packages(), *_libraries(), *_machine()]
    if run is not None:
        found += _run(run)
    return found


def _platform() -> Finding:
    """Look at the system: ScaNN has wheels for Linux alone."""
    text = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    if sys.platform != "linux":
        return Finding("platform", "note", f"{text}: ScaNN has no wheels here, all search is exact")
    if platform.machine() != "x86_64":
        return Finding("platform", "note", f"{text}: recall is tested on x86_64")
    return Finding("platform", "good", text)


def _packages() -> list[Finding]:
    """Compare installed packages with what recall requires, the core and each extra of a role."""
    try:
        lines = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        advice = f"recall runs from a source tree that is not installed; run `pip install -e .` ({_DISTRIBUTION})"
        return [Finding("packages", "note", advice)]
    requirements = [Requirement(line) for line in lines]
    extras = metadata.metadata(_DISTRIBUTION).get_all("Provides-Extra") or []
    return [
        _requirements("core", requirements, extra="", absent="bad"),
        *(
            _requirements(extra, requirements, extra=extra, absent="note")
            for extra in extras
            if extra not in _NOT_FOR_USERS
        ),
    ]


def _requirements(name: str, requirements: list[Requirement], *, extra: str, absent: State) -> Finding:
    """Compare the packages of the core or of an extra; one that is there in a wrong version is bad in any of them."""
    missing, wrong, versions = [], [], []
    for one in requirements:
        is_of_core = one.marker is None or one.marker.evaluate({"extra": ""})
        if one.name == _DISTRIBUTION or (one.marker and not one.marker.evaluate({"extra": extra})):
            continue
        if extra and is_of_core:
            continue
        try:
            version = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            missing.append(one.name)
            continue
        versions.append(f"{one.name} {version}")
        if not one.specifier.contains(version, prereleases=True):
            wrong.append(f"{one.name} {version} (expected {one.specifier})")
    install = f"run `pip install '{_DISTRIBUTION}{f'[{extra}]' if extra else ''}'`"
    title = "core packages" if name == "core" else f"extra {name}"
    if wrong:
        return Finding(title, "bad", f"{', '.join(wrong)}; {install}")
    if missing:
        return Finding(title, absent, f"without {', '.join(missing)}; {install}")
    return Finding(title, "good", ", ".join(versions) or "needs nothing more")


def _libraries() -> list[Finding]:
    """Load TensorFlow, Keras 2 and ScaNN's ops in a process of their own."""
    done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"])[-1]
        return [Finding("TensorFlow", "bad", f"does not load: {last}")]
    probe = json.loads(done.stdout.strip().splitlines()[-1])
    is_legacy = probe["keras"].startswith("2.")
    flag = os.environ.get("TF_USE_LEGACY_KERAS", "not set, recall sets it")
    return [
        Finding(
            "TensorFlow",
            "good" if is_legacy else "bad",
            f"{probe['tensorflow']} with Keras {probe['keras']} (TF_USE_LEGACY_KERAS {flag})"
            + ("" if is_legacy else "; recall needs Keras 2: set TF_USE_LEGACY_KERAS=1"),
        ),
        _scann(probe["scann"]),
        Finding("GPU", "good", ", ".join(probe["gpus"]) or "none; recall is measured on CPU"),
    ]


def _scann(found: str) -> Finding:
    """Judge what loading ScaNN's ops said."""
    if found == "loads":
        return Finding("ScaNN", "good", "its TensorFlow ops load")
    if found == "not installed":
        return Finding("ScaNN", "note", "not installed: all search is exact")
    return Finding("ScaNN", "bad", f"does not load: {found}")


def _machine() -> list[Finding]:
    """Look at cores, memory and free disk."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    findings = [Finding("cores", "good", str(cores))]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        text = f"{memory / _GIB:.1f} GiB"
        is_small = memory < _LEAST_MEMORY
        findings.append(
            Finding("memory", "note" if is_small else "good", f"{text}; training takes 2 to 4" if is_small else text)
        )
    for name, folder in (("working directory", Path.cwd()), ("temporary files", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(folder).free
        state: State = "good" if free >= _LEAST_DISK else "note"
        findings.append(Finding(name, state, f"{folder}, {free / _GIB:.1f} GiB free"))
    return findings


def _run(directory: Path) -> list[Finding]:
    """Look at the parts of a run; files are not read whole."""
    try:
        states = Run.open(directory).states()
    except RecallError as error:
        return [Finding(f"run {directory}", "bad", str(error))]
    return [
        Finding(f"{directory / name}", "good" if state == "done" else "note", f"{state}{advice and f'; {advice}'}")
        for name, state, advice in states
    ]
