"""What the gated model is claimed to do, each claim checked against the results of every data set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from benchmarks.common.frontiers import upper_hull
from benchmarks.quality.bias import CURVE_K, WARM, least_margin
from benchmarks.quality.comparisons import CHANCE, Comparisons
from benchmarks.quality.results import Results
from benchmarks.quality.slices import METRICS, SLICE_NAMES, block_value
from recall.evaluation.metrics import chance

OURS = "gated"
RIVALS = ("behaviour_only", "meta_only", "single", "base", "popularity", "item_knn")
# A share of cold items in the lists is no use by itself; it is compared with what learns from behaviour.
ECOLOGY_RIVALS = ("behaviour_only", "single")
LIVE = "live_gated"
# Nothing is good that does not beat a list of what is clicked now, the same for everybody.
CONTENT_RIVALS = ("content_knn", "content_knn_top3")
LIVE_RIVALS = (
    "trending", "popularity", "item_knn", *CONTENT_RIVALS, "single", "base", "behaviour_only", "meta_only",
)  # fmt: skip
COLD_SHARE_OF_META, WARM_SHARE_OF_BEHAVIOUR = 0.95, 1.0
NO_RESULT, NO_INTERVAL = "no result", "no interval"
_COLD_SLICES = ("cold", "cold_among_cold")


class Claim(NamedTuple):
    """One claim on one data set.

    Attributes:
      data: data set.
      topic: cold, warm, all, ecology, dominance, rolling or content.
      statement: what is claimed.
      found: what the results say, in numbers.
      holds: None if it cannot be asked on this data set.
    """

    data: str
    topic: str
    statement: str
    found: str
    holds: bool | None

    @property
    def is_unmeasured(self) -> bool:
        """Whether a run or an interval is missing, for which the claim does not hold either."""
        return self.found in (NO_RESULT, NO_INTERVAL)


def check_claims(results: Results, comparisons: Comparisons, data_sets: tuple[str, ...]) -> list[Claim]:
    """All claims on all data sets; a claim whose results are missing does not hold."""
    checker = _Checker(results, comparisons)
    return [claim for data in data_sets for claim in checker.on(data)]


def check_live_claims(
    results: Results, comparisons: Comparisons, data_sets: tuple[str, ...], *, cold_sets: tuple[str, ...] = ()
) -> list[Claim]:
    """Return all claims about models with fresh evidence; a claim whose results are missing does not hold.

    Args:
      results: of all experiments.
      comparisons: their intervals.
      data_sets: data sets of the rolling evaluation.
      cold_sets: data sets with a fifth of the items cold, on which content is what tells them apart.
    """
    checker = _Checker(results, comparisons, ours=LIVE)
    claims = [claim for data in data_sets for claim in checker.rolling(data)]
    return claims + [claim for data in cold_sets for claim in checker.content(data)]


def mean_metric(results: Results, experiment: str, data: str, slice_name: str, metric: str) -> float | None:
    """A test metric averaged over seeds; None without results or without examples."""
    values = [
        block_value(result.block("test"), slice_name, metric) for result in results.seeds(experiment, data).values()
    ]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def mean_ecology(results: Results, experiment: str, data: str, metric: str) -> float | None:
    """An ecology metric of the test lists averaged over seeds."""
    values = [result.block("test")["ecology"][metric] for result in results.seeds(experiment, data).values()]
    return float(np.mean(values)) if values and None not in values else None


def mean_curve(results: Results, experiment: str, data: str, warm: str) -> tuple[list[float], list[float]] | None:
    """Cold and warm recall at each bias, averaged over seeds; None where a slice has no example."""
    curves = [result.content["bias_curve"]["test"] for result in results.seeds(experiment, data).values()]
    if not curves or any(curve[name] is None for curve in curves for name in ("cold", warm)):
        return None
    cold, of_warm = (np.mean([curve[name] for curve in curves], axis=0).tolist() for name in ("cold", warm))
    return cold, of_warm


class _Checker:
    def __init__(self, results: Results, comparisons: Comparisons, *, ours: str = OURS) -> None:
        self._results, self._comparisons, self._ours = results, comparisons, ours

    def on(self, data: str) -> Iterator[Claim]:
        yield from self._cold(data)
        yield from self._warm(data)
        yield from self._all(data)
        yield from self._ecology(data)
        yield from self._dominance(data)

    def rolling(self, data: str) -> Iterator[Claim]:
        metric = METRICS[0]
        for rival in LIVE_RIVALS:
            yield self._above(data, "rolling", f"all clicks: above {rival}", f"live_{rival}", "rolling", metric)
        blind = "above the gate without posterior"
        yield self._above(data, "rolling", f"all clicks: {blind}", "live_blind", "rolling", metric)
        new = "items without exposure as of the click"
        yield self._above(data, "rolling", f"{new}: above single", "live_single", "rolling_0", metric)
        yield self._above(data, "rolling", f"{new}: {blind}", "live_blind", "rolling_0", metric)

    def content(self, data: str) -> Iterator[Claim]:
        for part in _COLD_SLICES:
            for rival in (*CONTENT_RIVALS, "single", "meta_only"):
                statement = f"{SLICE_NAMES[part]}: above {rival}"
                yield self._above(data, "content", statement, f"live_{rival}", part, METRICS[0])

    def _cold(self, data: str) -> Iterator[Claim]:
        for part in _COLD_SLICES:
            for metric in METRICS:
                yield self._at_least(data, "cold", part, metric, "meta_only", COLD_SHARE_OF_META)
                statement = f"{SLICE_NAMES[part]} {metric} above chance"
                if why := self._unanswerable(data, part):
                    yield Claim(data, "cold", statement, why, None)
                else:
                    yield self._above(data, "cold", statement, CHANCE, part, metric)

    def _warm(self, data: str) -> Iterator[Claim]:
        for part in WARM:
            for metric in METRICS:
                yield self._at_least(data, "warm", part, metric, "behaviour_only", WARM_SHARE_OF_BEHAVIOUR)

    def _all(self, data: str) -> Iterator[Claim]:
        for metric in METRICS:
            for rival in RIVALS:
                yield self._above(data, "all", f"all {metric} above {rival}", rival, "all", metric)

    def _ecology(self, data: str) -> Iterator[Claim]:
        for metric in ("coverage@100", "cold_share@100"):
            for rival in ECOLOGY_RIVALS:
                ours, theirs = (mean_ecology(self._results, name, data, metric) for name in (OURS, rival))
                statement = f"{metric} above {rival}"
                if ours is None or theirs is None:
                    yield Claim(data, "ecology", statement, NO_RESULT, False)
                else:
                    yield Claim(data, "ecology", statement, f"{ours:.4f} against {theirs:.4f}", ours > theirs)

    def _dominance(self, data: str) -> Iterator[Claim]:
        for warm in WARM:
            for rival in RIVALS:
                statement = f"cold/warm curve ({SLICE_NAMES[warm]}) nowhere below {rival}"
                if why := self._unanswerable(data, "cold") or self._unanswerable(data, warm):
                    yield Claim(data, "dominance", statement, why, None)
                elif (margin := dominance_margin(self._results, rival, data, warm)) is None:
                    yield Claim(data, "dominance", statement, NO_RESULT, False)
                else:
                    found = f"least margin {margin[0]:+.4f} at cold recall@{CURVE_K} {margin[1]:.4f}"
                    yield Claim(data, "dominance", statement, found, margin[0] >= 0)

    def _at_least(self, data: str, topic: str, part: str, metric: str, rival: str, share: float) -> Claim:
        statement = f"{SLICE_NAMES[part]} {metric} at least {share:.0%} of {rival}"
        if why := self._unanswerable(data, part):
            return Claim(data, topic, statement, why, None)
        ours, theirs = (mean_metric(self._results, name, data, part, metric) for name in (OURS, rival))
        if ours is None or theirs is None:
            return Claim(data, topic, statement, NO_RESULT, False)
        ratio = f" ({ours / theirs:.1%})" if theirs else ""
        return Claim(data, topic, statement, f"{ours:.4f} against {theirs:.4f}{ratio}", ours >= share * theirs)

    def _above(self, data: str, topic: str, statement: str, rival: str, part: str, metric: str) -> Claim:
        comparison = self._comparisons.find(self._ours, rival, data, part, metric)
        if comparison is None:
            return Claim(data, topic, statement, NO_INTERVAL, False)
        found = f"{comparison.difference:+.4f} [{comparison.low:+.4f}, {comparison.high:+.4f}]"
        return Claim(data, topic, statement, found, comparison.low > 0)

    def _unanswerable(self, data: str, part: str) -> str | None:
        """Why a slice of a data set says nothing, if so."""
        for result in self._results.seeds(OURS, data).values():
            if block_value(result.block("test"), part, METRICS[0]) is None:
                return "no such test click"
            cold = result.content["catalogue"]["cold"]["test"]
            if part == "cold_among_cold" and chance(METRICS[0], cold) == 1:
                return f"only {cold} cold items: every order has recall 1"
        return None


def dominance_margin(results: Results, rival: str, data: str, warm: str) -> tuple[float, float] | None:
    """`least_margin` of our curve above a rival's; None without results."""
    ours, theirs = (mean_curve(results, name, data, warm) for name in (OURS, rival))
    if ours is None or theirs is None:
        return None
    hulls = (upper_hull(*(np.array(axis) for axis in curve)) for curve in (ours, theirs))
    return least_margin(*hulls)
