"""How long an answer of 64 x 1024 float32 takes to write, by format and library.

    python -m benchmarks.codecs

Prints a Markdown table; libraries that are not installed are left out.
"""

from __future__ import annotations

import base64
import importlib
import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ROWS, _DIM, _REPEATS = 64, 1024, 9

Writer = Callable[[NDArray[np.float32]], bytes]


def writers() -> Iterator[tuple[str, Writer]]:
    """Every way to write the array that can be tried here, by name."""
    yield "JSON, standard library", lambda array: json.dumps(array.tolist()).encode()
    if orjson := _optional("orjson"):
        yield "JSON, orjson, from lists", lambda array: orjson.dumps(array.tolist())
        yield "JSON, orjson, from numpy", lambda array: orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY)
        yield "JSON, orjson, base64 strings", lambda array: orjson.dumps([base64.b64encode(r).decode() for r in array])
    if msgspec := _optional("msgspec"):
        yield "JSON, msgspec, from lists", lambda array: msgspec.json.encode(array.tolist())
        yield "msgpack, msgspec, lists of floats", lambda array: msgspec.msgpack.encode(array.tolist())
        yield "msgpack, msgspec, binary rows", lambda array: msgspec.msgpack.encode([row.data for row in array])
    if msgpack := _optional("msgpack"):
        yield "msgpack, msgpack, lists of floats", lambda array: msgpack.packb(array.tolist())
        yield "msgpack, msgpack, binary rows", lambda array: msgpack.packb([row.tobytes() for row in array])
    if _optional("sie_frontend"):
        from benchmarks.our_codec import write_json, write_msgpack

        yield "ours, a whole answer in JSON", write_json
        yield "ours, a whole answer in msgpack", write_msgpack


def _optional(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def milliseconds(write: Writer, array: NDArray[np.float32]) -> float:
    """The median time of one call; a fast one is repeated until it can be measured."""
    times = []
    for _ in range(_REPEATS):
        calls, begun = 0, time.perf_counter()
        while (passed := time.perf_counter() - begun) < 0.02 or not calls:
            write(array)
            calls += 1
        times.append(passed / calls * 1e3)
    return statistics.median(times)


def main() -> None:
    array = np.random.default_rng(1).standard_normal((_ROWS, _DIM), dtype=np.float32)
    print(f"| {_ROWS} x {_DIM} float32 | ms | bytes |\n|---|---|---|")
    for name, write in writers():
        print(f"| {name} | {milliseconds(write, array):.3f} | {len(write(array))} |")


if __name__ == "__main__":
    main()
