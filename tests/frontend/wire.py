"""Requests as any client may write them, and answers read by codecs that are not ours."""

from __future__ import annotations

import json
from typing import Any

import httpx
import msgpack
import numpy as np
from compiler import tiny
from numpy.typing import NDArray

ENCODE = f"/v1/encode/{tiny.MODEL_ID}"
MSGPACK = {"content-type": "application/msgpack"}
JSON = {"content-type": "application/json", "accept": "application/json"}


async def encode(client: httpx.AsyncClient, body: Any, path: str = ENCODE, **headers: str) -> httpx.Response:
    """Send msgpack, take msgpack."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.post(path, content=msgpack.packb(body), headers={**MSGPACK, **named})


def texts(*values: str) -> dict[str, Any]:
    """The body of a plain encode request."""
    return {"items": [{"text": value} for value in values]}


def array(value: dict[bytes, Any]) -> NDArray[Any]:
    """One numpy array of a msgpack answer."""
    shaped: NDArray[Any] = np.frombuffer(value[b"data"], dtype=value[b"type"]).reshape(value[b"shape"])
    return shaped


def answer(response: httpx.Response) -> dict[str, Any]:
    """The decoded body of a success."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/msgpack"
    decoded: dict[str, Any] = msgpack.unpackb(response.content, strict_map_key=False)
    return decoded


def dense(response: httpx.Response) -> list[NDArray[Any]]:
    """The dense vectors of a success, in order."""
    return [array(item["dense"]["values"]) for item in answer(response)["items"]]


def refusal(response: httpx.Response) -> tuple[int, str, str]:
    """Status, code and message of an error in the contract's envelope."""
    assert response.headers["content-type"] == "application/json"
    detail = json.loads(response.content)["detail"]
    assert len(response.headers["x-sie-runtime-instance"]) == 64
    return response.status_code, detail["code"], detail["message"]
