"""Defines the commands that write input files: `simulate` and `dataset`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from recall.cli.options import OutPath, console
from recall.core.errors import RecallError
from recall.runs.console import clear_errors


def simulate(
    out: OutPath,
    users: Annotated[int, typer.Option(min=1)] = 2_000,
    items: Annotated[int, typer.Option(min=1)] = 3_000,
    days: Annotated[int, typer.Option(min=1)] = 14,
    exposures: Annotated[int, typer.Option(min=1)] = 300_000,
    seed: int = 1,
) -> None:
    """Write a simulated community as ordinary input files."""
    with clear_errors(console):
        from recall.data.datasets import simulate as simulate_community

        data = simulate_community(users=users, items=items, days=days, exposures=exposures, seed=seed)
        data.write(out)
        console.print(f"{len(data.events):,} exposures of {len(data.items):,} items in {out}")


def dataset(
    name: Annotated[
        str, typer.Argument(help="ebnerd, kuairand, microlens, mind, movielens, sequences, vk_lsvd or yambda")
    ],
    source: Annotated[Path, typer.Argument(help="folder with the data set as it was published")],
    out: OutPath,
) -> None:
    """Convert a public data set as published into ordinary input files."""
    with clear_errors(console):
        import pyarrow.parquet as pq

        from recall.data import datasets

        readers: dict[str, Callable[[Path], datasets.Dataset | datasets.StreamedDataset]] = {
            "ebnerd": datasets.read_ebnerd,
            "kuairand": datasets.stream_kuairand,
            "microlens": datasets.read_microlens,
            "mind": datasets.stream_mind,
            "movielens": datasets.read_movielens,
            "sequences": datasets.read_sequences,
            "vk_lsvd": datasets.read_vk_lsvd,
            "yambda": datasets.read_yambda,
        }
        if name not in readers:
            raise RecallError(f"dataset: found {name}, expected one of {', '.join(readers)}")
        data = readers[name](source)
        data.write(out)
        events = pq.read_metadata(out / "events.parquet").num_rows
        console.print(f"{events:,} events of {len(data.items):,} items in {out}")
        for reason, rows in data.dropped.items():
            if rows:
                console.print(f"not taken: {rows:,} {reason}")
