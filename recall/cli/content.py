"""Defines `recall content`: commands about content vectors by themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from recall.cli.options import Json, console
from recall.core.artifacts import write_json
from recall.core.errors import ArtifactError, DataError
from recall.core.terminal import open_console
from recall.runs.console import clear_errors

content_app = typer.Typer(no_args_is_help=True)
_PRIOR_MEASURES = ("predicted", "calibration_error", "auc")


@content_app.callback()  # keeps a lone command a sub-command
def content() -> None:
    """Judge and teach content vectors by themselves, before any recall model."""


@content_app.command()
def evaluate(
    run: Annotated[Path, typer.Option("--run", help="run directory, prepared; no model is needed")],
    vectors: Annotated[list[str] | None, typer.Option(
        "--vectors", help="name=path: further vectors, .npy (row i = line i of the items file) or Parquet (item id, "
                          "vector)")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="JSON file to write")] = None,
    split: Annotated[str, typer.Option(help="test or validation: whose clicks are asked about")] = "test",
    last: Annotated[int, typer.Option(min=1, help="how many of a user's last clicks count")] = 5,
    neighbours: Annotated[int, typer.Option(min=1, help="nearest items whose tags are looked at")] = 10,
    limit: Annotated[int, typer.Option(min=1, help="at most this many clicks and items, drawn at random")] = 10_000,
    common: Annotated[bool, typer.Option("--common", help="only items that all sets cover")] = False,
    seed: Annotated[int | None, typer.Option(help="of all draws; default: the run's")] = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Judge content vectors: whether they know what a user clicks next, and which items are alike.

    Takes every `embedding` of features.meta, and more. Measures the next click against the user's last clicks (AUC
    beside random and popular items, recall over the whole catalogue by similarity alone), common tags of near items,
    alignment and uniformity.
    """
    with clear_errors(console):
        from recall.content.judge.evaluation import JudgeSettings, judge_content
        from recall.content.vectors import on_common_items, prepared_vectors, read_vectors
        from recall.data.prepared import PreparedData
        from recall.runs.run import Run

        opened = Run.open(run)
        evaluation = opened.config.evaluation
        settings = JudgeSettings(
            split=split, last=last, ks=evaluation.k, neighbours=neighbours, limit=limit,  # type: ignore[arg-type]
            seed=opened.config.seed if seed is None else seed,
        )  # fmt: skip
        if not (run / "data").exists():
            raise ArtifactError(f"{run / 'data'}: not there yet; run `recall prepare --run {run}` first")
        prepared = PreparedData.load(run / "data")
        judged = prepared_vectors(prepared)
        features = (feature for feature in opened.config.features.meta if feature.type == "embedding")
        if hidden := [feature.name for feature in features if not feature.uses_vector]:
            console.print(f"not judged, as the run keeps their clusters alone: {', '.join(hidden)}")
        id_column = opened.config.data.items.id
        judged += [
            read_vectors(name, path, prepared, id_column=id_column) for name, path in map(_named_path, vectors or ())
        ]
        if not judged:
            raise DataError(
                "content evaluate: the run keeps no content vectors (no `embedding` in features.meta, or its clusters "
                "alone); give some with --vectors name=path.npy"
            )
        if common:
            judged = on_common_items(judged)
        with console.status("judging content vectors ..."):
            found = judge_content(judged, prepared, settings)
        if out:
            _write(out, found)
        if as_json:
            typer.echo(json.dumps(found, ensure_ascii=False))
            return
        open_console().print(content_table(found, k=_near_fifty(evaluation.k)))


@content_app.command()
def train(
    run: Annotated[Path, typer.Option("--run", help="run directory, prepared; no model is needed")],
    overrides: Annotated[list[str] | None, typer.Option(
        "--set", help="dotted.key=value, over the run's config.yaml, e.g. content.loss.tags=0")] = None,
) -> None:  # fmt: skip
    """Teach one vector per item from its base vectors: by its modalities, its tags and what people click.

    Writes DIR/content: vectors.npy and items.parquet, each an `embedding` for another experiment. The section
    `content` of the experiment file says what is learned and how.
    """
    with clear_errors(console):
        from recall.runs.content_step import run_content_training
        from recall.runs.run import Run

        config = Run.open(run, overrides or ()).config
        found = run_content_training(config, run, console=console)
        open_console().print(trained_table(found, k=_near_fifty(config.evaluation.k)))
        console.print(
            f"on test clicks: recall content evaluate --run {run} --vectors trained={run}/content/vectors.npy"
        )


@content_app.command()
def prior(
    run: Annotated[Path, typer.Option("--run", help="run directory, prepared with a content prior")],
    as_json: Json = False,
) -> None:
    """Judge the content prior: whether it knows which items will be clicked.

    Asks about items' first exposures in the held-out periods. Needs `data.posterior.content_prior.enabled: true`; no
    model. Measures calibration, AUC and log loss, beside one prior for all items and, as a ceiling, the later CTR of
    the same items.
    """
    with clear_errors(console):
        from recall.content.judge.prior_judge import judge_content_prior
        from recall.data.prepared import PreparedData
        from recall.runs.run import Run

        first_exposures = Run.open(run).config.data.posterior.content_prior.first_exposures
        if not (run / "data").exists():
            raise ArtifactError(f"{run / 'data'}: not there yet; run `recall prepare --run {run}` first")
        with console.status("judging the content prior ..."):
            found = judge_content_prior(PreparedData.load(run / "data"), first_exposures=first_exposures)
        if as_json:
            typer.echo(json.dumps(found))
            return
        open_console().print(prior_table(found))


def trained_table(found: Mapping[str, Any], *, k: int) -> Table:
    """Build a table of base vectors and trained ones, a row each, by mean similarity to the last clicks."""
    table = Table(
        title=f"content vectors on {found['clicks']['asked']:,} {found['split']} clicks, last {found['last']}",
        title_justify="left",
        caption=f"AUC: the next click against random and popular items; recall@{k}: whole catalogue; cold: items "
        "without exposures or clicks before the split; joined: all base vectors side by side. The epoch was chosen on "
        "clicks of this split.",
        caption_justify="left",
        box=box.SIMPLE,
        pad_edge=False,
    )
    table.add_column("", overflow="fold")
    columns = [(part, name) for part in ("all", "cold") for name in ("auc_random", "auc_popular", f"recall@{k}")]
    for name in (
        "items",
        *(f"{'cold ' if part == 'cold' else ''}{name.replace('auc_', 'AUC ')}" for part, name in columns),
    ):
        table.add_column(name, justify="right", min_width=max(map(len, name.split())))
    for name, judged in found["vectors"].items():
        values = [judged["last_n"]["mean"][part][measure] for part, measure in columns]
        table.add_row(name, f"{judged['coverage']:.1%}", *(_with_chance(value, None) for value in values))
    return table


def content_table(found: Mapping[str, Any], *, k: int) -> Table:
    """Build a table of sets of vectors side by side: a row per measure, the value of chance in brackets."""
    table = Table(
        title=f"content vectors on {found['clicks']['asked']:,} {found['split']} clicks, last {found['last']}",
        title_justify="left",
        caption="In brackets: chance. AUC: how often the next click is nearer to the last clicks than a random or a "
        f"popular item. recall@{k}: whole catalogue, by similarity alone. alignment in brackets: random pairs.",
        caption_justify="left",
        box=box.SIMPLE,
        pad_edge=False,
    )
    table.add_column("", overflow="fold")
    rows: dict[str, list[str]] = {}
    for name, judged in found["vectors"].items():
        table.add_column(name, justify="right", overflow="fold")
        for measure, text in _measures(judged, k=k):
            rows.setdefault(measure, []).append(text)
    for measure, texts in rows.items():
        table.add_row(measure, *texts)
    return table


def prior_table(found: Mapping[str, Any]) -> Table:
    """Build a table with a row per period, part and prior."""
    table = Table(
        title=f"content prior on items' first {found['first_exposures']:,} exposures",
        title_justify="left",
        caption="new: without any exposure when the period began. followed: with exposures after these, whose CTR "
        "(later) is the ceiling. CTR: observed. error: expected calibration error, by tenths.",
        caption_justify="left",
        box=box.SIMPLE,
        pad_edge=False,
    )
    table.add_column("on", overflow="fold")
    table.add_column("items", justify="right", no_wrap=True)
    table.add_column("prior")
    for name in ("CTR", "predicted", "error", "AUC"):
        table.add_column(name, justify="right", no_wrap=True)
    for period in ("validation", "test"):
        for part, judged in found[period].items():
            about = [f"{period}, {part}", f"{judged['items']:,}"]
            if not judged["items"]:
                table.add_row(*about)
            for name in ("content", "global", "later"):
                if name in judged:
                    measured = (judged["observed"], *(judged[name][key] for key in _PRIOR_MEASURES))
                    numbers = ("-" if number is None else f"{number:.4f}" for number in measured)
                    table.add_row(*about, name, *numbers)
                    about = ["", ""]
    return table


def _measures(judged: Mapping[str, Any], *, k: int) -> list[tuple[str, str]]:
    last_n, chance = judged["last_n"], judged["last_n"]["chance"]
    rows = [
        ("dimensions", f"{judged['dim']:,}"),
        ("items with a vector", f"{judged['coverage']:.1%}"),
        ("clicks asked / cold", " / ".join(f"{last_n['mean'][part]['examples']:,}" for part in ("all", "cold"))),
    ]
    for part in ("all", "cold"):
        prefix = "" if part == "all" else "cold: "
        for kind in ("random", "popular"):
            for similarity in ("mean", "max"):
                value = last_n[similarity][part][f"auc_{kind}"]
                rows.append((f"{prefix}AUC, {kind}, {similarity}", _with_chance(value, 0.5)))
        for similarity in ("mean", "max"):
            value = last_n[similarity][part][f"recall@{k}"]
            rows.append((f"{prefix}recall@{k}, {similarity}", _with_chance(value, chance[part][f"recall@{k}"])))
    for feature, measured in judged["tags"].items():
        name, value = next((name, value) for name, value in measured.items() if name.startswith("share@"))
        rows.append((f"{feature}: {name.replace('share', 'common')}", _with_chance(value, measured["chance"])))
    rows.append(("alignment", _with_chance(judged["alignment"]["value"], judged["alignment"]["random"])))
    rows.append(("uniformity", _with_chance(judged["uniformity"], None)))
    return rows


def _near_fifty(ks: Sequence[int]) -> int:
    return min(ks, key=lambda k: abs(k - 50))


def _with_chance(value: float | None, chance: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if chance is None else f"{value:.4f} ({chance:.4f})"


def _write(path: Path, found: Mapping[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, found)
    except OSError as error:
        raise ArtifactError(f"{path}: could not be written ({error}); choose another --out") from error


def _named_path(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise DataError(f"--vectors {text}: expected name=path, e.g. --vectors clip=clip.npy")
    return name, Path(path)
