"""`python -m official.sie_driver URL`: make every call with the `sie_sdk` of this interpreter.

Prints JSON: `distributions` (version by name), `sync` and `async` (outcome by call), `at_once` (the results of
the texts, each asked for alone and all at the same time). An outcome is `{"returned": …}` or `{"raised": …}`; arrays
are `{"dtype", "shape", "base64"}`.
"""

from __future__ import annotations

import asyncio
import base64
import importlib.metadata
import json
import sys
from typing import Any

import numpy as np
from sie_sdk import SIEAsyncClient, SIEClient, SIEError

from .calls import BGE_M3, CALLS, OUTPUT_TYPES, Call, items

DISTRIBUTIONS = ("sie-sdk", "sie-triton-sdk")
"""What may have brought `sie_sdk`: theirs, ours."""


def _written(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {"dtype": value.dtype.str, "shape": list(value.shape), "base64": data}
    if isinstance(value, dict):
        return {key: _written(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_written(entry) for entry in value]
    return value


def _raised(error: SIEError) -> dict[str, Any]:
    kinds = [kind.__name__ for kind in type(error).__mro__]
    return {"raised": {"kinds": kinds, "message": str(error), **_written(vars(error))}}


def _sync(client: SIEClient, call: Call) -> dict[str, Any]:
    try:
        return {"returned": _written(call(client))}
    except SIEError as error:
        return _raised(error)


async def _async(client: SIEAsyncClient, call: Call) -> dict[str, Any]:
    try:
        return {"returned": _written(await call(client))}
    except SIEError as error:
        return _raised(error)


async def _all_async(url: str) -> dict[str, Any]:
    async with SIEAsyncClient(url) as client:
        # One after the other: what shares a run with others may differ in the last bit.
        outcomes = {name: await _async(client, call) for name, call in CALLS.items()}
        calls = (client.encode(BGE_M3, item, output_types=OUTPUT_TYPES) for item in items(ids=True))
        return {"async": outcomes, "at_once": _written(await asyncio.gather(*calls))}


def main(url: str) -> None:
    """Print the outcomes."""
    installed = {found.name: found.version for found in importlib.metadata.distributions()}
    with SIEClient(url) as client:
        outcomes = {
            "distributions": {name: installed[name] for name in DISTRIBUTIONS if name in installed},
            "sync": {name: _sync(client, call) for name, call in CALLS.items()},
            **asyncio.run(_all_async(url)),
        }
    json.dump(outcomes, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
