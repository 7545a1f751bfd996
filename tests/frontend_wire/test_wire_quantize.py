from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from contract.recorded import arrays, exchanges
from numpy.typing import NDArray
from replay import array, decoded_answer
from sie_frontend.contract.dtypes import OUTPUT_DTYPES, OutputDtype, quantize_vectors, quantize_weights

NARROW: tuple[OutputDtype, ...] = ("float16", "int8", "uint8", "binary", "ubinary")


@pytest.mark.parametrize("dtype", ["float16", "int8", "uint8", "binary"])
@pytest.mark.parametrize("kind", ["dense", "mv"])
def test_reference_arrays(kind: str, dtype: OutputDtype) -> None:
    golden = arrays()
    expected = golden[f"quant_{kind}_{dtype}"]
    together = quantize_vectors(golden["quant_in"], dtype)
    apart = np.stack([quantize_vectors(row, dtype) for row in golden["quant_in"]])
    assert together.dtype == expected.dtype
    np.testing.assert_array_equal(together, expected)
    np.testing.assert_array_equal(apart, expected)


@pytest.mark.parametrize("dtype", NARROW)
def test_recorded_answers(dtype: OutputDtype) -> None:
    """The real server's float32 answer, narrowed here, is its own narrow answer."""
    wide = decoded_answer(exchanges()["encode_dtype_float32"])["items"][0]
    narrow = decoded_answer(exchanges()[f"encode_dtype_{dtype}"])["items"][0]
    for output in ("dense", "multivector"):
        ours = quantize_vectors(array(wide[output]["values"]), dtype)
        _same(ours, array(narrow[output]["values"]))
    _same(quantize_weights(array(wide["sparse"]["values"]), dtype), array(narrow["sparse"]["values"]))


def test_float32_keeps_what_came() -> None:
    values = np.array([1.0, 2.0], dtype=np.float16)
    assert quantize_vectors(values, "float32") is values
    assert quantize_weights(values, "float32").dtype == np.float32


def test_rows_without_a_range() -> None:
    rows = np.array([[0, 0, 0], [5, 5, 5]], dtype=np.float32)
    np.testing.assert_array_equal(quantize_vectors(rows, "int8"), [[0, 0, 0], [127, 127, 127]])
    np.testing.assert_array_equal(quantize_vectors(rows, "uint8"), np.zeros((2, 3)))
    np.testing.assert_array_equal(rows, [[0, 0, 0], [5, 5, 5]])


def test_halves_round_to_even() -> None:
    row = np.array([127, 0.5, 1.5, -2.5], dtype=np.float32)
    np.testing.assert_array_equal(quantize_vectors(row, "int8"), [127, 0, 2, -2])


def test_bits_are_packed_from_the_top_and_zero_is_not_positive() -> None:
    row = np.array([1, 0, -1, 0.1, 0, 0, 0, 0, 2], dtype=np.float32)
    np.testing.assert_array_equal(quantize_vectors(row, "binary"), [0b10010000, 0b10000000])


@pytest.mark.parametrize("dtype", OUTPUT_DTYPES)
def test_no_tokens(dtype: OutputDtype) -> None:
    empty: NDArray[np.float32] = np.zeros((0, 12), dtype=np.float32)
    assert quantize_vectors(empty, dtype).shape == (0, 2 if "binary" in dtype else 12)


def _same(ours: NDArray[Any], theirs: NDArray[Any]) -> None:
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)
