"""`python -m official.keys_driver URL MODEL KEYS`: ask with keys. `KEYS` is JSON, a key by its name.

Prints JSON: by client (`sync`, `async` and, where it is installed, `openai`) and key, what came back; the key `one`
is used by two calls at once.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sie_sdk import SIEAsyncClient, SIEClient, SIEError


def _raised(error: SIEError) -> dict[str, Any]:
    return {
        "kind": type(error).__name__,
        "status": getattr(error, "status_code", None),
        "code": getattr(error, "code", None),
    }


def _sync(url: str, key: str, model: str) -> dict[str, Any]:
    with SIEClient(url, api_key=key) as client:
        try:
            return {"dims": len(client.encode(model, {"text": "the cell"})["dense"])}
        except SIEError as error:
            return _raised(error)


async def _async(url: str, key: str, model: str) -> dict[str, Any]:
    async with SIEAsyncClient(url, api_key=key) as client:
        try:
            return {"dims": len((await client.encode(model, {"text": "the cell"}))["dense"])}
        except SIEError as error:
            return _raised(error)


def _openai(url: str, key: str, model: str) -> dict[str, Any]:
    openai: Any = importlib.import_module("openai")
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key) as client:
        try:
            return {"dims": len(client.embeddings.create(model=model, input="the cell").data[0].embedding)}
        except openai.APIStatusError as error:
            return {"kind": type(error).__name__, "status": error.status_code, "code": error.code}


def main(url: str, model: str, keys: dict[str, str]) -> None:
    """Print what each client got with each key."""
    clients: dict[str, Any] = {"sync": _sync, "async": lambda *given: asyncio.run(_async(*given))}
    if importlib.util.find_spec("openai"):
        clients["openai"] = _openai
    found: dict[str, dict[str, Any]] = {}
    for name, ask in clients.items():
        found[name] = {who: ask(url, key, model) for who, key in keys.items()}
        with ThreadPoolExecutor() as threads:
            both = [threads.submit(ask, url, keys["one"], model) for _ in range(2)]
            found[name]["two at once"] = [one.result() for one in both]
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
