"""python -m benchmarks.service_fuzz --run DIR: does the service survive hostile requests, and does /healthz?"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from recall.core.errors import RecallError
from recall.runs.console import clear_errors, silence_libraries

_console = Console(stderr=True, highlight=False)
_RESULT = Path(__file__).with_name("results") / "fuzz.json"


def main(
    run: Annotated[Path, typer.Option(help="a finished run; it is copied")],
    requests: Annotated[int, typer.Option(min=1, help="hostile requests")] = 10_000,
    seed: Annotated[int, typer.Option(help="of the requests")] = 1,
    clients: Annotated[int, typer.Option(min=1, help="requests at the same time")] = 8,
    idle: Annotated[int, typer.Option(min=0, help="connections beside that send nothing")] = 200,
    slow: Annotated[int, typer.Option(min=0, help="connections beside that send a byte of a body now and then")] = 50,
    out: Annotated[Path, typer.Option(help="the result")] = _RESULT,
    settings: Annotated[list[str] | None, typer.Option("--set", help="name=value, as of recall serve")] = None,
) -> None:
    """Attacks a service of its own, and writes what was answered, the longest /healthz, and memory."""
    silence_libraries()
    with clear_errors(_console), tempfile.TemporaryDirectory() as scratch:
        from benchmarks.service_fuzz.fuzz import fuzz, shortcomings

        copy = Path(shutil.copytree(run, Path(scratch) / "run"))
        result = fuzz(
            copy, requests=requests, seed=seed, clients=clients, idle=idle, slow=slow,
            log=Path(scratch) / "service.log", settings=tuple(settings or ()),
        )  # fmt: skip
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n")
        _console.print_json(
            json.dumps({name: result[name] for name in ("statuses", "healthz", "memory_mb", "log_bytes")})
        )
        if problems := shortcomings(result):
            raise RecallError("\n".join(problems))


if __name__ == "__main__":
    typer.run(main)
