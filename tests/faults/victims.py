"""What is killed in the tests of faults. Each runs in a real process of its own, forked from one that has imported all.

Importing this module imports TensorFlow and Beam, but runs nothing of them, so that forks are safe.
"""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf  # noqa: F401

import pipelines.training_data  # noqa: F401
import recall.recaller
import recall.training  # noqa: F401
from recall.config import load_config
from recall.run import Run


def step(name: str, experiment: Path, directory: Path, overrides: tuple[str, ...] = ()) -> None:
    """One step of a run, as `recall prepare|train|vectors|index` does it."""
    getattr(Run(load_config(experiment, overrides), directory), name)()
