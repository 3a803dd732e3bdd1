"""Defines `data.posterior`: what is counted of an item's exposures and clicks, and as of when it is known."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from recall.config.strict import Strict
from recall.config.tunable import OneOf
from recall.config.values import DurationMs


class ContentPriorConfig(Strict):
    """Configure a prior CTR for each item, predicted from its content; see `recall.data.content_prior`."""

    enabled: bool = Field(
        default=False,
        description="smooth an item's CTR towards what its content predicts, out of fold and as of the moment, in "
        "place of the CTR of all events",
    )
    ids: bool = Field(
        default=False,
        description="let ids of features.behaviour speak too, but the item's own: an author is known at publication",
    )
    first_exposures: PositiveInt = Field(
        default=100, description="what is predicted, and learned from: the CTR of an item's first so many exposures"
    )


class PosteriorConfig(Strict):
    """Limit what an example knows of an item: events in buckets that closed `delay` before the example."""

    bucket: DurationMs = Field(
        default=3_600_000, ge=1, description="exposures and clicks are counted in buckets of this length"
    )
    delay: DurationMs = Field(
        default=3_600_000,
        description="a bucket is known so long after its end: as late as your pipeline would know it when it serves",
    )
    prior_strength: PositiveFloat = Field(default=20.0, description="pseudo-exposures behind the prior CTR")
    half_lives: Annotated[
        tuple[DurationMs, ...],
        OneOf(
            (["2h", "1d", "7d"], ["6h", "3d"], ["30m", "4h", "1d", "7d"]),
            needs={"data.split.by": ("time",), "data.events.time_unit": ("s", "ms", "us", "ns", "iso")},
        ),
    ] = Field(
        default=(2 * 3_600_000, 24 * 3_600_000, 7 * 24 * 3_600_000),
        description="fresh evidence: exposures and clicks that lose half of their weight in this time, beside the "
        "totals, e.g. [2h, 1d, 7d]; [] for none. Off where the log has no clock, or the split is by last click",
    )
    audience: NonNegativeInt = Field(
        default=0,
        description="live behaviour: so many items that the last users who clicked an item had clicked just before, as "
        "of the moment, are read as its audience (structure: gated), which needs no trained id of the item; 50 is a "
        "good number, 0 for none",
    )
    content_prior: ContentPriorConfig = Field(
        default=ContentPriorConfig(), description="a prior CTR for each item, from its content"
    )

    @field_validator("half_lives")
    @classmethod
    def _half_lives_rise(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        if wrong := [value for value in values if value <= 0]:
            raise ValueError(f"a half-life is longer than 0, e.g. 2h, 1d or 7d; found {wrong[0]} ms")
        if list(values) != sorted(set(values)):
            raise ValueError("name each half-life once, the shortest first, e.g. [2h, 1d, 7d]")
        return values
