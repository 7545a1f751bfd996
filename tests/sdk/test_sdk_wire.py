"""The codec: round trips, bytes as recorded, and bodies that mean harm."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import msgpack
import numpy as np
import pytest
from contract.recorded import exchanges
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from sie_sdk import _results, _wire
from sie_sdk._error_replies import exception_for, read_error
from sie_sdk._reply import Reply, request_metadata
from sie_sdk.errors import IncompleteBatchError, RequestError, SIEError

ARRAYS = npst.arrays(
    dtype=st.sampled_from(sorted(_wire.DTYPES)).map(np.dtype),
    shape=npst.array_shapes(min_dims=0, max_dims=8, min_side=0, max_side=3),
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(ARRAYS)
def test_arrays_survive(array: np.ndarray[Any, Any]) -> None:
    back = _wire.unpack(_wire.pack(array))
    assert isinstance(back, np.ndarray)
    assert (back.dtype.str, back.shape, back.tobytes()) == (array.dtype.str, array.shape, array.tobytes())
    assert not back.flags.writeable


@given(ARRAYS.filter(lambda array: array.ndim > 1))
def test_arrays_in_any_memory_order_survive(array: np.ndarray[Any, Any]) -> None:
    back = _wire.unpack(_wire.pack(array.T))
    assert isinstance(back, np.ndarray)
    assert (back.shape, back.tobytes()) == (array.T.shape, array.T.tobytes())


@given(ARRAYS.filter(lambda array: array.size > 0))
def test_scalars_survive(array: np.ndarray[Any, Any]) -> None:
    scalar = array.reshape(-1)[0]
    # A float64 is a Python float, and travels as one.
    assert _wire.unpack(_wire.pack({"x": scalar})) == pytest.approx({"x": scalar}, nan_ok=True)


@given(PLAIN)
def test_everything_else_is_plain_messagepack(value: object) -> None:
    assert _wire.pack(value) == msgpack.packb(value, use_bin_type=True)
    assert _wire.unpack(_wire.pack(value)) == value


def test_the_bytes_of_the_contract() -> None:
    expected = (
        "85 c4026e64 c3 c40474797065 a33c6634 c4046b696e64 c400 c4057368617065 91 02 c40464617461 c408 0000003f000080bf"
    )
    assert _wire.pack(np.array([0.5, -1.0], "<f4")) == bytes.fromhex(expected)


def test_every_recorded_body_packs_back_to_itself() -> None:
    bodies = {
        name: exchange.response_body
        for name, exchange in exchanges().items()
        if exchange.response_headers.get("content-type") == "application/msgpack"
    }
    assert len(bodies) > 20
    for name, body in bodies.items():
        assert _wire.pack(_wire.unpack(body)) == body, name


def test_arrays_are_views() -> None:
    body = _wire.pack(np.zeros(1000, "<f4"))
    array = _wire.unpack(body)
    assert isinstance(array, np.ndarray)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


@pytest.mark.parametrize(
    "value",
    [
        np.array([1j]),
        np.array([object()]),
        np.array(["text"]),
        np.zeros(1, [("a", "<f4")]),
        np.array(["2020-01-01"], "datetime64[D]"),
        np.zeros((1,) * 9),
        {1, 2},
        object(),
    ],
    ids=lambda value: str(getattr(value, "dtype", type(value))),
)
def test_what_cannot_travel_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="cannot send"):
        _wire.pack({"x": value})


def ndarray(**changes: object) -> bytes:
    fields = {b"nd": True, b"type": "<f4", b"kind": b"", b"shape": [1], b"data": b"\0" * 4}
    fields |= {key.encode(): value for key, value in changes.items()}
    return bytes(msgpack.packb({key: value for key, value in fields.items() if value != "absent"}))


@pytest.mark.parametrize(
    "body",
    [
        ndarray(kind=b"O"),
        ndarray(kind="V"),
        ndarray(kind=0),
        ndarray(kind=[]),
        ndarray(type="|O8"),
        ndarray(type="<c8"),
        ndarray(type="bfloat16"),
        ndarray(type="f4"),
        ndarray(type=b"<f4"),
        ndarray(type=[["a", "<f4"]]),
        ndarray(type="absent"),
        ndarray(data="\0\0\0\0"),
        ndarray(data=b"\0" * 3),
        ndarray(data=b"\0" * 5),
        ndarray(data="absent"),
        ndarray(shape="absent"),
        ndarray(shape=1),
        ndarray(shape=[-1]),
        ndarray(shape=[1.0]),
        ndarray(shape=[True]),
        ndarray(shape=[2]),
        ndarray(shape=[1] * 9),
        ndarray(shape=[0, 2**63], data=b""),
        ndarray(shape=[0, 2**62, 2**62], data=b""),
        ndarray(nd=1),
        ndarray(nd=None),
        ndarray(nd=False, data=b"\0" * 8),
        bytes(msgpack.packb({b"complex": True, b"data": "1j"})),
        b"",
        b"\xc1",
        b"\x81",
        b"\x91" * 100_000,
        b"\xdd\xff\xff\xff\xff",
        b"\xa1\xff",
        b"\x01\x01",
        b"\x81\x90\x01",
    ],
    ids=lambda body: body[:40].hex(),
)
def test_harmful_bodies_are_refused(body: bytes) -> None:
    with pytest.raises(_wire.MalformedBody) as caught:
        _wire.unpack(body)
    # Nothing of the body may hang on to the exception.
    assert caught.value.__cause__ is None
    assert not isinstance(caught.value.__context__, msgpack.exceptions.UnpackException)


def test_string_keys_make_no_array() -> None:
    fields = {"nd": True, "type": "<f4", "kind": "", "shape": [1], "data": b"\0" * 4}
    assert _wire.unpack(msgpack.packb(fields)) == fields


def _mutations() -> st.SearchStrategy[bytes]:
    body = _wire.pack(
        {
            "model": "m",
            "items": [
                {
                    "id": "a",
                    "dense": {"dims": 2, "dtype": "float32", "values": np.zeros(2, "<f4")},
                    "sparse": {"indices": np.zeros(1, "<i4"), "values": np.zeros(1, "<f2")},
                    "multivector": {"values": np.zeros((2, 2), "<f4")},
                }
            ],
            "scores": [{"item_id": "a", "score": 0.5, "rank": 0}],
            "timing": {"total_ms": 1.0},
        }
    )

    def mutate(edits: list[tuple[int, int]]) -> bytes:
        mutated = bytearray(body)
        for at, value in edits:
            mutated[at % len(body)] = value
        return bytes(mutated)

    return st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4).map(mutate)


HOSTILE = st.binary() | PLAIN.map(_wire.pack) | _mutations()
SHAPED = st.dictionaries(
    st.sampled_from(["model", "items", "scores", "timing", "query_id", "usage", "models"]),
    PLAIN | st.lists(st.dictionaries(st.sampled_from(["id", "dense", "sparse", "multivector", "item_id"]), PLAIN)),
).map(_wire.pack)


@settings(max_examples=200)
@given(HOSTILE | SHAPED, st.sampled_from([200, 204, 299, 302, 307]))
def test_hostile_success_bodies_are_request_errors(body: bytes, status: int) -> None:
    reply = Reply(status, {"content-type": "application/msgpack"}, body)
    readers = (
        lambda: _results.read_encode(reply, "m", [{"text": "x"}], names_model=True),
        lambda: _results.read_score(reply),
        lambda: _results.read_models(reply),
        lambda: _results.read_model(reply),
        lambda: _results.read_capacity(reply, "l4"),
    )
    for read in readers:
        try:
            read()
        except RequestError as error:
            assert error.status_code in (status, 400)
        except IncompleteBatchError as error:
            assert error.received != 1


@settings(max_examples=200)
@given(
    HOSTILE,
    st.sampled_from([400, 402, 403, 404, 429, 500, 502, 503]),
    st.sampled_from(["application/msgpack", "application/json", "text/plain"]),
)
def test_hostile_error_bodies_are_exceptions_of_ours(body: bytes, status: int, content_type: str) -> None:
    error = exception_for(read_error(Reply(status, {"content-type": content_type}, body)), "m")
    assert isinstance(error, SIEError)
    assert str(error)


@given(
    st.dictionaries(
        st.sampled_from(["x-sie-request-id", "x-sie-units-pairs", "x-sie-served-by", "x-sie-runtime-instance"]),
        st.text() | st.sampled_from(["7", "007", "-1", "local", "a" * 64, "a" * 300, str(2**64)]),
    )
)
def test_invalid_headers_count_as_absent(headers: dict[str, str]) -> None:
    metadata = request_metadata(headers) or {}
    assert metadata.get("served_by", "local") == "local"
    assert 0 <= metadata.get("usage", {}).get("pairs", 0) < 2**64
    assert len(metadata.get("runtime_instance_id", "a" * 64)) == 64
    assert metadata.get("id", "x").isprintable()


def test_a_patched_msgpack_is_not_used() -> None:
    program = (
        "import msgpack\n"
        "def boom(*args, **kwargs): raise SystemExit('the patched decoder ran')\n"
        "msgpack.unpackb = msgpack.Packer = msgpack.Unpacker = msgpack.packb = boom\n"
        "from sie_sdk import _wire\n"
        "assert _wire.unpack(_wire.pack({'a': 1})) == {'a': 1}\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
