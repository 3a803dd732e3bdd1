"""Makes the experiment that an arm's model is trained by: the example of the simulated community, for a day's work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from recall.config.experiment import Config, load_config
from recall.config.yaml_file import apply_override
from recall.core.errors import ConfigError

_GIVEN = ["data.events.path", "data.items.path", "data.users.path"]
_EXPERIMENT: dict[str, Any] = {
    "data": {
        "events": {
            "path": "events.parquet", "user": "user_id", "item": "item_id", "time": "time_ms", "time_unit": "ms",
            "click": "is_click",
        },
        "items": {"path": "items.parquet", "id": "item_id", "published": "published_ms"},
        "users": {"path": "users.parquet", "id": "user_id"},
        "history": 30,
    },
    "features": {
        "user": [
            {"name": "user_id", "type": "id", "min_count": 5},
            *({"name": name, "type": "category"} for name in ("age_band", "region", "activity")),
        ],
        "behaviour": [{"name": "item_id", "type": "id"}, {"name": "author_id", "type": "id"}],
        "meta": [
            {"name": "tags", "type": "tags"},
            {"name": "category", "type": "category"},
            {"name": "duration_s", "type": "number", "log": True},
            *({"name": name, "type": "embedding", "clusters": [16, 64]} for name in ("text", "image")),
        ],
    },
    "model": {"query": "user", "gate": "concat", "dim": 32, "hidden": [64], "history_encoder": "attention"},
    "training": {"batch_size": 1024, "learning_rate": 0.003},
}  # fmt: skip
# What the model does not learn from: the last hours choose its epoch and its cold bias, and nothing is tested.
_HELD_OUT = {"by": "time", "validation": 4 * 3_600_000, "test": 15 * 60_000}


def loop_experiment(
    settings: Mapping[str, Any], *, config: Path | None = None, overrides: Iterable[str] = ()
) -> Config:
    """Make the experiment of an arm.

    Args:
      settings: of the arm, dotted key -> value.
      config: an experiment file with the columns of `recall simulate`, in place of the example's settings.
      overrides: `dotted.key=value` pairs for all arms; the arm's own settings come after them.

    Raises:
      ConfigError: a setting is wrong; says which, and what to write.
    """
    import json

    base = Config.model_validate(_EXPERIMENT) if config is None else load_config(config)
    content = base.model_dump(mode="json")
    content["data"]["split"] = dict(_HELD_OUT)
    for override in (*overrides, *(f"{key}={json.dumps(value)}" for key, value in settings.items())):
        apply_override(content, override)
    try:
        return base.replaced(**content)
    except KeyError as error:
        raise ConfigError(f"--set: found section {error}, expected one of {', '.join(base.model_dump())}") from None
