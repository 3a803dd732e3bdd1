"""Judges content vectors on the held-out clicks of a prepared run, before any model is trained on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import sparse

from recall.content.judge.last_n import (
    SIMILARITIES,
    answerable,
    chance_summary,
    last_n_scorer,
    last_n_summary,
    last_n_test,
    popular_draws,
    uniform_draws,
)
from recall.content.judge.neighbours import alignment, tag_agreement, uniformity
from recall.content.vectors import ContentVectors
from recall.core.arrays import Int32s, Int64s
from recall.core.errors import DataError
from recall.data.features.vocabulary import FIRST_CODE
from recall.data.prepared import PreparedData
from recall.model.batches.dataset import Examples, read_examples


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """Hold the settings of the judgement.

    Attributes:
      split: split of the clicks.
      last: number of a user's last clicks that the next one is compared with.
      ks: cut-offs of recall.
      neighbours: number of nearest items whose tags are compared.
      draws: random and popular items that each click is compared with.
      limit: largest number of clicks, and of items for tags and uniformity, drawn at random.
      seed: of all draws.
    """

    split: Literal["test", "validation"] = "test"
    last: int = 5
    ks: tuple[int, ...] = (5, 10, 20, 50, 100)
    neighbours: int = 10
    draws: int = 100
    limit: int = 10_000
    seed: int = 1

    def __post_init__(self) -> None:
        if self.split not in ("test", "validation"):
            raise DataError(f"split: found {self.split}, expected test or validation")
        for name in ("last", "neighbours", "draws", "limit"):
            if getattr(self, name) < 1:
                raise DataError(f"{name}: expected at least 1, found {getattr(self, name)}")


def judge_content(
    vectors: Sequence[ContentVectors], prepared: PreparedData, settings: JudgeSettings | None = None
) -> dict[str, Any]:
    """Judge sets of vectors by the same clicks, the same random items, and the same tags.

    Everything is point in time: a click is compared with the user's earlier clicks and with items that had been shown
    by then; popularity and cold items are taken at the start of the split. Each set is judged on the items that it
    covers, so that sets of different coverage are judged on different items.

    Args:
      vectors: the sets, with names of their own.
      prepared: a prepared run; no model is needed.
      settings: of the judgement; default: `JudgeSettings()`.

    Returns:
      JSON-serialisable {"split", "last", "items", "clicks": {"of_split", "asked"}, "vectors": {NAME: ...}}. Per set:
      dim; coverage; left_out, reason -> number of clicks that were left out; last_n {"mean", "max"}, each {"all",
      "cold"} of `last_n_summary`, and "chance" likewise; tags {FEATURE: `tag_agreement`}; alignment of a user's click
      and the one before ("pairs", "value", and of random pairs of items "random"); uniformity.

    Raises:
      DataError: two sets share a name, or the split has no clicks.
    """
    settings = settings or JudgeSettings()
    names = [one.name for one in vectors]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"vectors {', '.join(repeated)}: the name is used twice; give each set a name of its own")
    every = read_examples(prepared.shards(settings.split))
    if not len(every):
        raise DataError(f"{prepared.directory}: has no {settings.split} clicks; raise data.split.{settings.split}")
    rng = np.random.default_rng(settings.seed)
    examples = every.select(np.sort(rng.permutation(len(every))[: settings.limit]))
    judge = _Judge(prepared, examples, settings)
    return {
        "split": settings.split,
        "last": settings.last,
        "items": len(prepared.item_ids),
        "clicks": {"of_split": len(every), "asked": len(examples)},
        "vectors": {one.name: judge(one) for one in vectors},
    }


class _Judge:
    """Judge one set of vectors after the other, each with the same draws."""

    def __init__(self, prepared: PreparedData, examples: Examples, settings: JudgeSettings) -> None:
        self._examples, self._settings = examples, settings
        posterior, history = prepared.posterior(settings.split), prepared.posterior_history
        self._clicks = posterior.clicks
        self._is_cold = (posterior.exposures == 0) & (posterior.clicks == 0)  # [items]
        self._first_ms = np.full(len(prepared.item_ids), np.iinfo(np.int64).max)
        self._first_ms[history.item] = history.first_time_ms
        self._tags = tag_matrices(prepared)

    def __call__(self, vectors: ContentVectors) -> dict[str, Any]:
        settings, present = self._settings, vectors.present
        rng = np.random.default_rng(settings.seed)
        unit = vectors.unit[present]  # [covered, dim]
        asked = answerable(self._examples, present)
        times_ms = self._examples.times_ms[asked.chosen]
        others = {
            "random": uniform_draws(self._first_ms[present], times_ms, count=settings.draws, rng=rng),
            "popular": popular_draws(self._clicks[present], examples=len(times_ms), count=settings.draws, rng=rng),
        }
        is_cold = self._is_cold[present][asked.examples.targets]
        slices = {"all": np.ones(len(is_cold), bool), "cold": is_cold}
        last_n: dict[str, Any] = {}
        for similarity in SIMILARITIES:
            scorer = last_n_scorer(unit, asked.examples.history, last=settings.last, similarity=similarity)
            found = last_n_test(scorer, asked.examples, others)
            last_n[similarity] = {name: last_n_summary(found, chosen, settings.ks) for name, chosen in slices.items()}
        last_n["chance"] = {
            name: chance_summary(asked.examples, chosen, item_count=len(unit), ks=settings.ks)
            for name, chosen in slices.items()
        }
        history = asked.examples.history
        before = history.values[history.offsets[1:] - 1]  # [examples], the newest click that has a vector
        random = rng.integers(0, len(unit), size=(2, settings.limit))
        random = random[:, random[0] != random[1]]
        sample = np.sort(rng.permutation(len(unit))[: settings.limit])
        return {
            "dim": unit.shape[1],
            "coverage": vectors.coverage,
            "left_out": asked.left_out,
            "last_n": last_n,
            "tags": {
                name: tag_agreement(vectors.unit, tags, k=settings.neighbours, limit=settings.limit, rng=rng)
                for name, tags in self._tags.items()
            },
            "alignment": {
                "pairs": len(before),
                "value": alignment(unit[before], unit[asked.examples.targets]),
                "random": alignment(unit[random[0]], unit[random[1]]),
            },
            "uniformity": uniformity(unit[sample]),
        }


def tag_matrices(prepared: PreparedData) -> dict[str, sparse.csr_array]:
    """Build a matrix of items and values for every `tags` and `category` feature of meta.

    Values that share the out-of-vocabulary code are left out: they are not the same value.

    Returns:
      Feature -> sparse int32 [items, codes], 1 where an item has a value.
    """
    kinds = {encoder.feature.name: encoder.feature.type for _, encoder in prepared.item_encoder.features}
    found = {}
    for column in prepared.item_encoder.columns:
        if column.tower != "meta" or kinds.get(column.name) not in ("tags", "category"):
            continue
        values = prepared.items[column.name].combine_chunks()
        if column.kind == "codes":
            codes = values.flatten().to_numpy(zero_copy_only=False)
            lengths = values.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        else:
            codes, lengths = values.to_numpy(zero_copy_only=False), np.ones(len(values), np.int64)
        found[column.name] = _incidence(np.repeat(np.arange(len(values)), lengths), codes, (len(values), column.size))
    return found


def _incidence(rows: Int64s, codes: Int32s, shape: tuple[int, int]) -> sparse.csr_array:
    known = codes >= FIRST_CODE
    matrix = sparse.csr_array((np.ones(known.sum(), np.int32), (rows[known], codes[known])), shape=shape)
    matrix.sum_duplicates()
    return matrix
