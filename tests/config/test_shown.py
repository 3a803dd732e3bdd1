"""Tests the table as which a notebook shows an experiment."""

from __future__ import annotations

from recall.config.experiment import Config
from tests.core.test_html import Reader

MINIMUM = {
    "data": {
        "events": {"path": "s3://logs/<b>.parquet", "user": "u", "item": "i", "time": "t"},
        "items": {"path": "/tables/items.parquet", "id": "i"},
    },
    "features": {"behaviour": [{"name": "i", "type": "id"}], "meta": [{"name": "tag", "type": "tags"}]},
    "model": {"dim": 24},
    "training": {"epochs": 20},
}


def shown(**sections: object) -> dict[str, str]:
    _, *rows = Reader(Config.model_validate({**MINIMUM, **sections})._repr_html_()).rows
    return dict(rows)


def test_what_was_chosen_is_listed_and_what_is_at_its_default_is_not() -> None:
    assert shown() == {
        "data.events.path": "s3://logs/<b>.parquet",
        "data.events.user": "u",
        "data.events.item": "i",
        "data.events.time": "t",
        "data.items.path": "items.parquet",
        "data.items.id": "i",
        "features.behaviour": "i (id)",
        "features.meta": "tag (tags)",
        "model.structure": "gated",
        "model.dim": "24",
    }


def test_a_changed_default_appears_in_its_section() -> None:
    table = shown(seed=7, evaluation={"exclude_seen": False})
    assert (table["seed"], table["evaluation.exclude_seen"]) == ("7", "False")
    assert list(table)[-2:] == ["evaluation.exclude_seen", "seed"]
