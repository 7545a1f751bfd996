"""The rendered arguments of tritonserver, given to a real one: it takes them all, and listens where it should."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from benchmarks.waiting import eventually
from deploy.test_manifests import render, workloads
from sie_triton.deploy import DeployOptions
from sie_triton.embedded.installation import find_installation
from sie_triton.embedded.launch import child_environment
from sie_triton.embedded.ports import free_port

pytestmark = pytest.mark.e2e

CASES = {
    "apart": (DeployOptions(engine="nvidia"), {"http": "0.0.0.0", "metrics": "0.0.0.0"}),
    "grpc": (DeployOptions(grpc=True), {"http": "0.0.0.0", "grpc": "0.0.0.0", "metrics": "0.0.0.0"}),
    "together": (DeployOptions(engine="nvidia", load="on-demand"), {"http": "127.0.0.1", "metrics": "0.0.0.0"}),
}


@pytest.mark.parametrize("case", CASES)
def test_tritonserver_takes_them(case: str, repository: Path, tmp_path: Path) -> None:
    options, expected = CASES[case]
    container = next(
        container
        for _, pod in workloads(render("kubernetes", options, repository))
        for container in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"])
        if container["name"] == "triton"
    )
    served = tmp_path / "served"
    served.mkdir()
    ports = {name: free_port() for name in expected}
    command = [str(find_installation().binary)]
    for argument in container["args"][1:]:
        option, _, value = argument.partition("=")
        if option == "--model-repository":
            value = str(served)
        if match := re.fullmatch(r"--(http|grpc|metrics)-port", option):
            value = str(ports[match[1]])
        command.append(f"{option}={value}" if value else option)
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=child_environment(find_installation(), gpu=False), stdout=output, stderr=subprocess.STDOUT
        )
    try:
        assert eventually(lambda: len(listening(process.pid)) >= len(expected) or process.poll() is not None, 60)
        assert process.poll() is None, log.read_text()[-3000:]
        assert listening(process.pid) == {(expected[name], port) for name, port in ports.items()}
        assert eventually(lambda: probes_succeed(container, ports["http"]), 60)
    finally:
        process.terminate()
        assert process.wait(30) == 0
    assert not probes_succeed(container, ports["http"])


def probes_succeed(container: dict[str, Any], port: int) -> bool:
    """The container's probes, as kubelet asks: by HTTP, or by a command where only the pod itself can ask."""
    probes = [container[name] for name in ("startupProbe", "readinessProbe", "livenessProbe") if name in container]
    assert len(probes) >= 2
    return all(_succeeds(probe, port) for probe in probes)


def _succeeds(probe: dict[str, Any], port: int) -> bool:
    if "exec" in probe:
        command = [word.replace(":8000/", f":{port}/") for word in probe["exec"]["command"]]
        assert (command[0], command != probe["exec"]["command"]) == ("python3", True)
        return subprocess.run([sys.executable, *command[1:]], capture_output=True, check=False).returncode == 0
    try:
        return httpx.get(f"http://127.0.0.1:{port}{probe['httpGet']['path']}", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def listening(pid: int) -> set[tuple[str, int]]:
    """The addresses and ports of a process; `::` is every address of IPv4 as well, where it stands alone."""
    found = psutil.Process(pid).net_connections("tcp")
    addresses = [connection.laddr for connection in found if connection.status == psutil.CONN_LISTEN]
    return {("0.0.0.0" if address.ip == "::" else address.ip, address.port) for address in addresses}
