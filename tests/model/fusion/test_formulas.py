"""Tests each kind of fusion against its formula, written down again for one item at a time in NumPy."""

from __future__ import annotations

from math import erf, sqrt

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from recall.config.model import ModelConfig
from recall.model.fusion import FUSIONS
from recall.model.fusion.contract import ModalityFusion
from recall.model.fusion.cross_attention import TokenAttention

DIM, RANK, HEADS, LAYERS = 4, 3, 2, 2
WIDTHS = (3, 5, 2)
PRESENT = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 1, 1]], bool)
Array = npt.NDArray[np.float64]


def parts() -> list[Array]:
    random = np.random.default_rng(3)
    return [random.normal(size=(len(PRESENT), width)).astype(np.float32) for width in WIDTHS]


def build(kind: str) -> ModalityFusion:
    settings = {"kind": kind, "rank": RANK, "heads": HEADS, "layers": LAYERS}
    config = ModelConfig(dim=DIM, dropout=0.3, fusion=settings)  # type: ignore[arg-type]
    fusion = FUSIONS[kind](("text", "image", "tags"), config=config)
    fusion([tf.constant(part) for part in parts()], tf.constant(PRESENT))
    random = np.random.default_rng(8)
    for variable in fusion.trainable_variables:
        variable.assign(random.normal(scale=0.6, size=variable.shape))
    return fusion


def softmax(scores: Array) -> Array:
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def dense(layer: tf.keras.layers.Dense, inputs: Array) -> Array:
    output = inputs @ layer.kernel.numpy().astype(np.float64)
    return output + layer.bias.numpy() if layer.use_bias else output


def norm(layer: tf.keras.layers.LayerNormalization, inputs: Array) -> Array:
    centred = inputs - inputs.mean()
    return centred / np.sqrt(inputs.var() + 1e-6) * layer.gamma.numpy() + layer.beta.numpy()


def gelu(inputs: Array) -> Array:
    return inputs * (1 + np.vectorize(erf)(inputs / sqrt(2))) / 2


def look(layer: TokenAttention, token: Array, others: list[Array]) -> tuple[Array, Array]:
    """Attend from a token to others: the result and the weights [heads, others]; zeros without others."""
    kernel = layer.inputs.kernel.numpy().astype(np.float64)
    # Columns: the queries of all heads, their keys, their values.
    query, key, value = (kernel[:, part * DIM : (part + 1) * DIM].reshape(DIM, HEADS, -1) for part in range(3))
    found, weights = [], []
    for head in range(HEADS):
        scores = [token @ query[:, head] @ (other @ key[:, head]) / sqrt(DIM / HEADS) for other in others]
        weights.append(softmax(np.array(scores)) if others else np.zeros(0))
        values = [weight * (other @ value[:, head]) for weight, other in zip(weights[-1], others, strict=True)]
        found.append(np.sum(values, axis=0) if others else np.zeros(DIM // HEADS))
    return np.concatenate(found) @ layer.outputs.kernel.numpy().astype(np.float64), np.array(weights)


# Per kind: the modalities that an item has, by number, as their projections -> the fused vector and their weights.


def weighted_sum(fusion: ModalityFusion, states: dict[int, Array]) -> tuple[Array, Array]:
    scores = [fusion.score.numpy()[number] @ state + fusion.bias.numpy()[number] for number, state in states.items()]
    weights = softmax(np.array(scores))
    return np.average(list(states.values()), axis=0, weights=weights), weights


def lmf(fusion: ModalityFusion, states: dict[int, Array]) -> tuple[Array, Array]:
    everything = np.concatenate([states.get(number, np.zeros(DIM)) for number in range(3)])
    flags = [float(number in states) for number in range(3)]
    scores = dense(fusion.gate_score, np.tanh(dense(fusion.gate_hidden, np.r_[everything, flags])))
    weights = softmax(scores[list(states)])
    fused = fusion.bias.numpy().astype(np.float64)
    for rank in range(RANK):
        product = np.ones(DIM)
        for weight, (number, state) in zip(weights, states.items(), strict=True):
            layer = fusion.factors[number]
            with_one = np.vstack([layer.kernel.numpy(), layer.bias.numpy()])[:, rank * DIM : (rank + 1) * DIM]
            factor = np.r_[state, 1] @ with_one
            product *= 1 + len(states) * weight * (factor - 1)
        fused = fused + fusion.rank_weights.numpy()[rank] * product
    return fused, weights


def cross_attention(fusion: ModalityFusion, states: dict[int, Array]) -> tuple[Array, Array]:
    read = []
    for number, state in states.items():
        others = [other for place, other in states.items() if place != number]
        read.append(norm(fusion.norm, state + look(fusion.attention, state, others)[0]))
    scores = [dense(fusion.score, np.tanh(dense(fusion.hidden, state)))[0] for state in read]
    weights = softmax(np.array(scores))
    return np.average(read, axis=0, weights=weights), weights


def transformer(fusion: ModalityFusion, states: dict[int, Array]) -> tuple[Array, Array]:
    summary = fusion.summary.numpy().astype(np.float64)
    tokens = [state + fusion.embeddings.numpy()[number] for number, state in states.items()]
    weights = np.zeros(0)
    for block in fusion.blocks:
        normed = [norm(block.attention_norm, token) for token in tokens]
        found, weights = look(block.attention, norm(block.attention_norm, summary), normed)
        moved = [token + look(block.attention, own, normed)[0] for token, own in zip(tokens, normed, strict=True)]
        summary, *tokens = [
            token + dense(block.outer, gelu(dense(block.inner, norm(block.inner_norm, token))))
            for token in (summary + found, *moved)
        ]
    return norm(fusion.norm, summary), weights.mean(axis=0)


FORMULAS = {"weighted_sum": weighted_sum, "lmf": lmf, "cross_attention": cross_attention, "transformer": transformer}


@pytest.mark.parametrize("kind", FUSIONS)
def test_a_fusion_is_its_formula(kind: str) -> None:
    fusion = build(kind)
    vectors, weights = fusion([tf.constant(part) for part in parts()], tf.constant(PRESENT))
    for item, present in enumerate(PRESENT):
        states = {
            number: dense(fusion.projections[number], parts()[number][item]) for number in np.flatnonzero(present)
        }
        vector, expected = FORMULAS[kind](fusion, states)
        np.testing.assert_allclose(vectors[item], vector, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(weights.numpy()[item, present], expected, atol=1e-5)


def test_equal_gate_weights_leave_the_low_rank_fusion_of_the_paper() -> None:
    fusion = build("lmf")
    for variable in fusion.gate_score.trainable_variables:
        variable.assign(tf.zeros_like(variable))
    found = fusion([tf.constant(part) for part in parts()], tf.constant(PRESENT)).vector
    states = [dense(projection, part[0]) for projection, part in zip(fusion.projections, parts(), strict=True)]
    # The tensor that low-rank factors stand for, and its product with the outer product of all [x; 1].
    factors = [np.vstack([layer.kernel.numpy(), layer.bias.numpy()]).reshape(-1, RANK, DIM) for layer in fusion.factors]
    tensor = np.einsum("r,ard,brd,crd->abcd", fusion.rank_weights.numpy(), *factors)
    one, two, three = (np.r_[state, 1] for state in states)
    expected = np.einsum("abcd,a,b,c->d", tensor, one, two, three) + fusion.bias.numpy()
    np.testing.assert_allclose(found[0], expected, rtol=1e-5, atol=1e-4)


def test_a_low_rank_fusion_starts_without_an_offset() -> None:
    tf.keras.utils.set_random_seed(1)
    fusion = FUSIONS["lmf"](("text", "image", "tags"), config=ModelConfig(dim=DIM, fusion={"kind": "lmf"}))  # type: ignore[arg-type]
    nothing = fusion([tf.zeros_like(part) for part in parts()], tf.constant(PRESENT)).vector
    np.testing.assert_allclose(nothing, 0, atol=1e-6)
