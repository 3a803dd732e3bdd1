"""Assembles the `recall` command.

Each command imports its work when it runs, so that --help is instant: `steps.py`, `serving.py`, `inputs.py`,
`content.py`, `index.py`, `loop.py`, `tuning.py` and `start.py`.
"""

from __future__ import annotations

import typer

from recall.cli import daily, inputs, loop, serving, start, steps, tuning
from recall.cli.content import content_app
from recall.cli.index import index_app
from recall.runs.console import silence_libraries

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Candidate recall that does not forget new content.",
)
for command in (  # in the order of --help
    start.init,
    steps.run,
    daily.daily,
    steps.prepare,
    steps.train,
    steps.refit,
    steps.vectors,
    steps.evaluate,
    steps.report,
    serving.export,
    serving.query,
    serving.similar,
    serving.serve,
    steps.compare,
    tuning.tune,
    loop.loop,
    inputs.simulate,
    inputs.dataset,
    start.schema,
    start.doctor,
):
    app.command()(command)
app.add_typer(content_app, name="content")
app.add_typer(index_app, name="index")


def main() -> None:
    """Run the `recall` command with the arguments of the process."""
    silence_libraries()
    app()


if __name__ == "__main__":
    main()
