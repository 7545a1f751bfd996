from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest
from contract.recorded import sdk_answers
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sie_frontend.contract.ndarray import DTYPES, ArrayDecodeError, is_array, pack_array, unpack_array


def _packed(array: NDArray[Any]) -> bytes:
    return b"".join(pack_array(array))


def _reference(array: NDArray[Any]) -> bytes:
    """The five pairs through a general msgpack writer."""
    pairs = {
        b"nd": True,
        b"type": array.dtype.str,
        b"kind": b"",
        b"shape": list(array.shape),
        b"data": array.tobytes(),
    }
    packed: bytes = msgpack.packb(pairs, use_bin_type=True)
    return packed


def test_the_contract_s_example() -> None:
    expected = "85c4026e64c3c40474797065a33c6634c4046b696e64c400c40573686170659102c40464617461c4080000003f000080bf"
    assert _packed(np.array([0.5, -1.0], "<f4")).hex() == expected


@pytest.mark.parametrize("dtype", sorted(DTYPES))
@pytest.mark.parametrize(
    "shape", [(), (0,), (3,), (0, 4), (2, 3), (1, 63), (1, 64), (20, 1000), (1, 1, 1, 1, 1, 1, 1, 2)]
)
def test_against_a_general_writer_and_back(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.asarray(np.random.default_rng(0).random(shape) * 100).astype(dtype)
    packed = _packed(array)
    assert packed == _reference(array)
    back = unpack_array(msgpack.unpackb(packed))
    assert (back.dtype.str, back.shape) == (dtype, shape)
    np.testing.assert_array_equal(back, array)
    assert not back.flags.writeable


def test_a_view_is_written_in_c_order() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    for view in (array.T, array[:, 1:3], array[::2], np.asfortranarray(array)):
        assert _packed(view) == _reference(np.ascontiguousarray(view))


def test_the_data_of_a_row_is_not_copied() -> None:
    array = np.ones((2, 4), dtype=np.float32)
    _, data = pack_array(array[1])
    array[1, 0] = 7
    assert np.frombuffer(data, dtype=np.float32)[0] == 7


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([object()]), np.array([1j]), np.array([1], "M8[s]")])
def test_other_dtypes_have_no_wire_form(array: NDArray[Any]) -> None:
    with pytest.raises(TypeError, match="has no wire form"):
        pack_array(array)


def test_a_scalar() -> None:
    value = {b"nd": False, b"type": "<f4", b"data": b"\x00\x00\xc0?"}
    assert is_array(value)
    assert unpack_array(value).item() == 1.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({b"type": "|O"}, "not numeric"),
        ({b"type": "<c8"}, "not numeric"),
        ({b"type": "bfloat16"}, "not numeric"),
        ({b"type": [["a", "<f4"]]}, "not numeric"),
        ({b"type": b"<f4"}, "not numeric"),
        ({b"kind": b"O"}, "`kind` must be empty"),
        ({b"data": "text"}, "`data` must be binary"),
        ({b"data": b"\x00" * 7}, "has 7 bytes where shape"),
        ({b"shape": None}, "`shape` must be an array"),
        ({b"shape": [1] * 9}, "at most 8"),
        ({b"shape": [-2]}, "non-negative"),
        ({b"shape": [True, 2]}, "non-negative"),
        ({b"shape": [1 << 62, 1 << 62]}, "has 8 bytes where shape"),
    ],
)
def test_refusals(changes: dict[bytes, Any], message: str) -> None:
    good = {b"nd": True, b"type": "<f4", b"kind": b"", b"shape": [2], b"data": b"\x00" * 8}
    unpack_array(good)
    with pytest.raises(ArrayDecodeError, match=message):
        unpack_array(good | changes)


def test_recorded_bfloat16_is_refused() -> None:
    body = sdk_answers()["encode_bf16_descr__BAD"].body
    values = msgpack.unpackb(body)["items"][0]["dense"]["values"]
    assert is_array(values)
    with pytest.raises(ArrayDecodeError, match="not numeric"):
        unpack_array(values)


_ANY = st.one_of(st.none(), st.booleans(), st.integers(), st.binary(max_size=16), st.text(max_size=4))


@settings(max_examples=200)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            b"nd": _ANY,
            b"type": st.one_of(_ANY, st.sampled_from(sorted(DTYPES))),
            b"kind": st.one_of(_ANY, st.just(b"")),
            b"shape": st.one_of(_ANY, st.lists(st.one_of(st.integers(-1, 5), st.floats()), max_size=9)),
            b"data": _ANY,
        },
    )
)
def test_any_map_is_an_array_or_refused(pairs: dict[bytes, Any]) -> None:
    try:
        array = unpack_array(pairs)
    except ArrayDecodeError:
        return
    assert array.dtype.str in DTYPES
