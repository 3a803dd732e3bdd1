"""The example experiments: each validates, keeps content and ids apart, and fits the real files it points to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from recall.config.experiment import Config, load_config
from recall.config.features import Feature
from recall.data.catalogue import check_files, read_items, read_users
from recall.data.datasets import simulate

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ON_REAL_DATA = ("kuairand", "movielens", "amazon_beauty")
# `test_public_logs.py` prepares them from made-up files.
CONVERTED = ("ebnerd", "kuairand_1k", "microlens", "mind", "vk_lsvd", "yambda")
ALL = ("demo", *ON_REAL_DATA, *CONVERTED)


def load(name: str, *overrides: str) -> Config:
    return load_config(EXAMPLES / f"{name}.yaml", overrides)


def names(features: Iterable[Feature]) -> set[str]:
    return {feature.name for feature in features}


def test_these_and_no_other_examples_exist() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.yaml")} == set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_every_example_validates_as_a_gated_model_with_ids_and_content_apart(name: str) -> None:
    config = load(name)
    assert config.model.structure == "gated"
    assert not config.features.allow_mixed
    assert {feature.type for feature in config.features.behaviour} == {"id"}
    assert "id" not in {feature.type for feature in config.features.meta}
    assert config.evaluation.k == (5, 10, 20, 50, 100)


@pytest.mark.parametrize("name", ALL)
def test_every_example_says_where_its_data_comes_from(name: str) -> None:
    comments = [line for line in (EXAMPLES / f"{name}.yaml").read_text().splitlines() if line.startswith("#")]
    source = "recall simulate --out runs/demo-data" if name == "demo" else "https://"
    assert any(source in line for line in comments)


@pytest.mark.parametrize("name", ON_REAL_DATA)
def test_every_column_an_example_names_is_in_the_real_files(name: str, shared_data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.yaml"
    copy.write_text((EXAMPLES / f"{name}.yaml").read_text().replace("../../shared/data", str(shared_data)))
    config = load_config(copy)
    check_files(config)
    items, users = read_items(config), read_users(config)
    # Rows as data/README.md of the shared data counts them.
    assert len(items) == {"kuairand": 7583, "movielens": 1682, "amazon_beauty": 12101}[name]
    assert (users and len(users)) == {"kuairand": 27285, "movielens": 943, "amazon_beauty": None}[name]


def test_demo_reads_what_the_simulation_writes(tmp_path: Path) -> None:
    simulate(users=20, items=60, days=2, authors=5, exposures=400).write(tmp_path)
    sections = [f"data.{name}.path={tmp_path / name}.parquet" for name in ("events", "items", "users")]
    config = load("demo", *sections)
    check_files(config)
    items, users = read_items(config), read_users(config)
    assert len(items) == 60
    assert users is not None
    assert len(users) == 20


def test_demo_points_to_the_folder_that_make_demo_writes() -> None:
    assert Path(load("demo").data.events.path).resolve() == EXAMPLES.parent / "runs/demo-data/events.parquet"


def test_kuairand_keeps_what_was_measured_after_the_log_out_of_the_model() -> None:
    config = load("kuairand")
    assert {"visible_status", "upload_dt"}.isdisjoint(names(config.features.item))
    assert names(config.features.behaviour) == {"video_id", "author_id", "music_id"}
    assert config.data.events.click is not None
    assert config.data.events.click.column == "is_click"


def test_movielens_counts_ratings_of_four_and_five_as_clicks_and_clusters_its_text() -> None:
    config = load("movielens")
    assert config.data.events.click is not None
    assert (config.data.events.click.column, config.data.events.click.at_least) == ("rating", 4)
    assert config.data.events.time_unit == "s"
    [text] = [feature for feature in config.features.meta if feature.type == "embedding"]
    assert text.uses_vector
    assert len(text.cluster_names) == 2


def test_amazon_beauty_follows_the_leave_one_out_protocol_over_ordered_histories() -> None:
    config = load("amazon_beauty")
    assert config.data.split.by == "last_click"
    assert config.data.events.time_unit == "order"
    assert config.data.layout == "user"
    assert config.model.history_encoder == "transformer"
    assert config.evaluation.exclude_seen


@pytest.mark.parametrize("name", CONVERTED)
def test_converted_sets_are_read_where_the_command_of_the_example_writes_them(name: str) -> None:
    text = (EXAMPLES / f"{name}.yaml").read_text()
    assert re.search(rf"recall dataset {name.removesuffix('_1k')} \S+ --out runs/{name}-data", text)
    folder = EXAMPLES.parent / "runs" / f"{name}-data"
    config = load(name)
    paths = [
        Path(config.data.events.path),
        config.data.items.path,
        *([config.data.users.path] if config.data.users else []),
    ]
    paths += [Path(history.path) for history in config.data.histories.values() if history.path]
    assert {path.resolve().parent for path in paths} == {folder}


@pytest.mark.parametrize(
    ("name", "by", "days"),
    [("ebnerd", "time", (1, 7)), ("mind", "time", (1, 1)), ("yambda", "time", (1, 1)), ("vk_lsvd", "time", (7, 7)),
     ("kuairand_1k", "time", (2, 2)), ("microlens", "last_click", None)],
)  # fmt: skip
def test_converted_sets_follow_their_own_protocol(name: str, by: str, days: tuple[int, int] | None) -> None:
    config = load(name)
    split = config.data.split
    assert split.by == by
    if days:
        assert (split.validation, split.test) == tuple(day * 86_400_000 for day in days)
    assert config.evaluation.exclude_seen == (name != "yambda")  # a track is heard again
