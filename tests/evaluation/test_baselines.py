"""Popularity and item-kNN against dense scikit-learn, on toy clicks and on MovieLens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from recall.core.ragged import Ragged
from recall.evaluation import baselines
from recall.evaluation.baselines import ItemKnnScorer, PopularityScorer, item_similarities
from recall.evaluation.ranking import EvaluationSet, ranks

Ints = npt.NDArray[np.int64]

# Users 0, 1, 2 clicked items {0, 1}, {0, 1, 2}, {0}; user 0 clicked item 1 twice; nobody clicked item 3.
USERS = np.array([0, 0, 0, 1, 1, 1, 2])
ITEMS = np.array([0, 1, 1, 2, 0, 1, 0])


@pytest.fixture(scope="module")
def movielens_clicks(shared_data: Path) -> tuple[Ints, Ints]:
    """User and item numbers of the ratings of 4 and more."""
    ratings = np.loadtxt(shared_data / "ml-100k" / "ratings.tsv", skiprows=1, dtype=np.int64)
    clicks = ratings[ratings[:, 2] >= 4]
    return clicks[:, 0], clicks[:, 1] - 1


def dense_cosines(users: Ints, items: Ints, item_count: int) -> npt.NDArray[np.float64]:
    clicked = np.zeros((users.max() + 1, item_count))
    clicked[users, items] = 1
    cosines: npt.NDArray[np.float64] = cosine_similarity(clicked.T)
    np.fill_diagonal(cosines, 0)
    return cosines


def test_popularity_orders_items_by_training_clicks_for_every_user() -> None:
    scores = PopularityScorer(np.array([3, 0, 10, 3])).scores(4, 6)
    assert scores.dtype == np.float32
    assert scores.shape == (2, 4)
    assert (scores[0] == scores[1]).all()
    assert scores[0, 2] > scores[0, 0] == scores[0, 3] > scores[0, 1]


def test_popularity_tells_apart_counts_that_single_precision_cannot() -> None:
    many = 1 << 25
    scores = PopularityScorer(np.array([many, many + 1])).scores(0, 1)[0]
    assert scores[1] > scores[0]


def test_similarity_is_the_cosine_over_users() -> None:
    similarities = item_similarities(USERS, ITEMS, item_count=4).toarray()
    # Items 0, 1, 2 have 3, 2 and 1 users; 0 and 1 share two, the other pairs one each.
    a, b, c = 2 / np.sqrt(3 * 2), 1 / np.sqrt(3 * 1), 1 / np.sqrt(2 * 1)
    np.testing.assert_allclose(similarities, [[0, a, b, 0], [a, 0, c, 0], [b, c, 0, 0], [0, 0, 0, 0]], rtol=1e-6)


def test_score_is_the_sum_of_similarities_to_the_history() -> None:
    similarities = item_similarities(USERS, ITEMS, item_count=4)
    scores = ItemKnnScorer(similarities, Ragged.from_lists([[0, 2], [], [1, 1], [3]])).scores(0, 4)
    dense = similarities.toarray()
    np.testing.assert_allclose(scores, [dense[0] + dense[2], [0] * 4, dense[1], [0] * 4], rtol=1e-6)
    assert scores.dtype == np.float32


def test_no_training_clicks_make_every_score_zero() -> None:
    similarities = item_similarities(np.array([], np.int64), np.array([], np.int64), item_count=3)
    assert not ItemKnnScorer(similarities, Ragged.from_lists([[0, 1]])).scores(0, 1).any()


def test_similarities_equal_dense_cosines_on_movielens(movielens_clicks: tuple[Ints, Ints]) -> None:
    users, items = movielens_clicks
    similarities = item_similarities(users, items, item_count=1682, neighbours=1682)
    np.testing.assert_allclose(similarities.toarray(), dense_cosines(users, items, 1682), atol=1e-6)


def test_the_most_similar_items_are_kept_on_movielens(movielens_clicks: tuple[Ints, Ints]) -> None:
    users, items = movielens_clicks
    kept = item_similarities(users, items, item_count=1682, neighbours=50).toarray()
    dense = dense_cosines(users, items, 1682)
    assert ((kept > 0).sum(axis=1) == np.minimum((dense > 0).sum(axis=1), 50)).all()
    strongest = -np.sort(-dense, axis=1)[:, :50]
    np.testing.assert_allclose(-np.sort(-kept, axis=1)[:, :50], strongest, atol=1e-6)


def test_equally_similar_items_are_kept_by_row() -> None:
    # One user clicked items 0 to 5: all pairs are equally similar.
    kept = item_similarities(np.zeros(6, np.int64), np.arange(6), item_count=6, neighbours=2).toarray()
    assert [np.flatnonzero(row).tolist() for row in kept] == [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1], [0, 1]]


def test_blocks_and_order_of_the_clicks_do_not_change_similarities(
    movielens_clicks: tuple[Ints, Ints], monkeypatch: pytest.MonkeyPatch
) -> None:
    users, items = movielens_clicks
    whole = item_similarities(users, items, item_count=1682)
    monkeypatch.setattr(baselines, "_BLOCK_ENTRIES", 5_000)
    order = np.random.default_rng(0).permutation(len(users))
    blocks = item_similarities(users[order], items[order], item_count=1682)
    np.testing.assert_array_equal(blocks.toarray(), whole.toarray())


def test_item_knn_finds_held_out_clicks_of_movielens_better_than_popularity(
    movielens_clicks: tuple[Ints, Ints],
) -> None:
    users, items = movielens_clicks
    held_out = users % 5 == 0  # the last click in the file of every fifth user is asked for, the rest of it is known
    lists = [items[users == user] for user in np.unique(users[held_out])]
    known = Ragged.from_lists([clicks[:-1].tolist() for clicks in lists])
    targets = np.array([clicks[-1] for clicks in lists], np.int32)
    examples = EvaluationSet(np.unique(users[held_out]), targets, history=known, seen=known)
    train_users, train_items = users[~held_out], items[~held_out]
    similarities = item_similarities(train_users, train_items, item_count=1682)
    knn = ranks(ItemKnnScorer(similarities, examples.history), examples)
    popularity = ranks(PopularityScorer(np.bincount(train_items, minlength=1682)), examples)
    assert np.mean(knn <= 50) > np.mean(popularity <= 50)
