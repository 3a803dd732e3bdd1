"""`recall content train`: a step of its own beside those of a run, skipped when its inputs are unchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from recall.core.artifacts import fingerprint
from recall.core.errors import ConfigError
from recall.core.extras import require_packages
from recall.runs.run import Run

CONTENT = "content"
TRAINED, JOINED = "trained", "joined"


class ContentRun(Run):
    """A run that also teaches content vectors: data/ -> content/."""

    def train_content(self) -> dict[str, Any]:
        """Teaches the vectors and judges them beside what they were made of; returns the judgement (validation).

        Raises:
          ArtifactError: the data is not prepared, or was prepared from other inputs.
          ConfigError: an embedding of the run is what this step writes.
          DataError: as `train_content`.
        """
        made_of = self._content_fingerprint()
        directory = self.directory / CONTENT
        if self._is_done(CONTENT, made_of):
            from recall.content.teach.artifact import TrainedContent

            return self._skip("content train", TrainedContent.load(directory).judged)
        require_packages("content train", "sklearn")
        from recall.content.judge.evaluation import JudgeSettings, judge_content
        from recall.content.teach.artifact import write_content
        from recall.content.teach.modalities import side_by_side
        from recall.content.teach.training import train_content
        from recall.content.vectors import ContentVectors, prepared_vectors
        from recall.data.features.embeddings import vector_array
        from recall.data.prepared import PreparedData

        with self._step("content train", spinner=False):
            prepared = PreparedData.load(self.directory / "data")
            with self._epochs() as on_epoch:
                taught = train_content(self.config, prepared, on_epoch=on_epoch)
            self._write_config()  # only now: input that cannot be used leaves the directory as it was
            chosen = {feature.name for feature in self.config.content.embeddings(self.config.features)}
            judged = [one for one in prepared_vectors(prepared) if one.name in chosen]
            judged += [side_by_side(judged, name=JOINED)] if len(judged) > 1 else []
            judged.append(ContentVectors.checked(TRAINED, vector_array(taught.vectors)))
            settings = JudgeSettings(split="validation", ks=self.config.evaluation.k, seed=self.config.seed)
            found = judge_content(judged, prepared, settings)
            write_content(
                directory, taught, item_ids=prepared.item_ids, levels=self.config.content.clusters, judged=found,
                seed=self.config.seed, fingerprint=made_of,
            )  # fmt: skip
        return found

    def _content_fingerprint(self) -> str:
        config, directory = self.config, (self.directory / CONTENT).resolve()
        manifest = self._prepared_manifest()
        for feature in config.content.embeddings(config.features):
            if feature.path and Path(feature.path).resolve().parent == directory:
                raise ConfigError(
                    f"features.meta: {feature.name} is read from {feature.path}, which this command writes; name the "
                    "base vectors in content.features, or use the trained ones in a run directory of its own"
                )
        sections = (config.content.model_dump(mode="json"), config.features.modalities, config.evaluation.k)
        return fingerprint(metadata.version("recall"), manifest["fingerprint"], sections, config.seed)

    @contextmanager
    def _epochs(self) -> Iterator[Callable[[dict[str, Any]], None]]:
        """A bar over the epochs on a terminal, and a line for each."""
        columns = (TextColumn("content train"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as progress:
            bar = progress.add_task("", total=self.config.content.training.epochs)

            def on_epoch(entry: dict[str, Any]) -> None:
                values = ", ".join(f"{name} {value:.4f}" for name, value in entry.items() if name != "epoch")
                self.console.print(f"epoch {entry['epoch']}: {values}")
                progress.update(bar, completed=entry["epoch"])

            yield on_epoch
