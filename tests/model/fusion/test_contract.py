"""Tests the promises of every kind of fusion; a new one joins by being registered."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from recall.config.model import ModelConfig
from recall.model.fusion import FUSIONS
from recall.model.fusion.contract import ModalityFusion
from recall.model.fusion.masks import drop_modalities

DIM, WIDTHS = 4, {"text": 3, "image": 5, "tags": 2}
# Every item has other modalities; the fourth has none.
PRESENT = tf.constant(np.array([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 0], [0, 0, 1]], bool))
ITEMS = 6


def parts(*, seed: int = 5) -> list[tf.Tensor]:
    return [
        tf.random.stateless_normal([ITEMS, width], [seed, number]) for number, width in enumerate(WIDTHS.values())
    ]  # fmt: skip


def build(kind: str, **settings: float) -> ModalityFusion:
    tf.keras.utils.set_random_seed(4)
    config = ModelConfig(dim=DIM, dropout=0.0, fusion={"kind": kind, **settings})  # type: ignore[arg-type]
    fusion = FUSIONS[kind](tuple(WIDTHS), config=config)
    fusion(parts(), PRESENT)
    # Several weights start at zero or one, where what they do would not show.
    random = np.random.default_rng(7)
    for variable in fusion.trainable_variables:
        variable.assign(random.normal(scale=0.7, size=variable.shape))
    return fusion


@pytest.fixture(params=FUSIONS)
def fusion(request: pytest.FixtureRequest) -> ModalityFusion:
    return build(request.param)


def test_there_is_a_vector_and_a_weight_per_modality_for_each_item(fusion: ModalityFusion) -> None:
    vector, weights = fusion(parts(), PRESENT)
    assert (vector.shape, weights.shape) == ((ITEMS, DIM), (ITEMS, 3))
    assert vector.dtype == weights.dtype == tf.float32
    assert np.isfinite(vector).all()


def test_weights_of_the_modalities_that_are_there_sum_to_one(fusion: ModalityFusion) -> None:
    weights = fusion(parts(), PRESENT).weights.numpy()
    np.testing.assert_array_equal(weights > 0, PRESENT)
    np.testing.assert_allclose(weights.sum(axis=1), [1, 1, 1, 0, 1, 1], rtol=1e-6)
    assert np.ptp(weights[0]) > 1e-3, "modalities differ in weight"


def test_what_stands_in_place_of_a_missing_modality_changes_nothing(fusion: ModalityFusion) -> None:
    held = PRESENT.numpy().T[:, :, np.newaxis]  # [modalities, items, 1]
    changed = [
        tf.where(there, part, 100.0 * other) for there, part, other in zip(held, parts(), parts(seed=6), strict=True)
    ]
    for found, expected in zip(fusion(changed, PRESENT), fusion(parts(), PRESENT), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_no_gradient_reaches_a_missing_modality(fusion: ModalityFusion) -> None:
    inputs = parts()
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = tf.reduce_sum(fusion(inputs, PRESENT).vector * tf.random.stateless_normal([ITEMS, DIM], [1, 2]))
    moved = np.stack([np.abs(gradient).max(axis=1) > 0 for gradient in tape.gradient(loss, inputs)], axis=1)
    np.testing.assert_array_equal(moved, PRESENT)


def test_a_zero_is_not_a_missing_value(fusion: ModalityFusion) -> None:
    text, image, tags = parts()
    vector = fusion([text, tf.zeros_like(image), tags], tf.ones([ITEMS, 3], tf.bool)).vector
    without = fusion([text, image, tags], tf.constant([[True, False, True]] * ITEMS)).vector
    assert (np.abs(vector - without).max(axis=1) > 1e-3).all()


def test_an_item_without_anything_has_the_learned_vector(fusion: ModalityFusion) -> None:
    vector, weights = fusion(parts(), tf.zeros([ITEMS, 3], tf.bool))
    np.testing.assert_array_equal(vector, np.tile(fusion.absent.numpy(), (ITEMS, 1)))
    np.testing.assert_array_equal(weights, np.zeros((ITEMS, 3)))


def test_gradients_stay_finite_where_everything_is_missing(fusion: ModalityFusion) -> None:
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(fusion(parts(), tf.zeros([ITEMS, 3], tf.bool)).vector)
    for variable, gradient in zip(
        fusion.trainable_variables, tape.gradient(loss, fusion.trainable_variables), strict=True
    ):
        assert gradient is None or np.isfinite(gradient).all(), variable.name


def test_every_weight_is_trained(fusion: ModalityFusion) -> None:
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(fusion(parts(), PRESENT).vector * tf.random.stateless_normal([ITEMS, DIM], [1, 2]))
    variables = fusion.trainable_variables
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        assert gradient is not None, f"{variable.name} is never trained"
        assert np.abs(gradient).max() > 1e-6, f"{variable.name} is never trained"


def test_an_item_is_fused_by_itself(fusion: ModalityFusion) -> None:
    together = fusion(parts(), PRESENT)
    for item in range(ITEMS):
        alone = fusion([part[item : item + 1] for part in parts()], PRESENT[item : item + 1])
        for found, expected in zip(alone, together, strict=True):
            np.testing.assert_allclose(found[0], expected[item], rtol=1e-5, atol=1e-5)


def test_one_graph_takes_batches_of_any_size(fusion: ModalityFusion) -> None:
    signature = [[tf.TensorSpec([None, width]) for width in WIDTHS.values()], tf.TensorSpec([None, 3], tf.bool)]
    graph = tf.function(lambda inputs, present: fusion(inputs, present), input_signature=signature, autograph=False)
    expected = fusion(parts(), PRESENT)
    for size in (0, 1, ITEMS):
        vector, weights = graph([part[:size] for part in parts()], PRESENT[:size])
        np.testing.assert_allclose(vector, expected.vector[:size], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(weights, expected.weights[:size], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FUSIONS)
def test_training_hides_modalities_but_never_the_last_one(kind: str) -> None:
    fusion = build(kind, modality_dropout=0.6)
    tf.random.set_seed(1)
    served, trained = fusion(parts(), PRESENT), [fusion(parts(), PRESENT, training=True) for _ in range(20)]
    for found in trained:
        kept = found.weights.numpy() > 0
        assert (kept <= PRESENT.numpy()).all()
        np.testing.assert_array_equal(kept.any(axis=1), PRESENT.numpy().any(axis=1))
        for item in (2, 3, 5):  # they have one modality or none
            np.testing.assert_allclose(found.vector[item], served.vector[item], rtol=1e-5, atol=1e-5)
    assert len({(found.weights.numpy()[0] > 0).tobytes() for found in trained}) > 1


@pytest.mark.parametrize("kind", FUSIONS)
def test_nothing_is_hidden_if_the_rate_is_zero(kind: str) -> None:
    fusion = build(kind, modality_dropout=0)
    np.testing.assert_allclose(
        fusion(parts(), PRESENT, training=True).vector, fusion(parts(), PRESENT).vector, rtol=1e-5
    )


def test_the_rate_is_the_share_of_modalities_that_are_hidden() -> None:
    tf.random.set_seed(3)
    kept = drop_modalities(tf.ones([40_000, 3], tf.bool), 0.3).numpy()
    # Of three draws 0.3^3 = 0.027 hide everything; one of the three then stays: 0.7 + 0.027 / 3 = 0.709.
    np.testing.assert_allclose(kept.mean(axis=0), 0.709, atol=0.01)
    assert kept.any(axis=1).all()
