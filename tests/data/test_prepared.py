"""The published tables and their reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.training_data import prepare
from recall.config.experiment import Config
from recall.core.artifacts import write_json
from recall.core.errors import ArtifactError
from recall.data.prepared import PreparedData

LOG = "user_id,item_id,time,click\n" + "".join(
    f"{user},{item},{time},{click}\n"
    for time, (user, item, click) in enumerate(
        [
            ("u", "a", 1),
            ("v", "b", 1),
            ("w", "b", 1),
            ("w", "c", 0),
            ("u", "b", 1),
            ("v", "c", 1),
            ("u", "c", 1),
            ("z", "a", 1),
        ]
    )
)
# Four training events: clicks on a (u), b (v, w) and an exposure of c. Two events each are held out.


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "log.csv").write_text(LOG)
    (tmp_path / "items.csv").write_text("item_id,author,name\na,x,First\nb,y,\nc,x,Third\ncold,,Fourth\n")
    (tmp_path / "users.csv").write_text("id,region\nv,north\nlurker,south\n")
    return Config.model_validate(
        {
            "data": {
                "events": {"path": str(tmp_path / "log.csv"), "click": "click"},
                "items": {"path": str(tmp_path / "items.csv"), "title": "name"},
                "users": {"path": str(tmp_path / "users.csv"), "id": "id"},
                "split": {"validation": 0.25, "test": 0.25},
                "posterior": {"bucket": 1, "delay": 0},
            },
            "features": {
                # Named like the column that identifies a row: they must not get into each other's way.
                "user": [{"name": "user_id", "column": "id", "type": "id"}, {"name": "region", "type": "category"}],
                "behaviour": [{"name": "item_id", "type": "id"}, {"name": "author", "type": "id", "min_count": 2}],
            },
            "model": {"structure": "behaviour_only"},
        }
    )


@pytest.fixture
def prepared(config: Config, tmp_path: Path) -> PreparedData:
    prepare(config, tmp_path / "data")
    return PreparedData.load(tmp_path / "data", verify=True)


def column(table: pa.Table, name: str) -> list[Any]:
    return table[name].to_pylist()


def test_items_keep_the_rows_of_their_file(prepared: PreparedData) -> None:
    assert prepared.item_ids.to_pylist() == ["a", "b", "c", "cold"]
    assert prepared.rows(["cold", "a", "missing"]).tolist() == [3, 0, -1]
    assert prepared.titles is not None
    assert prepared.titles.to_pylist() == ["First", None, "Third", "Fourth"]
    assert prepared.item_id_feature == "item_id"


def test_id_vocabularies_count_training_clicks(prepared: PreparedData) -> None:
    # Training clicks: a 1, b 2, so b comes first; c was clicked only later. Author y has 2 clicks, x has 1 of 2 needed.
    assert column(prepared.items, "item_id") == [3, 2, 1, 1]
    assert column(prepared.items, "author") == [1, 2, 1, 0]


def test_users_are_those_of_the_file_and_then_those_with_training_clicks(prepared: PreparedData) -> None:
    # z clicks in the test period only, so training never meets that user.
    assert prepared.user_ids.to_pylist() == ["v", "lurker", "u", "w"]
    assert column(prepared.users, "region")[2:] == [0, 0]
    codes = column(prepared.users, "user_id")
    assert codes[1] == 1
    assert sorted(codes[:1] + codes[2:]) == [2, 3, 4]
    assert prepared.users_with_unknown().to_pylist()[-1] == {"user_id": 1, "region": 0}


def test_histories_at_serving_hold_everything(prepared: PreparedData) -> None:
    assert prepared.histories.recent("u").tolist() == [0, 1, 2]
    assert prepared.histories.seen("z").tolist() == [0]
    assert prepared.histories.recent("lurker").tolist() == []


def test_snapshots_are_aligned_with_the_items(prepared: PreparedData) -> None:
    assert prepared.posterior("validation").exposures.tolist() == [1, 2, 1, 0]
    assert prepared.posterior("test").clicks.tolist() == [1, 3, 1, 0]
    assert prepared.posterior("serving").exposures.tolist() == [2, 3, 3, 0]
    table = pq.read_table(prepared.directory / "posterior.parquet")
    assert table.column_names == ["item_id", "exposures", "clicks", "smoothed_ctr", "age_hours", "fresh"]
    assert prepared.sampling_counts.tolist() == [1, 2, 0, 0]


def test_without_a_users_file_users_are_those_with_training_clicks(config: Config, tmp_path: Path) -> None:
    content = config.model_dump(mode="json")
    content["data"]["users"] = None
    content["features"]["user"] = [{"name": "who", "type": "id"}]
    prepare(Config.model_validate(content), tmp_path / "other")
    prepared = PreparedData.load(tmp_path / "other")
    assert prepared.user_ids.to_pylist() == ["u", "v", "w"]
    assert sorted(column(prepared.users_with_unknown(), "who")) == [1, 2, 3, 4]


def test_no_user_features_at_all_are_fine(config: Config, tmp_path: Path) -> None:
    content = config.model_dump(mode="json")
    content["data"]["users"] = None
    content["features"]["user"] = []
    prepare(Config.model_validate(content), tmp_path / "other")
    assert PreparedData.load(tmp_path / "other").users.column_names == []


def test_another_format_version_says_what_to_do(prepared: PreparedData) -> None:
    path = prepared.directory / "manifest.json"
    write_json(path, prepared.manifest | {"format_version": 99}, checksummed=True)
    with pytest.raises(ArtifactError, match="has format version 99, expected 1; run `recall prepare` again"):
        PreparedData.load(prepared.directory)


def test_missing_data_names_the_step_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="run `recall prepare` first"):
        PreparedData.load(tmp_path / "data")
