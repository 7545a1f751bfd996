"""The InferenceService speaks SIE's contract: KServe routes its address to the frontend, and Triton is behind it."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from frontend.process import until
from frontend.repository import write_repository as write_served

from benchmarks.waiting import eventually
from deploy.test_manifests import frontend_of, frontend_settings, of_kind, render, workloads
from sie_triton.deploy import DeployOptions
from sie_triton.deploy.options import Autoscaler
from sie_triton.embedded.ports import free_port

# What KServe puts behind the arguments of every transformer (v1beta1/transformer_custom.go).
KSERVES_ARGUMENTS = ["--model_name", "sie-triton", "--predictor_host", "sie-triton-predictor.default"]
KSERVES_ARGUMENTS += ["--http_port", "8080"]


def test_the_entry_is_the_frontend_and_triton_is_the_predictor(repository: Path) -> None:
    files = render("kserve", DeployOptions(device="cuda"), repository)
    [service] = of_kind(files, "InferenceService").values()
    assert set(service["spec"]) == {"predictor", "transformer"}
    [container] = service["spec"]["transformer"]["containers"]
    # KServe calls it so, and the first port is that of its service.
    assert container["name"] == "kserve-container"
    assert container["ports"][0]["containerPort"] == 8080
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": 8080}
    # Raw tensors are not to be had: only frontends reach Triton, whatever addresses KServe gives the predictor.
    policy = of_kind(files, "NetworkPolicy")["sie-triton-triton"]["spec"]
    assert policy["podSelector"]["matchLabels"]["component"] == "predictor"
    [peer] = policy["ingress"][0]["from"]
    assert peer["podSelector"]["matchLabels"]["component"] == "transformer"
    assert "Deployment" not in {found["kind"] for documents in files.values() for found in documents}


@pytest.mark.parametrize(("autoscaler", "expected"), [("hpa", "external"), ("keda", "external"), ("none", "none")])
def test_one_scaler_decides(autoscaler: Autoscaler, expected: str, repository: Path) -> None:
    """`external` leaves the replicas to ours; with `none` KServe keeps the fewest, and with `external` it would not."""
    files = render("kserve", DeployOptions(autoscaler=autoscaler), repository)
    [service] = of_kind(files, "InferenceService").values()
    assert service["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == expected
    for part in ("predictor", "transformer"):
        assert service["spec"][part]["minReplicas"] == 2
        assert service["spec"][part]["maxReplicas"] == (2 if autoscaler == "none" else 8)


def test_pods_roll_when_the_repository_is_another(repository: Path) -> None:
    def hashes() -> set[str]:
        files = render("kserve", DeployOptions(), repository)
        return {pod["metadata"]["annotations"]["sie-triton/manifest-sha256"] for _, pod in workloads(files)}

    before = hashes()
    manifest = (repository / "manifest.json").read_text()
    (repository / "manifest.json").write_text(manifest.replace('"k' + "k" * 63, '"j' + "k" * 63))
    assert len(before) == 1
    assert not hashes() & before


def test_prometheus_finds_the_metrics_of_frontends_with_keys(repository: Path) -> None:
    template = frontend_of(render("kserve", DeployOptions(api_keys_secret="keys"), repository))
    assert template["metadata"]["annotations"]["prometheus.kserve.io/port"] == "8081"


def test_the_rendered_command_starts_whatever_kserve_appends(repository: Path, tmp_path: Path) -> None:
    """The frontend refuses options that it does not have; the shell before it takes KServe's and drops them."""
    _, container = frontend_settings(render("kserve", DeployOptions(), repository))
    programs, port = tmp_path / "bin", free_port()
    programs.mkdir()
    program = programs / "sie-triton-frontend"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m sie_frontend.main "$@"\n')
    program.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "SIE_TRITON_REPOSITORY": str(write_served(tmp_path / "served")),
        "SIE_TRITON_TRITON_URL": f"127.0.0.1:{free_port()}",
        "SIE_TRITON_PORT": str(port),
    }
    direct = subprocess.run(
        ["sie-triton-frontend", *KSERVES_ARGUMENTS], env=environment, capture_output=True, text=True, check=False
    )
    assert (direct.returncode, "unrecognized arguments" in direct.stderr) == (2, True)
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([*container["command"], *KSERVES_ARGUMENTS], env=environment, stderr=output)
    try:
        until(lambda: f"127.0.0.1:{port}" in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        # `exec`: the signal reaches the frontend itself.
        process.send_signal(signal.SIGTERM)
        assert eventually(lambda: process.poll() == 0, 60)
    finally:
        process.kill()
        process.wait()
