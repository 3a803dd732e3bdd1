"""What is served: a simulated community, and a run on it with a ScaNN index, made once per size."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console

from benchmarks.serving.plan import HERE, Plan
from benchmarks.serving.processes import environment
from benchmarks.serving.questions import Asking
from recall.core.artifacts import write_json
from recall.core.errors import RecallError
from recall.data.prepared import PreparedData

EXPERIMENT = HERE / "experiment.yaml"

_SEED = 3
_STEPS = ("train", "vectors", "index")
_MADE = "made.json"


@dataclass(frozen=True)
class Prepared:
    """What a load test starts from.

    Attributes:
      data: tables of the community.
      run: the run, as it was built; a test serves a copy.
    """

    data: Path
    run: Path

    def copy_to(self, target: Path) -> Path:
        """The run, for a service that changes it."""
        shutil.rmtree(target, ignore_errors=True)
        return Path(shutil.copytree(self.run, target))

    def asking(self, plan: Plan) -> Asking:
        """Users who clicked something, their profiles as the users file has them, and categories of items."""
        prepared = PreparedData.load(self.run / "data")
        users = pq.read_table(self.data / "users.parquet").to_pylist()
        clicked = [user for user in users if len(prepared.histories.recent(user["user_id"]))]
        chosen = random.Random(_SEED).sample(clicked, min(plan.asking_users, len(clicked)))
        profiles = [
            {**{name: value for name, value in user.items() if name != "user_id"},
             "history": prepared.item_ids.take(prepared.histories.recent(user["user_id"])).to_pylist()}
            for user in chosen
        ]  # fmt: skip
        categories = sorted({*self.items("category")["category"]} - {None})
        return Asking([user["user_id"] for user in chosen], profiles, categories, plan.k)

    def items(self, *columns: str) -> dict[str, list[Any]]:
        """Columns of the items file; all without names."""
        return pq.read_table(self.data / "items.parquet", columns=list(columns) or None).to_pydict()

    def contents(self, plan: Plan) -> list[dict[str, Any]]:
        """Rows of the items file without their ids: contents for items that are added."""
        table = pq.read_table(self.data / "items.parquet").drop_columns(["item_id"])
        rows = random.Random(_SEED).sample(range(len(table)), min(plan.contents, len(table)))
        return [
            {name: value for name, value in row.items() if value is not None} for row in table.take(rows).to_pylist()
        ]


def prepare(plan: Plan, out: Path, *, console: Console) -> Prepared:
    """Simulates, prepares, trains and builds the index with the commands of the library, unless that was done before.

    Args:
      plan: its community.
      out: folder of this size.
      console: says what is done.

    Raises:
      RecallError: a step failed; names its log.
    """
    made, community = Prepared(out / "data", out / "run"), plan.community.model_dump()
    made_of = {"community": community, "experiment": EXPERIMENT.read_text()}
    marker = out / _MADE
    if marker.exists() and json.loads(marker.read_text()) == made_of:
        return made
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    _step(out, "simulate", "--out", str(made.data), *(f"--{name}={count}" for name, count in community.items()),
          console=console)  # fmt: skip
    paths = [f"--set=data.{name}.path={(made.data / name).resolve()}.parquet" for name in ("events", "items", "users")]
    _step(out, "prepare", "--config", str(EXPERIMENT), "--run", str(made.run), *paths, console=console)
    for step in _STEPS:
        _step(out, step, "--run", str(made.run), console=console)
    write_json(marker, made_of)
    return made


def _step(out: Path, *arguments: str, console: Console) -> None:
    console.print(f"recall {arguments[0]} ...")
    log = out / f"{arguments[0]}.log"
    with log.open("w") as stream:
        command = [sys.executable, "-m", "recall.cli", *arguments]
        done = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, env=environment(), check=False)
    if done.returncode:
        raise RecallError(f"recall {arguments[0]}: failed; see {log}")
