"""The `recall` command. Commands import what they need when they run, so that --help is instant."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console
from rich.table import Table

from recall.cli.content import content_app
from recall.cli.index import index_app
from recall.core.errors import RecallError
from recall.core.extras import require_packages
from recall.runs.console import clear_errors, silence_libraries

if TYPE_CHECKING:
    from recall.runs.run import Run
    from recall.serving.export.run import Kind
    from recall.serving.http.logs import LogFormat
    from recall.serving.search.candidates import Candidates

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Candidate recall that does not forget new content.",
)
app.add_typer(content_app, name="content")
app.add_typer(index_app, name="index")
_console = Console(stderr=True, highlight=False)

ConfigPath = Annotated[Path, typer.Argument(help="experiment file (YAML)")]
RunPath = Annotated[Path, typer.Option("--run", help="run directory")]
OutPath = Annotated[Path, typer.Option("--out", help="directory to write")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="dotted.key=value, over the experiment file")]
Compare = Annotated[bool, typer.Option("--compare", help="also the other structures, side by side")]
Resume = Annotated[bool, typer.Option("--resume", help="continue at the last checkpoint of a killed training")]
K = Annotated[int, typer.Option("-k", min=1, help="how many candidates")]
How = Annotated[str, typer.Option("--by", help="model, or content: meta vectors alone")]
Json = Annotated[bool, typer.Option("--json", help="machine-readable")]
Filter = Annotated[
    str | None,
    typer.Option(
        "--filter",
        metavar="JSON|FILE",
        help='which items may be shown, e.g. \'{"where": [{"column": "category", "in": ["news"]}]}\'',
    ),
]
Cap = Annotated[list[str] | None, typer.Option("--cap", metavar="COLUMN=N", help="at most N items of one value")]
MinColdShare = Annotated[float, typer.Option("--min-cold-share", min=0, max=1, help="share without exposures")]
Fallback = Annotated[bool, typer.Option("--fallback", help="popular and fresh items where the model has no answer")]


@app.command()
def run(
    config: ConfigPath, out: OutPath, overrides: Overrides = None, compare: Compare = False, resume: Resume = False
) -> None:
    """All steps: prepare, train, vectors, index, evaluate, report."""
    with clear_errors(_console):
        from recall.config.experiment import load_config
        from recall.runs.run import Run

        Run(load_config(config, overrides or ()), out, console=_console).all(compare=compare, resume=resume)


@app.command()
def prepare(
    run: RunPath,
    config: Annotated[Path | None, typer.Option(help="experiment file; default: the run's own")] = None,
    overrides: Overrides = None,
) -> None:
    """Log -> point-in-time training data."""
    with clear_errors(_console):
        from recall.config.experiment import load_config
        from recall.runs.run import Run

        settings = load_config(config, overrides or ()) if config else _open(run, overrides or ()).config
        Run(settings, run, console=_console).prepare()


@app.command()
def train(run: RunPath, compare: Compare = False, resume: Resume = False) -> None:
    """Training data -> model."""
    with clear_errors(_console):
        _open(run).train(compare=compare, resume=resume)


@app.command()
def vectors(run: RunPath) -> None:
    """Model -> vector of every item."""
    with clear_errors(_console):
        _open(run).vectors()


@app.command()
def evaluate(run: RunPath, compare: Compare = False) -> None:
    """Models and baselines -> metrics.json."""
    with clear_errors(_console):
        _open(run).evaluate(compare=compare)


@app.command()
def report(run: RunPath) -> None:
    """Everything so far -> report.html."""
    with clear_errors(_console):
        _open(run).report()


@app.command()
def export(
    run: RunPath,
    out: OutPath,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="how many candidates a query gets")] = 100,
    index: Annotated[str | None, typer.Option(help="exact or scann; default: as the run's index")] = None,
) -> None:
    """One SavedModel from raw features to candidates, and vectors for other engines."""
    with clear_errors(_console):
        from recall.serving.export.run import export_run

        with _console.status("exporting ..."):
            manifest = export_run(run, out, k=k, index=cast("Kind | None", index))
        signatures = ", ".join(manifest["signatures"])
        _console.print(f"{manifest['items']:,} items, {manifest['index']} search, signatures {signatures}: {out}")


@app.command()
def query(
    run: RunPath,
    user: Annotated[str | None, typer.Option(help="user id: what to show this user")] = None,
    item: Annotated[str | None, typer.Option(help="item id: what to show beside this item")] = None,
    k: K = 10,
    by: How = "model",
    last: Annotated[int, typer.Option(min=1, help="by content: how many of the user's last clicks to start from")] = 5,
    student: Annotated[bool, typer.Option("--student", help="ask the model's student for the user")] = False,
    filter: Filter = None,
    cap: Cap = None,
    min_cold_share: MinColdShare = 0.0,
    fallback: Fallback = False,
    as_json: Json = False,
) -> None:
    """Candidates for a user or an item."""
    with clear_errors(_console):
        if (user is None) == (item is None):
            raise RecallError("query: give either --user ID or --item ID")
        if student and (user is None or by == "content"):
            raise RecallError("query: --student asks the model for a user; remove it, or give --user ID without --by")
        from recall.serving.recaller import Recaller
        from recall.serving.search.filters import Filters
        from recall.serving.search.options import parse_caps

        wanted: dict[str, Any] = {
            "k": k,
            "by": by,
            "filters": Filters.parse(filter) if filter else None,
            "caps": parse_caps(cap or ()),
            "min_cold_share": min_cold_share,
            "fallback": fallback,
        }
        recaller = Recaller.load(run, query="student" if student else "user")
        found = (
            recaller.similar([str(item)], **wanted) if user is None else recaller.recall([user], last=last, **wanted)
        )
        if found.unknown_ids:
            _console.print(f"{found.unknown_ids:,} ids of the filter are of no item; they were passed over")
        _show(found, what="item" if user is None else "user", by=by, is_filtered=bool(filter), as_json=as_json)


@app.command()
def similar(
    run: RunPath,
    item: Annotated[str, typer.Option(help="item id")],
    k: K = 10,
    by: How = "model",
    as_json: Json = False,
) -> None:
    """Items like an item; the same as query --item."""
    query(run, item=item, k=k, by=by, as_json=as_json)


@app.command()
def serve(
    run: RunPath,
    host: Annotated[str, typer.Option(help="name or address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one; the log says which")] = 8080,
    allow_writes: Annotated[bool, typer.Option("--allow-writes", help="POST and DELETE /items")] = False,
    token_file: Annotated[Path | None, typer.Option(help="holds the token of writers; or RECALL_TOKEN does")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="name=value: a limit or a time-out")] = None,
    log_format: Annotated[str, typer.Option(help="json, or text for a terminal")] = "json",
) -> None:
    """HTTP service of a run; its page is at /, its API at /docs."""
    with clear_errors(_console):
        require_packages("serve", "fastapi", "prometheus_client", "starlette", "structlog", "uvicorn")
        if log_format not in ("json", "text"):
            raise RecallError(f"--log-format: expected json or text, found {log_format}")
        from recall.serving.http.server import serve as start
        from recall.serving.http.settings import read_settings

        chosen = read_settings(settings or (), allow_writes=allow_writes, token_file=token_file, environment=os.environ)
        start(run, chosen, host=host, port=port, log_format=cast("LogFormat", log_format))


@app.command()
def compare(
    run: Annotated[Path, typer.Argument(help="run directory")],
    second: Annotated[Path | None, typer.Argument(metavar="[RUN]", help="another run on the same examples")] = None,
    metric: Annotated[str, typer.Option(help="recall@K, hit_rate@K, ndcg@K with any K, or mrr")] = "recall@50",
    split: Annotated[str, typer.Option(help="test or validation")] = "test",
    model: Annotated[str | None, typer.Option(help="of the first run; default: its configured model")] = None,
    other: Annotated[str | None, typer.Option(help="what it is held against; default: the second run's configured "
                                                   "model, or with one run every other model of it")] = None,
    allow_partial: Annotated[bool, typer.Option("--allow-partial", help="runs that share only some examples")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="machine-readable")] = False,
) -> None:  # fmt: skip
    """Which model is better, and whether that could be chance: two runs, or the models of one."""
    with clear_errors(_console):
        from recall.evaluation.comparison import compare_runs
        from recall.runs.console import comparison_table

        with _console.status("comparing ..."):
            comparisons = compare_runs(
                run, second, metric=metric, split=split, model=model, other=other, allow_partial=allow_partial
            )
        if as_json:
            records = [comparison.record() for comparison in comparisons]
            typer.echo(json.dumps({"metric": metric, "split": split, "comparisons": records}, ensure_ascii=False))
            return
        for comparison in comparisons:
            Console(highlight=False).print(comparison_table(comparison, metric=metric, split=split))


@app.command()
def simulate(
    out: OutPath,
    users: Annotated[int, typer.Option(min=1)] = 2_000,
    items: Annotated[int, typer.Option(min=1)] = 3_000,
    days: Annotated[int, typer.Option(min=1)] = 14,
    exposures: Annotated[int, typer.Option(min=1)] = 300_000,
    seed: int = 1,
) -> None:
    """Writes a simulated community as ordinary input files."""
    with clear_errors(_console):
        from recall.data.datasets import simulate as simulate_community

        data = simulate_community(users=users, items=items, days=days, exposures=exposures, seed=seed)
        data.write(out)
        _console.print(f"{len(data.events):,} exposures of {len(data.items):,} items in {out}")


@app.command()
def dataset(
    name: Annotated[str, typer.Argument(help="kuairand, movielens, mind or sequences")],
    source: Annotated[Path, typer.Argument(help="folder with the data set as it was published")],
    out: OutPath,
) -> None:
    """Public data set as published -> ordinary input files."""
    with clear_errors(_console):
        from recall.data import datasets

        readers: dict[str, Callable[[Path], datasets.Dataset]] = {
            "kuairand": datasets.read_kuairand,
            "movielens": datasets.read_movielens,
            "mind": datasets.read_mind,
            "sequences": datasets.read_sequences,
        }
        if name not in readers:
            raise RecallError(f"dataset: found {name}, expected one of {', '.join(readers)}")
        data = readers[name](source)
        data.write(out)
        _console.print(f"{len(data.events):,} events of {len(data.items):,} items in {out}")


def main() -> None:
    """Entry point of the `recall` command."""
    silence_libraries()
    app()


def _open(directory: Path, overrides: Sequence[str] = ()) -> Run:
    from recall.runs.run import Run

    return Run.open(directory, overrides, console=_console)


def _show(found: Candidates, *, what: str, by: str, is_filtered: bool, as_json: bool) -> None:
    """Prints the candidates of one query, and who answered, if a fallback was asked for."""
    candidates = found.records()
    source = {} if found.sources is None else {"source": found.sources[0]}
    if as_json:
        shown = [{name: value for name, value in row.items() if name not in ("query", "source")} for row in candidates]
        typer.echo(json.dumps({"query": found.queries[0], **source, "candidates": shown}, ensure_ascii=False))
        return
    if not candidates:
        if is_filtered:
            _console.print(f"no candidates: the filter leaves nothing for {found.queries[0]}")
            return
        why = "has no clicks to start from, or " if by == "content" and what == "user" else ""
        _console.print(f"no candidates: {found.queries[0]} {why}has clicked every item of the catalogue")
        return
    by_whom = "".join(f" (source: {name})" for name in source.values())
    table = Table(title=f"{what} {found.queries[0]}{by_whom}", title_justify="left")
    for name, justify in (("rank", "right"), ("item", "left"), ("score", "right"), ("title", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for row in candidates:
        table.add_row(str(row["rank"]), row["item"], f"{row['score']:.4f}", row["title"] or "")
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
