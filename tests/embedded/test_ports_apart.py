"""Ports that are chosen together are different ones."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from sie_triton.embedded.server import ServerSpec, TritonServer


class Stubborn(random.Random):
    """Which proposes the same ports each time."""

    def sample(self, population: object, k: int, **_: object) -> list[int]:  # type: ignore[override]
        return [20_011, 20_012, 20_013, 20_014][:k]


@pytest.mark.parametrize("asked", [{}, {"metrics_port": 20_011}, {"http_port": 20_012}, {"grpc_port": 20_013}])
def test_a_server_has_three_ports(asked: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sie_triton.embedded.ports.random.SystemRandom", Stubborn)
    server = TritonServer(ServerSpec(tmp_path, tmp_path / "log", **{"grpc_port": 0, **asked}))  # type: ignore[arg-type]
    assert len({server.http_port, server.metrics_port, server.grpc_port}) == 3
