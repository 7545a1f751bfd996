"""The frontend's client of Triton and NVIDIA's, `tritonclient`, on the real server: the same arrays and errors."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sie_frontend.triton.client import FailureKind, TritonClient, TritonFailure

from sie_triton.embedded.server import TritonServer

pytestmark = pytest.mark.e2e

Arrays = dict[str, NDArray[Any]]

RNG = np.random.default_rng(7)
CALLS: list[tuple[str, Arrays, list[str]]] = [
    ("double", {"x": RNG.standard_normal((1, 1), np.float32)}, ["y"]),
    ("double", {"x": RNG.standard_normal((8, 300_000), np.float32)}, ["y"]),
    ("double", {"x": np.asfortranarray(RNG.standard_normal((5, 7), np.float32))}, ["y"]),
    ("double", {"x": np.zeros((1, 0), np.float32)}, ["y"]),
    ("half", {"x": RNG.standard_normal((3, 2)).astype(np.float16)}, ["y"]),
    ("flags", {"x": RNG.integers(0, 2, (4, 2)).astype(bool)}, ["y"]),
    ("reshaped", {"x": RNG.integers(-(2**62), 2**62, (3, 1))}, ["y"]),
    ("scalar", {"x": RNG.standard_normal((2, 9), np.float32)}, ["sum"]),
    ("lookup", {"ids": RNG.integers(0, 3, (2, 5))}, ["y"]),
    ("ensemble", {"x": RNG.standard_normal((2, 3), np.float32)}, ["a", "b"]),
    ("ensemble", {"x": RNG.standard_normal((2, 3), np.float32)}, ["b"]),
    ("indexed", {"A__0": RNG.standard_normal((2, 3), np.float32), "B__1": np.ones((2, 1), np.float32)}, ["WHOLE__1"]),
]
REFUSED: list[tuple[str, Arrays, list[str], FailureKind]] = [
    ("nobody", {"x": np.zeros((1, 1), np.float32)}, ["y"], FailureKind.NOT_READY),
    ("double", {"x": np.zeros((1, 1), np.float64)}, ["y"], FailureKind.REJECTED),
    ("double", {"x": np.zeros((10_000, 1), np.float32)}, ["y"], FailureKind.REJECTED),
    ("double", {"z": np.zeros((1, 1), np.float32)}, ["y"], FailureKind.REJECTED),
    ("double", {"x": np.zeros((1, 1), np.float32)}, ["z"], FailureKind.REJECTED),
    ("lookup", {"ids": np.asarray([[99]])}, ["y"], FailureKind.REJECTED),
]


def theirs(url: str, model: str, inputs: Arrays, outputs: list[str]) -> Arrays:
    http = pytest.importorskip("tritonclient.http")
    from tritonclient.utils import np_to_triton_dtype

    tensors = []
    for name, array in inputs.items():
        tensor = http.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensors.append(tensor.set_data_from_numpy(np.ascontiguousarray(array)))
    with http.InferenceServerClient(url.removeprefix("http://")) as client:
        result = client.infer(model, tensors, outputs=[http.InferRequestedOutput(name) for name in outputs])
        return {name: result.as_numpy(name) for name in outputs}


def ours(url: str, model: str, inputs: Arrays, outputs: list[str]) -> Arrays:
    async def main() -> Arrays:
        client = TritonClient(url)
        try:
            return await client.infer(model, inputs, outputs)
        finally:
            await client.close()

    return asyncio.run(main())


@pytest.mark.parametrize("case", range(len(CALLS)))
def test_the_same_arrays(case: int, server: TritonServer) -> None:
    model, inputs, outputs = CALLS[case]
    wanted, got = theirs(server.url, model, inputs, outputs), ours(server.url, model, inputs, outputs)
    assert list(got) == outputs
    for name in outputs:
        assert got[name].dtype == wanted[name].dtype
        np.testing.assert_array_equal(got[name], wanted[name])


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_the_same_refusals(case: int, server: TritonServer) -> None:
    from tritonclient.utils import InferenceServerException

    model, inputs, outputs, kind = REFUSED[case]
    with pytest.raises(InferenceServerException) as wanted:
        theirs(server.url, model, inputs, outputs)
    with pytest.raises(TritonFailure) as got:
        ours(server.url, model, inputs, outputs)
    assert str(got.value) == wanted.value.message()
    assert got.value.kind is kind


def test_probes_and_many_calls_on_kept_connections(server: TritonServer) -> None:
    async def main() -> None:
        client = TritonClient(server.url)
        assert await client.server_ready()
        assert await client.model_ready("double")
        assert not await client.model_ready("nobody")

        async def ask(task: int) -> None:
            for number in range(25):
                array = np.full((1, 1 + task), task * 100 + number, np.float32)
                np.testing.assert_array_equal((await client.infer("double", {"x": array}, ["y"]))["y"], array * 2)

        await asyncio.gather(*(ask(task) for task in range(8)))
        await client.close()

    asyncio.run(main())
