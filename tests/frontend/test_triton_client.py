"""The client of Triton against servers that are right in every way HTTP allows, and wrong in every way we thought of.

The servers read requests with h11, another implementation of HTTP than the client's. `conftest` runs every test on the
event loop of the standard library and on the one that serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from sie_frontend.triton.client import FailureKind, TritonFailure

from .triton_peer import DATA, DATATYPES, HEAD, Peer, X, call, client_of, cut, regular, reply, serving


@settings(max_examples=60)
@given(
    inputs=st.lists(
        st.sampled_from(sorted(DATATYPES)).flatmap(
            lambda name: arrays(np.dtype(name), array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
        ),
        min_size=1,
        max_size=4,
    ),
    chunked=st.booleans(),
    places=st.lists(st.floats(0, 1), max_size=5),
    segments=st.lists(st.floats(0, 1), max_size=8),
    transposed=st.booleans(),
)
def test_arrays_come_back_as_they_went(
    inputs: list[NDArray[Any]], chunked: bool, places: list[float], segments: list[float], transposed: bool
) -> None:
    """Whatever their types and shapes, however the answer is framed, and wherever the network cuts it."""

    async def answer(peer: Peer) -> None:
        head, data = peer.echo()
        for tensor in json.loads(head)["outputs"]:
            array = sent[tensor["name"]]
            assert (tensor["datatype"], tensor["shape"]) == (DATATYPES[array.dtype.name], list(array.shape))
        whole = reply(head, data)
        if chunked:
            chunks = [f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in cut(head + data, places)]
            lines = (
                f"HTTP/1.1 200 OK\r\ninference-header-content-length: {len(head)}\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            whole = lines.encode() + b"".join(chunks) + b"0\r\n\r\n"
        await peer.send(*cut(whole, segments))

    sent = {f"tensor {n}": array.T if transposed else array for n, array in enumerate(inputs)}

    async def main() -> None:
        async with serving(answer) as server, client_of(server) as client:
            for names in (list(sent), list(sent)[:1]):
                got = await client.infer("echo", sent, names)
                assert list(got) == names
                for name, array in got.items():
                    assert array.dtype == sent[name].dtype
                    np.testing.assert_array_equal(array, sent[name])
            assert server.connections == 1

    asyncio.run(main())


@pytest.mark.asyncio
async def test_many_megabytes_both_ways() -> None:
    array = np.arange(3_000_000, dtype=np.float32).reshape(3, 1000, 1000)
    async with serving() as server, client_of(server) as client:
        got = await call(client, array)
        np.testing.assert_array_equal(got, array)
        assert got.flags.aligned


@pytest.mark.asyncio
async def test_a_name_is_quoted_and_the_host_is_named() -> None:
    async def answer(peer: Peer) -> None:
        assert peer.headers["host"] == f"127.0.0.1:{server.port}"
        await regular(peer)

    async with serving(answer) as server, client_of(server) as client:
        await client.infer("a model/of ours", {"x": X}, ["x"])
    assert server.targets == ["/v2/models/a%20model/of%20ours/infer"]


@pytest.mark.asyncio
async def test_a_preliminary_answer_is_not_the_answer() -> None:
    async def answer(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n", reply(*peer.echo()))

    async with serving(answer) as server, client_of(server) as client:
        for _ in range(2):
            np.testing.assert_array_equal(await call(client), X)
        assert server.connections == 1


@pytest.mark.asyncio
async def test_an_answer_may_end_with_its_connection() -> None:
    async def answer(peer: Peer) -> None:
        head, data = peer.echo()
        await peer.send(f"HTTP/1.0 200 OK\r\nInference-Header-Content-Length: {len(head)}\r\n\r\n".encode(), head, data)
        peer.writer.close()

    async with serving(answer) as server, client_of(server) as client:
        for _ in range(2):
            np.testing.assert_array_equal(await call(client), X)
        assert server.connections == 2


# Hostile answers


def head_with(**changes: Any) -> bytes:
    output = {"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}
    return json.dumps({"outputs": [output | changes]}).encode()


HOSTILE: list[tuple[bytes, FailureKind, str]] = [
    (reply(HEAD, DATA)[:-3], FailureKind.UNREACHABLE, "in the middle of the answer"),
    (reply(HEAD, DATA)[:20], FailureKind.UNREACHABLE, "in the middle of the answer"),
    (b"", FailureKind.UNREACHABLE, "before the answer"),
    (b"\x00\xff\x13 garbage\r\n\r\n" * 9, FailureKind.UNREACHABLE, "not HTTP"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", FailureKind.UNREACHABLE, "not HTTP"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", FailureKind.UNREACHABLE, "not HTTP"),
    (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", FailureKind.UNREACHABLE, "not HTTP|lost"),
    (reply(HEAD, DATA[:-1]), FailureKind.REJECTED, "ends in the middle of `x`"),
    (reply(HEAD, DATA + b"!"), FailureKind.REJECTED, "1 bytes are left over"),
    (reply(head_with(shape=[1, 3]), DATA), FailureKind.REJECTED, r"`x` is FP32 \[1, 3\] in 8 bytes"),
    (reply(head_with(shape=[-1, -2]), DATA), FailureKind.REJECTED, "in 8 bytes"),
    (reply(head_with(shape="wide"), DATA), FailureKind.REJECTED, "cannot be read"),
    (reply(head_with(datatype="BYTES"), DATA), FailureKind.REJECTED, "not a binary tensor of numbers"),
    (reply(head_with(parameters={}, data=[1, 2]), DATA), FailureKind.REJECTED, "not a binary tensor"),
    (reply(head_with(parameters={"binary_data_size": -8}), DATA), FailureKind.REJECTED, "in -8 bytes"),
    (reply(head_with(name="y"), DATA), FailureKind.REJECTED, "no tensor `x`"),
    (reply(b'{"outputs":', DATA), FailureKind.REJECTED, "cannot be read"),
    (reply(b"[]", DATA), FailureKind.REJECTED, "cannot be read"),
    (reply(b"\xff\xfe", DATA), FailureKind.REJECTED, "cannot be read"),
    (reply(HEAD), FailureKind.REJECTED, "ends in the middle"),
    (reply(HEAD, more="Inference-Header-Content-Length: -1\r\n"), FailureKind.REJECTED, "said to have b'-1' bytes"),
    (reply(HEAD, more="Inference-Header-Content-Length: 999\r\n"), FailureKind.REJECTED, "ends in the middle"),
    (reply(b'{"error":"the cell is full"}', status="400 Bad"), FailureKind.REJECTED, "^the cell is full$"),
    (reply(b"<html>", status="502 Bad Gateway"), FailureKind.REJECTED, "HTTP 502: <html>"),
    (reply(b"[1]", status="500 Oh"), FailureKind.REJECTED, "HTTP 500"),
    (reply(b"\xff", status="503 Oh"), FailureKind.OVERLOADED, "HTTP 503"),
    (reply(b"", status="204 No Content"), FailureKind.REJECTED, "HTTP 204"),
    (reply(b'{"error":"Exceeds maximum queue size"}', status="500 Oh"), FailureKind.OVERLOADED, "queue size"),
    (reply(b'{"error":"model \'x\' is not found"}', status="400 Oh"), FailureKind.NOT_READY, "not found"),
    (reply(b'{"error":"Stub process \'x_0_0\' is not healthy."}', status="500 Oh"), FailureKind.BROKEN, "healthy"),
    (reply(b'{"error":"CUDA error: all gone"}', status="500 Oh"), FailureKind.OUT_OF_MEMORY, "gone"),
]


@pytest.mark.parametrize("case", range(len(HOSTILE)))
@pytest.mark.asyncio
async def test_what_is_no_answer_fails_with_its_cause(case: int) -> None:
    raw, kind, message = HOSTILE[case]

    async def answer(peer: Peer) -> None:
        await peer.send(raw)
        peer.writer.close()

    async with serving(answer) as server, client_of(server) as client:
        with pytest.raises(TritonFailure, match=message) as failed:
            await call(client)
        assert failed.value.kind is kind
        # Whatever it was, the next call is not disturbed by it.
        server.answer = regular
        np.testing.assert_array_equal(await call(client), X)


@settings(max_examples=80)
@given(flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6))
def test_no_broken_answer_is_more_than_a_failure(flips: list[tuple[int, int]]) -> None:
    raw = bytearray(reply(HEAD, DATA))
    for place, value in flips:
        raw[place % len(raw)] = value

    async def answer(peer: Peer) -> None:
        await peer.send(bytes(raw))
        peer.writer.close()

    async def main() -> None:
        async with serving(answer) as server, client_of(server, timeout_s=5) as client:
            with contextlib.suppress(TritonFailure):
                assert (await call(client)).shape == (1, 2)

    asyncio.run(main())


# Connections
