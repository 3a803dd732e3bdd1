"""MovieLens in its three published layouts; the lines are made up, their form is the published one."""

from __future__ import annotations

from pathlib import Path

import pytest

from recall.core.errors import DataError
from recall.data.datasets import read_movielens


def flags(*genres: int) -> str:
    return "|".join("1" if genre in genres else "0" for genre in range(19))


@pytest.fixture
def ml_100k(tmp_path: Path) -> Path:
    (tmp_path / "u.data").write_text("196\t242\t3\t881250949\n186\t302\t5\t891717742\n")
    # Genre 3 is Animation, 5 Comedy, 0 unknown (order of u.genre).
    lines = [
        f"242|Caf\xe9 Noir (1996)|24-Jan-1997||http://us.imdb.com/M/title-exact?Cafe%20(1996)|{flags(3, 5)}",
        f"302|unknown|||  |{flags(0)}",
    ]
    (tmp_path / "u.item").write_bytes(("\n".join(lines) + "\n").encode("latin-1"))
    (tmp_path / "u.user").write_text("186|39|F|executive|00000\n196|49|M|writer|55105\n")
    return tmp_path


@pytest.fixture
def ml_1m(tmp_path: Path) -> Path:
    (tmp_path / "ratings.dat").write_text("1::1193::5::978300760\n2::661::3::978302109\n")
    films = "661::James: a Peach, (1996)::Animation|Children's\n1193::L\xe9on (1994)::Drama\n"
    (tmp_path / "movies.dat").write_bytes(films.encode("latin-1"))
    (tmp_path / "users.dat").write_text("1::F::1::10::48067\n2::M::56::16::02139\n")
    return tmp_path


@pytest.fixture
def ml_25m(tmp_path: Path) -> Path:
    (tmp_path / "ratings.csv").write_text(
        "userId,movieId,rating,timestamp\n1,296,5.0,1147880044\n1,306,3.5,1147868817\n"
    )
    films = 'movieId,title,genres\n296,"President, The (1995)",Comedy|Drama\n306,"""Babylon 5""",(no genres listed)\n'
    (tmp_path / "movies.csv").write_text(films)
    tags = "userId,movieId,tag,timestamp\n3,296,Funny,1439472355\n4,296,funny,1573944252\n4,296,absurd,1573943604\n"
    (tmp_path / "tags.csv").write_text(tags)
    return tmp_path


def test_100k_ratings_films_and_users_are_read_as_published(ml_100k: Path) -> None:
    data = read_movielens(ml_100k)
    assert data.events.to_pylist() == [
        {"user_id": 196, "item_id": 242, "rating": 3.0, "timestamp": 881250949},
        {"user_id": 186, "item_id": 302, "rating": 5.0, "timestamp": 891717742},
    ]
    assert data.items.to_pylist() == [
        {"item_id": 242, "title": "Café Noir (1996)", "year": 1996, "release_date": "24-Jan-1997",
         "genres": "Animation|Comedy"},
        {"item_id": 302, "title": "unknown", "year": None, "release_date": None, "genres": None},
    ]  # fmt: skip
    assert data.users is not None
    assert data.users.to_pylist()[0] == {
        "user_id": 186, "age": 39, "gender": "F", "occupation": "executive", "zip_code": "00000",
    }  # fmt: skip


def test_1m_separators_of_two_colons_leave_single_colons_and_accents_alone(ml_1m: Path) -> None:
    data = read_movielens(ml_1m)
    assert data.items["title"].to_pylist() == ["James: a Peach, (1996)", "Léon (1994)"]
    assert data.items["genres"].to_pylist() == ["Animation|Children's", "Drama"]
    assert data.events["timestamp"].to_pylist() == [978300760, 978302109]
    assert data.users is not None
    assert data.users.to_pylist()[1] == {
        "user_id": 2, "age": 56, "gender": "M", "occupation": "16", "zip_code": "02139",
    }  # fmt: skip


def test_csv_layout_keeps_half_stars_and_quoted_titles(ml_25m: Path) -> None:
    data = read_movielens(ml_25m)
    assert data.events["rating"].to_pylist() == [5.0, 3.5]
    assert data.events.column_names == ["user_id", "item_id", "rating", "timestamp"]
    assert data.items.to_pylist() == [
        {"item_id": 296, "title": "President, The (1995)", "year": 1995, "genres": "Comedy|Drama"},
        {"item_id": 306, "title": '"Babylon 5"', "year": None, "genres": None},
    ]
    assert data.users is None


def test_tags_are_lower_case_the_most_frequent_first(ml_25m: Path) -> None:
    assert read_movielens(ml_25m, tags=True).items["tags"].to_pylist() == [["funny", "absurd"], None]


@pytest.mark.parametrize("layout", ["ml_100k", "ml_1m", "ml_25m"])
def test_every_layout_gives_the_columns_that_the_example_experiment_names(
    layout: str, request: pytest.FixtureRequest
) -> None:
    data = read_movielens(request.getfixturevalue(layout))
    assert data.events.column_names == ["user_id", "item_id", "rating", "timestamp"]
    assert {"item_id", "title", "year", "genres"} <= set(data.items.column_names)
    if data.users is not None:
        assert data.users.column_names == ["user_id", "age", "gender", "occupation", "zip_code"]


def test_another_folder_is_an_error_that_names_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DataError, match=r"u\.data .*ratings\.dat .*ratings\.csv .*found notes\.txt"):
        read_movielens(tmp_path)
    with pytest.raises(DataError, match="found nothing there"):
        read_movielens(tmp_path / "missing")


def test_a_missing_table_is_named(ml_1m: Path) -> None:
    (ml_1m / "users.dat").unlink()
    with pytest.raises(DataError, match=r"expected users\.dat of MovieLens 1m"):
        read_movielens(ml_1m)


@pytest.mark.parametrize(
    ("line", "problem"),
    [("3::1193::5\n", "line 3: expected 4 columns"), ("3::1193::good::1\n", "line 3: rating is 'good'"),
     ("3::1193::5::\n", "line 3: timestamp is nothing")],
)  # fmt: skip
def test_a_malformed_rating_is_named_with_its_line(ml_1m: Path, line: str, problem: str) -> None:
    with (ml_1m / "ratings.dat").open("a") as stream:
        stream.write(line)
    with pytest.raises(DataError, match=rf"ratings\.dat, {problem}"):
        read_movielens(ml_1m)
