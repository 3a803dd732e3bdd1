"""MIND: the shared sample, checked line by line in plain Python, and malformed files."""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path

import pytest

from recall.core.errors import DataError
from recall.data.datasets import read_mind, stream_mind

NEWS = 'N{n}\tnews\tus\tA "quoted" title\t\thttps://x\t[{{"WikidataId": "Q5"}}, {{"WikidataId": "Q5"}}]\t[]\n'


def write(folder: Path, *behaviors: str, news: str = NEWS.format(n=1) + NEWS.format(n=2)) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "behaviors.tsv").write_text("".join(line + "\n" for line in behaviors))
    (folder / "news.tsv").write_text(news)
    return folder


def test_sample_gives_one_event_per_item_of_each_impression(shared_data: Path) -> None:
    expected = []
    for line in (shared_data / "mind-sample" / "behaviors.tsv").read_text().splitlines():
        impression, user, time, _, shown = line.split("\t")
        moment = datetime.datetime.strptime(time, "%m/%d/%Y %I:%M:%S %p").replace(tzinfo=datetime.timezone.utc)
        for item in shown.split(" "):
            news, click = item.split("-")
            expected.append((user, news, int(moment.timestamp()) * 1000, int(click), impression))
    events = read_mind(shared_data / "mind-sample").events
    assert list(zip(*(column.to_pylist() for column in events.columns), strict=True)) == expected
    assert events.column_names == ["user_id", "news_id", "time_ms", "click", "impression_id"]


def test_sample_news_carry_their_entities_as_tags(shared_data: Path) -> None:
    items = read_mind(shared_data / "mind-sample").items
    first = items.slice(0, 1).to_pylist()[0]
    assert items.num_rows == 2_000
    assert (first["news_id"], first["category"], first["subcategory"]) == ("N34700", "news", "newspolitics")
    assert first["title_entities"] == ["Q165972"]
    assert "Q664609" in first["abstract_entities"]


def test_quotes_are_text_and_empty_fields_and_repeated_entities_are_sound(tmp_path: Path) -> None:
    items = read_mind(write(tmp_path, "1\tU1\t11/9/2019 6:42:51 PM\t\tN1-1")).items.to_pylist()
    assert items[0]["title"] == 'A "quoted" title'
    assert items[0]["abstract"] is None
    assert items[0]["title_entities"] == ["Q5"]
    assert items[0]["abstract_entities"] == []


def test_history_is_that_of_the_earliest_impression_in_order(tmp_path: Path) -> None:
    late, early = "11/12/2019 2:14:46 PM", "11/12/2019 2:14:46 AM"
    folder = write(tmp_path, f"1\tU1\t{late}\tN3 N4 N5\tN1-0", f"2\tU2\t{late}\t\tN1-0", f"3\tU1\t{early}\tN3 N4\tN2-1")
    history = read_mind(folder).extras["history"].to_pylist()
    assert history == [
        {"user_id": "U1", "position": 0, "news_id": "N3"},
        {"user_id": "U1", "position": 1, "news_id": "N4"},
    ]


def test_history_as_clicks_comes_before_the_log_in_order(tmp_path: Path) -> None:
    noon = 1_573_560_000_000  # 2019-11-12T12:00:00Z
    folder = write(tmp_path, "1\tU1\t11/12/2019 12:00:00 PM\tN3 N4\tN1-0 N2-1")
    events = read_mind(folder, history_as_clicks=True).events.select(["news_id", "time_ms", "click"]).to_pylist()
    assert [tuple(event.values()) for event in events] == [
        ("N3", noon - 2000, 1),
        ("N4", noon - 1000, 1),
        ("N1", noon, 0),
        ("N2", noon, 1),
    ]


def test_train_and_dev_folders_are_read_together_and_news_of_both_once(tmp_path: Path) -> None:
    write(tmp_path / "MINDsmall_dev", "1\tU1\t11/15/2019 8:00:00 AM\t\tN2-1", news=NEWS.format(n=2) + NEWS.format(n=3))
    write(tmp_path / "MINDsmall_train", "1\tU1\t11/14/2019 8:00:00 AM\t\tN1-1 N2-0")
    data = read_mind(tmp_path)
    assert data.events.num_rows == 3
    assert sorted(data.items["news_id"].to_pylist()) == ["N1", "N2", "N3"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("2\tU1\tyesterday\t\tN1-1", "time is 'yesterday'; expected one like '11/12/2019 2:14:46 PM'"),
        ("2\tU1\t11/9/2019 6:42:51 PM\t\tN1 N2", "impressions is 'N1 N2'; .*test set has no clicks"),
        ("2\tU1\t11/9/2019 6:42:51 PM\t\t", "impressions is 'None'"),
        ("2\t\t11/9/2019 6:42:51 PM\t\tN1-1", "user_id is 'None'"),
        ("2\tU1\t11/9/2019 6:42:51 PM\tN1-1", "expected 5 columns"),
    ],
)
def test_a_malformed_impression_is_named_with_its_line(tmp_path: Path, line: str, problem: str) -> None:
    folder = write(tmp_path, "1\tU1\t11/9/2019 6:42:51 PM\tN1\tN1-1", line)
    with pytest.raises(DataError, match=rf"behaviors\.tsv, line 2: {problem}"):
        read_mind(folder)


def test_malformed_entities_are_named_with_their_line(tmp_path: Path) -> None:
    folder = write(tmp_path, "1\tU1\t11/9/2019 6:42:51 PM\t\tN1-1", news="N1\ta\tb\tc\td\te\t[\t[]\n")
    with pytest.raises(DataError, match=r"news\.tsv, line 1: cannot read the entities"):
        read_mind(folder)


def test_a_folder_without_the_files_says_what_was_expected(tmp_path: Path, shared_data: Path) -> None:
    with pytest.raises(DataError, match=r"expected behaviors\.tsv and news\.tsv of MIND"):
        read_mind(tmp_path)
    shutil.copy(shared_data / "mind-sample" / "behaviors.tsv", tmp_path)
    with pytest.raises(DataError, match=r"expected news\.tsv of MIND"):
        read_mind(tmp_path)


def test_a_test_set_beside_other_parts_gives_its_news_and_is_counted(tmp_path: Path) -> None:
    write(tmp_path / "MINDlarge_train", "1\tU1\t11/9/2019 6:42:51 PM\t\tN1-1", news=NEWS.format(n=1))
    write(tmp_path / "MINDlarge_test", "1\tU1\t11/16/2019 6:42:51 PM\tN1\tN1 N2", news=NEWS.format(n=2))
    data = read_mind(tmp_path)
    assert data.events["news_id"].to_pylist() == ["N1"]
    assert data.items["news_id"].to_pylist() == ["N2", "N1"]
    assert sum(data.dropped.values()) == 1


def test_impressions_are_taken_apart_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"{n}\tU{n}\t11/9/2019 6:42:51 PM\t\tN{n}-1 N{n + 1}-0" for n in range(1, 6)]
    expected = read_mind(write(tmp_path, *lines)).events.to_pylist()
    monkeypatch.setattr("recall.data.datasets.mind._IMPRESSIONS", 2)
    parts = list(stream_mind(tmp_path).events())
    assert [len(part) for part in parts] == [4, 4, 2]
    assert [row for part in parts for row in part.to_pylist()] == expected
    assert [row["news_id"] for row in expected] == ["N1", "N2", "N2", "N3", "N3", "N4", "N4", "N5", "N5", "N6"]
