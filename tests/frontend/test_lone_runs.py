"""Which runs Triton is told to be alone."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest
from sie_frontend.triton import lone
from sie_frontend.triton.lone import ALONE, LoneRuns

from .triton_peer import Peer, X, call, client_of, regular, serving, settle


def test_one_is_alone_again_when_none_was_beside_another_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("sie_frontend.triton.lone.time.monotonic", lambda: now)
    runs = LoneRuns()
    assert runs.parameters("a", beside=False) == {ALONE: True}
    assert runs.parameters("a", beside=True) == {}
    assert runs.parameters("b", beside=False) == {ALONE: True}
    now += lone.QUIET_S
    assert runs.parameters("a", beside=False) == {}
    now += 0.01
    assert runs.parameters("a", beside=False) == {ALONE: True}


@pytest.mark.asyncio
async def test_a_run_is_called_alone_where_none_of_its_model_is_under_way() -> None:
    gate, told = asyncio.Event(), list[dict[str, bool]]()

    async def answer(peer: Peer) -> None:
        length = int(peer.headers["inference-header-content-length"])
        told.append(json.loads(peer.body[:length])["parameters"])
        await gate.wait()
        await regular(peer)

    async with serving(answer) as server, client_of(server) as client:
        together = [asyncio.create_task(call(client, X)) for _ in range(2)]
        await settle(lambda: len(told) == 2)
        gate.set()
        for task in together:
            np.testing.assert_array_equal(await task, X)
        await asyncio.sleep(2 * lone.QUIET_S)
        await call(client)
    assert told == [{ALONE: True}, {}, {ALONE: True}]
