"""Weights in 8 bits, computed by ONNX Runtime, against arithmetic of our own on what the operator's schema says."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper, parser

from sie_triton.eight_bits.blocks import in_blocks, in_rows
from sie_triton.eight_bits.products import Product, products_of, values_of
from sie_triton.eight_bits.rewrite import EightBits, eight_bit_graph, tried

Array: TypeAlias = NDArray[Any]
RANDOM = np.random.default_rng(3)
WIDTH = 96

LAYER = """<ir_version: 10, opset_import: ["" : 18]>
layer (float[batch, sequence, 96] states) => (float[batch, sequence, 64] up, float[batch, sequence, 96] kept) {
    kept = LayerNormalization<axis = -1>(states, gain, shift)
    up = MatMul(kept, weight)
}"""
TABLE = """<ir_version: 10, opset_import: ["" : 18]>
words (int64[batch, sequence] ids) => (float[batch, sequence, 96] states) { states = Gather(table, ids) }"""


def with_weights(text: str, **weights: Array) -> onnx.ModelProto:
    model = parser.parse_model(text)
    model.graph.initializer.extend(numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items())
    return model


def computed(model: onnx.ModelProto, **feed: Array) -> list[Array]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [np.asarray(array) for array in session.run(None, feed)]


def layer(outlier: float = 1.0) -> onnx.ModelProto:
    gain = np.ones(WIDTH)
    gain[[7, 40]] = outlier
    weight = RANDOM.standard_normal((WIDTH, 64)) / 10
    # What meets an outlier is small in a trained network, since the sum has to stay in range.
    weight[[7, 40]] /= outlier
    return with_weights(LAYER, gain=gain, shift=np.zeros(WIDTH), weight=weight)


def rounded_product(states: Array, weight: Array, block: int) -> Array:
    """What the schema of `MatMulNBits` says, with states in 8 bits by blocks: `[rows, outputs]` in float64."""
    blocks = in_blocks(weight, block)
    filled = np.zeros((len(states), blocks.codes.shape[1] * block))
    filled[:, : states.shape[1]] = states
    parts = filled.reshape(len(states), -1, block)
    scales = np.abs(parts).max(axis=2, keepdims=True) / 127
    steps = np.rint(parts / np.where(scales > 0, scales, 1)) * scales
    numbers = (blocks.codes.astype(float) - blocks.zeros[..., None]) * blocks.scales[..., None]
    return np.asarray(np.einsum("rbk,nbk->rn", steps, numbers))


@pytest.mark.parametrize("block", [32, 64, 128])
def test_a_product_is_what_the_operator_promises(block: int) -> None:
    model = layer()
    weight = numpy_helper.to_array(model.graph.initializer[2])
    states = RANDOM.standard_normal((2, 5, WIDTH)).astype(np.float32)
    exact, normed = computed(model, states=states)
    eight_bit_graph(model, EightBits(block, moved=False), {})
    up, kept = computed(model, states=states)
    expected = rounded_product(normed.reshape(-1, WIDTH).astype(float), weight, block)
    assert np.array_equal(kept, normed)
    assert np.abs(up.reshape(-1, 64) - expected).max() < 0.2 * np.abs(up - exact).max()
    assert 0 < np.abs(up - exact).max() < 0.02 * np.abs(exact).max()


@pytest.mark.parametrize("block", [32, 64])
def test_a_row_knows_nothing_of_its_neighbours(block: int) -> None:
    model = layer()
    eight_bit_graph(model, EightBits(block), {})
    states = RANDOM.standard_normal((6, 4, WIDTH)).astype(np.float32)
    states[1::2] *= 50
    together = computed(model, states=states)[0]
    alone = np.concatenate([computed(model, states=row[None])[0] for row in states])
    assert np.abs(together - alone).max() < 1e-5 * np.abs(together).max()


def test_outliers_scale_moves_into_the_weights_and_the_loss_shrinks() -> None:
    states = RANDOM.standard_normal((4, 8, WIDTH)).astype(np.float32)
    losses = {}
    for moved in (False, True):
        model = layer(outlier=30)
        weight = numpy_helper.to_array(model.graph.initializer[2])
        exact, normed = computed(model, states=states)
        seen = {"kept": np.abs(normed).max(axis=(0, 1))}
        eight_bit_graph(model, EightBits(32, moved=moved), seen)
        losses[moved] = float(np.abs(computed(model, states=states)[0] - exact).mean())
        factors = [numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "kept.inverse"]
        assert bool(factors) is moved
        for inverse in factors:
            # Powers of two: the float32 product of what was moved is the one from before, bit by bit.
            assert np.array_equal(np.frexp(inverse)[0], np.full(WIDTH, 0.5, np.float32))
            assert np.array_equal((normed * inverse) * (1 / inverse), normed)
            assert np.array_equal((weight * (1 / inverse)[:, None]) * inverse[:, None], weight)
    assert losses[True] < 0.4 * losses[False]


def test_small_products_and_those_that_are_kept_stay_float32() -> None:
    model = layer()
    eight_bit_graph(model, EightBits(32, kept=frozenset({"weight"})), {})
    assert [node.op_type for node in model.graph.node] == ["LayerNormalization", "MatMul"]
    small = with_weights(
        LAYER.replace("64]", "1]"), gain=np.ones(WIDTH), shift=np.zeros(WIDTH), weight=RANDOM.random((WIDTH, 1))
    )
    assert products_of(small) == []


def test_values_are_found_by_their_names_and_what_is_tried_gets_slower() -> None:
    names = ("encoder.layer.0.attention.self.value.weight", "layers.1.self_attn.v_proj.weight", "embed.values.weight")
    products = [Product("n", "s", name, 64, 64, normed=True) for name in names]
    assert values_of(products) == set(names[:2])
    assert [(how.block, bool(how.kept), how.table) for how in tried(frozenset(names))] == [
        (64, False, True),
        (64, True, True),
        (32, False, True),
        (32, False, False),
    ]
    assert not any(how.kept for how in tried(frozenset()))


def test_a_table_is_looked_up_in_standard_operators() -> None:
    table = RANDOM.standard_normal((20_000, WIDTH)).astype(np.float32)
    model = with_weights(TABLE, table=table)
    ids = RANDOM.integers(0, len(table), (3, 7))
    eight_bit_graph(model, EightBits(32), {})
    assert {node.domain for node in model.graph.node} == {""}
    [states] = computed(model, ids=ids)
    codes, scales = in_rows(table)
    assert np.array_equal(states, codes[ids] * scales[ids])
    assert np.abs(states - table[ids]).max() <= np.abs(table).max() / 254 * 1.001


def test_a_table_that_words_are_predicted_with_stays_whole() -> None:
    text = TABLE.replace(
        "states = Gather(table, ids)",
        "found = Gather(table, ids) turned = Transpose(table) states = MatMul(found, turned)",
    )
    model = with_weights(text, table=RANDOM.standard_normal((20_000, WIDTH)))
    before = model.SerializeToString()
    eight_bit_graph(model, EightBits(32), {})
    assert model.SerializeToString() == before


def test_zeros_stay_zero_and_levels_reach_both_ends() -> None:
    weight = np.zeros((40, 2), np.float32)
    weight[:3, 0] = (-1.0, 0.5, 3.0)
    blocks = in_blocks(weight, 32)
    numbers = blocks.numbers(40)
    assert np.array_equal(numbers[3:], weight[3:])
    assert np.abs(numbers - weight).max() <= 4 / 255 / 2 * 1.001
