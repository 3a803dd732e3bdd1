"""Tests whether a difference between two models could be chance: paired differences, with users resampled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recall.core.arrays import Float64s, Int64s

_BLOCK = 1 << 21
"""Numbers that are drawn together: 40 MB at 20 bytes for a position and what stands there."""

# Drawing how often each kind of cluster comes takes about 150 ns a kind, drawing clusters one by one 12 ns a cluster.
# 25,000 users, 10,000 resamples: 0.3 s instead of 2.9 s for recall@50, where kinds are few.
_CLUSTERS_PER_KIND = 12


@dataclass(frozen=True)
class Interval:
    """Hold a difference of two means and its confidence interval.

    Attributes:
      difference: mean of the first minus mean of the second, over all examples.
      low: lower end of the interval.
      high: upper end of the interval.
      confidence: share of such intervals that cover the true difference, nominally.
      examples: examples compared.
      clusters: groups that were resampled, e.g. users.
    """

    difference: float
    low: float
    high: float
    confidence: float
    examples: int
    clusters: int

    @property
    def excludes_zero(self) -> bool:
        """Tell whether zero lies outside of the interval, so that chance alone does not explain the difference."""
        return self.low > 0 or self.high < 0

    @property
    def verdict(self) -> str:
        """Put the result for the first into words: `better`, `worse` or `no difference shown`."""
        if not self.excludes_zero:
            return "no difference shown"
        return "better" if self.difference > 0 else "worse"


def paired_bootstrap(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    *,
    clusters: npt.ArrayLike,
    resamples: int = 10_000,
    seed: int = 1,
    confidence: float = 0.95,
) -> Interval:
    """Compute the interval of the difference between two models on the same examples.

    Whole clusters are drawn with replacement, as many as there are: the clicks of one user are not independent
    (cluster bootstrap: Field & Welsh, J. R. Statist. Soc. B 2007). The statistic is the ratio of summed differences
    to summed examples, so clusters weigh by their size. The interval is the percentile one (Efron & Tibshirani, An
    Introduction to the Bootstrap, 1993, chapter 13). On simulated clicks the nominal 95% covered 95% with 400 users,
    93% with 100 and 92% with 30; the corrected interval of their chapter 14 (BCa) covered no more.

    Departure: an interval is extended to zero if the models differ in so few clusters that swapping them at random
    within each cluster (the sign-flip test) cannot give a p-value of 1 - confidence, e.g. in 5 users at 95%. If all
    5 favour one model, 0.7% of the resamples hold none of them, and the bootstrap alone would call that certain.

    Args:
      first: [examples] values of one model, e.g. 1 where the target is in the list of k and 0 elsewhere; or [seeds,
        examples], then averaged over seeds first: the interval holds for the seeds that were run.
      second: the same examples, valued by the other model; the number of seeds may differ.
      clusters: [examples], equal for examples that belong together; any dtype that sorts.
      resamples: how many samples are drawn.
      seed: of the draws; equal inputs give equal intervals.
      confidence: in (0, 1).

    Raises:
      ValueError: shapes differ, values are not finite, there is no example, or a setting is out of its range.
    """
    values = _example_values(first, "first"), _example_values(second, "second")
    if len(values[0]) != len(values[1]):
        raise ValueError(f"expected two models on the same examples, found {len(values[0])} and {len(values[1])}")
    difference = values[0] - values[1]  # [examples]
    groups = np.asarray(clusters)
    if groups.shape != difference.shape:
        raise ValueError(f"expected one cluster per example, found {groups.shape} clusters for {difference.shape}")
    if not 0 < confidence < 1 or resamples < 1:
        raise ValueError(f"expected 0 < confidence < 1 and resamples >= 1, found {confidence} and {resamples}")
    group = np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(group).astype(np.float64)  # [clusters]
    totals = np.stack([np.bincount(group, difference), sizes], axis=1)  # [clusters, 2]
    kinds, count = _kinds(totals)
    estimate = float(totals[:, 0].sum() / len(difference))
    means = _resampled_means(kinds, count, resamples=resamples, rng=np.random.default_rng(seed))
    low, high = map(float, np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2]))
    differing = int(count[kinds[:, 0] != 0].sum())
    if 2.0 ** (1 - differing) > 1 - confidence:
        low, high = min(low, 0.0), max(high, 0.0)
    return Interval(estimate, low, high, confidence, len(difference), len(totals))


def _example_values(values: npt.ArrayLike, name: str) -> Float64s:
    """Average over seeds, float64 [examples]."""
    array = np.asarray(values, np.float64)
    if array.ndim not in (1, 2) or not array.size:
        raise ValueError(f"{name}: expected values [examples] or [seeds, examples], found shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: {np.count_nonzero(~np.isfinite(array)):,} values are not finite")
    return array if array.ndim == 1 else array.mean(axis=0)


def _kinds(totals: Float64s) -> tuple[Float64s, Int64s]:
    """Find the distinct rows of [clusters, 2] and the number of clusters of each; [kinds, 2] and [kinds]."""
    kinds, count = np.unique(totals, axis=0, return_counts=True)
    return kinds, count


def _resampled_means(kinds: Float64s, count: Int64s, *, resamples: int, rng: np.random.Generator) -> Float64s:
    """Compute the mean difference of each resample, [resamples].

    Clusters with the same sum and size are one kind: it makes no difference which of them is drawn, so that the number
    drawn of each kind is multinomial. The distribution is the same as with clusters drawn one by one.
    """
    clusters = int(count.sum())
    few_kinds = len(kinds) * _CLUSTERS_PER_KIND < clusters
    members = np.repeat(kinds[:, 0] + 1j * kinds[:, 1], count)  # [clusters], so that one look-up gives both numbers
    width = len(kinds) if few_kinds else clusters
    means = np.empty(resamples)
    for start in range(0, resamples, max(1, _BLOCK // width)):
        block = means[start : start + max(1, _BLOCK // width)]
        if few_kinds:
            drawn = rng.multinomial(clusters, count / clusters, size=len(block)) @ kinds  # [block, 2]
            block[:] = drawn[:, 0] / drawn[:, 1]
        else:
            sums = members[rng.integers(0, clusters, (len(block), clusters), dtype=np.int32)].sum(axis=1)  # [block]
            block[:] = sums.real / sums.imag
    return means
