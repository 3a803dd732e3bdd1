"""Defines the commands that answer from a finished run: `export`, `query`, `similar` and `serve`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, cast

import typer
from rich.table import Table

from recall.cli.options import Cap, Fallback, Filter, How, Json, K, MinColdShare, OutPath, RunPath, console
from recall.core.errors import RecallError
from recall.core.extras import require_packages
from recall.core.terminal import open_console
from recall.runs.console import clear_errors

if TYPE_CHECKING:
    from recall.serving.export.run import Kind
    from recall.serving.http.logs import LogFormat
    from recall.serving.search.candidates import Candidates


def export(
    run: RunPath,
    out: OutPath,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="how many candidates a query gets")] = 100,
    index: Annotated[str | None, typer.Option(help="exact or scann; default: as the run's index")] = None,
    since: Annotated[
        str | None,
        typer.Option(help="only what changed since a version of the index: its number, its folder, or another run"),
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0, help="with --since: leave out vectors that moved by no more, relatively")
    ] = None,
) -> None:
    """Write one SavedModel from raw features to candidates, and vectors for other engines; or changes alone."""
    with clear_errors(console):
        if since is not None:
            _export_changes(run, out, since=since, tolerance=tolerance or 0.0, index=index)
            return
        if tolerance is not None:
            raise RecallError("--tolerance: says which changes count; give --since VERSION with it, or leave it out")
        from recall.serving.export.run import export_run

        with console.status("exporting ..."):
            manifest = export_run(run, out, k=k, index=cast("Kind | None", index))
        signatures = ", ".join(manifest["signatures"])
        console.print(f"{manifest['items']:,} items, {manifest['index']} search, signatures {signatures}: {out}")


def _export_changes(run: Path, out: Path, *, since: str, tolerance: float, index: str | None) -> None:
    if index is not None:
        raise RecallError("--index: is the search of a SavedModel, and --since writes none; leave one of both out")
    from recall.serving.export.changes import export_changes

    with console.status("comparing ..."):
        found = export_changes(run, out, since=since, tolerance=tolerance)
    new, changed, moved = found["upserts"]["new"], found["upserts"]["changed"], found["moved"]
    console.print(
        f"{new:,} new, {changed:,} changed, {found['unchanged']:,} unchanged, {found['deletions']:,} deletions, from "
        f"version {found['from']['version']} to {found['to']['version']}: {out}"
    )
    if moved:
        console.print(f"vectors moved by {moved['median']:.4f} (median), {moved['p90']:.4f} (p90) of their length")


def query(
    run: RunPath,
    user: Annotated[str | None, typer.Option(help="user id: what to show this user")] = None,
    item: Annotated[str | None, typer.Option(help="item id: what to show beside this item")] = None,
    k: K = 10,
    by: How = "model",
    last: Annotated[
        int | None,
        typer.Option(min=1, help="by content: start from each of so many last clicks; default: from the mean of all"),
    ] = None,
    student: Annotated[bool, typer.Option("--student", help="ask the model's student for the user")] = False,
    filter: Filter = None,
    cap: Cap = None,
    min_cold_share: MinColdShare = 0.0,
    fallback: Fallback = False,
    as_json: Json = False,
) -> None:
    """Recall candidates for a user or an item."""
    with clear_errors(console):
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
            console.print(f"{found.unknown_ids:,} ids of the filter are of no item; they were passed over")
        stranger = user is not None and not recaller.user_queries.knows_users(found.queries).all()
        _show(found, _Asked("item" if user is None else "user", by, bool(filter), stranger), as_json=as_json)


def similar(
    run: RunPath,
    item: Annotated[str, typer.Option(help="item id")],
    k: K = 10,
    by: How = "model",
    as_json: Json = False,
) -> None:
    """Find items like an item; the same as query --item."""
    query(run, item=item, k=k, by=by, as_json=as_json)


def serve(
    run: RunPath,
    host: Annotated[str, typer.Option(help="name or address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one; the log says which")] = 8080,
    allow_writes: Annotated[bool, typer.Option("--allow-writes", help="POST and DELETE /items")] = False,
    token_file: Annotated[Path | None, typer.Option(help="holds the token of writers; or RECALL_TOKEN does")] = None,
    writes_without_token: Annotated[
        bool, typer.Option("--writes-without-token", help="let everybody who reaches the address write")
    ] = False,
    settings: Annotated[list[str] | None, typer.Option("--set", help="name=value: a limit or a time-out")] = None,
    log_format: Annotated[str, typer.Option(help="json, or text for a terminal")] = "json",
) -> None:
    """Serve a run over HTTP; its page is at /, its API at /docs."""
    with clear_errors(console):
        require_packages("serve", "fastapi", "prometheus_client", "starlette", "structlog", "uvicorn")
        if log_format not in ("json", "text"):
            raise RecallError(f"--log-format: expected json or text, found {log_format}")
        from recall.serving.http.server import serve as start
        from recall.serving.http.settings import read_settings

        chosen = read_settings(
            settings or (),
            allow_writes=allow_writes,
            writes_without_token=writes_without_token,
            token_file=token_file,
            environment=os.environ,
        )
        start(run, chosen, host=host, port=port, log_format=cast("LogFormat", log_format))


class _Asked(NamedTuple):
    """Describe the question of a list.

    Attributes:
      what: item or user.
      by: model or content.
      is_filtered: whether a filter was given.
      is_stranger: whether it is a user that neither the log nor the users file has.
    """

    what: str
    by: str
    is_filtered: bool
    is_stranger: bool


def _show(found: Candidates, asked: _Asked, *, as_json: bool) -> None:
    """Print the candidates of one query, the source of the answer if a fallback was asked for, and who is unknown."""
    candidates, name = found.records(), found.queries[0]
    source = {} if found.sources is None else {"source": found.sources[0]}
    instead = _answer_to_strangers(found, by=asked.by)
    if as_json:
        about = {"known": False, "answered_by": instead} if asked.is_stranger else {}
        shown = [{key: value for key, value in row.items() if key not in ("query", "source")} for row in candidates]
        typer.echo(json.dumps({"query": name, **about, **source, "candidates": shown}, ensure_ascii=False))
        return
    if asked.is_stranger:
        console.print(f"user {name} is unknown, in neither the log nor the users file; answered by {instead}")
    if not candidates:
        console.print(f"no candidates: {_why_none(name, asked)}")
        return
    notes = [*(f"source: {who}" for who in source.values()), *(["unknown"] if asked.is_stranger else [])]
    aside = f" ({', '.join(notes)})" if notes else ""
    table = Table(title=f"{asked.what} {name}{aside}", title_justify="left")
    # On a narrow terminal ids and titles fold, and numbers stay whole.
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("item", overflow="fold")
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("title", overflow="fold")
    for row in candidates:
        table.add_row(str(row["rank"]), row["item"], f"{row['score']:.4f}", row["title"] or "")
    open_console().print(table)


def _answer_to_strangers(found: Candidates, *, by: str) -> str:
    """Say what answers for a user that nobody knows."""
    if found.sources is not None and found.sources[0] != "model":
        return "popular and fresh items, the fallback"
    if by == "content":
        return "nothing, as there are no clicks to start from"
    return "the model, as for any user without profile and clicks"


def _why_none(name: str, asked: _Asked) -> str:
    """Say why a list is empty."""
    if asked.is_filtered:
        return f"the filter leaves nothing for {name}"
    why = "has no clicks to start from, or " if asked.by == "content" and asked.what == "user" else ""
    return f"{name} {why}has clicked every item of the catalogue"
