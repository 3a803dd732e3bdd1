"""One experiment in one directory: its steps in order, each skipped when it is done and its inputs are unchanged."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from recall.artifacts import HIDDEN_MANIFEST, MANIFEST, fingerprint, read_manifest, write_json
from recall.catalogue import check_files
from recall.config import Config, load_config
from recall.console import facts_table, metrics_table, step_line
from recall.errors import ArtifactError, RecallError
from recall.tables import expand_paths

COMPARED = ("gated", "behaviour_only", "meta_only", "single", "base")
_PACKAGES = ("tensorflow", "tf-keras", "tensorflow-recommenders", "scann", "apache-beam", "numpy", "pandas", "pyarrow")
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

    @classmethod
    def open(cls, directory: str | Path, *, console: Console | None = None) -> Run:
        """The run that lies in a directory.

        Raises:
          ArtifactError: there is none.
        """
        path = Path(directory) / "config.yaml"
        if not path.exists():
            raise ArtifactError(f"{directory}: holds no run; start one with `recall run CONFIG.yaml --out {directory}`")
        return cls(load_config(path), directory, console=console)

    def all(self, *, compare: bool = False, resume: bool = False) -> dict[str, Any]:
        """Every step; returns metrics.json."""
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
        check_files(self.config)
        self._write_config()
        made_of = self._data_fingerprint()
        if self._is_done("data", made_of):
            return self._skip("prepare", read_manifest(self.directory / "data", made_by=self._command("prepare")))
        from pipelines.training_data import counts_table, prepare

        with self._step("prepare"):
            manifest = prepare(self.config, self.directory / "data", fingerprint=made_of)
        self.console.print(counts_table(manifest))
        return manifest

    def train(self, *, compare: bool = False, resume: bool = False) -> None:
        """Training data -> model/, and with `compare` the other structures -> compare/NAME/."""
        names = self._models(compare)
        todo = [name for name in names if not self._is_done(self._model_path(name), self._model_fingerprint(name))]
        self._prepared_manifest()
        self._write_config()
        for name in names:
            if name not in todo:
                self._skip(f"train {name}", None)
        if not todo:
            return
        from recall.prepared import PreparedData
        from recall.training import train

        prepared = PreparedData.load(self.directory / "data")
        for name in todo:
            with self._step(f"train {name}", spinner=False):
                train(
                    self._config_of(name),
                    prepared,
                    self.directory / self._model_path(name),
                    fingerprint=self._model_fingerprint(name),
                    resume=resume,
                    saved_models=name == names[0],
                    verbose=0 if self.console.quiet else (1 if self.console.is_terminal else 2),
                )

    def vectors(self) -> None:
        """Model -> vectors/: every item's vector as of the end of the log."""
        made_of = self._published("model", "train")
        if self._is_done("vectors", made_of):
            return self._skip("vectors", None)
        from recall.export import ItemVectorTable
        from recall.inference import encode_items

        with self._step("vectors"):
            prepared, model = self._load(self._models(False)[0])
            posterior = prepared.posterior("serving")
            vectors, shares = encode_items(model, posterior.stacked())
            table = ItemVectorTable(prepared.item_ids, vectors, shares, posterior.exposures, made_of)
            table.write(self.directory / "vectors")
        return None

    def index(self) -> dict[str, Any]:
        """Vectors -> index/; returns what was chosen and how it measured."""
        of_vectors = self._published("vectors", "vectors")
        made_of = fingerprint(of_vectors, self.config.index.model_dump(mode="json"), self.config.seed)
        summary_path = self.directory / "index" / "summary.json"
        if summary_path.exists() and (summary := json.loads(summary_path.read_text()))["fingerprint"] == made_of:
            return self._skip("index", summary)
        from recall.assessment import index_summary
        from recall.export import ItemVectorTable
        from recall.index import build_index, save_index

        with self._step("index"):
            table = ItemVectorTable.read(self.directory / "vectors")
            prepared, model = self._load(self._models(False)[0])
            queries = _sample_queries(model, prepared, seed=self.config.seed)
            index = build_index(
                table.ids, table.vectors, config=self.config.index, sample_queries=queries, seed=self.config.seed
            )
            save_index(index, self.directory / "index", fingerprint=of_vectors)
            summary = {"fingerprint": made_of, **index_summary(index, queries, k=self.config.index.k)}
            write_json(summary_path, summary)
        self.console.print(
            facts_table("index", {name: value for name, value in summary.items() if name != "fingerprint"})
        )
        return summary

    def evaluate(self, *, compare: bool = False) -> dict[str, Any]:
        """Models and baselines on test and validation -> metrics.json; returns it."""
        names = self._models(compare)
        of_models = {name: self._published(self._model_path(name), "train", compare=compare) for name in names}
        index_path = self.directory / "index" / "summary.json"
        if not index_path.exists():
            raise ArtifactError(f"{index_path}: not there yet; run `{self._command('index')}` first")
        index = json.loads(index_path.read_text())
        made_of = fingerprint(of_models, index["fingerprint"], self.config.evaluation.model_dump(mode="json"))
        path = self.directory / "metrics.json"
        if path.exists() and json.loads(path.read_text()).get("fingerprint") == made_of:
            return self._skip("evaluate", json.loads(path.read_text()))
        from recall.assessment import evaluate_models

        with self._step("evaluate"):
            prepared, _ = self._load(names[0])
            parts = evaluate_models(self.config, prepared, names, load=lambda name: self._load(name)[1])
        index = {key: value for key, value in index.items() if key != "fingerprint"}
        metrics = {**parts, "index": index, "timing": self._timing(), "configured": names[0], "fingerprint": made_of}
        write_json(path, metrics)
        self.console.print(metrics_table(metrics, k=min(self.config.evaluation.k, key=lambda k: abs(k - 50))))
        return metrics

    def report(self) -> Path:
        """Everything so far -> report.html; returns its path."""
        metrics_path, path = self.directory / "metrics.json", self.directory / "report.html"
        if not metrics_path.exists():
            raise ArtifactError(f"{metrics_path}: not there yet; run `{self._command('evaluate')}` first")
        if path.exists() and path.stat().st_mtime_ns >= metrics_path.stat().st_mtime_ns:
            return self._skip("report", path)
        from recall.assessment import report_inputs
        from recall.report import write_report

        with self._step("report"):
            metrics = json.loads(metrics_path.read_text())
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
            self.config.step(model={"structure": structure})
        except RecallError:
            return False
        return True

    def _config_of(self, structure: str) -> Config:
        if structure == self.config.model.structure:
            return self.config
        return self.config.step(model={"structure": structure})

    def _model_path(self, structure: str) -> str:
        return "model" if structure == self.config.model.structure else f"compare/{structure}"

    def _data_fingerprint(self) -> str:
        data = self.config.data
        files = [*expand_paths(data.events.path), data.items.path, *([data.users.path] if data.users else [])]
        features = (*self.config.features.item, *self.config.features.user)
        files += [feature.path for feature in features if feature.type == "embedding" and feature.path]
        stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in map(Path, files)]
        sections = (data.model_dump(mode="json"), self.config.features.model_dump(mode="json"))
        return fingerprint(metadata.version("recall"), sections, stats, self.config.seed)

    def _model_fingerprint(self, structure: str) -> str:
        config = self._config_of(structure)
        sections = [getattr(config, name).model_dump(mode="json") for name in ("model", "training")]
        manifest = self._prepared_manifest()
        return fingerprint(manifest["fingerprint"], sections, config.evaluation.exclude_seen, config.seed)

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
        manifest = read_manifest(self.directory / part, made_by=command, name=_manifest_name(part))
        if part == "model" or part.startswith("compare/"):
            structure = self.config.model.structure if part == "model" else part.removeprefix("compare/")
            if manifest["fingerprint"] != self._model_fingerprint(structure):
                raise ArtifactError(
                    f"{self.directory / part}: was trained with other data or settings; run `{command}` again"
                )
        return str(manifest["fingerprint"])

    def _is_done(self, part: str, made_of: str) -> bool:
        try:
            manifest = read_manifest(self.directory / part, made_by="", name=_manifest_name(part))
        except ArtifactError:
            return False  # not there, or damaged: make it again
        return bool(manifest.get("fingerprint") == made_of)

    def _load(self, structure: str) -> tuple[Any, Any]:
        from recall.prepared import PreparedData
        from recall.training import load_model

        if not hasattr(self, "_prepared"):
            self._prepared = PreparedData.load(self.directory / "data")
        return self._prepared, load_model(self.directory / self._model_path(structure), self._prepared)

    # What the user sees

    def _command(self, step: str) -> str:
        return f"recall {step} --run {self.directory}"

    def _write_config(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        lines = [f"recall {metadata.version('recall')}, commit {commit()}"]
        lines += [f"{name} {version}" for name, version in versions().items()]
        header = "".join(f"# {line}\n" for line in lines)
        (self.directory / "config.yaml").write_text(header + self.config.to_yaml())

    def _skip(self, step: str, result: _T) -> _T:
        self.console.print(f"[dim]{step}: done before, inputs unchanged[/dim]")
        return result

    @contextmanager
    def _step(self, name: str, *, spinner: bool = True) -> Iterator[None]:
        started = time.perf_counter()
        with step_line(self.console, name, spinner=spinner):
            yield
        seconds = time.perf_counter() - started
        write_json(self.directory / "timing.json", {**self._timing(), f"{name.replace(' ', '_')}_seconds": seconds})
        self.console.print(f"[bold]{name}[/bold] took {seconds:.1f} s")

    def _timing(self) -> dict[str, float]:
        path = self.directory / "timing.json"
        return json.loads(path.read_text()) if path.exists() else {}


def _manifest_name(part: str) -> str:
    return HIDDEN_MANIFEST if part == "vectors" else MANIFEST


def versions() -> dict[str, str]:
    """Versions of the packages that results depend on."""
    return {name: metadata.version(name) for name in _PACKAGES}


def commit() -> str:
    """The commit of the working tree that the library is run from, or 'unknown'."""
    folder = Path(__file__).resolve().parent
    try:
        command = ["git", "-C", str(folder), "rev-parse", "--short=12", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _sample_queries(model: Any, prepared: Any, *, seed: int, limit: int = 1000) -> Any:
    import numpy as np

    from recall.dataset import read_examples
    from recall.inference import answerable, encode_queries

    examples = answerable(model, read_examples(prepared.shards("validation")))
    chosen = np.random.default_rng(seed).permutation(len(examples))[:limit]
    return encode_queries(model, examples.select(np.sort(chosen)))
