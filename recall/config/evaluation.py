"""Defines the `evaluation` section of the experiment file: how a model is judged."""

from __future__ import annotations

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from recall.config.strict import Strict
from recall.config.values import Refresh


class EvaluationConfig(Strict):
    """Set cut-offs, slices, and what is left out of the ranking."""

    k: tuple[PositiveInt, ...] = Field(
        default=(5, 10, 20, 50, 100), min_length=1, description="cut-offs of the ranking metrics"
    )
    exclude_seen: bool = Field(default=True, description="items the user clicked before are not ranked")
    exposure_buckets: tuple[NonNegativeInt, ...] = Field(
        default=(0, 1, 10, 100, 1000), description="lower bounds of the slices by exposures before the test period"
    )
    refresh: Refresh = Field(
        default="auto",
        description="rolling evaluation: how often items are made again from what is known by then, e.g. 1h; none: "
        "never; auto: hourly, or once in data.posterior.bucket if that is longer, and none without a test period",
    )
    category: str | None = Field(
        default=None,
        description="feature of features.meta, type category or tags: how far lists keep to the values of the user's "
        "last clicks; default: that of model.category_head, if there is one",
    )

    @model_validator(mode="after")
    def _buckets_start_with_cold(self) -> EvaluationConfig:
        if self.exposure_buckets[:1] != (0,) or list(self.exposure_buckets) != sorted(set(self.exposure_buckets)):
            raise ValueError("exposure_buckets are rising lower bounds that start at 0, e.g. [0, 1, 10, 100]")
        return self
