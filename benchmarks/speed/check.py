"""What the results are held against: claims.yaml, a list of ratios with the least or the most that they may be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from benchmarks.speed.growth import fit_exponent
from benchmarks.speed.results import Result, Results, Value
from recall.config.strict import Strict
from recall.config.yaml_file import describe, read_yaml
from recall.core.errors import ConfigError

CLAIMS = Path(__file__).with_name("claims.yaml")


class Quantity(Strict):
    """A number out of the results of a row: one measure of one case, or the best of several, or how it grows."""

    case: str = Field(description="case of the row, or a glob of several")
    measure: str
    where: dict[str, float] = Field(default={}, description="measure -> least value; leaves points out that have less")
    best: Literal["lowest", "highest"] | None = Field(default=None, description="which of several points counts")
    exponent_over: str | None = Field(default=None, description="argument: the exponent by which the measure grows")


class Claim(Strict):
    """One line of the table."""

    row: str
    claim: str = Field(description="in words")
    what: Quantity
    over: Quantity | None = Field(default=None, description="divisor; without it the number itself counts")
    at_most: float | None = None
    at_least: float | None = None
    unreached_holds: bool = Field(
        default=False, description="the claim holds where no point of `over` has what its `where` asks for"
    )

    @model_validator(mode="after")
    def _has_one_bound(self) -> Claim:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError(f"{self.row}: {self.claim}: give either at_most or at_least")
        if self.unreached_holds and not (self.over and self.over.where):
            raise ValueError(f"{self.row}: {self.claim}: unreached_holds needs an `over` with `where`")
        return self

    @property
    def bound(self) -> float:
        """Where the claim ends."""
        return self.at_most if self.at_most is not None else self.at_least or 0.0

    @property
    def target(self) -> str:
        """The bound, for people."""
        return f"{'≥' if self.at_most is None else '≤'} {self.bound:g}"


class Claims(Strict):
    """The whole file; see `load_claims`."""

    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class Verdict:
    """What the results say of a claim.

    Attributes:
      claim: which one.
      value: ratio of the medians, or the number itself; None if something was not measured.
      lowest: of the repeats taken in pairs; None if there are not two.
      highest: likewise.
      problem: why there is no verdict.
      unreached: what the divisor never reached, which decides the claim without a ratio.
    """

    claim: Claim
    value: float | None = None
    lowest: float | None = None
    highest: float | None = None
    problem: str | None = None
    unreached: str | None = None

    @property
    def holds(self) -> bool:
        """Whether the measured value keeps to the bound; what was not measured does not hold."""
        if self.unreached:
            return True
        if self.value is None or self.problem:
            return False
        return self.value >= self.claim.bound if self.claim.at_most is None else self.value <= self.claim.bound


def load_claims(path: Path = CLAIMS) -> list[Claim]:
    """Reads a claims file.

    Raises:
      ConfigError: says which key is wrong.
    """
    try:
        return list(Claims.model_validate(read_yaml(path)).claims)
    except ValidationError as error:
        lines = [describe(problem) for problem in error.errors()]
        raise ConfigError(f"{path}: " + ("\n" + " " * 2).join(lines)) from None


def judge(claims: Sequence[Claim], results: Results) -> list[Verdict]:
    """Holds every claim against the results."""
    return [_judge(claim, results) for claim in claims]


def _judge(claim: Claim, results: Results) -> Verdict:
    sides = [side for side in (claim.what, claim.over) if side]
    cases = [results.matching(f"{claim.row}/{side.case}") for side in sides]
    for side, found in zip(sides, cases, strict=True):
        if not found:
            return Verdict(claim, problem=f"{side.case} was not measured")
    if len({result.content["date"] for found in cases for result in found}) > 1:
        return Verdict(claim, problem="measured at different times; run the whole row again")
    ours, *theirs = map(_unreached, sides, cases)
    if ours or any(theirs):
        is_won = claim.unreached_holds and not ours
        return Verdict(claim, unreached=theirs[0]) if is_won else Verdict(claim, problem=ours or theirs[0])
    try:
        numbers = [_numbers(side, found) for side, found in zip(sides, cases, strict=True)]
    except LookupError as error:
        return Verdict(claim, problem=str(error.args[0]))
    (value, repeats), *rest = numbers
    if rest:
        ((divisor, divisors),) = rest
        value /= divisor
        repeats = [one / other for one, other in zip(repeats, divisors, strict=False)]
    return Verdict(claim, value, min(repeats), max(repeats)) if len(repeats) > 1 else Verdict(claim, value)


def _numbers(quantity: Quantity, results: Sequence[Result]) -> tuple[float, list[float]]:
    """A quantity by the medians, and in each repeat, of those that all its cases have.

    Raises:
      LookupError: no case has it, or several points have and nothing says which counts.
    """
    if quantity.exponent_over:
        return _exponents(quantity, results)
    points = [point for result in results for point in _points(quantity, result)]
    if not points:
        raise LookupError(f"{quantity.case} has no {quantity.measure}{' where asked for' if quantity.where else ''}")
    if len(points) > 1 and quantity.best is None:
        raise LookupError(f"{quantity.case}: {len(points)} points have {quantity.measure}; say which is best")
    choose = max if quantity.best == "highest" else min
    return choose(points, key=lambda point: point[0])


def _exponents(quantity: Quantity, results: Sequence[Result]) -> tuple[float, list[float]]:
    sizes = [float(result.arguments[str(quantity.exponent_over)]) for result in results]
    points = [point for result in results for point in _points(quantity, result)]
    rounds = [[value for value, _ in points], *map(list, zip(*(repeats for _, repeats in points), strict=False))]
    fitted = [fit_exponent(sizes, values) for values in rounds]
    of_median, *of_repeats = [exponent for exponent in fitted if exponent is not None] or [None]
    if of_median is None:
        raise LookupError(f"{quantity.case}: there is one size of {quantity.exponent_over}; growth needs two")
    return of_median, of_repeats


def _unreached(quantity: Quantity, results: Sequence[Result]) -> str | None:
    """What none of the cases has at any point, and how near they come; None if there is nothing of the kind."""
    for name, least in quantity.where.items():
        best = max((float(np.max(result.median[name])) for result in results if name in result.median), default=None)
        if best is not None and best < least:
            return f"not reached by {quantity.case} (best {name} {best:.3f})"
    return None


def _points(quantity: Quantity, result: Result) -> Iterator[tuple[float, list[float]]]:
    """Value by the median and in each repeat, of each point of a case's curve that has what is asked for."""
    if quantity.measure not in result.median:
        return
    values = np.atleast_1d(result.median[quantity.measure])
    repeats = np.array([np.atleast_1d(one) for one in result.repeats(quantity.measure)])  # [repeats, points]
    wanted = np.ones(len(values), bool)
    for name, least in quantity.where.items():
        wanted &= _of_points(result.median.get(name, []), len(values)) >= least
    for point in np.flatnonzero(wanted):
        yield float(values[point]), repeats[:, point].tolist()


def _of_points(value: Value, count: int) -> np.ndarray:
    """A measure at every point of a curve; what has no value there is less than anything."""
    known = np.atleast_1d(np.asarray(value, float))
    return np.broadcast_to(known, count) if len(known) in (1, count) else np.full(count, -np.inf)
