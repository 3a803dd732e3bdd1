"""Training: Keras' loop around the model's own step, judged on the whole catalogue, resumable after a kill."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from recall.config.experiment import Config, load_config
from recall.config.training import StageConfig, StageData
from recall.content.vectors import read_vectors
from recall.core.artifacts import fingerprint as fingerprint_of
from recall.core.artifacts import publish, read_manifest, write_json
from recall.core.errors import ArtifactError, DataError
from recall.data.prepared import PreparedData
from recall.evaluation.scorers import vector_scorer
from recall.evaluation.slices import validation_metric
from recall.model.batches.dataset import Examples, of_stage, read_examples, training_dataset
from recall.model.distributed.tf_config import Cluster
from recall.model.distributed.workers import Workers, reporting_loss_of
from recall.model.inference import answerable, encode_items, encode_queries
from recall.model.recall_model import RecallModel
from recall.model.saved_model import export_saved_models
from recall.training.meta_initialisation import initialise_meta
from recall.training.student import StudentStage

_WEIGHTS, _STATE, _HISTORY, _CONFIG = "checkpoint/best", "state.json", "history.json", "config.yaml"
_STUDENT, _STUDENT_HISTORY, _TENSORBOARD = "student", "student_history.json", "tensorboard"


def train(
    config: Config,
    prepared: PreparedData,
    directory: Path,
    *,
    fingerprint: str = "",
    resume: bool = False,
    saved_models: bool = True,
    verbose: int = 0,
) -> RecallModel:
    """Trains a model, keeps the epoch with the best validation metric, and publishes it.

    While it trains, its checkpoints lie in a hidden folder beside `directory`; what stands in
    `directory` is replaced only at the end. With `training.stages` each stage starts at the best epoch of the one
    before with optimizers of its own; what is kept is the best of the last. A student with `stage: frozen` is
    trained afterwards, in the same way and for as many epochs, beside the large towers at their best; it has a history
    of its own.

    Where `TF_CONFIG` names several workers, this process trains as one of them and waits for the others: see
    `Workers`. The chief alone judges and writes, in folders that the others read when they resume.

    Args:
      config: the experiment; its batches are those of all workers together.
      prepared: the data that it names, prepared.
      directory: where the model goes: checkpoint/, query/ and item/ SavedModels, history.json, tensorboard/, and
        student_history.json of a student that was trained afterwards.
      fingerprint: of everything the model depends on; goes into the manifest.
      resume: continue at the last checkpoint of a killed run instead of starting over.
      saved_models: whether query/ and item/ are written.
      verbose: of `tf.keras.Model.fit`.

    Raises:
      ArtifactError: `resume` and the checkpoint belongs to other settings.
      ConfigError: `TF_CONFIG` is wrong, or the experiment cannot be trained by several workers.
      RecallError: another worker was lost.
      DataError: no validation example can be asked for, or the vectors of a stage that initialises cannot be used.
    """
    workers = _other_workers(config, prepared)
    tf.keras.utils.set_random_seed(config.seed)
    work = directory.with_name(f".{directory.name}-training")
    if not resume and _writes(workers):
        shutil.rmtree(work, ignore_errors=True)
    with reporting_loss_of(workers):
        model, progress, history = _train_stages(
            config, prepared, work, fingerprint=fingerprint, resume=resume, verbose=verbose, workers=workers
        )
    if not _writes(workers):
        return model
    histories = {_HISTORY: history}
    if config.model.student and config.model.student.stage == "frozen":
        stage = StudentStage(model)
        of_student = _Progress(work / _STUDENT, stage, fingerprint=fingerprint)
        _fit(stage, model, prepared, of_student, resume=resume, verbose=verbose)
        histories[_STUDENT_HISTORY] = of_student.history
    manifest = {
        "fingerprint": fingerprint,
        "structure": config.model.structure,
        "history": config.data.history,
        "best_epoch": len(history) - progress.epoch + progress.best_epoch,
    }
    with publish(directory, manifest=manifest) as scratch:
        progress.weights.write(str(scratch / _WEIGHTS))
        for name, history in histories.items():
            (scratch / name).write_text(json.dumps(history, indent=2) + "\n")
        (scratch / _CONFIG).write_text(config.to_yaml())
        for log in sorted(work.rglob(_TENSORBOARD)):  # of the training, or of each stage, and of a student
            shutil.copytree(log, scratch / _TENSORBOARD / log.parent.relative_to(work), dirs_exist_ok=True)
        if saved_models:
            export_saved_models(model, prepared, scratch)
    shutil.rmtree(work)
    return model


def _other_workers(config: Config, prepared: PreparedData) -> Workers | None:
    cluster = Cluster.of_environment()
    if cluster is None:
        return None
    cluster.check(config, records=prepared.training_records)
    return Workers.of(cluster)


def _writes(workers: Workers | None) -> bool:
    return workers is None or workers.is_chief


def _train_stages(
    config: Config,
    prepared: PreparedData,
    work: Path,
    *,
    fingerprint: str,
    resume: bool,
    verbose: int,
    workers: Workers | None = None,
) -> tuple[RecallModel, _Progress, list[dict[str, Any]]]:
    """The model of the last stage at its best, how that stage went, and the epochs of all stages in a row."""
    stages = config.training.stages
    if not stages:
        model = RecallModel(config, prepared)
        model.workers = workers
        model.prepare_optimizers()
        progress = _Progress(work, model, fingerprint=fingerprint, writes=_writes(workers))
        _fit(model, model, prepared, progress, resume=resume, verbose=verbose)
        return model, progress, progress.history
    start: str | None = None
    history: list[dict[str, Any]] = []
    for stage in stages:
        model = RecallModel(config.of_stage(stage), prepared)
        model.build_layers()
        if stage.initialise:
            start = _initialise(model, stage, prepared, work / stage.name, verbose=verbose)
            continue
        if start is not None:
            model.weights_checkpoint().read(start).assert_existing_objects_matched()
        model.prepare_optimizers()
        made_of = fingerprint_of(fingerprint, config.training.model_dump(mode="json", include={"stages"}), stage.name)
        progress = _Progress(work / stage.name, model, fingerprint=made_of)
        _fit(model, model, prepared, progress, data=stage.data, resume=resume, verbose=verbose)
        start = progress.best_weights
        done = len(history)
        history += [{**entry, "epoch": done + entry["epoch"], "stage": stage.name} for entry in progress.history]
    return model, progress, history


def _initialise(
    model: RecallModel, stage: StageConfig, prepared: PreparedData, directory: Path, *, verbose: int
) -> str:
    """Trains the meta tower towards given vectors; returns where its weights are. A resumed run does it again."""
    config, settings = model.config, stage.initialise
    assert settings is not None, "the stage reads clicks"
    vectors = read_vectors(stage.name, settings.path, prepared, id_column=config.data.items.id)
    training = config.training
    initialise_meta(
        model,
        vectors,
        temperature=settings.temperature,
        learning_rate=training.learning_rate,
        epochs=training.epochs,
        batch_size=training.batch_size,
        seed=config.seed,
        verbose=verbose,
    )
    directory.mkdir(parents=True, exist_ok=True)
    return str(model.weights_checkpoint().write(str(directory / "best")))


def _fit(
    trained: RecallModel | StudentStage,
    model: RecallModel,
    prepared: PreparedData,
    progress: _Progress,
    *,
    resume: bool,
    verbose: int,
    data: StageData | None = None,
) -> None:
    """Trains a model, or the student in it, from where its progress stands, and leaves it at its best epoch."""
    validation = _Validation(model, prepared, progress)
    progress.restore() if resume else progress.clear()
    config, training = model.config, model.config.training
    batch_size = min(training.batch_size, prepared.training_records)
    dataset = training_dataset(
        prepared,
        model.user_rows,
        batch_size=batch_size,
        history=config.data.history,
        shuffle_buffer=training.shuffle_buffer,
        seed=config.seed + progress.epoch,
        min_steps=training.min_epoch_steps,
        part=model.workers.cluster.part_of(batch_size) if model.workers else None,
    )
    if model.workers:
        model.workers.equalise(trained_state(model))
        tf.random.set_seed(config.seed + model.workers.index)  # each hides and draws other items
    dataset = of_stage(dataset, data or StageData(), until_ms=prepared.manifest["split"].get("validation_start_ms"))
    if not progress.is_over(training.patience):
        callbacks: list[tf.keras.callbacks.Callback] = [validation]
        if progress.writes:
            callbacks.append(tf.keras.callbacks.TensorBoard(progress.directory / _TENSORBOARD, write_graph=False))
        trained.fit(
            dataset,
            initial_epoch=progress.epoch,
            epochs=training.epochs,
            callbacks=callbacks,
            verbose=verbose if progress.writes else 0,
        )
    if progress.writes:
        progress.restore_best()
    if model.workers:
        model.workers.equalise(model.trainable_variables)


def trained_state(model: RecallModel) -> list[tf.Variable]:
    """All that training changes: the weights, the state of the optimizers, and the average."""
    parts = (model.table_optimizer, model.optimizer, model.average)
    found = [*model.trainable_variables, *(variable for part in parts if part for variable in part.variables)]
    return list({variable.ref(): variable for variable in found}.values())  # optimizers name the weights again


def load_model(directory: Path, prepared: PreparedData) -> RecallModel:
    """The model that `train` published, with its best weights.

    Raises:
      ArtifactError: it is missing or damaged, or does not fit the prepared data.
    """
    read_manifest(directory, made_by="recall train", verify=True)
    model = RecallModel(load_config(directory / _CONFIG), prepared)
    model.build_layers()
    try:
        model.weights_checkpoint().read(str(directory / _WEIGHTS)).assert_existing_objects_matched()
    except (ValueError, AssertionError, tf.errors.OpError) as error:
        raise ArtifactError(
            f"{directory}: its weights do not fit the prepared data ({str(error).splitlines()[0]}); "
            "run `recall train` again"
        ) from error
    return model


def read_history(directory: Path) -> list[dict[str, Any]]:
    """Per epoch: epoch (from 1), loss and its terms, the validation metric, seconds, and the stage of several."""
    read_manifest(directory, made_by="recall train", verify=lambda name: name == _HISTORY)
    return json.loads((directory / _HISTORY).read_text())


def read_student_history(directory: Path) -> list[dict[str, Any]]:
    """As `read_history`, of a student that was trained after the large towers; empty if there is none."""
    path = directory / _STUDENT_HISTORY
    return json.loads(path.read_text()) if path.exists() else []


class _Progress:
    """What survives a kill: the last epoch with its optimizers, the best weights, and the curve so far."""

    def __init__(
        self, directory: Path, model: RecallModel | StudentStage, *, fingerprint: str, writes: bool = True
    ) -> None:
        settings = model.config.model_dump(mode="json", include={"model", "training", "seed"})
        self.directory, self.fingerprint = directory, fingerprint_of(fingerprint, settings)
        self.model, self.weights, self.writes = model, model.weights_checkpoint(), writes
        self._everything = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
        self.history: list[dict[str, Any]] = []
        self.best_epoch = 0
        self.best = -np.inf

    @property
    def epoch(self) -> int:
        return len(self.history)

    def is_over(self, patience: int) -> bool:
        return self.epoch - self.best_epoch >= patience

    def clear(self) -> None:
        if not self.writes:
            return
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)

    def restore(self) -> None:
        state_path = self.directory / _STATE
        if not state_path.exists():
            self.clear()
            return
        state = json.loads(state_path.read_text())
        if state["fingerprint"] != self.fingerprint:
            raise ArtifactError(
                f"{self.directory}: the checkpoint was made with other settings or data; "
                "train without --resume to start over"
            )
        self.history, self.best_epoch, self.best = state["history"], state["best_epoch"], state["best"]
        self._everything.read(self._path("last", self.epoch)).assert_existing_objects_matched()

    def record(self, entry: dict[str, Any], value: float) -> None:
        """Ends an epoch. The state names its checkpoints and is replaced last: a kill leaves the epoch before."""
        self.history.append(entry)
        if value > self.best:
            self.best, self.best_epoch = value, self.epoch
        if not self.writes:
            return
        if self.best_epoch == self.epoch:
            with self.model.averaged():
                self.weights.write(self._path("best", self.epoch))
        self._everything.write(self._path("last", self.epoch))
        state = {"fingerprint": self.fingerprint, "best": self.best, "best_epoch": self.best_epoch}
        write_json(self.directory / _STATE, {**state, "history": self.history})
        self._remove_others()

    @property
    def best_weights(self) -> str:
        return self._path("best", self.best_epoch)

    def restore_best(self) -> None:
        self.weights.read(self.best_weights).assert_existing_objects_matched()

    def _path(self, kind: str, epoch: int) -> str:
        return str(self.directory / f"{kind}-{epoch:04d}")

    def _remove_others(self) -> None:
        kept = (f"best-{self.best_epoch:04d}.", f"last-{self.epoch:04d}.")
        for path in [*self.directory.glob("best-*"), *self.directory.glob("last-*")]:
            if not path.name.startswith(kept):
                path.unlink()


class _Validation(tf.keras.callbacks.Callback):
    """After each epoch: the validation metric on the whole catalogue, a checkpoint, and whether to stop."""

    def __init__(self, model: RecallModel, prepared: PreparedData, progress: _Progress) -> None:
        super().__init__()
        self.progress, self.judged = progress, model
        self.student = progress.model is not model  # which is then what is trained
        self.training = model.config.training
        self.exclude_seen = model.config.evaluation.exclude_seen
        self.name = f"val_{self.training.metric}@{self.training.metric_k}"
        self.examples: Examples = answerable(model, read_examples(prepared.shards("validation")))
        posterior = prepared.posterior("validation")
        self.posterior, self.exposures = posterior.stacked(), posterior.exposures
        if not len(self.examples):
            raise DataError(
                "no validation click has a trigger, so an i2i model cannot be judged; "
                "widen data.trigger.window, or use model.query: user"
            )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        value = self._measure() if self.progress.writes else 0.0
        if self.judged.workers:  # one decides when to stop: another CPU may round the metric otherwise
            value = self.judged.workers.of_chief(value)
        logs = logs if logs is not None else {}
        logs[self.name] = value
        terms = {name: float(term) for name, term in logs.items()}
        self.progress.record(
            {"epoch": epoch + 1, **terms, "seconds": time.perf_counter() - self._started}, value
        )  # fmt: skip
        if self.progress.is_over(self.training.patience):
            self.model.stop_training = True

    def _measure(self) -> float:
        with self.model.averaged():
            vectors, _ = encode_items(self.judged, self.posterior)
            scorer = vector_scorer(encode_queries(self.judged, self.examples, student=self.student), vectors)
        return validation_metric(
            scorer,
            self.examples,
            metric=self.training.metric,
            k=self.training.metric_k,
            exposures=self.exposures,
            exclude_seen=self.exclude_seen,
        )
