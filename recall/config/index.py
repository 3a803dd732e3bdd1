"""Defines the `index` section of the experiment file: how vectors are searched."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from recall.config.strict import Strict
from recall.config.values import AutoOrNumber, Fraction


class IndexConfig(Strict):
    """Configure how vectors are searched."""

    kind: Literal["auto", "exact", "scann"] = Field(
        default="auto",
        description="exact: compares all; scann: searches a tree, tuned until recall@k reaches target_recall; auto: "
        "exact below exact_below items, else scann",
    )
    target_recall: Fraction = Field(default=0.95, description="recall@k against exact search that tuning must reach")
    k: PositiveInt = Field(default=100, description="candidates per query that the index is tuned for")
    exact_below: NonNegativeInt = Field(default=20_000, description="catalogues smaller than this are searched exactly")
    shards: PositiveInt = Field(
        default=1,
        description="parts that items are dealt to by a hash of their ids (SHA-256), each an index of its own, built "
        "one at a time; exact shards answer as one exact index",
    )
    similar: Literal["auto", "exact"] = Field(
        default="auto",
        description="how items like an item are found by cosine; auto: as `kind` finds items, where ScaNN is used with "
        "a second index of the vectors at unit length; exact: by comparing all, without a second index",
    )
    cold_bias: AutoOrNumber = Field(
        default="auto",
        description="added to the scores of items with few exposures, in one dimension of the vectors, so that any "
        "inner-product index does it; auto: what recalls most validation clicks on new items within "
        "cold_bias_tolerance, with items as of the last refresh where there is rolling evaluation",
    )
    cold_bias_tolerance: float = Field(
        default=0.01, ge=0, lt=1, description="share of the best validation recall@50 that `auto` may give up"
    )
