"""Train in a process that kills itself while an epoch is validated."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

_SCRIPT = """
import os, signal, sys
from pathlib import Path
from recall import PreparedData, load_config, train
from recall.training import validation

measure, measured = validation.validation_metric, []

def measure_or_die(*arguments, **keywords):
    measured.append(None)
    if len(measured) == int(last):
        os.kill(os.getpid(), signal.SIGKILL)
    return measure(*arguments, **keywords)

validation.validation_metric = measure_or_die
last, experiment, data, model, *overrides = sys.argv[1:]
train(
    load_config(experiment, overrides), PreparedData.load(data), Path(model), fingerprint="this", saved_models=False
)
"""


def train_until_killed(
    experiment: Path, data: Path, model: Path, overrides: tuple[str, ...], *, validation: int
) -> None:
    """Trains in a process of its own, with fingerprint "this", that dies by SIGKILL in its nth validation (from 1)."""
    arguments = [str(validation), *map(str, (experiment, data, model)), *overrides]
    finished = subprocess.run([sys.executable, "-c", _SCRIPT, *arguments], capture_output=True, text=True, timeout=300)
    assert finished.returncode == -signal.SIGKILL, finished.stderr
