"""The content space keeps the cosines of centred content, of old items and new ones alike."""

from __future__ import annotations

import numpy as np
import pytest

from recall.core.ragged import Ragged
from recall.data.features.table_encoder import EncodedColumn
from recall.evaluation.content_knn import content_knn
from recall.model.content_term.space import content_space

COLUMNS = [
    EncodedColumn("text", "text", "meta", "vector", 6),
    EncodedColumn("text_cluster_0", "text", "meta", "code", 4),
    EncodedColumn("tags", "tags", "meta", "codes", 9),
    EncodedColumn("length", "length", "meta", "number", 1),
    EncodedColumn("author", "author", "behaviour", "code", 5),
]


def features_of(count: int, *, seed: int) -> dict[str, np.ndarray]:
    """Draw items with a vector and up to two tags each; every seventh has neither."""
    random = np.random.default_rng(seed)
    text = np.concatenate([random.normal(1, 1, (count, 6)), np.zeros((count, 1))], axis=1).astype(np.float32)
    tags = np.stack([random.integers(2, 5, count), random.integers(5, 9, count)], axis=1).astype(np.int32)
    tags[random.random(count) < 0.3, 1] = 0
    text[::7], tags[::7] = [0, 0, 0, 0, 0, 0, 1], 0
    clusters = random.integers(2, 4, count).astype(np.int32)
    return {"text": text, "tags": tags, "text_cluster_0": clusters, "length": text[:, :2], "author": clusters}


def by_hand(features: dict[str, np.ndarray]) -> np.ndarray:
    """Centre unit blocks of vectors and of tags weighted by rarity, and scale them to unit length."""
    count = len(features["text"])
    hot = np.zeros((count, 9))
    for item, codes in enumerate(features["tags"]):
        hot[item, codes[codes >= 2]] = 1
    hot *= np.log((count + 1) / (hot.sum(axis=0) + 1))
    text = features["text"][:, :6].astype(float)
    blocks = [part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-9) for part in (text, hot)]
    joined = np.concatenate(blocks, axis=1)
    has_content = joined.any(axis=1)
    joined[has_content] -= joined[has_content].mean(axis=0)
    return joined / np.maximum(np.linalg.norm(joined, axis=1, keepdims=True), 1e-9)


def test_with_all_dimensions_cosines_are_of_the_centred_content() -> None:
    features = features_of(60, seed=1)
    space = content_space(COLUMNS, features, dim=64)
    assert space is not None
    found, expected = space.vectors(features), by_hand(features)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-5)
    assert not found[::7].any()  # without content


def test_fewer_dimensions_keep_what_differs_most() -> None:
    features = features_of(200, seed=2)
    exact, short = content_space(COLUMNS, features, dim=64), content_space(COLUMNS, features, dim=10)
    assert exact is not None
    assert short is not None
    assert short.dim == 10 < exact.dim
    own, other = (space.vectors(features) for space in (exact, short))
    assert np.abs(own @ own.T - other @ other.T).mean() < 0.05


def test_an_iteration_finds_the_directions_of_the_whole_decomposition() -> None:
    # Values of more than four times the dimensions are decomposed by an iteration.
    features = features_of(300, seed=3)
    short, exact = content_space(COLUMNS, features, dim=3), content_space(COLUMNS, features, dim=15)
    assert short is not None
    assert exact is not None
    for name, kernel in short.kernels.items():
        np.testing.assert_allclose(kernel, exact.kernels[name][:, :3], atol=1e-4)


def test_a_new_item_lies_where_its_twin_lies() -> None:
    features = features_of(80, seed=4)
    space = content_space(COLUMNS, features, dim=8)
    assert space is not None
    twins = {name: values[[3, 5]] for name, values in features.items()}
    np.testing.assert_allclose(space.vectors(twins), space.vectors(features)[[3, 5]], atol=1e-6)


def test_items_without_content_have_no_space() -> None:
    features = features_of(20, seed=5)
    assert content_space(COLUMNS[3:], features, dim=8) is None  # numbers and ids say nothing
    one = {name: values[:2] for name, values in features.items()}  # of which the first has no content
    assert content_space(COLUMNS, one, dim=8) is None


@pytest.mark.parametrize("length", [1, 4])
def test_the_cosine_to_the_mean_finds_new_items_at_least_as_the_plain_cosine_does(length: int) -> None:
    # Users keep to a topic. Vectors of topics share a large common part, as vectors of sentence encoders do; tags name
    # the topic of half the items.
    random = np.random.default_rng(6)
    topic = random.integers(0, 7, 600)
    text = 3 + random.normal(size=(7, 6))[topic] + 0.7 * random.normal(size=(600, 6))
    tags = np.where(random.random(600) < 0.5, topic % 7 + 2, 0)[:, np.newaxis]
    features = {
        **features_of(600, seed=6),
        "text": np.concatenate([text, np.zeros((600, 1))], axis=1).astype(np.float32),
        "tags": tags.astype(np.int32),
    }
    space = content_space(COLUMNS, features, dim=8)
    assert space is not None
    new = np.arange(600) >= 480
    history = [random.choice(np.flatnonzero((topic == topic[item]) & ~new), length) for item in np.flatnonzero(new)]
    clicks = Ragged.from_lengths(np.concatenate(history).astype(np.int64), np.full(new.sum(), length))
    unit = text / np.linalg.norm(text, axis=1, keepdims=True)
    recalled = []
    for vectors in (space.vectors(features), unit.astype(np.float32)):
        scores = content_knn(vectors, clicks).scores(0, new.sum())[:, new]
        recalled.append(((scores > np.diag(scores)[:, np.newaxis]).sum(axis=1) < 10).mean())
    assert recalled[0] >= recalled[1]
