"""Ranks targets and lists items exactly over the whole catalogue, from the scores of any `Scorer`.

Scores are made block by block of examples. Each block gives the rank of every target, by counting the items that
score as much or more, and the best items of every example; nothing is sorted and nothing is sampled.

Ties count against the model, in ranks and lists alike: an item is in the list of length k exactly if its rank is
at most k. Of items that tie across the end of the list none is listed and the slots stay empty. A model that scores all
items alike therefore gets no credit for the order of the items file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from recall.core.arrays import Bools, Float32s, Float64s, Int32s, Int64s, Intps
from recall.core.ragged import Ragged
from recall.evaluation.scorers import EvaluationError, Scorer

BLOCK_BYTES = 32 << 20
"""Memory for a block of scores, so that it stays in the last-level cache, where it is read three times."""

# Item vectors are read once per block; with fewer examples a large catalogue makes the matmul wait for memory.
_LEAST_BLOCK = 16


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """Hold held-out clicks, one target each.

    Attributes:
      users: [examples], user ids; any dtype.
      targets: int32 [examples], item row of the click.
      history: per example the last clicked item rows strictly before it, oldest first.
      seen: per example all item rows that the user clicked strictly before it.
    """

    users: npt.NDArray[Any]
    targets: Int32s
    history: Ragged
    seen: Ragged

    def __post_init__(self) -> None:
        for name in ("history", "seen"):
            _require_whole(getattr(self, name), name)
        lengths = {name: len(getattr(self, name)) for name in ("users", "targets", "history", "seen")}
        if len(set(lengths.values())) > 1:
            raise EvaluationError(f"each example needs one entry in every part, found lengths {lengths}")

    def __len__(self) -> int:
        return len(self.targets)

    def between(self, chosen: slice) -> EvaluationSet:
        """Return consecutive examples."""
        return EvaluationSet(self.users[chosen], self.targets[chosen], self.history[chosen], self.seen[chosen])


def _require_whole(lists: Ragged, name: str) -> None:
    """Refuse offsets that do not cut all values into lists."""
    offsets = lists.offsets
    ends = (offsets[0], offsets[-1]) if len(offsets) else None
    if ends != (0, len(lists.values)) or np.any(np.diff(offsets) < 0):
        raise EvaluationError(
            f"{name}: offsets have to rise from 0 to the number of values, {len(lists.values)}; found ends {ends}. "
            "Build them as the cumulative lengths of the lists with a 0 in front"
        )


def ranks(
    scorer: Scorer, examples: EvaluationSet, *, exclude_seen: bool = True, block_bytes: int = BLOCK_BYTES
) -> Int64s:
    """Rank the targets exactly among the whole catalogue.

    Args:
      scorer: the model.
      examples: targets, and the items seen before them.
      exclude_seen: leave out the items that the user clicked before; the target itself always stays.
      block_bytes: memory for one block of scores.

    Returns:
      int64 [examples]: 1 + the number of other items that score at least as much as the target.

    Raises:
      EvaluationError: as `evaluate`.
    """
    blocks = score_blocks(scorer, examples, exclude_seen=exclude_seen, block_bytes=block_bytes)
    return np.concatenate([np.empty(0, np.int64), *(block.ranks() for block in blocks)])


def shared_ranks(scores: Float64s, targets: Int32s, *, seen: Ragged) -> Int64s:
    """Rank targets by scores that are the same for all examples, without a row of scores for each.

    Args:
      scores: float64 [items].
      targets: int32 [examples].
      seen: the items that are left out for each example, distinct; the target itself always stays.

    Returns:
      int64 [examples], as `ranks`.
    """
    thresholds = scores[targets]  # [examples]
    reached = len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left")  # the target among them
    left_out = (scores[seen.values] >= thresholds[seen.owners]) & (seen.values != targets[seen.owners])
    return np.asarray(reached - np.bincount(seen.owners[left_out], minlength=len(targets)), np.int64)


def top_items(
    scorer: Scorer, examples: EvaluationSet, k: int, *, exclude_seen: bool = True, block_bytes: int = BLOCK_BYTES
) -> Int32s:
    """List the best k items of each example, best first.

    Args:
      scorer: the model.
      examples: items seen before.
      k: length of the lists.
      exclude_seen: leave out the items that the user clicked before.
      block_bytes: memory for one block of scores.

    Returns:
      int32 [examples, k] item rows, equal scores by row. -1 fills empty slots: the catalogue is smaller, or
      items tie across the end of the list.

    Raises:
      EvaluationError: as `evaluate`.
    """
    blocks = score_blocks(scorer, examples, exclude_seen=exclude_seen, block_bytes=block_bytes)
    return np.concatenate([np.empty((0, k), np.int32), *(block.best_items(k) for block in blocks)])


def best_items(row: Float32s, k: int) -> Intps:
    """List the items that score above the (k+1)-th best of one example, best first, equal scores by row.

    The maxima of disjoint groups give a cheap lower bound for the (k+1)-th best score; only the few items that
    reach it are partitioned: 2 s for 20,000 rows of 50,000 items, where argpartition of whole rows takes 12 s.

    Args:
      row: float32 [items]; -inf marks items that must not be listed.
      k: at most this many.

    Returns:
      intp [<= k] item rows.
    """
    candidates = np.arange(len(row))
    cutoff = -np.inf
    if len(row) > k:
        candidates = np.flatnonzero(row >= _lower_bound(row, k + 1))
        reached = row[candidates]
        cutoff = np.partition(reached, len(reached) - k - 1)[len(reached) - k - 1]
    chosen = candidates[row[candidates] > cutoff]
    return chosen[np.argsort(-row[chosen], kind="stable")]


def _lower_bound(row: Float32s, k: int) -> np.float32:
    """Find a value that at least k items of the row reach."""
    depth = len(row) // (8 * k)
    if depth < 2:
        return row.min()
    groups = len(row) // depth
    maxima = row[: depth * groups].reshape(depth, groups).max(axis=0)  # [groups]
    return np.partition(maxima, groups - k)[groups - k]


@dataclasses.dataclass(frozen=True)
class ScoreBlock:
    """Hold the scores of consecutive examples, with -inf for the items that are not ranked.

    Attributes:
      examples: positions of the examples.
      scores: float32 [block, items].
      target_scores: float32 [block], read before anything was masked and from the same array, so that a target
        ties with itself.
      target_is_masked: bool [block], the target is one of the items that were masked.
    """

    examples: slice
    scores: Float32s
    target_scores: Float32s
    target_is_masked: Bools

    def ranks(self) -> Int64s:
        """Rank the targets among all items, int64 [block]."""
        # A target that was not masked has counted itself.
        return _count_reached(self.scores, self.target_scores) + self.target_is_masked

    def ranks_among(self, items: Intps, *, rows: Intps) -> Int64s:
        """Rank the targets of some rows among some items, which include the targets; int64 [rows]."""
        scores = self.scores[np.ix_(rows, items)]  # [rows, items]
        return _count_reached(scores, self.target_scores[rows]) + self.target_is_masked[rows]

    def best_items(self, k: int) -> Int32s:
        """List the best items, int32 [block, k], -1 where empty."""
        lists = np.full((len(self.scores), k), -1, np.int32)
        for slots, row in zip(lists, self.scores, strict=True):
            best = best_items(row, k)
            slots[: len(best)] = best
        return lists


def _count_reached(scores: Float32s, thresholds: Float32s) -> Int64s:
    """Count the scores of each row [rows, items] that reach the row's threshold [rows]; int64 [rows]."""
    # Row by row: count_nonzero of a flat bool array is vectorised, along an axis it takes 6 times as long.
    pairs = zip(scores, thresholds, strict=True)
    return np.array([np.count_nonzero(row >= threshold) for row, threshold in pairs], np.int64)


def score_blocks(
    scorer: Scorer, examples: EvaluationSet, *, exclude_seen: bool, block_bytes: int
) -> Iterator[ScoreBlock]:
    """Score all examples in blocks of about `block_bytes`, at least 16 at a time.

    Raises:
      EvaluationError: scores are not finite or of another shape than catalogue and examples.
    """
    _require_rows(examples, scorer.item_count)
    size = max(_LEAST_BLOCK, block_bytes // (4 * max(1, scorer.item_count)))
    for start in range(0, len(examples), size):
        stop = min(start + size, len(examples))
        scores = scorer.scores(start, stop)  # [block, items]
        if not scorer.is_finite:
            _require_scores(scores, start=start, shape=(stop - start, scorer.item_count))
        rows, targets = np.arange(stop - start), examples.targets[start:stop]
        target_scores = scores[rows, targets]
        if exclude_seen:
            seen = examples.seen[start:stop]
            scores[seen.owners, seen.values] = -np.inf
        yield ScoreBlock(slice(start, stop), scores, target_scores, np.isneginf(scores[rows, targets]))


def _require_scores(scores: Float32s, *, start: int, shape: tuple[int, int]) -> None:
    if scores.shape != shape or not np.issubdtype(scores.dtype, np.floating):
        raise EvaluationError(
            f"scores of examples {start} to {start + shape[0]} are {scores.dtype} {scores.shape}; "
            f"expected floating point {shape}, a row per example and a column per item"
        )
    # A sum is finite only if all its terms are, and takes a third of the time of looking at each of them.
    with np.errstate(over="ignore", invalid="ignore"):
        suspects = np.flatnonzero(~np.isfinite(scores.sum(axis=1)))
    for row in suspects:
        bad = np.flatnonzero(~np.isfinite(scores[row]))
        if len(bad):
            raise EvaluationError(
                f"the model scores example {start + row} on item row {bad[0]} with {scores[row, bad[0]]}, and "
                f"{len(bad):,} of {shape[1]:,} items are not finite; expected finite numbers. "
                "The model has diverged: lower training.learning_rate, or look for extreme input numbers"
            )


def _require_rows(examples: EvaluationSet, item_count: int) -> None:
    for name, rows in (("targets", examples.targets), ("seen", examples.seen.values)):
        if len(rows) and not 0 <= rows.min() <= rows.max() < item_count:
            raise EvaluationError(
                f"{name} hold item rows from {rows.min()} to {rows.max()}; the model scores {item_count:,} items, "
                f"so expected 0 to {item_count - 1}. Take model and examples from the same run"
            )
