"""Computes the criterion that stops the training of content vectors: the last-N test on validation clicks."""

from __future__ import annotations

import numpy as np

from recall.content.judge.last_n import answerable, last_n_scorer, last_n_test, popular_draws, uniform_draws
from recall.core.arrays import Bools, Float32s
from recall.core.errors import DataError
from recall.data.prepared import PreparedData
from recall.model.batches.dataset import read_examples


class LastNCriterion:
    """Average the last-N AUC over kinds of clicks and of negatives, on the same validation clicks every time.

    Random negatives alone would reward vectors that separate popular items from others, popular negatives alone vectors
    that separate rare items from others; a good neighbourhood does neither. Clicks on items that training used measure
    memory, clicks on other items measure generalisation: both count the same.

    Args:
      prepared: the run's data.
      present: bool [items], items with a vector.
      learned_from: bool [items], items that training uses.
      last: number of a user's last clicks that count.
      limit: largest number of clicks, drawn at random.
      draws: number of items of each kind that a click is compared with.
      seed: of all draws.

    Raises:
      DataError: no validation click can be used.
    """

    def __init__(
        self,
        prepared: PreparedData,
        present: Bools,
        *,
        learned_from: Bools,
        last: int = 5,
        limit: int = 5_000,
        draws: int = 100,
        seed: int = 1,
    ) -> None:
        rng = np.random.default_rng(seed)
        every = read_examples(prepared.shards("validation"))
        examples = every.select(np.sort(rng.permutation(len(every))[:limit]))
        asked = answerable(examples, present)
        if not len(asked.examples):
            raise DataError(
                f"content train: none of {len(every):,} validation clicks is on an item with a base vector after "
                "others with one, so that there is nothing to stop by; raise data.split.validation"
            )
        history, clicks = prepared.posterior_history, prepared.posterior("validation").clicks
        first_ms = np.full(len(present), np.iinfo(np.int64).max)
        first_ms[history.item] = history.first_time_ms
        times_ms = examples.times_ms[asked.chosen]
        self._present, self._asked, self._last = present, asked.examples, last
        is_known = learned_from[present][asked.examples.targets]  # [examples]
        self._slices = [chosen for chosen in (is_known, ~is_known) if chosen.any()]
        self._others = {
            "random": uniform_draws(first_ms[present], times_ms, count=draws, rng=rng),
            "popular": popular_draws(clicks[present], examples=len(times_ms), count=draws, rng=rng),
        }

    def __call__(self, unit: Float32s) -> float:
        """Judge vectors float32 [items, dim], of unit length where there is one; in [0, 1], 1/2 is chance."""
        scorer = last_n_scorer(unit[self._present], self._asked.history, last=self._last, similarity="mean")
        found = last_n_test(scorer, self._asked, self._others).auc
        values = [auc[chosen] for auc in found.values() for chosen in self._slices]
        means = [value[~np.isnan(value)].mean() for value in values if not np.isnan(value).all()]
        return float(np.mean(means)) if means else 0.5
