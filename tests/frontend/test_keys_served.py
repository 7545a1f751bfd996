"""Requests with keys and without: who is let in, to what, in whose words others are refused, and what is told of it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from compiler import tiny
from sie_frontend.access.keyfile import new_secret
from sie_frontend.access.keyring import KeyRing
from sie_frontend.contract.errors import WireError
from sie_frontend.http.app import create_app
from sie_frontend.main import make_server
from sie_frontend.settings import Settings, SettingsError

from frontend.conftest import Service, until_ready
from frontend.fake_triton import FakeTriton
from frontend.key_help import SECRET, Clock, bearer, behind_keys, key
from frontend.wire import ENCODE, JSON, MSGPACK, dense, encode, texts

OPENAI = {"model": tiny.MODEL_ID, "input": "the cell"}
RERANK = {"model": tiny.MODEL_ID, "query": "cell", "documents": ["the cell"]}
# Every route that asks for a key, and the verb that it is.
ASKED: dict[str, tuple[str, str, Any]] = {
    "encode": ("POST", ENCODE, texts("the cell")),
    "score": ("POST", f"/v1/score/{tiny.MODEL_ID}", {"query": {"text": "a"}, "items": [{"text": "b"}]}),
    "embeddings": ("POST", "/v1/embeddings", OPENAI),
    "rerank": ("POST", "/v1/rerank", RERANK),
    "rerank of Cohere": ("POST", "/v2/rerank", RERANK),
    "models": ("GET", "/v1/models", None),
    "models of one": ("GET", f"/v1/models/{tiny.MODEL_ID}", None),
    "metrics": ("GET", "/metrics", None),
    "admin": ("GET", "/admin/status", None),
    "admin that reloads": ("POST", "/admin/reload", None),
}
UNSERVED: list[tuple[str, str, Any]] = [("POST", f"/v1/{task}/{tiny.MODEL_ID}", {}) for task in ("extract", "generate")]


async def ask(client: httpx.AsyncClient, method: str, path: str, body: Any, **headers: str) -> httpx.Response:
    return await client.request(method, path, json=body, headers={**JSON, **headers})


@pytest.mark.asyncio
async def test_a_key_opens_what_is_closed_without(service: Service) -> None:
    async with behind_keys(service.settings, key()) as client:
        assert dense(await encode(client, texts("the cell")))
        assert (await ask(client, *ASKED["embeddings"])).json()["data"][0]["object"] == "embedding"
        assert [m["name"] for m in (await client.get("/v1/models")).json()["models"]]
        del client.headers["authorization"]
        for method, path, body in (*ASKED.values(), *UNSERVED):
            response = await ask(client, method, path, body)
            assert response.status_code == 401, path
            assert response.headers["www-authenticate"] == 'Bearer realm="sie"'
        for path in ("/livez", "/readyz", "/healthz", "/docs", "/openapi.json", "/"):
            assert (await client.get(path)).status_code in (200, 307)
        assert (await client.get("/nowhere")).status_code == 404


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        f"Basic {SECRET}",
        SECRET,
        f"Bearer {SECRET}x",
        f"Bearer {SECRET[:-1]}",
        f"Bearer {SECRET.upper()}",
        "Bearer " + "x" * 100_000,
        f"Bearer {SECRET}" + "x" * 1000,
        "Bearer \xff\xfe",
        f"Bearer {key().sha256.hex()}",
        f"Bearer {key().line}",
    ],
)
@pytest.mark.asyncio
async def test_what_is_no_key_opens_nothing(service: Service, header: str) -> None:
    async with behind_keys(service.settings, key()) as client:
        response = await client.get("/v1/models", headers={b"authorization": header.encode("latin-1")})
        assert response.status_code == 401
        assert response.json()["detail"]["code"] == "UNAUTHORIZED"


@pytest.mark.parametrize("header", [f"Bearer {SECRET}", f"bearer {SECRET}", f"BEARER   {SECRET} "])
def test_the_scheme_is_read_as_http_says(header: str) -> None:
    assert KeyRing([key()]).grant(header, "encode").name == "search"


@pytest.mark.asyncio
async def test_refusals_are_in_the_words_of_the_route(service: Service) -> None:
    async with behind_keys(service.settings, key(verbs="metrics")) as client:
        for name, headers, status, code, openai_code, challenge in (
            ("known", bearer(), 403, "FORBIDDEN", "insufficient_permissions", "insufficient_scope"),
            ("unknown", bearer("other"), 401, "UNAUTHORIZED", "invalid_api_key", "invalid_token"),
        ):
            for asked in ("encode", "score", "models", "models of one"):
                response = await ask(client, *ASKED[asked], **headers)
                assert (response.status_code, response.json()["detail"]["code"]) == (status, code), name
                assert len(response.headers["x-sie-runtime-instance"]) == 64
                assert response.headers["www-authenticate"] == f'Bearer realm="sie", error="{challenge}"'
            for asked in ("embeddings", "rerank"):
                response = await ask(client, *ASKED[asked], **headers)
                error = response.json()["error"]
                assert response.status_code == status
                assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", openai_code, None)
            cohere = await ask(client, *ASKED["rerank of Cohere"], **headers)
            assert cohere.json()["message"] == cohere.json()["error"]["message"]


@pytest.mark.asyncio
async def test_a_verb_opens_its_routes_and_no_other(service: Service) -> None:
    for verb in ("encode", "score", "embeddings", "rerank", "models", "metrics"):
        async with behind_keys(service.settings, key(verbs=verb)) as client:
            for asked, (method, path, body) in ASKED.items():
                status = (await ask(client, method, path, body)).status_code
                # 400: the tiny model does not score.
                assert (status in (200, 400)) == (asked.split()[0] == verb), (verb, asked)
                assert status in (200, 400, 403)


@pytest.mark.asyncio
async def test_a_model_that_a_key_is_not_for_is_not_told_of(service: Service) -> None:
    async with behind_keys(service.settings, key(models="other/*")) as client:
        assert (await client.get("/v1/models")).json() == {"models": [], "object": "list", "data": []}
        for asked in ("encode", "score", "embeddings", "models of one"):
            assert (await ask(client, *ASKED[asked])).status_code == 403, asked
        for method, path, body in UNSERVED:
            assert (await ask(client, method, path, body)).status_code == 403
        # One that is not there is refused alike, and one that could be there is suggested nothing.
        assert (await encode(client, texts("x"), "/v1/encode/acme/none")).status_code == 403
        unknown = await encode(client, texts("x"), "/v1/encode/other/tiny")
        assert unknown.status_code == 404
        assert tiny.MODEL_ID not in unknown.text


@pytest.mark.asyncio
async def test_options_lead_to_no_weights_that_a_key_is_not_for(service: Service) -> None:
    """A call may name the LoRA adapter of another profile: that profile is a model too."""
    own, other = f"{tiny.MODEL_ID}:own", f"{tiny.MODEL_ID}:legal"
    app = create_app(service.settings)
    frontend = app.state.frontend
    base = frontend.manifest.models[tiny.MODEL_ID]
    built = msgspec.structs.replace(base, adapter="BGEM3FlashAdapter")
    models = {own: built, other: msgspec.structs.replace(built, lora="acme/legal")}
    frontend.repository.manifest = msgspec.structs.replace(frontend.manifest, models=models)
    grant = KeyRing([key(models=own)]).grant(f"Bearer {SECRET}", "encode")
    frontend.check_weights(own, {}, grant)
    frontend.check_weights(own, {"lora_id": "acme/legal"}, None)
    frontend.check_weights(own, {"lora_id": "acme/legal"}, KeyRing([key()]).grant(f"Bearer {SECRET}", "encode"))
    with pytest.raises(WireError, match=f"not for model '{other}'") as refused:
        frontend.check_weights(own, {"lora_id": "acme/legal"}, grant)
    assert refused.value.status == 403


@pytest.mark.asyncio
async def test_a_body_is_not_read_before_its_key(service: Service) -> None:
    read = 0

    async def body() -> Any:
        nonlocal read
        for _ in range(100):
            read += 1
            yield b"x" * 1000

    async with behind_keys(service.settings, key(models="other/*")) as client:
        for headers in (bearer(), bearer("other")):
            response = await client.post(ENCODE, content=body(), headers={**MSGPACK, **headers})
            assert response.status_code in (401, 403)
    assert read <= 2  # what the client sends before it is answered


@pytest.mark.asyncio
async def test_a_denied_call_leaves_one_line_and_no_secret(
    service: Service, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    unknown = new_secret()
    with caplog.at_level(logging.DEBUG):
        async with behind_keys(
            service.settings.__class__(**{**vars(service.settings), "access_log": True}), key(models="other/*")
        ) as client:
            answers = [
                await ask(client, *ASKED["encode"], **{"x-request-id": "the-call"}),
                await ask(client, *ASKED["embeddings"]),
                await ask(client, *ASKED["models"], **bearer(unknown)),
                await client.get("/metrics"),
            ]
            told = answers[0].headers["x-sie-request-id"]
    lines = [record for record in caplog.records if record.name == "sie_frontend.audit"]
    fields = [record.fields for record in lines]  # type: ignore[attr-defined]
    assert told == "the-call"
    assert fields == [
        {
            "key": "search",
            "verb": "encode",
            "model": tiny.MODEL_ID,
            "why": "model_not_allowed",
            "peer": "127.0.0.1:123",
        },
        {
            "key": "search",
            "verb": "embeddings",
            "model": tiny.MODEL_ID,
            "why": "model_not_allowed",
            "peer": "127.0.0.1:123",
        },
        {"key": "-", "verb": "models", "model": "-", "why": "unknown_key", "peer": "127.0.0.1:123"},
        {"key": "search", "verb": "metrics", "model": "-", "why": "verb_not_allowed", "peer": "127.0.0.1:123"},
    ]
    everything = (
        caplog.text
        + json.dumps([answer.text + str(answer.headers) for answer in answers])
        + str([vars(record) for record in caplog.records])
    )
    assert SECRET not in everything and unknown not in everything


# The file, while the server runs


async def status(client: httpx.AsyncClient, secret: str) -> int:
    return (await client.get("/v1/models", headers=bearer(secret))).status_code


async def until(condition: Any) -> None:
    for _ in range(200):
        if await condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not happen")


@pytest.mark.asyncio
async def test_a_changed_file_counts_without_a_restart_and_a_broken_one_does_not(
    repository: Path,
    triton: FakeTriton,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sie_frontend.access.following.follow.__kwdefaults__", {"poll_s": 0.02}, raising=False)
    file = tmp_path / "keys.txt"
    file.write_text(key("first", "one").line)
    app = create_app(Settings(repository, triton_url=triton.url, api_keys_file=str(file)))
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://frontend") as client,
    ):
        await until_ready(client)
        assert [await status(client, secret) for secret in ("one", "two")] == [200, 401]
        file.write_text(key("second", "two").line)

        async def turned() -> bool:
            return [await status(client, secret) for secret in ("one", "two")] == [401, 200]

        await until(turned)
        assert "1 keys are in use now" in caplog.text
        # Broken, gone, a folder: what was before stays, and the log says so, once.
        spoiling: list[Callable[[], object]] = [lambda: file.write_text("second"), file.unlink, file.mkdir]
        for number, spoil in enumerate(spoiling):
            caplog.clear()
            spoil()

            async def told() -> bool:
                return "the 1 keys from before stay in use" in caplog.text

            await until(told)
            await asyncio.sleep(0.1)
            assert caplog.text.count("stay in use") == 1, number
            assert await turned()
        file.rmdir()
        file.write_text("")

        async def closed() -> bool:
            return [await status(client, secret) for secret in ("one", "two")] == [401, 401]

        await until(closed)
        assert "every call is refused" in caplog.text


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "it cannot be read: no such file"), (b"", "it holds no key"), (b"x y", "line 1: "), (b"\xff", "not UTF-8")],
)
def test_a_server_does_not_start_with_keys_that_cannot_be_used(
    content: bytes | None, expected: str, repository: Path, tmp_path: Path
) -> None:
    file = tmp_path / "keys.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match="SIE_TRITON_API_KEYS_FILE") as caught:
        create_app(Settings(repository, api_keys_file=str(file)))
    assert expected in str(caught.value)


@pytest.mark.asyncio
async def test_keys_may_stand_in_the_environment(repository: Path, triton: FakeTriton) -> None:
    environment = {"SIE_TRITON_API_KEYS": f"{key('a', 'one').line}\n{key('b', 'two').line}\n"}
    settings = Settings.from_environment(environment, repository=repository, triton_url=triton.url)
    async with Service(settings).open() as client:
        assert [await status(client, secret) for secret in ("one", "two", "three")] == [200, 200, 401]


@pytest.mark.parametrize("variable", ["API_KEYS", "API_KEYS_FILE", "TLS_CERTIFICATE", "TLS_KEY"])
def test_a_secret_that_was_not_filled_in_is_no_wish_to_go_without(variable: str, repository: Path) -> None:
    settings = Settings.from_environment({f"SIE_TRITON_{variable}": ""}, repository=repository)
    with pytest.raises(SettingsError, match=r"SIE_TRITON_(API_KEYS|TLS)"):
        make_server(settings)


def test_no_request_is_refused_for_a_lack_of_keys_where_there_are_none(repository: Path) -> None:
    assert create_app(Settings(repository)).state.frontend.gate is None


def test_what_a_name_has_spent_outlives_its_line() -> None:
    clock = Clock()
    ring = KeyRing([key(requests_per_minute="1")], clock)
    with ring.grant(f"Bearer {SECRET}", "encode"):
        pass
    ring.replace([key(secret="another", requests_per_minute="1")])
    with pytest.raises(WireError) as caught, ring.grant("Bearer another", "encode"):
        pass
    assert caught.value.headers()["retry-after"] == "60"
