"""`sie-triton doctor` on the machine that runs the tests, which can build and serve."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import onnxruntime
import pytest
from typer.testing import CliRunner

from sie_triton.cli import app
from sie_triton.diagnostics import DiagnosticError
from sie_triton.embedded.ports import free_port
from sie_triton.repository.processor import multiplies_bfloat16, multiplies_int8
from sie_triton.resources import available_cores
from sie_triton.serving import gpus
from sie_triton.serving.doctor import examine
from sie_triton.serving.machines import check_embedded_device

KEY_LINE = "search sha256:" + "0" * 64


def test_a_machine_that_can_serve_has_no_problems() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    checks = {check.subject: check for check in examine(port)}
    assert [check for check in checks.values() if check.verdict == "problem"] == []
    assert checks["cores"].message.startswith(f"{available_cores()} of ")
    assert "tritonserver" in checks["tritonserver"].message
    assert ("does not" in checks["bfloat16"].message) is not multiplies_bfloat16()
    assert ("does not" in checks["int8"].message) is not multiplies_int8()


def test_a_taken_port_is_a_problem_with_a_hint_and_a_status() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = CliRunner().invoke(app, ["doctor", "--port", str(taken.getsockname()[1])])
    assert result.exit_code == 1
    assert "problem port" in result.output
    assert "hint:" in result.output


def distribution(folder: Path, name: str) -> None:
    """What pip records of a distribution, and nothing of its files."""
    info = folder / f"{name.replace('-', '_')}-1.2.3.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2.3\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("installed", "verdict", "said"),
    [
        (["onnxruntime"], "ok", "onnxruntime 1.2.3"),
        (["onnxruntime-gpu"], "ok", "onnxruntime-gpu 1.2.3"),
        (["onnxruntime", "onnxruntime-gpu"], "problem", "both `onnxruntime` and `onnxruntime-gpu` are installed"),
        ([], "problem", "not installed"),
    ],
)
def test_both_runtimes_side_by_side_are_a_problem(
    installed: list[str], verdict: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in installed:
        distribution(tmp_path, name)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    check = {check.subject: check for check in examine(free_port())}["onnxruntime"]
    assert (check.verdict, check.message.startswith(said)) == (verdict, True)
    if len(installed) == 2:
        assert str(check.hint).startswith("`pip uninstall -y onnxruntime onnxruntime-gpu`")


# A GPU: what `doctor` says is what `serve` does


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of the NVIDIA driver's; what is in it is that of a machine with one GPU."""
    folder = tmp_path / "gpus"
    (folder / "0000:01:00.0").mkdir(parents=True)
    text = "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 82\n"
    (folder / "0000:01:00.0" / "information").write_text(text, encoding="utf-8")
    monkeypatch.setattr(gpus, "DRIVER", folder)
    return folder


def served_on_cuda() -> bool:
    """Whether `serve --device cuda` gets past its first check."""
    try:
        check_embedded_device("cuda", {"onnx"})
    except DiagnosticError:
        return False
    return True


@pytest.mark.parametrize(
    "providers", [["CPUExecutionProvider"], ["CUDAExecutionProvider", "CPUExecutionProvider"]], ids=["cpu", "cuda"]
)
def test_the_gpu_that_serve_offers_is_not_denied(
    providers: list[str], driver: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    check = {check.subject: check for check in examine(free_port())}["gpu"]
    assert "NVIDIA H100 80GB HBM3" in check.message
    assert ("computes ONNX graphs there" in check.message) is served_on_cuda() is (len(providers) == 2)
    assert (check.verdict == "ok") is served_on_cuda()
    if not served_on_cuda():
        assert "the installed `onnxruntime` has no CUDA" in check.message
        assert "sie-triton[gpu]" in str(check.hint)


@pytest.mark.parametrize(("release", "able"), [("2.13.0+cpu", False), ("2.13.0", True), ("2.13.0+cu130", True)])
def test_torchscript_needs_a_torch_with_cuda(
    release: str, able: bool, driver: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its version alone: the backend looks again, and NVIDIA's own index names the build."""
    assert driver.is_dir()
    monkeypatch.setattr(gpus, "version", lambda name: release)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert (gpus.gpu_obstacle("cuda", {"torchscript"}) is None) is able
    assert "no CUDA" in str(gpus.gpu_obstacle("cuda", {"onnx", "torchscript"}))
    check = {check.subject: check for check in examine(free_port())}["gpu"]
    assert ("computes TorchScript graphs there" in check.message) is able


def test_without_a_driver_neither_offers_one(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "DRIVER", driver / "none")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    check = {check.subject: check for check in examine(free_port())}["gpu"]
    assert check.message.startswith("none;")
    assert not served_on_cuda()


def test_a_driver_whose_files_may_not_be_read_is_no_traceback(driver: Path) -> None:
    information = driver / "0000:01:00.0" / "information"
    information.unlink()
    information.mkdir()
    assert gpus.gpu_names() == ["0000:01:00.0"]


@pytest.mark.parametrize(
    ("environment", "verdicts", "said"),
    [
        ({}, {"keys": "ok"}, "no key is asked for, and only this machine may ask"),
        ({"SIE_TRITON_HOST": "0.0.0.0"}, {"keys": "note", "tls": "note"}, "no key is asked for"),
        ({"SIE_TRITON_HOST": "0.0.0.0", "SIE_TRITON_API_KEYS": KEY_LINE}, {"keys": "ok", "tls": "note"}, "1 may ask"),
        ({"SIE_TRITON_API_KEYS_FILE": "nowhere"}, {"keys": "problem"}, "cannot be read"),
        ({"SIE_TRITON_TLS_CERTIFICATE": "nowhere"}, {"keys": "problem"}, "must be set together"),
    ],
)
def test_it_says_who_may_ask(
    environment: dict[str, str], verdicts: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    checks = [check for check in examine(free_port()) if check.subject in ("keys", "tls")]
    assert {check.subject: check.verdict for check in checks} == verdicts
    assert said in checks[0].message
    assert all(check.hint for check in checks if check.verdict != "ok")
