"""Tests guessed experiments as wholes: the file is read by `load_config` and `prepare`, and leaks nothing."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from recall.config.experiment import Config, load_config
from recall.config.schema import experiment_schema
from recall.core.errors import ConfigError
from recall.data.catalogue import check_files, read_items, read_users
from recall.data.guess.choices import Named
from recall.data.guess.experiment import guess_experiment
from recall.data.guess.experiment_text import Guessed, experiment_text, terminal_rows

NOW_MS = 1_800_000_000_000
START_S = 1_700_000_000
ITEMS = {
    "item_id": [f"i{row}" for row in range(30)],
    "title": [f"Story number {row} of the day" for row in range(30)],
    "published": [START_S - 3_600 * row for row in range(30)],
    "section": ["news", "sports", "arts"] * 10,
    "clicks_total": [row**2 for row in range(30)],
}
EVENTS = {
    "user_id": [f"u{row % 9}" for row in range(90)],
    "item_id": [f"i{row * 7 % 30}" for row in range(90)],
    "time": [START_S + 600 * row for row in range(90)],
    "clicked": [row % 3 == 0 for row in range(90)],
}
USERS = {"user_id": [f"u{row}" for row in range(9)], "age": range(20, 29), "region": ["n", "s", "e"] * 3}


class Written:
    """Hold a folder with tables, and what is guessed of it."""

    def __init__(self, folder: Path, events: dict[str, Any], items: dict[str, Any], users: dict[str, Any] | None):
        self.folder = folder
        for name, columns in (("events", events), ("items", items), ("users", users)):
            if columns:
                table = pa.table({key: pa.array(list(values)) for key, values in columns.items()})
                pq.write_table(table, folder / f"{name}.parquet")
        self.users = str(folder / "users.parquet") if users else None

    def guess(self, **named: str) -> Guessed:
        files = (str(self.folder / "events.parquet"), str(self.folder / "items.parquet"))
        return guess_experiment(*files, self.users, named=Named(**named), now_ms=NOW_MS)

    def config(self, **named: str) -> Config:
        """Write the file and read it; also reads the tables with it, as `prepare` does."""
        path = self.folder / "experiment.yaml"
        path.write_text(experiment_text(self.guess(**named), folder=self.folder, name=path.name))
        config = load_config(path)
        check_files(config)
        read_items(config, extra_ids=())
        read_users(config)
        return config


@pytest.fixture
def plain(tmp_path: Path) -> Written:
    return Written(tmp_path, EVENTS, ITEMS, USERS)


def unsure(guessed: Guessed) -> set[str]:
    return {key for key, _, why in terminal_rows(guessed) if why.startswith("unsure")}


def test_a_plain_set_is_guessed_without_a_doubt(plain: Written) -> None:
    config = plain.config()
    events = config.data.events
    assert (events.user, events.item, events.time, events.time_unit) == ("user_id", "item_id", "time", "s")
    assert (events.click and events.click.column, config.data.items.title) == ("clicked", "title")
    assert (config.data.items.published, config.data.split.by) == ("published", "time")
    assert [feature.name for feature in config.features.user] == ["user_id", "age", "region"]
    assert [feature.name for feature in config.features.meta] == ["section"]
    assert unsure(plain.guess()) == set()


def test_results_of_clicks_are_left_out_with_the_reason(plain: Written) -> None:
    config = plain.config()
    assert "clicks_total" not in {feature.name for feature in config.features.item}
    text = (plain.folder / "experiment.yaml").read_text()
    assert "#   clicks_total: is a result of clicks: of the whole time" in text


def test_the_file_fits_the_schema_that_its_first_line_names(plain: Written) -> None:
    plain.config()
    text = (plain.folder / "experiment.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=experiment.schema.json\n")
    jsonschema.validate(yaml.safe_load(text), experiment_schema())
    assert max(map(len, text.splitlines())) <= 140


def test_paths_lead_from_the_folder_of_the_file(plain: Written) -> None:
    (plain.folder / "below").mkdir()
    path = plain.folder / "below" / "experiment.yaml"
    path.write_text(experiment_text(plain.guess(), folder=path.parent, name=path.name))
    assert "path: ../events.parquet" in path.read_text()
    check_files(load_config(path))


def test_vectors_beside_the_items_are_an_embedding_if_their_number_fits(plain: Written) -> None:
    np.save(plain.folder / "text.npy", np.eye(30, 8, dtype=np.float32))
    np.save(plain.folder / "other.npy", np.eye(29, 8, dtype=np.float32))
    np.save(plain.folder / "labels.npy", np.arange(30))
    config = plain.config()
    assert [feature.name for feature in config.features.meta if feature.type == "embedding"] == ["text"]
    assert "features.meta" in unsure(plain.guess())


def test_a_publication_in_another_unit_than_the_log_is_left_out(tmp_path: Path) -> None:
    items = {**ITEMS, "published": [second * 1_000 for second in ITEMS["published"]]}  # type: ignore[operator]
    found = Written(tmp_path, EVENTS, items, None)
    assert found.config().data.items.published is None
    assert [one.why for one in found.guess().items.left_out if one.column == "published"] == [
        "is a time in ms, and the log is in s; write both in one unit"
    ]


def test_typed_times_of_the_log_leave_the_unit_to_the_publication(tmp_path: Path) -> None:
    moments = [datetime.datetime.fromtimestamp(second, datetime.timezone.utc) for second in EVENTS["time"]]  # type: ignore[arg-type]
    config = Written(tmp_path, {**EVENTS, "time": moments}, ITEMS, None).config()
    assert (config.data.events.time_unit, config.data.items.published) == ("s", "published")


def test_a_table_that_was_made_after_the_log_has_no_times_of_publication(tmp_path: Path) -> None:
    items = {**ITEMS, "published": [START_S + 10**7 + row for row in range(30)]}
    assert Written(tmp_path, EVENTS, items, None).config().data.items.published is None


def test_times_without_offset_are_not_sure(tmp_path: Path) -> None:
    written = [
        datetime.datetime.fromtimestamp(s, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S") for s in EVENTS["time"]
    ]  # type: ignore[arg-type]
    found = Written(tmp_path, {**EVENTS, "time": written}, {**ITEMS, "published": written[:30]}, None)
    assert found.config().data.events.time_unit == "iso"
    assert "events.time_zone" in unsure(found.guess())


def test_items_that_the_file_lacks_are_added_and_that_is_not_sure(tmp_path: Path) -> None:
    events = {**EVENTS, "item_id": [f"i{row * 7 % 40}" for row in range(90)]}
    found = Written(tmp_path, events, ITEMS, None)
    assert found.config().data.items.unknown == "add"
    assert "items.unknown" in unsure(found.guess())


def test_without_content_new_items_cannot_be_told_apart_and_the_model_is_another(tmp_path: Path) -> None:
    config = Written(tmp_path, EVENTS, {"item_id": ITEMS["item_id"]}, None).config()
    assert (config.model.structure, config.features.meta) == ("behaviour_only", ())


def test_positions_are_split_by_the_last_click(tmp_path: Path) -> None:
    events = {"user_id": EVENTS["user_id"], "item_id": EVENTS["item_id"], "position": [row // 9 for row in range(90)]}
    config = Written(tmp_path, events, ITEMS, None).config()
    assert (config.data.events.time_unit, config.data.split.by, config.data.events.click) == (
        "order",
        "last_click",
        None,
    )


def test_names_that_yaml_would_read_as_something_else_are_quoted(tmp_path: Path) -> None:
    events = {
        "on": EVENTS["user_id"],
        "2024-01-01": EVENTS["item_id"],
        "no: time": EVENTS["time"],
        "yes": EVENTS["clicked"],
    }
    found = Written(tmp_path, events, ITEMS, None)
    named = {"user": "on", "item": "2024-01-01", "time": "no: time", "click": "yes"}
    config = found.config(**named).data.events
    assert (config.user, config.item, config.time, config.click and config.click.column) == tuple(named.values())


def test_a_users_file_of_other_users_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"users.parquet: no column has the users of the log's column user_id"):
        Written(tmp_path, EVENTS, ITEMS, {"name": ["x", "y", "z"]}).guess()


def test_the_guessed_experiment_of_the_community_is_prepared(community: Path, tmp_path: Path) -> None:
    from pipelines.training_data import prepare
    from recall.data.prepared import PreparedData

    files = [str(community / f"{name}.parquet") for name in ("events", "items", "users")]
    path = tmp_path / "experiment.yaml"
    path.write_text(experiment_text(guess_experiment(*files), folder=tmp_path, name=path.name))
    config = load_config(path)
    prepare(config, tmp_path / "data")
    assert len(PreparedData.load(tmp_path / "data").item_ids) == 150
    assert [feature.name for feature in config.features.behaviour] == ["item_id", "author_id"]
    assert {feature.name for feature in config.features.meta} == {"tags", "category", "duration_s", "text", "image"}
