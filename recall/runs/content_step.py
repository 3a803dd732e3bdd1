"""Takes the step `recall content train`, which stands beside the steps of a run and is skipped in the same way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from recall import __version__
from recall.config.experiment import Config
from recall.core.artifacts import fingerprint
from recall.core.errors import ConfigError
from recall.core.extras import require_packages
from recall.runs.step_log import StepLog
from recall.runs.steps import Step, Steps

CONTENT = "content"
TRAINED, JOINED = "trained", "joined"


def run_content_training(config: Config, directory: str | Path, *, console: Console | None = None) -> dict[str, Any]:
    """Teach content vectors of a prepared run, in content/, and judge them beside the base vectors.

    Args:
      config: the experiment.
      directory: the run.
      console: shows progress; silent by default.

    Returns:
      The judgement, on validation clicks.

    Raises:
      ArtifactError: the data is not prepared, or was prepared from other inputs.
      ConfigError: an embedding of the run is what this step writes, or a package is missing.
      DataError: see `train_content`.
    """
    directory, console = Path(directory), console or Console(quiet=True)
    step, log = _content_step(config, directory), StepLog(config, directory, console)
    if step.done():
        from recall.content.teach.artifact import TrainedContent

        return log.skipped("content train", TrainedContent.load(step.part).judged)
    require_packages("content train", "sklearn")
    from recall.content.judge.evaluation import JudgeSettings, judge_content
    from recall.content.teach.artifact import write_content
    from recall.content.teach.modalities import side_by_side
    from recall.content.teach.training import train_content
    from recall.content.vectors import ContentVectors, prepared_vectors
    from recall.data.features.embeddings import vector_array
    from recall.data.prepared import PreparedData

    with log.running("content train", spinner=False):
        prepared = PreparedData.load(directory / "data")
        with _epochs(config.content.training.epochs, console) as on_epoch:
            taught = train_content(config, prepared, on_epoch=on_epoch)
        log.write_config()  # only now: input that cannot be used leaves the directory as it was
        chosen = {feature.name for feature in config.content.embeddings(config.features)}
        judged = [one for one in prepared_vectors(prepared) if one.name in chosen]
        judged += [side_by_side(judged, name=JOINED)] if len(judged) > 1 else []
        judged.append(ContentVectors.checked(TRAINED, vector_array(taught.vectors)))
        settings = JudgeSettings(split="validation", ks=config.evaluation.k, seed=config.seed)
        found = judge_content(judged, prepared, settings)
        write_content(
            step.part, taught, item_ids=prepared.item_ids, levels=config.content.clusters, judged=found,
            seed=config.seed, fingerprint=step.fingerprint,
        )  # fmt: skip
    return found


def _content_step(config: Config, directory: Path) -> Step:
    part = directory / CONTENT
    of_data = Steps(config, directory).data().published()["fingerprint"]
    for feature in config.content.embeddings(config.features):
        if feature.path and Path(feature.path).resolve().parent == part.resolve():
            raise ConfigError(
                f"features.meta: {feature.name} is read from {feature.path}, which this command writes; name the "
                "base vectors in content.features, or use the trained ones in a run directory of its own"
            )
    sections = (config.content.model_dump(mode="json"), config.features.modalities, config.evaluation.k)
    return Step(
        part=part,
        inputs={"data": of_data},
        fingerprint=fingerprint(__version__, of_data, sections, config.seed),
        command=f"recall content train --run {directory}",
        otherwise="was taught with other data or settings",
    )


@contextmanager
def _epochs(count: int, console: Console) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Show a bar over the epochs on a terminal, and print a line for each."""
    columns = (TextColumn("content train"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=count)

        def on_epoch(entry: dict[str, Any]) -> None:
            values = ", ".join(f"{name} {value:.4f}" for name, value in entry.items() if name != "epoch")
            console.print(f"epoch {entry['epoch']}: {values}")
            progress.update(bar, completed=entry["epoch"])

        yield on_epoch
