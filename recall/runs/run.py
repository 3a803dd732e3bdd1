"""Takes one experiment through its steps in one directory.

Each step is skipped when its part is done and made of today's inputs: `steps.py`. `assessment.py` evaluates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from recall.config.experiment import Config, load_config
from recall.core.artifacts import write_json
from recall.core.environment import versions
from recall.core.errors import ArtifactError, ConfigError, RecallError
from recall.core.extras import require_packages
from recall.core.locks import sole_writer
from recall.data.given import write_given
from recall.evaluation.ranks import write_ranks
from recall.model.distributed.tf_config import Cluster
from recall.runs.carrying import carry
from recall.runs.console import facts_table, metrics_table, step_line
from recall.runs.days import day_of, days_of
from recall.runs.loaded import Loaded
from recall.runs.metrics import Metrics, shown_k
from recall.runs.overview import run_html, run_states
from recall.runs.parts import DATA, SERVED
from recall.runs.since import Since, forget
from recall.runs.step_log import StepLog
from recall.runs.steps import COMPARED, Steps, compared_structures, config_of, model_part
from recall.runs.tracking.tracked import Tracking, tracked

_PREPARES, _DRAWS = ("apache_beam", "sklearn"), ("jinja2", "matplotlib")  # modules of the extra `train`


class Run:
    """Take an experiment through its steps: prepare -> train -> refit -> vectors -> index -> evaluate -> report.

    Each step reads what the one before published and publishes its own part of the directory; it says what it
    lacks if that is missing. TensorFlow, Beam and ScaNN are imported by the steps that need them.

    Args:
      config: the experiment.
      directory: where all parts go.
      data: `events`, `items` or `users` -> a table of pandas, polars, pyarrow, DuckDB or Hugging Face datasets. They
        are written into the directory's inputs/ now and read from there ever after, so that the experiment needs no
        path for them; see `write_given`.
      console: shows progress and tables; silent by default.
      since: the directory of a finished run to go on from: only what is new of its log is read, and the model that it
        serves is judged on that and learns it.

    Example:
      >>> run = recall.Run(recall.load_config("experiment.yaml"), "runs/mine")
      >>> metrics = run.all()  # skips the steps that are done
      >>> sorted(metrics["test"])
      ['content_knn', 'content_knn_top3', 'gated', 'gated_trigger', 'item_knn', 'popularity', 'trending']
    """

    def __init__(
        self,
        config: Config,
        directory: str | Path,
        *,
        data: Mapping[str, Any] | None = None,
        console: Console | None = None,
        since: str | Path | Since | None = None,
    ) -> None:
        self.directory = Path(directory)
        self.console = console or Console(quiet=True)
        if data:
            with step_line(self.console, "inputs", spinner=True):
                config = write_given(config, self.directory, data)
        self.config = config
        self._since = Since.of(Path(since), config) if isinstance(since, str | Path) else since
        self._steps = Steps(config, self.directory, self._since)
        self._log = StepLog(config, self.directory, self.console)
        self._loaded = Loaded(config, self.directory, self._steps)
        self._tracking = Tracking(None, self.console)

    @classmethod
    def open(cls, directory: str | Path, overrides: Iterable[str] = (), *, console: Console | None = None) -> Run:
        """Open the run of a directory.

        Args:
          directory: the run.
          overrides: `dotted.key=value` pairs over its config.yaml.
          console: shows progress and tables; silent by default.

        Raises:
          ArtifactError: the directory holds no run.
        """
        path = Path(directory) / "config.yaml"
        if not path.exists():
            raise ArtifactError(f"{directory}: holds no run; start one with `recall run CONFIG.yaml --out {directory}`")
        return cls(load_config(path, overrides), directory, console=console, since=Since.read(path.parent))

    def all(self, *, compare: bool = False, resume: bool = False, track: str | None = None) -> Metrics:
        """Do every step; return metrics.json.

        Args:
          compare: train and evaluate the other structures, too.
          resume: go on at the last checkpoint of a killed training.
          track: write the run into MLflow as it goes on: `mlflow`, or `mlflow:URI` of a server.

        Raises:
          ConfigError: `TF_CONFIG` names several workers, packages are missing, or `track` is something else.
        """
        if Cluster.of_environment():
            raise ConfigError(
                "TF_CONFIG names several workers, but only `recall train` is shared by them; run `recall prepare` "
                "once, `recall train` on each worker, and the other steps once"
            )
        require_packages("run", *_PREPARES, *_DRAWS)  # now, not after the hours of training
        with tracked(self.config, self.directory, track, self.console) as self._tracking:
            self.prepare()
            self.train(compare=compare, resume=resume)
            self.refit(resume=resume)
            self.vectors()
            self.index()
            metrics = self.evaluate(compare=compare)
            self.report()
            folders = {name: self.directory / model_part(self.config, name) for name in self._structures(compare)}
            self._tracking.finish(metrics, folders)
        self._tracking = Tracking(None, self.console)  # a step by itself is not tracked
        return metrics

    def prepare(self) -> dict[str, Any]:
        """Make training data of the log, in data/; return its manifest."""
        step = self._steps.data()
        if manifest := step.done():
            self._log.write_config(keep_versions=True)
            return self._log.skipped("prepare", manifest)
        require_packages("prepare", *_PREPARES)
        from pipelines.training_data import counts_table, prepare, print_notes

        try:
            with self._log.running("prepare"):
                before = self._since.run / DATA if self._since else None
                manifest = prepare(self.config, step.part, fingerprint=step.fingerprint, since=before)
                self._since.write(self.directory) if self._since else forget(self.directory)
                self._log.write_config()  # only now: input that cannot be used leaves the directory as it was
        except RecallError:
            with suppress(OSError):
                self.directory.rmdir()  # if nothing is in it
            raise
        table = counts_table(manifest)
        if (late := self._published_late(step.part)) is not None:
            table.add_row("items published after their first exposure", f"{late:,}")
        self.console.print(table)
        print_notes(step.published(), self.console)
        return manifest

    def train(self, *, compare: bool = False, resume: bool = False) -> None:
        """Train the model, in model/.

        Args:
          compare: train the other structures, too, in compare/NAME/.
          resume: go on at the last checkpoint of a killed training.
        """
        steps = {name: self._steps.model(name) for name in self._structures(compare)}
        todo = {name: step for name, step in steps.items() if not step.done()}
        for name in steps:
            if name not in todo:
                self._log.skipped(f"train {name}", None)
        if not todo:
            return self._log.write_config(keep_versions=True)
        from recall.data.prepared import PreparedData
        from recall.training.checkpoint import seconds_so_far
        from recall.training.going_on import go_on
        from recall.training.train import train

        prepared = PreparedData.load(self.directory / DATA).judged()
        if self._since:
            (step,) = todo.values()
            with self._log.running("go on"):
                self._log.write_config()
                go_on(self.config, prepared, self._since.run, step.part, fingerprint=step.fingerprint)
            return None
        for name, step in todo.items():
            before = seconds_so_far(step.part) if resume else 0.0
            with self._log.running(f"train {name}", spinner=False, seconds_before=before):
                self._log.write_config()
                train(
                    config_of(self.config, name),
                    prepared,
                    step.part,
                    fingerprint=step.fingerprint,
                    resume=resume,
                    saved_models=step.part.name == SERVED,
                    on_epoch=self._tracking.of_model(name),
                    verbose=0 if self.console.quiet else (1 if self.console.is_terminal else 2),
                )
        return None

    def refit(self, *, resume: bool = False) -> None:
        """Train what is served on the whole log, in model/, where `training.refit` asks for it.

        Args:
          resume: go on at the last checkpoint of a killed refit.
        """
        if not self.config.learns_from_all:
            return None
        step = self._steps.served()
        if step.done():
            return self._log.skipped("refit", None)
        from recall.data.prepared import PreparedData
        from recall.training.checkpoint import seconds_so_far
        from recall.training.refit import refit

        before = seconds_so_far(step.part) if resume else 0.0
        with self._log.running("refit", spinner=False, seconds_before=before):
            self._log.write_config()
            refit(
                self.config, PreparedData.load(self.directory / DATA), self._steps.model().part, step.part,
                fingerprint=step.fingerprint, resume=resume,
                verbose=0 if self.console.quiet else (1 if self.console.is_terminal else 2),
            )  # fmt: skip
        return None

    def vectors(self) -> None:
        """Make the vector of every item as of the end of the log, in vectors/."""
        step = self._steps.vectors()
        if step.done():
            return self._log.skipped("vectors", None)
        from recall.model.inference import encode_items, modality_weights
        from recall.model.vector_table import ItemVectorTable

        with self._log.running("vectors"), sole_writer(step.part, step="making"):
            prepared, model = self._loaded.served()
            posterior = prepared.posterior("serving")
            vectors, shares = encode_items(model, posterior)
            weights = modality_weights(model)
            table = ItemVectorTable(prepared.item_ids, vectors, shares, posterior.exposures, step.fingerprint, weights)
            table.write(step.part)
        return None

    def index(self) -> dict[str, Any]:
        """Build the index of the vectors, in index/; return its settings and measurements."""
        step = self._steps.index()
        if (summary := step.done()) and self._index_is_whole():
            carry(self._since, step, self.console)
            return self._log.skipped("index", summary)
        from recall.evaluation.cold_bias import with_cold_bias
        from recall.index import build_saved_index
        from recall.model.vector_table import ItemVectorTable
        from recall.runs.assessment import index_summary, sample_queries
        from recall.runs.served_bias import cold_bias

        with self._log.running("index"), sole_writer(step.part, step="making"):
            self._log.write_config()
            table = ItemVectorTable.read(self.directory / "vectors")
            prepared, model = self._loaded.served()
            queries = sample_queries(model, prepared, seed=self.config.seed)
            chosen = cold_bias(self.config, *self._loaded.judged(self.config.model.structure))
            vectors = with_cold_bias(table.vectors, table.exposures, chosen.bias)
            carry(self._since, step, self.console, catalogue=table.ids.to_pylist())
            index = build_saved_index(
                table.ids, vectors, step.part, fingerprint=step.inputs["vectors"], config=self.config.index,
                sample_queries=queries, seed=self.config.seed,
                # Without a trigger tower items are asked for by cosine; the last dimension is added to every score.
                cosine_width=None if model.trigger_tower else vectors.shape[-1] - 1,
                report={"cold_bias": chosen.bias, "cold_bias_curve": list(chosen.curve)},
            )  # fmt: skip
            summary = {"fingerprint": step.fingerprint, **index_summary(index, queries)}
            write_json(step.file, summary, checksummed=True)
        self.console.print(facts_table("index", _without_fingerprint(summary)))
        return summary

    def evaluate(self, *, compare: bool = False) -> Metrics:
        """Judge models and baselines on test and validation; return metrics.json.

        Args:
          compare: judge the other structures, too.
        """
        names = self._structures(compare)
        step = self._steps.metrics(names, compare=compare)
        if (metrics := step.done()) and self._steps.ranks(step).done():
            return self._log.skipped("evaluate", Metrics(metrics))
        from recall.runs.assessment import assess_models
        from recall.runs.judging import category_matrix
        from recall.runs.latency import query_latency_ms
        from recall.runs.similar_lists import similar_summary

        with self._log.running("evaluate"), sole_writer(step.part, step="making"):
            self._log.write_config()
            prepared, _ = self._loaded.judged(names[0])
            found = assess_models(self.config, prepared, names, load=lambda name: self._loaded.judged(name)[1])
            latency = {}
            if self.config.model.student:
                latency = query_latency_ms(self.directory, prepared, seed=self.config.seed)
            # The ranks first: metrics.json is what says that there was an evaluation.
            write_ranks(
                self.directory, found.ranks, fingerprint=step.fingerprint, configured=names[0],
                catalogue=len(prepared.item_ids), evaluation=self.config.evaluation, made_of=step.inputs,
            )  # fmt: skip
            similar = similar_summary(
                self.directory, prepared, seed=self.config.seed, categories=category_matrix(self.config, prepared)
            )
        days = [*(days_of(self._since.run) if self._since else ()), day_of(prepared, found.metrics["test"])]
        content = {
            **found.metrics,
            "days": days,
            "rolling": {"refresh_ms": self.config.refresh_ms, "why_frozen": self.config.why_frozen},
            "similar": similar,
            "index": _without_fingerprint(self._steps.index().published()),
            "timing": {**self._log.timing(), **latency},
            "configured": names[0],
            # All of it is of the model before the refit, which has seen no held-out click.
            **({"refit": self.config.training.refit} if self.config.learns_from_all else {}),
            "fingerprint": step.fingerprint,
        }
        metrics = Metrics(content)
        write_json(step.file, metrics, checksummed=True)
        self.console.print(metrics_table(metrics, k=shown_k(metrics)))
        return metrics

    def served_metrics(self) -> dict[str, Any]:
        """Measure what is served on all test clicks, rolling where there is a rolling evaluation.

        After a refit it has learned them, which flatters it: a bound from above, not a result.
        """
        from recall.runs.assessment import assess_models

        name = self.config.model.structure
        prepared, model = self._loaded.served()
        found = assess_models(
            self.config, prepared, [name], load=lambda name: model, splits=("test",), with_baselines=False
        ).metrics["test"][name]
        return dict((found.get("rolling") or found)["all"])

    def report(self) -> Path:
        """Draw the results so far; return the path of report.html."""
        metrics_path, path = self.directory / "metrics.json", self.directory / "report.html"
        metrics = self._steps.published_metrics()
        if path.exists() and path.stat().st_mtime_ns >= metrics_path.stat().st_mtime_ns:
            return self._log.skipped("report", path)
        require_packages("report", *_DRAWS)
        from recall.runs.assessment import report_inputs
        from recall.runs.report.page import write_report

        with self._log.running("report"):
            prepared, model = self._loaded.judged(metrics["configured"])
            models = [name for name in COMPARED if name in metrics["test"] and name != metrics["configured"]]
            folders = {name: model_part(self.config, name) for name in (metrics["configured"], *models)}
            if self._since:  # what was learned today
                folders[metrics["configured"]] = SERVED
            inputs = report_inputs(
                self.directory, self.config, prepared=prepared, model=model, metrics=metrics, versions=versions(),
                curves={name: self.directory / folder for name, folder in folders.items()},
            )  # fmt: skip
            write_report(path, inputs)
        self.console.print(f"report: {path}")
        return path

    def states(self) -> list[tuple[str, str, str]]:
        """List the parts: name; `done`, `out of date` or `missing`; and what to do where that is not `done`."""
        return run_states(self._steps)

    def _repr_html_(self) -> str:
        return run_html(self._steps)

    def _structures(self, compare: bool) -> list[str]:
        if compare and self._since:
            raise ConfigError(
                "--compare: the other structures have no model of yesterday to go on from; leave one of both out"
            )
        return [self.config.model.structure, *(compared_structures(self.config) if compare else ())]

    def _published_late(self, data: Path) -> int | None:
        """Count the items that were exposed before they were published; None without `data.items.published`."""
        from recall.data.prepared import PreparedData
        from recall.data.published import published_after_exposure, published_times

        if (name := self.config.data.items.published) is None:
            return None
        prepared = PreparedData.load(data)
        assert prepared.attributes is not None, "the column of data.items.published is an attribute"
        times_ms = published_times(prepared.attributes[name], self.config.data)
        return published_after_exposure(times_ms, prepared.posterior_history)

    def _index_is_whole(self) -> bool:
        from recall.index import load_index

        try:
            load_index(self.directory / "index")  # checks every byte
        except ArtifactError:
            return False
        return True


def _without_fingerprint(summary: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in summary.items() if name != "fingerprint"}
