"""Ports that are chosen together are different ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from sie_triton.embedded.server import ServerSpec, TritonServer


class Stubborn:
    """In place of chance: it proposes the same ports each time."""

    def sample(self, ports: range, count: int) -> list[int]:
        return [20_011, 20_012, 20_013, 20_014][:count]


@pytest.mark.parametrize("asked", [{}, {"metrics_port": 20_011}, {"http_port": 20_012}, {"grpc_port": 20_013}])
def test_a_server_has_three_ports(asked: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sie_triton.embedded.ports.random.SystemRandom", Stubborn)
    http, metrics, grpc = (asked.get(f"{name}_port", 0) for name in ("http", "metrics", "grpc"))
    spec = ServerSpec(tmp_path, tmp_path / "log", http_port=http, metrics_port=metrics, grpc_port=grpc)
    server = TritonServer(spec)
    assert len({server.http_port, server.metrics_port, server.grpc_port}) == 3
