"""One run in a process of its own: train, or build a baseline; evaluate; write the result."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from benchmarks.common.machine import environment
from benchmarks.quality.bias import bias_curve
from benchmarks.quality.data import DataFolder, content_fingerprint
from benchmarks.quality.interventions import INTERVENTIONS
from benchmarks.quality.results import Ranks, settings_of, write_ranks, write_result
from benchmarks.quality.runner import run_config
from benchmarks.quality.sweep import Experiment, PlannedRun, Sweep
from recall.config.experiment import Config
from recall.core.errors import RecallError
from recall.data.prepared import PreparedData
from recall.evaluation.baselines import ItemKnnScorer, item_similarities
from recall.evaluation.scorers import Scorer, vector_scorer
from recall.model.batches.dataset import Examples, read_examples, training_clicks
from recall.model.inference import answerable, encode_items, encode_queries, encode_triggers
from recall.model.recall_model import RecallModel
from recall.runs.baselines import CONTENT_BASELINES, Trend, content_vectors, popularity
from recall.runs.judging import Answer, Judge, ModelItems
from recall.runs.served_bias import cold_bias
from recall.training.published import read_history
from recall.training.train import train

_SPLITS: tuple[Literal["validation", "test"], ...] = ("validation", "test")


@dataclass(frozen=True)
class Asked:
    """Hold the answer of a model or baseline with the examples that it answers.

    Attributes:
      name: in metrics.json.
      answer: the model as it is served.
      unbiased: the same without its cold bias, as of the start of the period.
      examples: what it is asked about.
      positions: int [examples], where these stand among all examples of the split.
      shares: float32 [items], behaviour share of the gate, NaN without one; None for a baseline.
      vectors: entries and width of what an index would hold; None for a baseline.
      by_trigger: whether with the trigger item, not as a user.
    """

    name: str
    answer: Answer
    unbiased: Scorer
    examples: Examples
    positions: npt.NDArray[np.intp]
    shares: npt.NDArray[np.float32] | None
    vectors: tuple[int, int] | None = None
    by_trigger: bool = False


def execute(sweep: Sweep, folder: DataFolder, run: PlannedRun, *, command: Sequence[str], results: Path) -> None:
    """Makes one result.

    Args:
      sweep: says what the run is.
      folder: where its data is, and where ranks go.
      run: what to do.
      command: what started it, for the record.
      results: folder of the JSON.
    """
    experiment = sweep.experiments[run.experiment]
    config = run_config(sweep, folder, run)
    prepared = folder.prepare(run.data, config)
    ranks, content = _measure(experiment, config.replaced(seed=run.seed), prepared)
    made_of = {
        "settings": settings_of(config, is_baseline=experiment.baseline is not None),
        "data": content_fingerprint(prepared),
        "intervention": experiment.intervene,
        "baseline": experiment.baseline,
    }
    write_ranks(folder.ranks_path(run), ranks)
    threads = int(os.environ.get("OMP_NUM_THREADS", 0)) or os.cpu_count() or 1
    about = {
        "overrides": sweep.overrides(run.experiment, run.data),
        "command": list(command),
        "environment": environment(threads=threads),
    }
    write_result(run, {**about, "made_of": made_of, **content}, results)


def _measure(experiment: Experiment, config: Config, prepared: PreparedData) -> tuple[dict[str, Ranks], dict[str, Any]]:
    metrics: dict[str, dict[str, Any]] = {}
    curves: dict[str, dict[str, list[float] | None]] = {}
    cold_items: dict[str, int] = {}
    ranks: dict[str, Ranks] = {}
    gate: list[dict[str, Any]] | None = None
    entries: tuple[int, int] | None = None
    with _source(experiment, config, prepared) as (model, training):
        bias = cold_bias(config, prepared, model).bias if model else 0.0
        for split in _SPLITS:
            judge, examples = Judge(config, prepared, split), read_examples(prepared.shards(split))
            posterior, metrics[split] = judge.posterior, judge.metrics
            asked_in_turn: Iterable[Asked] = (
                _asked(experiment, ModelItems(model, prepared, posterior, cold_bias=bias), examples)
                if model
                else [_asked_baseline(experiment, config, judge, prepared, examples)]
            )
            for place, asked in enumerate(asked_in_turn):
                judge(asked.name, asked.answer, asked.examples, by_trigger=asked.by_trigger)
                if place:  # a second query of the same model counts as a metric only
                    continue
                ranks[split] = _ranks(asked, judge, examples)
                curves[split] = bias_curve(
                    asked.unbiased,
                    asked.examples,
                    exposures=posterior.exposures,
                    exclude_seen=config.evaluation.exclude_seen,
                )
                entries = asked.vectors
                if asked.shares is not None:
                    gate = _gate_share(asked.shares, posterior.exposures, config.evaluation.exposure_buckets)
            cold_items[split] = int(((posterior.exposures == 0) & (posterior.clicks == 0)).sum())
    catalogue = {"items": len(prepared.item_ids), "cold": cold_items}
    content = {"catalogue": catalogue, "training": training, "metrics": metrics}
    if entries:
        content["index"] = {"entries": entries[0], "width": entries[1]}
    return ranks, {**content, "cold_bias": bias, "gate_share": gate, "bias_curve": curves}


@contextmanager
def _source(
    experiment: Experiment, config: Config, prepared: PreparedData
) -> Iterator[tuple[RecallModel | None, dict[str, Any] | None]]:
    """The trained model and how its training went; nothing for a baseline."""
    if experiment.baseline:
        yield None, None
        return
    if experiment.intervene:
        INTERVENTIONS[experiment.intervene]()
    with TemporaryDirectory(prefix="recall-quality-") as scratch:
        directory, started = Path(scratch) / "model", time.perf_counter()
        model = train(config, prepared, directory, saved_models=False)
        seconds = time.perf_counter() - started
        history = read_history(directory)
        shutil.rmtree(directory)
        metric = f"val_{config.training.metric}@{config.training.metric_k}"
        values = [epoch[metric] for epoch in history]
        best = int(np.argmax(values)) + 1
        yield model, {"epochs": len(history), "best_epoch": best, "seconds": seconds, metric: values}


def _asked_baseline(
    experiment: Experiment, config: Config, judge: Judge, prepared: PreparedData, examples: Examples
) -> Asked:
    """Make the answer of a baseline, as `recall.runs.baselines` does it."""
    if experiment.baseline == "popularity":
        answer = popularity(prepared, judge.posterior)
    elif experiment.baseline == "item_knn":
        similarities = item_similarities(*training_clicks(prepared), item_count=len(prepared.item_ids))
        answer = Answer(ItemKnnScorer(similarities, examples.history))
    elif experiment.baseline in CONTENT_BASELINES:
        content = content_vectors(prepared)
        if content is None:
            raise RecallError(f"baseline {experiment.baseline} needs content: embeddings, tags or categories of items")
        answer = Answer(CONTENT_BASELINES[experiment.baseline](content.unit, examples.history))
    else:
        trend = Trend.of(config, prepared)
        if trend is None:
            raise RecallError(f"baseline trending needs rolling evaluation, which is off: {config.why_frozen}")
        answer = trend.answer(examples, start_ms=prepared.manifest["split"][f"{judge.split}_start_ms"])
    return Asked(str(experiment.baseline), answer, answer.frozen, examples, np.arange(len(examples)), None)


def _asked(experiment: Experiment, items: ModelItems, examples: Examples) -> Iterator[Asked]:
    """Yield the answers of a model, as `recall.runs.assessment.assess_models` has them judged."""
    model = items.model
    vectors, shares = encode_items(model, items.posterior)
    triggered = np.flatnonzero(examples.triggers >= 0)
    asked = answerable(model, examples)
    is_student = experiment.asked == "student"
    name = "student" if is_student else model.config.model.structure
    queries = encode_queries(model, asked, student=is_student)
    yield Asked(
        name,
        items.answer(queries),
        vector_scorer(queries, vectors),
        asked,
        np.arange(len(examples)) if model.user_tower else triggered,
        shares,
        vectors=(int(np.prod(vectors.shape[:-1])), vectors.shape[-1]),
        by_trigger=model.user_tower is None,
    )
    if model.user_tower and model.trigger_tower and len(triggered):
        asked = examples.select(triggered)
        answer = items.answer(encode_triggers(model, asked.triggers))
        yield Asked(f"{name}_trigger", answer, answer.frozen, asked, triggered, shares, by_trigger=True)


def _ranks(asked: Asked, judge: Judge, everything: Examples) -> Ranks:
    """Gather the ranks that the judge found for an answer.

    Args:
      asked: the answer.
      judge: has judged it.
      everything: all examples of the split.
    """
    posterior, found = judge.posterior, judge.ranks[asked.name]
    cold = (posterior.exposures == 0) & (posterior.clicks == 0)  # [items]
    users = np.unique(everything.users.astype(str), return_inverse=True)[1]

    def column(name: str) -> npt.NDArray[np.int32]:
        values: npt.NDArray[np.int32] = found[name].fill_null(0).to_numpy().astype(np.int32)
        return values

    is_rolling = not found["rolling_rank"].null_count
    return Ranks(
        example=asked.positions.astype(np.int32),
        user=users[asked.positions].astype(np.int32),
        exposures=column("exposures"),
        is_cold=cold[asked.examples.targets],
        rank=column("rank"),
        rank_among_cold=column("rank_among_cold"),
        rolling_exposures=column("rolling_exposures") if is_rolling else None,
        rolling_rank=column("rolling_rank") if is_rolling else None,
    )


def _gate_share(
    shares: npt.NDArray[np.float32], exposures: npt.NDArray[np.int64], bounds: Sequence[int]
) -> list[dict[str, Any]] | None:
    """Mean behaviour share of the items of each exposure bucket; None for a structure without a gate."""
    if np.isnan(shares).all():
        return None
    uppers = [*(bound - 1 for bound in bounds[1:]), None]
    buckets = []
    for lower, upper in zip(bounds, uppers, strict=True):
        members = (exposures >= lower) & (exposures <= (np.inf if upper is None else upper))
        share = float(shares[members].mean()) if members.any() else None
        buckets.append({"from": lower, "to": upper, "items": int(members.sum()), "share": share})
    return buckets
