"""Codes against their formula, one item and one code at a time, and what becomes of missing modalities."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from recall.config.model import ModelConfig
from recall.model.fusion import FUSIONS
from recall.model.fusion.codes import CodeAttention
from recall.model.fusion.contract import ModalityFusion

ITEMS, DIM, CODES = 5, 4, 3
# The third item has one modality, the last has none.
PRESENT = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 1, 1], [0, 0, 0]], bool)
Array = npt.NDArray[np.float64]


def normal(*shape: int, seed: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture
def layer() -> CodeAttention:
    tf.keras.utils.set_random_seed(3)
    return CodeAttention(CODES, DIM)


def formula(layer: CodeAttention, fused: Array, tokens: Array, present: npt.NDArray[np.bool_]) -> tuple[Array, Array]:
    """Compute vectors [codes, dim] and attention [codes, modalities] of one item."""
    vectors, attention = [], np.zeros((CODES, len(tokens)))
    for code, (direction, offset) in enumerate(zip(layer.directions.numpy(), layer.offsets.numpy(), strict=True)):
        there = np.flatnonzero(present)
        scores = np.array([direction @ tokens[m] / np.linalg.norm(tokens[m]) for m in there])
        if len(there):
            attention[code, there] = np.exp(scores) / np.exp(scores).sum()
        vectors.append(fused + attention[code] @ tokens + offset)
    return np.array(vectors), attention


def test_each_code_adds_its_own_mean_of_the_modalities_that_are_there(layer: CodeAttention) -> None:
    fused, tokens = normal(ITEMS, DIM, seed=1), normal(ITEMS, 3, DIM, seed=2)
    vectors, weights = layer(fused, tokens, tf.constant(PRESENT))
    assert (vectors.shape, weights.shape) == ((ITEMS, CODES, DIM), (ITEMS, 3))
    for item in range(ITEMS):
        expected, attention = formula(layer, fused[item], tokens[item], PRESENT[item])
        np.testing.assert_allclose(vectors[item], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(weights[item], attention.mean(axis=0), rtol=1e-5)
        assert PRESENT[item].sum() < 2 or np.ptp(attention, axis=0).max() > 0.05, "codes look at different modalities"


def test_what_stands_in_place_of_a_missing_modality_changes_nothing_and_learns_nothing(layer: CodeAttention) -> None:
    fused, tokens = normal(ITEMS, DIM, seed=1), tf.constant(normal(ITEMS, 3, DIM, seed=2))
    others = tf.where(PRESENT[..., np.newaxis], tokens, 100.0)
    for one, other in zip(layer(fused, tokens, PRESENT), layer(fused, others, PRESENT), strict=True):
        np.testing.assert_array_equal(one, other)
    with tf.GradientTape() as tape:
        tape.watch(others)
        loss = tf.reduce_sum(layer(fused, others, PRESENT)[0] * normal(ITEMS, CODES, DIM, seed=3))
    gradient = tape.gradient(loss, others).numpy()
    np.testing.assert_array_equal(np.abs(gradient).max(axis=2) > 0, PRESENT)
    assert np.isfinite(gradient).all()


def test_an_item_of_one_modality_has_different_vectors_too(layer: CodeAttention) -> None:
    vectors = layer(normal(1, DIM, seed=1), normal(1, 3, DIM, seed=2), tf.constant([[False, True, False]]))[0][0]
    distances = np.linalg.norm(vectors[:, np.newaxis] - vectors, axis=-1)
    assert (distances[~np.eye(CODES, dtype=bool)] > 0.01).all()


# Inside every fusion


def build(kind: str, codes: int | None) -> ModalityFusion:
    tf.keras.utils.set_random_seed(4)
    config = ModelConfig(dim=DIM, dropout=0.0, fusion={"kind": kind}, item_codes=codes)  # type: ignore[arg-type]
    fusion = FUSIONS[kind](("text", "image", "tags"), config=config)
    fusion(parts(), tf.constant(PRESENT))
    random = np.random.default_rng(7)
    for variable in (*fusion.trainable_variables,):
        if "codes" not in variable.name:
            variable.assign(random.normal(scale=0.7, size=variable.shape))
    return fusion


def parts() -> list[tf.Tensor]:
    return [tf.constant(normal(ITEMS, width, seed=width)) for width in (3, 5, 2)]


@pytest.mark.parametrize("kind", FUSIONS)
def test_every_fusion_gives_a_vector_per_code_and_trains_the_codes(kind: str) -> None:
    fusion = build(kind, CODES)
    with tf.GradientTape() as tape:
        vectors, weights = fusion(parts(), tf.constant(PRESENT))
        loss = tf.reduce_sum(vectors * normal(ITEMS, CODES, DIM, seed=3))
    assert vectors.shape == (ITEMS, CODES, DIM)
    np.testing.assert_array_equal(weights > 0, PRESENT)
    np.testing.assert_allclose(tf.reduce_sum(weights, axis=1), [1, 1, 1, 1, 0], rtol=1e-6)
    for gradient in tape.gradient(loss, fusion.codes.trainable_variables):
        assert np.abs(gradient).max() > 1e-4
    np.testing.assert_allclose(vectors[-1], fusion.absent + fusion.codes.offsets, rtol=1e-6)


def test_weights_tell_what_the_mean_vector_is_made_of() -> None:
    fusion = build("weighted_sum", CODES)
    vectors, weights = fusion(parts(), tf.constant(PRESENT))
    projected = np.stack([project(part) for project, part in zip(fusion.projections, parts(), strict=True)], axis=1)
    expected = 2 * np.einsum("im,imd->id", weights, projected) + fusion.codes.offsets.numpy().mean(axis=0)
    np.testing.assert_allclose(tf.reduce_mean(vectors, axis=1)[:-1], expected[:-1], rtol=1e-4, atol=1e-5)
