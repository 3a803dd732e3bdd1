"""The content encoder: modalities and frames, and what is missing is masked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from recall.content.teach.encoder import ContentEncoder, ModalityShape, inputs_of
from recall.content.teach.modalities import Modality, group_modalities, side_by_side
from recall.content.vectors import ContentVectors
from recall.core.errors import DataError
from recall.data.features.embeddings import vector_array


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


# Clicks
