"""Shows whether a model's scale tilts: how items of each bucket of exposures score, and how many places they get.

A score says how likely a click is. A scale that tilts gives all items of a bucket too high or too low scores, so that
their places in the lists and their share of the clicks differ much, whoever asks. `Calibration` watches a rolling
evaluation block by block (`rolling.rank_windows`) and sums up at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from recall.core.arrays import Float64s, Int32s, Int64s
from recall.evaluation.ranking import ScoreBlock

PLACES = 50
"""Length of the lists whose places are counted."""


class Calibration:
    """Sum up scores and places by the exposures of items.

    A score is given as z: its distance from the mean score of all candidates of the same query, in their standard
    deviations. So queries add up, and models of different temperatures compare.

    Args:
      exposures_at: returns the exposures of all items at the moment of a refresh, int64 [items].
      target_exposures: int64 [examples], of the clicked item as of the click.
      lower: rising lower bounds of the buckets.
    """

    def __init__(self, exposures_at: Callable[[int], Int64s], target_exposures: Int64s, lower: Sequence[int]) -> None:
        self._exposures_at, self._lower = exposures_at, tuple(lower)
        self._of_target = self._bucket(target_exposures)  # [examples]
        self._clicked = np.full(len(target_exposures), np.nan)  # z of the clicked item
        self._cut = np.full(len(target_exposures), np.nan)  # z of the last place
        self._z_sums, self._candidates, self._places = np.zeros((3, len(lower)))
        self._moment_ms: int | None = None
        self._of_item, self._members = np.empty(0, np.int64), np.empty((0, 0), np.float32)

    def add(self, block: ScoreBlock, lists: Int32s, *, place: slice, moment_ms: int) -> None:
        """Take up a block of examples.

        Args:
          block: scores of the examples, -inf for items that are no candidates.
          lists: int32 [block, at least `PLACES`], item rows, best first, -1 where empty.
          place: positions of the examples among all.
          moment_ms: the refresh that answers them.
        """
        if moment_ms != self._moment_ms:
            self._moment_ms, self._of_item = moment_ms, self._bucket(self._exposures_at(moment_ms))
            self._members = np.eye(len(self._lower), dtype=np.float32)[self._of_item]  # [items, buckets]
        scores, is_candidate = block.scores, ~np.isneginf(block.scores)  # [block, items]
        counts = np.maximum(np.count_nonzero(is_candidate, axis=1), 1).astype(np.float32)  # [block]
        means = scores.sum(axis=1, where=is_candidate) / counts  # NumPy sums pairwise: float32 is good enough
        centred = np.where(is_candidate, scores - means[:, np.newaxis], np.float32(0))  # [block, items]
        deviations = np.sqrt(np.einsum("ij,ij->i", centred, centred) / counts)
        # Where all scores are equal, rounding apart, z is 0.
        is_flat = deviations <= 1e-6 * np.abs(means)
        scale = np.divide(np.float32(1), deviations, out=np.zeros_like(means), where=~is_flat)  # [block]
        self._z_sums += (scale @ centred) @ self._members
        self._candidates += np.count_nonzero(is_candidate, axis=0) @ self._members
        top = lists[:, :PLACES]
        self._places += np.bincount(self._of_item[top[top >= 0]], minlength=len(self._lower))
        self._clicked[place] = (block.target_scores - means) * scale
        last = top[:, -1]
        listed = np.take_along_axis(scores, np.maximum(last, 0)[:, np.newaxis], axis=1)[:, 0]
        self._cut[place] = np.where(last >= 0, (np.where(last >= 0, listed, 0) - means) * scale, np.nan)

    def summary(self) -> dict[str, Any]:
        """Return the entry `calibration` of metrics.json.

        Returns:
          {"cut@50": mean z of the last place of a list, "by_exposures": [{"from", "to", "clicks": number of clicks,
          "share_of_clicks", "share_of_places@50", "share_of_candidates", "clicked": mean z of the clicked items,
          "random": mean z of a candidate drawn uniformly, "clicked_deviation": standard deviation of the z of clicked
          items}, ...]}. Exposures are as of the click for clicked items, else as of the refresh. None where nothing was
          measured.
        """
        upper = [*(bound - 1 for bound in self._lower[1:]), None]
        clicks = np.bincount(self._of_target, minlength=len(self._lower))
        shares = [_shares(values) for values in (clicks, self._places, self._candidates)]
        buckets = []
        for index, (first, last) in enumerate(zip(self._lower, upper, strict=True)):
            own = self._clicked[self._of_target == index]
            candidates = self._candidates[index]
            of_clicks, of_places, of_candidates = (share[index] for share in shares)
            buckets.append({
                "from": first,
                "to": last,
                "clicks": int(clicks[index]),
                "share_of_clicks": of_clicks,
                f"share_of_places@{PLACES}": of_places,
                "share_of_candidates": of_candidates,
                "clicked": float(own.mean()) if len(own) else None,
                "random": float(self._z_sums[index] / candidates) if candidates else None,
                "clicked_deviation": float(own.std()) if len(own) else None,
            })  # fmt: skip
        cut = self._cut[np.isfinite(self._cut)]
        return {f"cut@{PLACES}": float(cut.mean()) if len(cut) else None, "by_exposures": buckets}

    def _bucket(self, exposures: Int64s) -> Int64s:
        return np.asarray(np.searchsorted(self._lower, exposures, side="right") - 1, np.int64)


def _shares(values: Float64s | Int64s) -> list[float | None]:
    """Divide by the sum; None where it is 0."""
    total = values.sum()
    return [float(value / total) if total else None for value in values]
