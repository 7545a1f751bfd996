"""Our SDK, the official one and OpenAI's client before a server that asks for keys."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from compiler import tiny
from frontend.fake_triton import FakeTriton, Run, tensors
from frontend.key_help import key
from frontend.process import FrontendProcess
from frontend.repository import write_repository

from .conftest import drive

SECRETS = {"known": "sie_known", "one": "sie_one", "elsewhere": "sie_elsewhere", "unknown": "sie_unknown"}
KEYS = (
    key("known", SECRETS["known"]),
    key("one", SECRETS["one"], at_once="1"),
    key("elsewhere", SECRETS["elsewhere"], models="other/*"),
)


async def slowly(run: Run) -> web.StreamResponse:
    """So that two calls meet."""
    await asyncio.sleep(0.4)
    return tensors(run)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontendProcess]:
    folder = tmp_path_factory.mktemp("keyed")
    repository = write_repository(folder / "repository")
    (folder / "keys.txt").write_text("\n".join(one.line for one in KEYS))
    arguments = ("--repository", repository, "--api-keys-file", folder / "keys.txt")
    with FakeTriton() as triton, FrontendProcess(folder / "log", *arguments, "--triton-url", triton.url) as frontend:
        frontend.wait_ready()
        triton.answer = slowly
        yield frontend
        assert not any(secret in frontend.log for secret in SECRETS.values())


def outcomes(interpreter: Path | str, server: FrontendProcess) -> dict[str, Any]:
    return drive(interpreter, "keys_driver", server.url, tiny.MODEL_ID, json.dumps(SECRETS))


def check_sdk(found: dict[str, Any]) -> None:
    for client in ("sync", "async"):
        assert found[client] == {
            "known": {"dims": 32},
            "one": {"dims": 32},
            "elsewhere": {"kind": "RequestError", "status": 403, "code": "FORBIDDEN"},
            "unknown": {"kind": "RequestError", "status": 401, "code": "UNAUTHORIZED"},
            # One of them was told to wait, did, and got its vector.
            "two at once": [{"dims": 32}, {"dims": 32}],
        }


def test_our_sdk(server: FrontendProcess) -> None:
    before = server.log.count("why=requests_at_once")
    check_sdk(outcomes(sys.executable, server))
    assert server.log.count("why=requests_at_once") == before + 2


@pytest.mark.official
def test_the_official_clients(interpreter: Path, server: FrontendProcess) -> None:
    before = server.log.count("why=requests_at_once")
    found = outcomes(interpreter, server)
    check_sdk(found)
    assert found["openai"] == {
        "known": {"dims": 32},
        "one": {"dims": 32},
        "elsewhere": {"kind": "PermissionDeniedError", "status": 403, "code": "insufficient_permissions"},
        "unknown": {"kind": "AuthenticationError", "status": 401, "code": "invalid_api_key"},
        "two at once": [{"dims": 32}, {"dims": 32}],
    }
    assert server.log.count("why=requests_at_once") >= before + 3
