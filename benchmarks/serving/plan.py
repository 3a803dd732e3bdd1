"""load.yaml: how large the community is, how many ask, and how often items and versions change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from recall.config.values import Fraction

HERE = Path(__file__).parent
PLAN = HERE / "load.yaml"

Publisher = Literal["republished", "rebalanced"]
"""Who makes new versions: another process that publishes the catalogue's index again, or the service's rebalancer."""


class Community(BaseModel):
    """Arguments of `recall simulate`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    users: PositiveInt
    items: PositiveInt
    days: PositiveInt
    exposures: PositiveInt


class Plan(BaseModel):
    """One size of the load test; load.yaml says what each number is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    community: Community
    clients: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    settle_seconds: Annotated[float, Field(ge=0)]
    k: PositiveInt
    sampled_share: Fraction
    upserts_per_second: PositiveInt
    items_per_upsert: PositiveInt
    deletes_per_second: PositiveInt
    added_items: PositiveInt
    contents: PositiveInt
    asking_users: PositiveInt
    publish_seconds: PositiveFloat


def load_plan(path: Path = PLAN, *, small: bool = False) -> Plan:
    """The full plan, or the small one."""
    sizes = yaml.safe_load(path.read_text())
    return Plan.model_validate({**sizes["full"], **(sizes["small"] if small else {})})
