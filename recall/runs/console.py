"""Prints the progress of a run: a line per step, and a short table at its end."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from recall.core.errors import RecallError
from recall.runs.metrics import metric_columns, metric_texts

if TYPE_CHECKING:
    from recall.evaluation.comparison import Comparison


def silence_libraries() -> None:
    """Silence the messages of TensorFlow, Keras and Beam below errors."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("tensorflow", "absl", "apache_beam"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Beam's import tells the root logger which optional Google Cloud packages are absent.
    logging.getLogger().addFilter(lambda record: "apitools" not in record.getMessage())
    warnings.filterwarnings("ignore", category=DeprecationWarning)


@contextmanager
def step_line(console: Console, name: str, *, spinner: bool) -> Iterator[None]:
    """Show that a step is under way: a spinner on a terminal, else a line."""
    if spinner and console.is_terminal:
        with console.status(f"{name} ..."):
            yield
    else:
        console.print(f"{name} ...")
        yield


@contextmanager
def clear_errors(console: Console) -> Iterator[None]:
    """Print a RecallError as one line and exit with 1; any other exception is a bug and passes."""
    try:
        yield
    except RecallError as error:
        console.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None


def facts_table(title: str, facts: Mapping[str, Any]) -> Table:
    """Build a table of names and values, one a row; nested values are left out."""
    table = Table(title=title, title_justify="left", show_header=False, box=box.SIMPLE)
    for name, value in facts.items():
        if isinstance(value, bool) or not isinstance(value, int | float | Mapping | list):
            table.add_row(name, str(value))
        elif isinstance(value, float):
            table.add_row(name, f"{value:,.4g}")
        elif isinstance(value, int):
            table.add_row(name, f"{value:,}")
    return table


def metrics_table(metrics: Mapping[str, Any], *, k: int) -> Table:
    """Build a table of models on the test split, one a row; a dash where a metric is undefined."""
    columns, caption = metric_columns(metrics, k=k)
    table = Table(
        title="test", title_justify="left", caption=caption, caption_justify="left", box=box.SIMPLE, pad_edge=False
    )
    # On a narrow terminal names fold, and numbers stay whole.
    table.add_column("model", overflow="fold")
    for name in columns:
        table.add_column(name, justify="right", min_width=max(len("0.0000"), *map(len, name.split())))
    for model, parts in metrics["test"].items():
        table.add_row(model, *metric_texts(parts, columns))
    return table


def comparison_table(comparison: Comparison, *, metric: str, split: str) -> Table:
    """Build a table of a comparison: per slice both values, the interval of their difference, and a verdict."""
    (first_run, first), (second_run, second) = comparison.first, comparison.second
    same_run = first_run == second_run
    title = f"{metric} on {split}: {first}{'' if same_run else f' ({first_run})'} against {second} ({second_run})"
    caption = "Difference with its 95% interval, whole users resampled. The verdict is on the first model."
    if any(comparison.unpaired):
        own, others = comparison.unpaired
        caption += (
            f" Left out, as only one was asked about them: {own:,} clicks of the first, {others:,} of the second."
        )
    table = Table(
        title=title, title_justify="left", caption=caption, caption_justify="left", box=box.SIMPLE, pad_edge=False,
        show_edge=False,
    )  # fmt: skip
    # On a narrow terminal words fold, and numbers stay whole.
    table.add_column("slice", overflow="fold")
    for name in ("clicks", "first", "second", "difference", "interval"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", overflow="fold")
    for part in comparison.slices:
        interval = part.interval
        numbers = ["-"] * 4
        if interval is not None:
            numbers = [
                f"{part.first:.4f}",
                f"{part.second:.4f}",
                f"{interval.difference:+.4f}",
                f"{interval.low:+.4f} {interval.high:+.4f}",
            ]
        table.add_row(part.part.label, f"{part.examples:,}", *numbers, part.verdict)
    return table
