from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import httpx
import msgpack
import numpy as np
import pytest

from e2e.conftest import BGE, MINILM
from e2e.corpus import mixed_texts

pytestmark = pytest.mark.e2e

MSGPACK = "application/msgpack"
LOOKS_LIKE = "sentence-transformers/all-MiniLM-L6"


def packed(body: object) -> bytes:
    content: bytes = msgpack.packb(body)
    return content


GOOD = {"items": [{"text": "fine"}]}
TABLE: list[tuple[str, str, str, bytes, int, str, str]] = [
    # name, model, content type, body, status, code, message (up to where it depends on the machine)
    (
        "unknown model",
        "no/such-model",
        MSGPACK,
        packed(GOOD),
        404,
        "MODEL_NOT_FOUND",
        "Model 'no/such-model' not found",
    ),
    (
        "misspelt model",
        LOOKS_LIKE,
        MSGPACK,
        packed(GOOD),
        404,
        "MODEL_NOT_FOUND",
        f"Model '{LOOKS_LIKE}' not found Did you mean '{MINILM}', '{MINILM}:candle'?",
    ),
    ("no items", MINILM, MSGPACK, packed({"items": []}), 400, "INVALID_INPUT", "Field 'items' must not be empty"),
    ("no items key", MINILM, MSGPACK, packed({}), 400, "INVALID_INPUT", "Object missing required field `items`"),
    (
        "missing text",
        MINILM,
        MSGPACK,
        packed({"items": [{"text": "a"}, {"id": "b"}]}),
        400,
        "INVALID_INPUT",
        "SentenceTransformer adapters requires text input",
    ),
    (
        "missing text, another adapter",
        BGE,
        MSGPACK,
        packed({"items": [{}]}),
        400,
        "INVALID_INPUT",
        "BertFlashAdapter requires text input",
    ),
    (
        "text of the wrong type",
        MINILM,
        MSGPACK,
        packed({"items": [{"text": 5}]}),
        400,
        "INVALID_INPUT",
        "Expected `str | null`, got `int` - at `$.items[0].text`",
    ),
    (
        "items of the wrong type",
        MINILM,
        MSGPACK,
        packed({"items": "text"}),
        400,
        "INVALID_INPUT",
        "Expected `array`, got `str` - at `$.items`",
    ),
    (
        "another content type is read as JSON",
        MINILM,
        "text/plain",
        packed(GOOD),
        400,
        "INVALID_INPUT",
        "JSON is malformed: invalid character (byte 0)",
    ),
    (
        "invalid msgpack",
        MINILM,
        MSGPACK,
        packed(GOOD) + b"\x00",
        400,
        "INVALID_INPUT",
        "MessagePack data is malformed: trailing characters (byte 19)",
    ),
    ("cut msgpack", MINILM, MSGPACK, packed(GOOD)[:-1], 400, "INVALID_INPUT", "Input data was truncated"),
    ("invalid JSON", MINILM, "application/json", b'{"items": [', 400, "INVALID_INPUT", "Input data was truncated"),
    ("no body", MINILM, MSGPACK, b"", 400, "INVALID_INPUT", "Input data was truncated"),
    (
        "513 items",
        MINILM,
        MSGPACK,
        packed({"items": [{"text": "x"}] * 513}),
        400,
        "INVALID_INPUT",
        f"Request has 513 items but the queue accepts at most 512 items per request for model '{MINILM}'; "
        "split the request into batches of 512 or fewer",
    ),
    (
        "unknown output type",
        MINILM,
        MSGPACK,
        packed({**GOOD, "params": {"output_types": ["rank"]}}),
        400,
        "INVALID_INPUT",
        "'output_types' entries must be one of ['dense', 'multivector', 'sparse']",
    ),
    (
        "output type that the model lacks",
        MINILM,
        MSGPACK,
        packed({**GOOD, "params": {"output_types": ["sparse"]}}),
        400,
        "INVALID_INPUT",
        f"Model '{MINILM}' does not support output types: {{'sparse'}}. Supported: {{'dense'}}",
    ),
    (
        "unknown dtype",
        MINILM,
        MSGPACK,
        packed({**GOOD, "params": {"output_dtype": "bfloat16"}}),
        400,
        "INVALID_INPUT",
        "Unsupported output_dtype: bfloat16",
    ),
    (
        "unknown profile",
        MINILM,
        MSGPACK,
        packed({**GOOD, "params": {"options": {"profile": "fast"}}}),
        400,
        "INVALID_INPUT",
        "Profile 'fast' not found. Available: ['default', 'candle']",
    ),
    (
        "a text beyond 2 MiB",
        MINILM,
        MSGPACK,
        packed({"items": [{"text": "x" * (2 * 1024 * 1024 + 1)}]}),
        400,
        "INVALID_INPUT",
        "Field 'items[0]' must hold at most 2097152 bytes of UTF-8 text",
    ),
    (
        "a body over the limit",
        MINILM,
        MSGPACK,
        b"x" * (34 * 1024 * 1024 + 1),
        413,
        "INPUT_TOO_LONG",
        "request body exceeds the limit of 35651584 bytes",
    ),
]


@pytest.mark.parametrize("case", TABLE, ids=[row[0] for row in TABLE])
def test_bad_input_is_told(case: tuple[str, str, str, bytes, int, str, str], url: str) -> None:
    _, model, content_type, body, status, code, message = case
    response = httpx.post(
        f"{url}/v1/encode/{model}", content=body, headers={"content-type": content_type, "accept": MSGPACK}, timeout=60
    )
    assert response.headers["content-type"] == "application/json"
    detail = response.json()["detail"]
    assert (response.status_code, detail["code"], detail["message"]) == (status, code, message)
    assert "retry-after" not in response.headers


def test_a_thousand_requests_good_and_bad(url: str) -> None:
    texts = mixed_texts(60, seed=4, longest=60)
    generator = random.Random(5)
    small = [row for row in TABLE if len(row[3]) < 100_000]

    def good(text: str) -> dict[str, Any]:
        return {"url": f"{url}/v1/encode/{MINILM}", "json": {"items": [{"text": text}]}}

    def values(response: httpx.Response) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        assert response.status_code == 200, response.text
        return np.asarray(response.json()["items"][0]["dense"]["values"])

    async def main() -> None:
        limits = httpx.Limits(max_connections=32)
        accept = {"accept": "application/json"}
        async with httpx.AsyncClient(limits=limits, timeout=60) as client:
            alone = {text: values(await client.post(**good(text), headers=accept)) for text in texts}

            async def one(number: int) -> None:
                if number % 2:
                    _, model, content_type, body, status, code, message = generator.choice(small)
                    response = await client.post(
                        f"{url}/v1/encode/{model}", content=body, headers={"content-type": content_type}
                    )
                    detail = response.json()["detail"]
                    assert (response.status_code, detail["code"], detail["message"]) == (status, code, message)
                else:
                    text = generator.choice(texts)
                    response = await client.post(**good(text), headers=accept)
                    np.testing.assert_allclose(values(response), alone[text], atol=1e-5)

            await asyncio.gather(*(one(number) for number in range(1000)))
            assert (await client.get(f"{url}/readyz")).status_code == 200
            metrics = (await client.get(f"{url}/metrics")).text
            assert "sie_frontend_pending_items 0.0" in metrics
            assert "such-model" not in metrics

    asyncio.run(main())


def test_a_request_as_curl_sends_it(url: str) -> None:
    body = json.dumps({"items": [{"id": "a", "text": "The mitochondrion is the powerhouse of the cell."}]})
    response = httpx.post(
        f"{url}/v1/encode/{MINILM}",
        content=body,
        headers={"content-type": "application/json", "accept": "application/json"},
    )
    answer = response.json()
    assert list(answer) == ["model", "items", "timing", "usage"]
    assert (answer["model"], answer["usage"]) == (MINILM, {"input_tokens": 14})
    (item,) = answer["items"]
    assert (item["id"], item["dense"]["dims"], item["dense"]["dtype"]) == ("a", 384, "float32")
    np.testing.assert_allclose(item["dense"]["values"][:2], [-0.0478733, 0.0541967], atol=2e-6)
