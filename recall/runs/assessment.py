"""Evaluates the models of a run beside baselines, measures its index, and gathers the inputs of the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from recall.config.experiment import Config
from recall.core.arrays import Float32s, Int64s
from recall.data.prepared import PreparedData
from recall.evaluation.cold_bias import with_cold_bias
from recall.evaluation.comparison import differences
from recall.evaluation.ranking import top_items
from recall.evaluation.ranks import Ranks
from recall.evaluation.scorers import vector_scorer
from recall.index import Index, measure
from recall.model.batches.dataset import read_examples
from recall.model.inference import (
    CatalogueVectors,
    answerable,
    encode_queries,
    encode_triggers,
    modality_weights,
)
from recall.model.recall_model import RecallModel
from recall.runs.baselines import Baselines
from recall.runs.judging import Judge, ModelItems
from recall.runs.report.inputs import RecalledItem, RecallSample, ReportInputs
from recall.runs.served_bias import cold_bias
from recall.training.published import read_history, read_student_history

HeldOut = Literal["test", "validation"]
HELD_OUT: tuple[HeldOut, ...] = ("test", "validation")


class Assessment(NamedTuple):
    """Hold the results of models and baselines on the held-out examples.

    Attributes:
      metrics: split -> model -> its part of metrics.json.
      ranks: split -> model -> its `recall.evaluation.ranks.ranks_table`.
    """

    metrics: dict[str, dict[str, Any]]
    ranks: dict[str, dict[str, pa.Table]]


def evaluate_models(
    config: Config, prepared: PreparedData, names: Sequence[str], *, load: Callable[[str], RecallModel]
) -> dict[str, Any]:
    """Return the `test` and `validation` parts of metrics.json: `assess_models` without the ranks."""
    return assess_models(config, prepared, names, load=load).metrics


def assess_models(
    config: Config,
    prepared: PreparedData,
    names: Sequence[str],
    *,
    load: Callable[[str], RecallModel],
    splits: Sequence[HeldOut] = HELD_OUT,
    with_baselines: bool = True,
) -> Assessment:
    """Evaluate models and baselines: the `test` and `validation` parts of metrics.json, and the ranks behind them.

    A query is made of the user's clicks before each example. Item vectors, popularity and slices are as of the start
    of the period; where the experiment has rolling evaluation (`Config.refresh_ms`), each model has a `rolling` part,
    in which they are as of the last refresh. Every model gets the cold bias that `index.cold_bias` leads to for it, as
    it would be served. An i2i model is asked about the examples that have a trigger, and the baselines beside it, too.
    The student of the configured model is judged as `student`: it asks the same index, and so with the same cold bias.

    Args:
      config: the experiment.
      prepared: its data.
      names: structures of the models; the first is the configured one.
      load: loads the model of a structure; called once for each, in turn.
      splits: the held-out examples; of others no file is read.
      with_baselines: whether to evaluate the baselines, too.
    """
    baselines = Baselines.of(config, prepared) if with_baselines else None
    judges: dict[str, Judge] = {split: Judge(config, prepared, split) for split in splits}
    for name in names:
        model = load(name)
        bias = cold_bias(config, prepared, model).bias
        for split, judge in judges.items():
            examples = read_examples(prepared.shards(split))
            asked = answerable(model, examples)
            items = ModelItems(model, prepared, judge.posterior, cold_bias=bias)
            by_trigger = model.user_tower is None
            judge(name, items.answer(encode_queries(model, asked)), asked, by_trigger=by_trigger, cold_bias=bias)
            if model.student:
                answer = items.answer(encode_queries(model, asked, student=True))
                judge("student", answer, asked, cold_bias=bias)
            if model.user_tower and model.trigger_tower:
                triggered = examples.select(np.flatnonzero(examples.triggers >= 0))
                if len(triggered):
                    answer = items.answer(encode_triggers(model, triggered.triggers))
                    judge(f"{name}_trigger", answer, triggered, by_trigger=True, cold_bias=bias)
            if baselines and name == names[0]:
                baselines.judge(judge, asked, by_trigger=by_trigger)
    metrics = {split: judge.metrics for split, judge in judges.items()}
    return Assessment(metrics, ranks={split: judge.ranks for split, judge in judges.items()})


def sample_queries(model: RecallModel, prepared: PreparedData, *, seed: int, limit: int = 1000) -> Float32s:
    """Draw vectors of validation queries, to tune and measure an index with.

    Each interest of a user is a query of its own, as in a search.

    Args:
      model: encodes the queries.
      prepared: its data.
      seed: seed of the draw.
      limit: vectors at most.

    Returns:
      float32 [queries, width].
    """
    examples = answerable(model, read_examples(prepared.shards("validation")))
    generator = np.random.default_rng(seed)
    chosen = generator.permutation(len(examples))[:limit]
    queries = encode_queries(model, examples.select(np.sort(chosen)))
    queries = queries.reshape(-1, queries.shape[-1])
    return queries[np.sort(generator.permutation(len(queries))[:limit])]


def index_summary(index: Index, queries: Float32s) -> dict[str, Any]:
    """Measure an index for metrics.json: recall@100 against exact search, and the median time of a single query.

    A catalogue of fewer than 100 items is measured at its size, under the same name.
    """
    measured = measure(index, queries, k=100)
    return {
        "kind": index.kind,
        "is_exact": index.is_exact,
        "items": len(index),
        **({"entries": index.entries} if index.entries > len(index) else {}),
        "dim": index.dim,
        "recall@100_vs_exact": measured.recall,
        "query_ms_p50": measured.microseconds / 1e3,
        **index.report,
    }


def report_inputs(
    run: Path,
    config: Config,
    *,
    prepared: PreparedData,
    model: RecallModel,
    metrics: dict[str, Any],
    curves: Mapping[str, Path],
    versions: dict[str, str],
) -> ReportInputs:
    """Gather the inputs of report.html, with items as of the start of the test period, as they are judged.

    Args:
      run: the run directory.
      config: the experiment.
      prepared: its data.
      model: the configured model.
      metrics: content of metrics.json.
      curves: structure -> folder of its model.
      versions: package -> version.
    """
    before_test = prepared.posterior("test")
    catalogue = CatalogueVectors(model)
    vectors, shares = catalogue.at(before_test)
    vectors = with_cold_bias(vectors, before_test.exposures, metrics["index"]["cold_bias"])
    items = pd.DataFrame(
        {
            "item_id": prepared.item_ids.to_pylist(),
            "title": prepared.titles.to_pylist() if prepared.titles is not None else None,
            "exposures": before_test.exposures,
            "clicks": before_test.clicks,
            "behaviour_share": shares,
            "audience_share": catalogue.audience_shares(before_test),
        }
    )
    training = {name: read_history(path) for name, path in curves.items()}
    if student := read_student_history(curves[metrics["configured"]]):
        training["student"] = student
    inputs = ReportInputs(
        title=f"recall run {run.name}",
        config_yaml=config.to_yaml(),
        metrics=metrics,
        configured=metrics["configured"],
        training=training,
        items=items,
        vectors=vectors.mean(axis=1) if vectors.ndim == 3 else vectors,
        samples=_samples(model, prepared, vectors, exposures=before_test.exposures, seed=config.seed),
        counts=prepared.manifest["counts"],
        versions=versions,
        modality_weights=modality_weights(model),
    )
    ranks, metric = Ranks.load(run), inputs.headline_metric
    return replace(
        inputs,
        differences=differences(ranks, metric=metric),
        rolling_differences=differences(ranks, metric=metric, rolling=True) if inputs.rolling else {},
    )


def _samples(
    model: RecallModel,
    prepared: PreparedData,
    vectors: Float32s,
    *,
    exposures: Int64s,
    seed: int,
    count: int = 6,
) -> list[RecallSample]:
    """Recall lists for a few test examples, half of them with a cold target where there are such."""
    examples = answerable(model, read_examples(prepared.shards("test")))
    generator = np.random.default_rng(seed)
    has_history = np.diff(examples.history.offsets) > 0
    cold = exposures[examples.targets] == 0
    chosen = np.concatenate(
        [
            generator.permutation(np.flatnonzero(group & has_history))[: count // 2]
            for group in (cold, ~cold)
        ]
    )  # fmt: skip
    picked = examples.select(chosen)
    scorer = vector_scorer(encode_queries(model, picked), vectors)
    lists = top_items(scorer, picked, 10)
    clicked_later: dict[str, set[int]] = {}
    for user, item in zip(examples.users, examples.targets, strict=True):
        clicked_later.setdefault(user, set()).add(int(item))
    ids = prepared.item_ids.to_pylist()
    titles = prepared.titles.to_pylist() if prepared.titles is not None else ids

    def name(row: int) -> str:
        return str(titles[row] or ids[row])

    samples = []
    for position, user in enumerate(picked.users):
        scores = scorer.scores(position, position + 1)[0]
        recalled = [
            RecalledItem(
                title=name(row),
                score=float(scores[row]),
                exposures=int(exposures[row]),
                is_cold=bool(exposures[row] == 0),
                hit=int(row) in clicked_later[user],
            )
            for row in lists[position]
            if row >= 0
        ]
        history = picked.history[position][-8:]
        samples.append(RecallSample(str(user), [name(row) for row in history], recalled))
    return samples
