"""EB-NeRD: impressions, histories and articles of a made-up bundle under the published names."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recall.core.errors import DataError
from recall.data.datasets import read_ebnerd
from recall.data.datasets.streams import whole
from tests.helpers.published_sets import ITEMS, USERS, publish_ebnerd


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ebnerd")
    publish_ebnerd(folder)
    return folder


def test_every_article_in_view_is_an_exposure_and_the_clicked_one_a_click(published: Path) -> None:
    expected = []
    for part in ("train", "validation"):
        for row in pq.read_table(published / part / "behaviors.parquet").to_pylist():
            time_ms = int(pd.Timestamp(row["impression_time"]).timestamp() * 1000)
            for article in row["article_ids_inview"]:
                clicked = article in row["article_ids_clicked"]
                read = row["next_read_time"] if clicked else None
                expected.append((row["user_id"], article, time_ms, int(clicked), row["impression_id"], read))
    columns = ["user_id", "article_id", "time_ms", "click", "impression_id", "next_read_time"]
    events = whole(read_ebnerd(published).events).select(columns).to_pylist()
    assert [tuple(row.values()) for row in events] == expected


def test_clicks_on_articles_out_of_view_are_counted(tmp_path: Path) -> None:
    publish_ebnerd(tmp_path)
    path = tmp_path / "train" / "behaviors.parquet"
    table = pq.read_table(path)
    clicked = [[1, *row] if place < 3 else row for place, row in enumerate(table["article_ids_clicked"].to_pylist())]
    at = table.column_names.index("article_ids_clicked")
    pq.write_table(table.set_column(at, "article_ids_clicked", pa.array(clicked, pa.list_(pa.int32()))), path)
    data = read_ebnerd(tmp_path)
    assert whole(data.events).num_rows == whole(read_ebnerd(tmp_path).events).num_rows
    assert dict(data.dropped) == {"clicked articles that were not in view": 3}


def test_articles_have_their_vectors_and_nothing_that_was_measured_later(published: Path) -> None:
    items = read_ebnerd(published).items
    given = pq.read_table(published / "Ekstra_Bladet_contrastive_vector" / "contrastive_vector.parquet").to_pylist()
    vectors = {row["article_id"]: row["contrastive_vector"] for row in given}
    assert items["contrastive_vector"].to_pylist() == [vectors.get(item) for item in items["article_id"].to_pylist()]
    assert items["contrastive_vector"].null_count == 1
    published_ms = pq.read_table(published / "articles.parquet")["published_time"].to_pandas().astype("int64") // 1000
    assert items["published_ms"].to_pylist() == published_ms.tolist()
    later = {"total_inviews", "total_pageviews", "total_read_time", "last_modified_time", "body"}
    assert later.isdisjoint(items.column_names)
    assert len(items) == ITEMS


def test_a_user_has_the_profile_of_the_first_impression(published: Path) -> None:
    users = read_ebnerd(published).users
    assert users is not None
    assert users["user_id"].to_pylist() == list(range(1, USERS + 1))
    assert users["postcode"].to_pylist() == [user % 5 for user in range(1, USERS + 1)]


def test_the_second_history_adds_what_comes_after_the_first(published: Path, tmp_path: Path) -> None:
    history = whole(read_ebnerd(published).extras["history"]).to_pandas()
    assert len(history) == 4 * USERS  # two clicks before each of both weeks
    assert not history.duplicated().any()
    publish_ebnerd(tmp_path)
    repeated = pq.read_table(tmp_path / "train" / "history.parquet")
    pq.write_table(repeated, tmp_path / "validation" / "history.parquet")
    assert whole(read_ebnerd(tmp_path).extras["history"]).num_rows == 2 * USERS


def test_what_is_not_there_is_one_clear_error(published: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected articles\.parquet of EB-NeRD; found nothing"):
        read_ebnerd(tmp_path)
    (tmp_path / "articles.parquet").write_bytes((published / "articles.parquet").read_bytes())
    with pytest.raises(DataError, match=r"expected behaviors\.parquet of EB-NeRD"):
        read_ebnerd(tmp_path)
