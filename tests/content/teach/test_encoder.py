"""What the content encoder reads: modalities and frames, tags and their graph, clicks; what is missing is masked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from recall.content.teach.crowd import ClickPairs, click_pairs
from recall.content.teach.encoder import ContentEncoder, ModalityShape, inputs_of
from recall.content.teach.modalities import Modality, group_modalities, side_by_side
from recall.content.teach.tags import tag_graph, tag_overlap, tag_targets
from recall.content.vectors import ContentVectors
from recall.core.errors import DataError
from recall.data.features.embeddings import vector_array
from recall.data.prepared import PreparedData
from tests.conftest import Experiment


def vectors(name: str, values: Any) -> ContentVectors:
    return ContentVectors.checked(name, vector_array(np.asarray(values, np.float32)))


def noise(items: int, width: int, *, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(items, width)).astype(np.float32)


def encoder_for(modalities: tuple[Modality, ...], *, dim: int = 8) -> ContentEncoder:
    shapes = [ModalityShape(one.name, one.features, one.width) for one in modalities]
    encoder = ContentEncoder(shapes, dim=dim, hidden=(5,))
    rng = np.random.default_rng(1)
    encoder.set_weights([rng.normal(size=weight.shape) for weight in encoder.get_weights()])
    return encoder


# Modalities and frames


def test_embeddings_of_one_modality_are_its_frames() -> None:
    found = group_modalities(
        [vectors("cover", noise(3, 4)), vectors("text", noise(3, 2)), vectors("still", noise(3, 4, seed=1))],
        {"cover": "image", "still": "image", "text": "text"},
    )
    assert [(one.name, one.features, one.frames.shape) for one in found] == [
        ("image", ("cover", "still"), (3, 2, 4)),
        ("text", ("text",), (3, 1, 2)),
    ]


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ([], "no base vectors to start from"),
        ([vectors("a", noise(3, 4)), vectors("b", noise(4, 4))], "differing numbers of items (a has 3, b has 4)"),
        (
            [vectors("a", noise(3, 4)), vectors("b", noise(3, 5))],
            "joins embeddings of differing width (a has 4, b has 5)",
        ),
    ],
)
def test_base_vectors_that_do_not_fit_together_are_one_clear_line(sets: list[ContentVectors], message: str) -> None:
    with pytest.raises(DataError) as error:
        group_modalities(sets, {"a": "image", "b": "image"})
    assert message in str(error.value)


def test_what_is_missing_is_masked_and_never_read_as_zeros() -> None:
    text, image = noise(4, 4), noise(4, 3, seed=1)
    image[1] = text[2] = image[2] = 0  # item 1 has no image, item 2 nothing at all
    both = group_modalities([vectors("t", text), vectors("i", image)], {"t": "text", "i": "image"})
    encoder = encoder_for(both)
    found = encoder(inputs_of(both, np.arange(4)))
    assert found.present.numpy().tolist() == [[True, True], [True, False], [False, False], [True, True]]
    states = found.modalities.numpy()
    weights = np.exp(encoder.importance.numpy())
    mean = (weights[:, np.newaxis] * states[0]).sum(axis=0)
    np.testing.assert_allclose(found.item[0], mean / np.linalg.norm(mean), atol=1e-5)
    np.testing.assert_allclose(found.item[1], states[1, 0], atol=1e-5)  # the text alone says it
    assert not np.any(found.item[2])


def test_frames_share_a_tower_and_are_averaged_over_those_that_are_there() -> None:
    first, second = noise(3, 4), noise(3, 4, seed=1)
    second[1] = 0
    frames = group_modalities([vectors("a", first), vectors("b", second)], {"a": "image", "b": "image"})
    encoder = encoder_for(frames)
    swapped = group_modalities([vectors("b", second), vectors("a", first)], {"a": "image", "b": "image"})
    np.testing.assert_allclose(encoder.vectors(frames), encoder.vectors(swapped), atol=1e-5)
    alone = group_modalities([vectors("a", first)], {"a": "image"})
    one = ContentEncoder([ModalityShape("image", ("a",), 4)], dim=8, hidden=(5,))
    one.set_weights(encoder.get_weights())
    np.testing.assert_allclose(encoder.vectors(frames)[1], one.vectors(alone)[1], atol=1e-5)


def test_the_start_has_the_cosines_of_the_base_vectors_side_by_side() -> None:
    sets = [vectors("t", noise(30, 4)), vectors("i", noise(30, 3, seed=1))]
    both = group_modalities(sets, {"t": "text", "i": "image"})
    shapes = [ModalityShape(one.name, one.features, one.width) for one in both]
    encoder = ContentEncoder(shapes, dim=8, hidden=())
    for stack in encoder.stacks:
        stack.layers[-1].bias.assign(np.zeros(8))  # a small random bias otherwise
    encoder.start_from(both, np.arange(30), seed=1)
    start, base = encoder.vectors(both), side_by_side(sets, name="base").unit
    np.testing.assert_allclose(start @ start.T, base @ base.T, atol=1e-4)


# Tags


def test_tags_weigh_by_tf_idf_and_sum_to_one() -> None:
    # Four tagged items: tag 0 on all (tells nothing), 1 on two, 2 on one (names it), 3 on three.
    has = sparse.csr_array(np.array([[1, 1, 0, 1], [1, 1, 1, 0], [1, 0, 0, 1], [1, 0, 0, 1], [0, 0, 0, 0]], np.int32))
    weights, counted = tag_targets([has], np.ones(5, bool))
    rare, common = np.log(4 / 2), np.log(4 / 3)
    expected = [[rare / (rare + common), common / (rare + common)], [1, 0], [0, 1], [0, 1], [0, 0]]
    np.testing.assert_allclose(weights.toarray(), expected, atol=1e-6)
    np.testing.assert_array_equal(counted.toarray(), has.toarray()[:, [1, 3]])


def test_items_that_do_not_count_have_weights_but_change_none() -> None:
    has = sparse.csr_array(np.array([[1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 0]], np.int32))
    counts = np.array([True, True, True, False])
    weights, counted = tag_targets([has], counts)
    alone, _ = tag_targets([has[:3]], np.ones(3, bool))
    np.testing.assert_allclose(weights.toarray()[:3], alone.toarray(), atol=1e-6)
    np.testing.assert_allclose(weights.toarray()[3], [0.5, 0.5, 0], atol=1e-6)
    assert counted.shape == (3, 3)


def test_no_tag_to_learn_from_is_a_clear_error() -> None:
    with pytest.raises(DataError, match="none of the 2 tags is on at least 2 and not on all of the 3 tagged items"):
        tag_targets([sparse.csr_array(np.array([[1, 1], [1, 0], [1, 0]], np.int32))], np.ones(3, bool))


def test_overlap_is_the_cosine_of_tag_weights() -> None:
    weights = np.array([[0.6, 0.4, 0], [0, 1, 0], [0, 0, 0]], np.float32)
    found = tag_overlap(sparse.csr_array(weights)).toarray()
    np.testing.assert_allclose(found, [[1, 0.4 / np.sqrt(0.52), 0], [0.4 / np.sqrt(0.52), 1, 0], [0, 0, 0]], atol=1e-6)


def test_the_graph_of_tags_is_normalised_as_by_kipf_and_welling() -> None:
    # Tag 0 on items 0 to 3, tag 1 on 0 and 1, tag 2 on 3 alone: cosines 2 / sqrt(8), 1 / sqrt(4) and 0.
    has = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 0], [1, 0, 1]], np.float32)
    weight = 2 / np.sqrt(8)
    with_self = np.array([[1, weight, 0], [weight, 1, 0], [0, 0, 1]])  # 0.5 is below the threshold
    scale = np.diag(1 / np.sqrt(with_self.sum(axis=1)))
    found = tag_graph(sparse.csr_array(has), threshold=0.6).toarray()
    np.testing.assert_allclose(found, scale @ with_self @ scale, atol=1e-6)


# Clicks


def pairs_of_the_log(experiment: Experiment, window: int, split_ms: int, rows: dict[str, int]) -> set[tuple[int, int]]:
    """(before, after) of every training click and the clicks before it, by a loop over the log."""
    log = pd.read_parquet(experiment().data.events.path)
    clicks = log[log.is_click == 1].sort_values(["time_ms", "item_id"])
    found = set()
    for _, own in clicks.groupby("user_id"):
        for time_ms, item in own[own.time_ms < split_ms][["time_ms", "item_id"]].itertuples(index=False):
            earlier = own[own.time_ms < time_ms].item_id.tolist()[-window:]
            found |= {(rows[before], rows[item]) for before in earlier if before != item}
    return found


def test_pairs_are_the_training_clicks_and_what_the_user_clicked_before(
    experiment: Experiment, prepared: PreparedData, prepared_by_user: PreparedData
) -> None:
    rows = {item: row for row, item in enumerate(prepared.item_ids.to_pylist())}
    expected = pairs_of_the_log(experiment, 2, prepared.manifest["split"]["validation_start_ms"], rows)
    everything = np.ones(len(rows), bool)
    for data in (prepared, prepared_by_user):
        found = click_pairs(data, everything, window=2)
        assert set(zip(found.before.tolist(), found.after.tolist(), strict=True)) == expected


def test_pairs_with_items_that_do_not_count_are_left_out(prepared: PreparedData) -> None:
    counts = np.arange(len(prepared.item_ids)) % 2 == 0
    every, some = (click_pairs(prepared, chosen, window=3) for chosen in (np.ones(len(counts), bool), counts))
    is_kept = counts[every.before] & counts[every.after]
    assert 0 < len(some.after) == is_kept.sum() < len(every.after)


def test_popularity_is_the_share_of_pairs_that_end_in_an_item() -> None:
    pairs = ClickPairs(np.array([0, 1, 2, 3], np.int32), np.array([1, 1, 1, 0], np.int32))
    np.testing.assert_allclose(pairs.log_frequency(3), np.log([1 / 4, 3 / 4, 1 / 4]), rtol=1e-6)
