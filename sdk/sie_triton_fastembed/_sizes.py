"""The length of a model's vectors: what the server declares, else what a vector has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sie_triton_fastembed._server import Server

if TYPE_CHECKING:
    from sie_sdk.types import ModelInfo, OutputType


def size_of(info: ModelInfo, output: OutputType, server: Server) -> int:
    """Numbers in a vector of `output`, or in a token's. Raises as a call of the model does."""
    dims = info.get("dims", {})
    if dims.get(output) is not None:
        return int(dims[output])
    (result,) = server.encode(info["name"], ["a"], output, options={}, is_query=False)
    array = result["dense"] if output == "dense" else result["multivector"]
    return int(array.shape[-1])
