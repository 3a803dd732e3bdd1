"""One experiment in one directory: its steps in order, each skipped when it is done and its inputs are unchanged."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from recall.config.experiment import Config, load_config
from recall.core.artifacts import (
    HIDDEN_MANIFEST,
    MANIFEST,
    fingerprint,
    read_json,
    read_manifest,
    write_json,
    write_text,
)
from recall.core.environment import commit, versions
from recall.core.errors import ArtifactError, ConfigError, RecallError, disk_problem
from recall.core.extras import require_packages
from recall.data.fingerprints import data_fingerprint, model_fingerprint
from recall.evaluation.ranks import RANKS, write_ranks
from recall.model.distributed.tf_config import Cluster
from recall.runs.console import facts_table, metrics_table, step_line

_INDEX_SUMMARY = "index/summary.json"
COMPARED = ("gated", "behaviour_only", "meta_only", "single", "base")
_PREPARES, _DRAWS = ("apache_beam", "sklearn"), ("jinja2", "matplotlib")  # modules of the extra `train`
_T = TypeVar("_T")


class Run:
    """The steps of an experiment: prepare -> train -> vectors -> index -> evaluate -> report.

    Each step reads what the one before published and publishes its own part of the directory; it says what it
    lacks if that is missing. TensorFlow, Beam and ScaNN are imported by the steps that need them.

    Args:
      config: the experiment.
      directory: where everything goes.
      console: where progress and tables go; silent by default.
    """

    def __init__(self, config: Config, directory: str | Path, *, console: Console | None = None) -> None:
        self.config, self.directory = config, Path(directory)
        self.console = console or Console(quiet=True)
        self._prepared: Any = None  # read once for all steps

    @classmethod
    def open(cls, directory: str | Path, overrides: Iterable[str] = (), *, console: Console | None = None) -> Run:
        """The run that lies in a directory.

        Args:
          directory: of the run.
          overrides: `dotted.key=value` pairs over its config.yaml.
          console: as for the constructor.

        Raises:
          ArtifactError: there is none.
        """
        path = Path(directory) / "config.yaml"
        if not path.exists():
            raise ArtifactError(f"{directory}: holds no run; start one with `recall run CONFIG.yaml --out {directory}`")
        return cls(load_config(path, overrides), directory, console=console)

    def all(self, *, compare: bool = False, resume: bool = False) -> dict[str, Any]:
        """Every step; returns metrics.json."""
        if Cluster.of_environment():
            raise ConfigError(
                "TF_CONFIG names several workers, but only `recall train` is shared by them; run `recall prepare` "
                "once, `recall train` on each worker, and the other steps once"
            )
        require_packages("run", *_PREPARES, *_DRAWS)  # now, not after the hours of training
        self.prepare()
        self.train(compare=compare, resume=resume)
        self.vectors()
        self.index()
        metrics = self.evaluate(compare=compare)
        self.report()
        return metrics

    # Steps

    def prepare(self) -> dict[str, Any]:
        """Log -> training data in data/; returns its manifest."""
        made_of = self._data_fingerprint()
        if self._is_done("data", made_of):
            self._write_config(keep_versions=True)
            return self._skip("prepare", read_manifest(self.directory / "data", made_by=self._command("prepare")))
        require_packages("prepare", *_PREPARES)
        from pipelines.training_data import counts_table, prepare

        try:
            with self._step("prepare"):
                manifest = prepare(self.config, self.directory / "data", fingerprint=made_of)
                self._write_config()  # only now: input that cannot be used leaves the directory as it was
        except RecallError:
            with suppress(OSError):
                self.directory.rmdir()  # if nothing is in it
            raise
        self.console.print(counts_table(manifest))
        return manifest

    def train(self, *, compare: bool = False, resume: bool = False) -> None:
        """Training data -> model/, and with `compare` the other structures -> compare/NAME/."""
        names = self._models(compare)
        todo = [name for name in names if not self._is_done(self._model_path(name), self._model_fingerprint(name))]
        for name in names:
            if name not in todo:
                self._skip(f"train {name}", None)
        if not todo:
            return self._write_config(keep_versions=True)
        from recall.data.prepared import PreparedData
        from recall.training.train import train

        prepared = PreparedData.load(self.directory / "data")
        for name in todo:
            with self._step(f"train {name}", spinner=False):
                self._write_config()
                train(
                    self._config_of(name),
                    prepared,
                    self.directory / self._model_path(name),
                    fingerprint=self._model_fingerprint(name),
                    resume=resume,
                    saved_models=name == names[0],
                    verbose=0 if self.console.quiet else (1 if self.console.is_terminal else 2),
                )
        return None

    def vectors(self) -> None:
        """Model -> vectors/: every item's vector as of the end of the log."""
        made_of = self._published("model", "train")
        if self._is_done("vectors", made_of):
            return self._skip("vectors", None)
        from recall.model.inference import encode_items, modality_weights
        from recall.model.vector_table import ItemVectorTable

        with self._step("vectors"):
            prepared, model = self._load(self._models(False)[0])
            posterior = prepared.posterior("serving")
            vectors, shares = encode_items(model, posterior.stacked())
            weights = modality_weights(model)
            table = ItemVectorTable(prepared.item_ids, vectors, shares, posterior.exposures, made_of, weights)
            table.write(self.directory / "vectors")
        return None

    def index(self) -> dict[str, Any]:
        """Vectors -> index/; returns what was chosen and how it measured."""
        of_vectors = self._published("vectors", "vectors")
        made_of = self._index_fingerprint(of_vectors)
        if (summary := self._content(_INDEX_SUMMARY, made_of)) and self._index_is_whole():
            return self._skip("index", summary)
        from recall.evaluation.cold_bias import with_cold_bias
        from recall.index import build_saved_index
        from recall.model.vector_table import ItemVectorTable
        from recall.runs.assessment import cold_bias, index_summary, sample_queries

        with self._step("index"):
            self._write_config()
            table = ItemVectorTable.read(self.directory / "vectors")
            prepared, model = self._load(self._models(False)[0])
            queries = sample_queries(model, prepared, seed=self.config.seed)
            chosen = cold_bias(self.config, prepared, model)
            vectors = with_cold_bias(table.vectors, table.exposures, chosen.bias)
            index = build_saved_index(
                table.ids, vectors, self.directory / "index", fingerprint=of_vectors, config=self.config.index,
                sample_queries=queries, seed=self.config.seed,
                report={"cold_bias": chosen.bias, "cold_bias_curve": list(chosen.curve)},
            )  # fmt: skip
            summary = {"fingerprint": made_of, **index_summary(index, queries)}
            write_json(self.directory / _INDEX_SUMMARY, summary, checksummed=True)
        self.console.print(
            facts_table("index", {name: value for name, value in summary.items() if name != "fingerprint"})
        )
        return summary

    def evaluate(self, *, compare: bool = False) -> dict[str, Any]:
        """Models and baselines on test and validation -> metrics.json; returns it."""
        names = self._models(compare)
        of_models = {name: self._published(self._model_path(name), "train", compare=compare) for name in names}
        index = self._published_index()
        made_of = self._metrics_fingerprint(of_models, index)
        if (metrics := self._content("metrics.json", made_of)) and self._is_done(RANKS, made_of):
            return self._skip("evaluate", metrics)
        from recall.runs.assessment import assess_models
        from recall.runs.latency import query_latency_ms

        with self._step("evaluate"):
            self._write_config()
            prepared, _ = self._load(names[0])
            found = assess_models(self.config, prepared, names, load=lambda name: self._load(name)[1])
            latency = {}
            if self.config.model.student:
                latency = query_latency_ms(self.directory, prepared, seed=self.config.seed)
            of_folders = {self._model_path(name): model for name, model in of_models.items()}
            # The ranks first: metrics.json is what says that there was an evaluation.
            write_ranks(
                self.directory, found.ranks, fingerprint=made_of, configured=names[0],
                catalogue=len(prepared.item_ids), evaluation=self.config.evaluation, made_of=of_folders,
            )  # fmt: skip
        index = {key: value for key, value in index.items() if key != "fingerprint"}
        timing = {**self._timing(), **latency}
        about = {"index": index, "timing": timing, "configured": names[0], "fingerprint": made_of}
        metrics = {**found.metrics, **about}
        write_json(self.directory / "metrics.json", metrics, checksummed=True)
        self.console.print(metrics_table(metrics, k=min(self.config.evaluation.k, key=lambda k: abs(k - 50))))
        return metrics

    def report(self) -> Path:
        """Everything so far -> report.html; returns its path."""
        metrics_path, path = self.directory / "metrics.json", self.directory / "report.html"
        metrics = self._published_metrics(metrics_path)
        if path.exists() and path.stat().st_mtime_ns >= metrics_path.stat().st_mtime_ns:
            return self._skip("report", path)
        require_packages("report", *_DRAWS)
        from recall.runs.assessment import report_inputs
        from recall.runs.report.page import write_report

        with self._step("report"):
            prepared, model = self._load(metrics["configured"])
            models = [name for name in COMPARED if name in metrics["test"] and name != metrics["configured"]]
            curves = {name: self.directory / self._model_path(name) for name in (metrics["configured"], *models)}
            inputs = report_inputs(
                self.directory, self.config, prepared=prepared, model=model, metrics=metrics, curves=curves,
                versions=versions(),
            )  # fmt: skip
            write_report(path, inputs)
        self.console.print(f"report: {path}")
        return path

    # What belongs to which inputs

    def _models(self, compare: bool) -> list[str]:
        configured = self.config.model.structure
        others = [name for name in COMPARED if name != configured and self._has_features_for(name)] if compare else []
        return [configured, *others]

    def _has_features_for(self, structure: str) -> bool:
        try:
            self._config_of(structure)
        except RecallError:
            return False
        return True

    def _config_of(self, structure: str) -> Config:
        if structure == self.config.model.structure:
            return self.config
        return self.config.with_structure(structure)

    def _model_path(self, structure: str) -> str:
        return "model" if structure == self.config.model.structure else f"compare/{structure}"

    def _data_fingerprint(self) -> str:
        return data_fingerprint(self.config)

    def _model_fingerprint(self, structure: str) -> str:
        return model_fingerprint(self._config_of(structure), of_data=self._prepared_manifest()["fingerprint"])

    def _prepared_manifest(self) -> dict[str, Any]:
        manifest = read_manifest(self.directory / "data", made_by=self._command("prepare"))
        if manifest["fingerprint"] != self._data_fingerprint():
            raise ArtifactError(
                f"{self.directory / 'data'}: was made from other input files or settings; "
                f"run `{self._command('prepare')}` again"
            )
        return manifest

    def _published(self, part: str, step: str, *, compare: bool = False) -> str:
        command = self._command(step) + (" --compare" if compare else "")
        # What it is made of comes first: of several things that are missing, the first to make is named.
        if part == "vectors":
            made_of = self._published("model", "train")
        else:
            structure = self.config.model.structure if part == "model" else part.removeprefix("compare/")
            made_of = self._model_fingerprint(structure)
        manifest = read_manifest(self.directory / part, made_by=command, name=_manifest_name(part))
        if manifest["fingerprint"] != made_of:
            what = "was made by another model" if part == "vectors" else "was trained with other data or settings"
            raise ArtifactError(f"{self.directory / part}: {what}; run `{command}` again")
        return made_of

    def _index_fingerprint(self, of_vectors: str) -> str:
        # One shard is the index that there was before shards: such an index stays done.
        section = self.config.index.model_dump(
            mode="json", exclude={"shards"} if self.config.index.shards == 1 else None
        )
        return fingerprint(of_vectors, section, self.config.seed)

    def _index_is_whole(self) -> bool:
        from recall.index import load_index

        try:
            load_index(self.directory / "index")  # checks every byte
        except ArtifactError:
            return False
        return True

    def _content(self, name: str, made_of: str) -> dict[str, Any] | None:
        """A JSON file of the run if it is there, whole, and made of that."""
        try:
            content = _read_json(self.directory / name)
        except ArtifactError:
            return None
        return content if content.get("fingerprint") == made_of else None

    def _published_index(self) -> dict[str, Any]:
        made_of = self._index_fingerprint(self._published("vectors", "vectors"))
        summary = _read_json(self.directory / _INDEX_SUMMARY, made_by=self._command("index"))
        if summary.get("fingerprint") != made_of:
            raise ArtifactError(
                f"{self.directory / 'index'}: was made from other vectors or settings; "
                f"run `{self._command('index')}` again"
            )
        return summary

    def _metrics_fingerprint(self, of_models: dict[str, str], index: dict[str, Any]) -> str:
        return fingerprint(of_models, index["fingerprint"], self.config.evaluation.model_dump(mode="json"))

    def _published_metrics(self, path: Path) -> dict[str, Any]:
        configured = self.config.model.structure
        self._published("model", "train")
        metrics = _read_json(path, made_by=self._command("evaluate"))
        compare = any(name in metrics["test"] for name in COMPARED if name != configured)
        names = [name for name in self._models(compare) if name in metrics["test"] or name == configured]
        of_models = {name: self._published(self._model_path(name), "train", compare=compare) for name in names}
        made_of = self._metrics_fingerprint(of_models, self._published_index())
        command = self._command("evaluate") + (" --compare" if compare else "")
        ranks = read_manifest(self.directory / RANKS, made_by=command, verify=True)
        if metrics.get("fingerprint") != made_of or ranks.get("fingerprint") != made_of:
            raise ArtifactError(f"{path}: was measured on other models or settings; run `{command}` again")
        return metrics

    def _is_done(self, part: str, made_of: str) -> bool:
        try:
            manifest = read_manifest(self.directory / part, made_by="", verify=True, name=_manifest_name(part))
        except ArtifactError:
            return False  # not there, or damaged: make it again
        return bool(manifest.get("fingerprint") == made_of)

    def _load(self, structure: str) -> tuple[Any, Any]:
        from recall.data.prepared import PreparedData
        from recall.training.published import load_model

        made_of = self._prepared_manifest()["fingerprint"]
        if self._prepared is None or self._prepared.manifest["fingerprint"] != made_of:
            self._prepared = PreparedData.load(self.directory / "data")
        return self._prepared, load_model(self.directory / self._model_path(structure), self._prepared)

    # What the user sees

    def _command(self, step: str) -> str:
        return f"recall {step} --run {self.directory}"

    def _write_config(self, *, keep_versions: bool = False) -> None:
        """Notes the experiment, and the versions that a step runs with; one that is skipped keeps those it ran with."""
        lines = [f"recall {metadata.version('recall')}, commit {commit()}"]
        lines += [f"{name} {version}" for name, version in versions().items()]
        header, body = "".join(f"# {line}\n" for line in lines), self.config.to_yaml()
        path, cluster = self.directory / "config.yaml", Cluster.of_environment()
        if cluster and not cluster.is_chief:
            return
        there = path.read_text() if path.exists() else ""
        if there == header + body or (keep_versions and there.endswith("\n" + body)):
            return
        write_text(path, header + body)

    def _skip(self, step: str, result: _T) -> _T:
        self.console.print(f"[dim]{step}: done before, inputs unchanged[/dim]")
        return result

    @contextmanager
    def _step(self, name: str, *, spinner: bool = True) -> Iterator[None]:
        started = time.perf_counter()
        try:
            with step_line(self.console, name, spinner=spinner):
                yield
            seconds = time.perf_counter() - started
            write_json(self.directory / "timing.json", {**self._timing(), f"{name.replace(' ', '_')}_seconds": seconds})
        except Exception as error:
            if not (problem := disk_problem(error)):
                raise
            raise ArtifactError(
                f"{self.directory}: {name} could not read or write its files ({problem}); "
                "free some space, or choose another --out, then run the same command again"
            ) from error
        self.console.print(f"[bold]{name}[/bold] took {seconds:.1f} s")

    def _timing(self) -> dict[str, float]:
        path = self.directory / "timing.json"
        return _read_json(path) if path.exists() else {}


def _read_json(path: Path, *, made_by: str = "recall run") -> dict[str, Any]:
    try:
        return read_json(path)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: not there yet; run `{made_by}` first") from None
    except (OSError, ValueError, TypeError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}); remove it, then run `{made_by}` again") from error


def _manifest_name(part: str) -> str:
    return HIDDEN_MANIFEST if part == "vectors" else MANIFEST
