"""Defines the command `recall tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recall.cli.options import ConfigPath, OutPath, Overrides, console
from recall.core.errors import ConfigError
from recall.runs.console import clear_errors


def tune(
    config: ConfigPath,
    out: OutPath,
    overrides: Overrides = None,
    trials: Annotated[int, typer.Option(min=1, help="in all, with those of earlier calls")] = 30,
    jobs: Annotated[
        int, typer.Option(min=0, help="trials at once, each with its share of the cores; 0: in this process")
    ] = 1,
    space: Annotated[Path | None, typer.Option(help="YAML: settings to tune and their values")] = None,
    time_limit: Annotated[str | None, typer.Option(help="no trial begins later, e.g. 90m or 2h")] = None,
    confirm: Annotated[int, typer.Option(min=0, help="further seeds for the best and the configured settings")] = 3,
    keep: Annotated[bool, typer.Option("--keep", help="keep the models and data of all trials")] = False,
) -> None:
    """Look for better settings on the validation clicks; write the best file and a page."""
    with clear_errors(console):
        from recall.config.experiment import load_config
        from recall.config.values import parse_duration_ms
        from recall.config.yaml_file import read_yaml
        from recall.runs.tuning.tune import tune as tune_experiment

        limit_s = None
        if time_limit is not None:
            try:
                limit_s = parse_duration_ms(time_limit) / 1000
            except ValueError as error:
                raise ConfigError(f"--time-limit {time_limit}: {error}") from None
        tune_experiment(
            load_config(config, overrides or ()), out, trials=trials, jobs=jobs,
            space=read_yaml(space) if space else None, time_limit_s=limit_s, confirm=confirm, keep=keep,
            console=console,
        )  # fmt: skip
