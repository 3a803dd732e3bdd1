"""The simulated community has the properties that make it worth training on; all are measured on the tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pytest

from recall.core.errors import ConfigError
from recall.data.datasets import SimulatedDataset, simulate

Array = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def community() -> SimulatedDataset:
    return simulate()


def rows(data: SimulatedDataset, column: str) -> npt.NDArray[np.int64]:
    """Rows of the users or items that the events name."""
    table = data.items if column == "item_id" else data.users
    assert table is not None
    return pc.index_in(data.events[column], table[column].combine_chunks()).to_numpy()


def clicks(data: SimulatedDataset) -> npt.NDArray[np.bool_]:
    return data.events["is_click"].to_numpy() == 1


def in_test_period(data: SimulatedDataset) -> npt.NDArray[np.bool_]:
    times = data.events["time_ms"].to_numpy()
    return times >= np.sort(times)[int(0.9 * len(times))]


def gini(counts: Array) -> float:
    """Mean absolute difference between two values over twice the mean."""
    return float(np.abs(counts[:, None] - counts[None, :]).mean() / (2 * counts.mean()))


def held_out_correlation(inputs: Array, target: Array) -> float:
    """Correlation on the second half of the rows of a ridge regression fitted to the first half."""
    half = len(target) // 2
    with_one = np.column_stack([inputs, np.ones(len(inputs))])
    gram = with_one[:half].T @ with_one[:half] + np.eye(with_one.shape[1])
    weights = np.linalg.solve(gram, with_one[:half].T @ target[:half])
    return float(np.corrcoef(with_one[half:] @ weights, target[half:])[0, 1])


def test_sizes_are_those_asked_for(community: SimulatedDataset) -> None:
    assert community.users is not None
    assert (community.users.num_rows, community.items.num_rows) == (2_000, 3_000)
    assert community.events.num_rows == pytest.approx(300_000, rel=0.05)
    times = community.events["time_ms"].to_numpy()
    assert (np.diff(times) >= 0).all()
    assert (times.max() - times.min()) / 86_400_000 == pytest.approx(14, abs=0.2)


def test_click_through_rate_is_near_a_fifth(community: SimulatedDataset) -> None:
    assert 0.15 <= clicks(community).mean() <= 0.25


def test_clicks_follow_the_true_probabilities(community: SimulatedDataset) -> None:
    truth = community.truth.true_click_probability(rows(community, "user_id"), rows(community, "item_id"))
    clicked = clicks(community)
    for low, high in ((0.0, 0.1), (0.1, 0.3), (0.3, 0.6), (0.6, 1.0)):
        inside = (truth >= low) & (truth < high)
        # Five standard errors of a mean of at least thousands of clicks.
        margin = 5 * np.sqrt(0.25 / inside.sum())
        assert clicked[inside].mean() == pytest.approx(truth[inside].mean(), abs=margin)


def test_probabilities_of_pairs_agree_with_the_matrix_of_logits(community: SimulatedDataset) -> None:
    users, items = np.array([3, 3, 11]), np.array([0, 7, 2_999])
    logits = community.truth.click_logits(users)[np.arange(3), items]
    expected = 1 / (1 + np.exp(-logits.astype(np.float64)))
    np.testing.assert_allclose(community.truth.true_click_probability(users, items), expected, rtol=1e-4)


def test_text_vectors_tell_which_items_users_of_a_topic_click(community: SimulatedDataset) -> None:
    """Ridge from text vectors to the click rate among the fans of one topic, for several topics."""
    item, user, clicked = rows(community, "item_id"), rows(community, "user_id"), clicks(community)
    text = community.items["text"].to_pylist()
    correlations = []
    for topic in range(6):
        fans = community.truth.favourite[user] == topic
        shown = np.bincount(item[fans], minlength=len(text))
        rate = np.bincount(item[fans], weights=clicked[fans], minlength=len(text)) / np.maximum(shown, 1)
        usable = np.array([i for i in range(len(text)) if text[i] is not None and shown[i] >= 4])
        shuffled = np.random.default_rng(0).permutation(usable)
        correlations.append(held_out_correlation(np.array([text[i] for i in shuffled]), rate[shuffled]))
    # 0 by chance, with a standard error below 0.1 for each topic.
    assert np.mean(correlations) > 0.2


def test_content_alone_does_not_explain_clicks_and_the_hidden_part_matters(community: SimulatedDataset) -> None:
    truth, rng = community.truth, np.random.default_rng(0)
    user, item = rng.integers(2_000, size=50_000), rng.integers(3_000, size=50_000)
    probability = truth.true_click_probability(user, item)
    logit = np.log(probability / (1 - probability)).astype(np.float64)
    match = np.einsum("pd,pd->p", truth.interests[user], truth.content[item])
    explained = np.corrcoef(match, logit)[0, 1] ** 2
    assert 0.25 < explained < 0.75


def test_hidden_part_shows_in_neither_modality(community: SimulatedDataset) -> None:
    quality = community.truth.quality.astype(np.float64)
    for name in ("text", "image"):
        vectors = community.items[name].to_pylist()
        usable = np.random.default_rng(0).permutation([i for i, vector in enumerate(vectors) if vector is not None])
        assert abs(held_out_correlation(np.array([vectors[i] for i in usable]), quality[usable])) < 0.1


def test_exposures_are_concentrated_on_few_items(community: SimulatedDataset) -> None:
    exposures = np.bincount(rows(community, "item_id"), minlength=3_000).astype(np.float64)
    assert gini(exposures) > 0.4
    quality = community.truth.quality
    assert np.corrcoef(quality, exposures)[0, 1] > 0.2


def test_nobody_is_shown_an_item_twice_nor_before_its_publication(community: SimulatedDataset) -> None:
    user, item = rows(community, "user_id"), rows(community, "item_id")
    assert len(np.unique(user * 3_000 + item)) == len(user)
    assert (community.events["time_ms"].to_numpy() >= community.items["published_ms"].to_numpy()[item]).all()


def test_items_that_nobody_saw_before_get_a_tenth_of_the_clicks_of_the_test_period(community: SimulatedDataset) -> None:
    item, test = rows(community, "item_id"), in_test_period(community)
    before = np.bincount(item[~test], minlength=3_000)
    cold = before[item[test & clicks(community)]] == 0
    assert 0.08 <= cold.mean() <= 0.16
    times = community.events["time_ms"].to_numpy()
    assert (community.items["published_ms"].to_numpy() >= times[test].min()).sum() > 100


def test_some_vectors_are_missing_and_the_others_have_32_numbers(community: SimulatedDataset) -> None:
    for name, share in (("text", 0.05), ("image", 0.15)):
        lengths = pc.list_value_length(community.items[name])
        assert lengths.null_count / 3_000 == pytest.approx(share, abs=0.03)
        assert pc.unique(lengths.drop_null()).to_pylist() == [32]


def test_tables_are_readable(community: SimulatedDataset) -> None:
    first = community.items.slice(0, 1).to_pylist()[0]
    assert first["title"].startswith(first["category"] + ": ")
    assert " #1 by " in first["title"]
    assert first["tags"]
    assert pc.min(community.items["duration_s"]).as_py() > 0
    assert community.users is not None
    assert set(community.users["activity"].to_pylist()) == {"low", "medium", "high"}


def test_profiles_hint_at_tastes_without_giving_them_away(community: SimulatedDataset) -> None:
    assert community.users is not None
    ages = community.users["age_band"].dictionary_encode().combine_chunks().indices.to_numpy()
    groups = community.truth.taste_group
    table = np.histogram2d(groups, ages, bins=(np.arange(9), np.arange(6)))[0]
    purity = table.max(axis=1).sum() / table.sum()
    # Half of the users get the age of their taste, and a fifth of the others by chance: 0.6.
    assert purity == pytest.approx(0.6, abs=0.05)


def small(seed: int) -> SimulatedDataset:
    return simulate(users=60, items=120, days=3, authors=12, topics=5, exposures=3_000, seed=seed)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    written = [small(seed).write(tmp_path / str(run)) for run, seed in enumerate([4, 4, 5])]
    first, again, other = ([path.read_bytes() for path in paths] for paths in written)
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_tiny_communities_run_even_when_users_have_seen_everything() -> None:
    data = simulate(users=2, items=3, days=2, authors=1, topics=1, exposures=500)
    pairs = list(zip(data.events["user_id"].to_pylist(), data.events["item_id"].to_pylist(), strict=True))
    assert len(pairs) == len(set(pairs)) <= 6


@pytest.mark.parametrize(
    ("argument", "problem"),
    [({"users": 0}, "users is 0"), ({"topics": 99}, "topics is 99; expected 1 to 20"), ({"ctr": 1.0}, "ctr is 1.0"),
     ({"text_missing": 2.0}, "text_missing is 2.0")],
)  # fmt: skip
def test_impossible_arguments_are_named(argument: dict[str, float], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        simulate(**argument)  # type: ignore[arg-type]
