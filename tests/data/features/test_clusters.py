"""The tree of virtual clusters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.cluster import KMeans

from recall.data.features.clusters import HierarchicalKMeans


def _blobs(centres: int, per_centre: int, *, seed: int, dim: int = 8) -> tuple[npt.NDArray[np.float32], list[int]]:
    random = np.random.default_rng(seed)
    middles = random.normal(scale=10, size=(centres, dim))
    labels = np.repeat(np.arange(centres), per_centre)
    return (middles[labels] + random.normal(scale=0.1, size=(len(labels), dim))).astype(np.float32), labels.tolist()


@pytest.fixture(scope="module")
def vectors() -> npt.NDArray[np.float32]:
    return np.random.default_rng(5).normal(size=(900, 12)).astype(np.float32)


@pytest.fixture(scope="module")
def tree(vectors: npt.NDArray[np.float32]) -> HierarchicalKMeans:
    return HierarchicalKMeans.fit(vectors, (4, 16, 64), 1)


def test_ids_stay_within_the_total_of_their_level(tree: HierarchicalKMeans, vectors: npt.NDArray[np.float32]) -> None:
    nodes = tree.assign(vectors)
    assert nodes.shape == (900, 3)
    assert nodes.dtype == np.int32
    assert (nodes >= 0).all()
    assert (nodes < [4, 16, 64]).all()


def test_parent_of_a_node_is_the_cluster_one_level_up(
    tree: HierarchicalKMeans, vectors: npt.NDArray[np.float32]
) -> None:
    coarse, middle, fine = tree.assign(vectors).T
    np.testing.assert_array_equal(middle // 4, coarse)
    np.testing.assert_array_equal(fine // 4, middle)


def test_unseen_vector_goes_to_the_nearest_child_at_every_level(tree: HierarchicalKMeans) -> None:
    unseen = np.random.default_rng(6).normal(size=(50, 12)).astype(np.float32)
    for vector, path in zip(unseen, tree.assign(unseen), strict=True):
        candidates = range(4)
        for level, node in enumerate(path):
            distances = {child: np.linalg.norm(tree.centroids[level][child] - vector) for child in candidates}
            existing = {child: distance for child, distance in distances.items() if not np.isnan(distance)}
            assert node == min(existing, key=existing.__getitem__)
            candidates = range(4 * node, 4 * node + 4)


def test_well_separated_groups_become_clusters() -> None:
    points, labels = _blobs(6, 40, seed=0)
    nodes = HierarchicalKMeans.fit(points, (6,), 3).assign(points)[:, 0]
    assert len(set(zip(labels, nodes.tolist(), strict=True))) == 6


def test_fine_level_splits_groups_inside_their_coarse_cluster() -> None:
    left, _ = _blobs(3, 30, seed=1)
    right, _ = _blobs(3, 30, seed=2)
    points = np.concatenate([left - 200, right + 200])
    coarse, fine = HierarchicalKMeans.fit(points, (2, 6), 1).assign(points).T
    assert len(set(coarse[:90])) == len(set(coarse[90:])) == 1
    assert coarse[0] != coarse[-1]
    assert len(set(fine[:90])) == len(set(fine[90:])) == 3


def test_a_vector_alone_lands_where_it_lands_among_others(
    tree: HierarchicalKMeans, vectors: npt.NDArray[np.float32]
) -> None:
    together = tree.assign(vectors[:100])
    alone = np.concatenate([tree.assign(vectors[row : row + 1]) for row in range(100)])
    np.testing.assert_array_equal(alone, together)


def test_same_seed_gives_the_same_tree(vectors: npt.NDArray[np.float32], tree: HierarchicalKMeans) -> None:
    again = HierarchicalKMeans.fit(vectors, (4, 16, 64), 1)
    for level, other in zip(tree.centroids, again.centroids, strict=True):
        np.testing.assert_array_equal(level, other)


def test_no_vector_means_minus_one(tree: HierarchicalKMeans, vectors: npt.NDArray[np.float32]) -> None:
    some = vectors[:4].copy()
    some[1, 3] = np.nan
    nodes = tree.assign(some, present=np.array([True, True, False, True]))
    np.testing.assert_array_equal(nodes < 0, [[False] * 3, [True] * 3, [True] * 3, [False] * 3])


@pytest.mark.parametrize("distinct", [1, 2, 5])
def test_fewer_distinct_vectors_than_nodes_share_nodes(distinct: int) -> None:
    points = np.repeat(np.eye(distinct, 4 + distinct, dtype=np.float32), 20, axis=0)
    nodes = HierarchicalKMeans.fit(points, (8, 32), 0).assign(points)
    assert len({tuple(path) for path in nodes}) == distinct
    assert (nodes >= 0).all()


def test_a_single_vector_makes_a_tree() -> None:
    assert HierarchicalKMeans.fit(np.ones((1, 3), np.float32), (8, 32), 0).assign(
        np.ones((1, 3), np.float32)
    ).tolist() == [[0, 0]]


def test_no_vectors_and_levels_that_do_not_refine_are_refused() -> None:
    with pytest.raises(ValueError, match="0 vectors"):
        HierarchicalKMeans.fit(np.zeros((0, 3), np.float32), (2,), 0)
    with pytest.raises(ValueError, match="multiple"):
        HierarchicalKMeans.fit(np.ones((9, 3), np.float32), (2, 5), 0)


def test_another_dimension_is_refused(tree: HierarchicalKMeans) -> None:
    with pytest.raises(ValueError, match="12 numbers"):
        tree.assign(np.zeros((2, 5), np.float32))


def test_saved_tree_assigns_as_before(
    tree: HierarchicalKMeans, vectors: npt.NDArray[np.float32], tmp_path: Path
) -> None:
    tree.save(tmp_path / "tree.npz")
    loaded = HierarchicalKMeans.load(tmp_path / "tree.npz")
    assert loaded.levels == tree.levels
    np.testing.assert_array_equal(loaded.assign(vectors), tree.assign(vectors))


def test_leaves_of_movie_texts_are_nearly_as_tight_as_flat_k_means(shared_data: Path) -> None:
    texts = np.load(shared_data / "ml-100k" / "text_embedding.npy").astype(np.float32)
    tree = HierarchicalKMeans.fit(texts, (8, 64), 1)
    spread = ((texts - tree.centroids[1][tree.assign(texts)[:, 1]]) ** 2).sum()
    flat = KMeans(64, n_init=1, random_state=1).fit(texts).inertia_
    assert flat < spread * 1.01
    assert spread < 1.05 * flat
