"""`sie-triton serve`: a supervised tritonserver as a child and, in this process, the frontend."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn
from sie_frontend.main import make_server
from sie_frontend.manifest import Manifest
from sie_frontend.settings import Settings

from sie_triton.diagnostics import Diagnostic, DiagnosticError
from sie_triton.embedded.installation import find_installation
from sie_triton.embedded.server import ServerSpec
from sie_triton.embedded.supervisor import State, Supervisor, Transition

Announce = Callable[[str], None]

log = logging.getLogger("sie_triton")

SNIPPET = """\
from sie_sdk import SIEClient
from sie_sdk.types import Item

client = SIEClient("{url}")
result = client.encode("{model}", Item(text="The mitochondrion is the powerhouse of the cell."))
print(result["dense"].shape)"""


def check_prerequisites(host: str, port: int, *, embedded: bool = True) -> None:
    """Raise `DiagnosticError` for what would stop `serve` later: a port that is taken, a missing tritonserver."""
    if embedded:
        find_installation()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise DiagnosticError(
                [
                    Diagnostic(
                        "SIE705",
                        f"the frontend cannot listen on {host}:{port}: {(error.strerror or str(error)).lower()}",
                        hint="stop the process that holds it, or choose another with `--port`",
                    )
                ]
            ) from None


def serve_repository(
    repository: Path,
    manifest: Manifest,
    *,
    host: str,
    port: int,
    device: str,
    triton_url: str | None,
    log_dir: Path,
    announce: Announce,
) -> None:
    """Serve until SIGINT or SIGTERM, then leave nothing running.

    Raises `DiagnosticError` if tritonserver cannot be started or is not worth restarting any more.
    """
    if not manifest.models:
        raise DiagnosticError([Diagnostic("SIE604", f"`{repository}` holds no model", hint="`sie-triton build -m ID`")])
    check_prerequisites(host, port, embedded=triton_url is None)
    machine = choose_machine(manifest, device, repository, embedded=triton_url is None)
    begun = time.monotonic()
    # Until uvicorn takes over, and again after it, a SIGTERM must run the `finally` below.
    signal.signal(signal.SIGTERM, _exit_on_signal)
    supervisor = None
    failure: list[Diagnostic] = []
    server: uvicorn.Server | None = None

    def changed(transition: Transition) -> None:
        if transition.state is State.WAITING:
            cause = transition.diagnostic.message if transition.diagnostic else ""
            announce(f"{cause}; starting it again in {transition.delay:.1f} s")
        if transition.state is State.FAILED:
            failure.extend([transition.diagnostic] if transition.diagnostic else [])
            if server is not None:
                server.should_exit = True

    try:
        if triton_url is None:
            log_dir.mkdir(parents=True, exist_ok=True)
            spec = ServerSpec(
                repository,
                log_dir / "tritonserver.log",
                config_name=config_name(manifest, machine),
                gpu=machine != "cpu",
            )
            supervisor = Supervisor(spec, on_change=changed)
            supervisor.start()
            triton_url = supervisor.url
        settings = Settings.from_environment()
        server = make_server(_with(settings, repository, triton_url, host, port, machine))
        threading.Thread(
            target=_announce_ready, args=(server, manifest, begun, announce), name="announce-ready", daemon=True
        ).start()
        server.run()
    except KeyboardInterrupt:
        pass
    finally:
        if supervisor is not None:
            # A second Ctrl-C must not leave a server behind.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            supervisor.stop()
    if failure:
        raise DiagnosticError(failure)


def choose_machine(manifest: Manifest, device: str, repository: Path, *, embedded: bool) -> str:
    """`cpu`, `cuda` or `cuda-tensorrt`: what was asked for, or the best that the repository and this machine have.

    Raises `DiagnosticError` if every model of the repository is not built for it, or the embedded server cannot.
    """
    built = [set(entry.configs) for entry in manifest.built.values()]
    common = set.intersection(*built) if built else set()
    obstacle = cuda_obstacle() if embedded else None
    if device == "auto":
        if "cuda" in common and embedded and obstacle is None:
            return "cuda"
        if "cpu" in common:
            return "cpu"
        device = "cuda"
    if device not in common:
        offered = ", ".join(sorted(common)) or "nothing in common"
        raise DiagnosticError(
            [
                Diagnostic(
                    "SIE605",
                    f"`{repository}` is not built for {device}; its models are for {offered}",
                    hint="build it with `--device cpu --device cuda`",
                )
            ]
        )
    if device != "cpu" and obstacle is not None:
        raise DiagnosticError([obstacle])
    return device


def config_name(manifest: Manifest, machine: str) -> str | None:
    """The `--model-config-name` of a kind of machine; None if `config.pbtxt` is meant for every model.

    A model whose default is meant has no file of that name, and Triton falls back on its `config.pbtxt`.
    """
    return machine if any(entry.configs.get(machine) for entry in manifest.built.values()) else None


def cuda_obstacle() -> Diagnostic | None:
    """Why the embedded server cannot compute on CUDA here; None if it can."""
    if not Path("/proc/driver/nvidia/gpus").is_dir():
        return Diagnostic(
            "SIE606",
            "this machine has no NVIDIA driver, so the embedded server computes on the CPU",
            hint="serve with `--device cpu`, or point `--triton-url` at a Triton that has a GPU",
        )
    try:
        import onnxruntime
    except ImportError:
        providers: list[str] = []
    else:
        providers = onnxruntime.get_available_providers()
    if "CUDAExecutionProvider" in providers:
        return None
    return Diagnostic(
        "SIE606",
        "the installed ONNX Runtime cannot use CUDA",
        hint="`pip uninstall onnxruntime`, then `pip install 'sie-triton[gpu]'`; or serve with NVIDIA's Triton image",
    )


def serve_triton(
    repository: Path,
    manifest: Manifest,
    *,
    host: str,
    http_port: int,
    metrics_port: int,
    device: str,
    log_dir: Path,
    announce: Announce,
) -> None:
    """Run the embedded tritonserver alone until SIGINT or SIGTERM. Raises `DiagnosticError` as `serve_repository`."""
    machine = choose_machine(manifest, device, repository, embedded=True)
    ended = threading.Event()
    failure: list[Diagnostic] = []

    def changed(transition: Transition) -> None:
        if transition.state is State.READY:
            announce(f"tritonserver is ready: http://{host}:{http_port}")
        if transition.state is State.WAITING:
            cause = transition.diagnostic.message if transition.diagnostic else ""
            announce(f"{cause}; starting it again in {transition.delay:.1f} s")
        if transition.state is State.FAILED:
            failure.extend([transition.diagnostic] if transition.diagnostic else [])
            ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    log_dir.mkdir(parents=True, exist_ok=True)
    spec = ServerSpec(
        repository,
        log_dir / "tritonserver.log",
        host=host,
        http_port=http_port,
        metrics_port=metrics_port,
        config_name=config_name(manifest, machine),
        gpu=machine != "cpu",
    )
    supervisor = Supervisor(spec, on_change=changed)
    supervisor.start()
    try:
        ended.wait()
    finally:
        supervisor.stop()
    if failure:
        raise DiagnosticError(failure)


def _with(settings: Settings, repository: Path, triton_url: str, host: str, port: int, machine: str) -> Settings:
    from dataclasses import replace

    url = triton_url.removeprefix("http://").rstrip("/")
    return replace(settings, repository=repository, triton_url=url, host=host, port=port, device=machine)


def _exit_on_signal(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


def _announce_ready(server: uvicorn.Server, manifest: Manifest, begun: float, announce: Announce) -> None:
    """Wait until the models answer, then say where, how long it took, and what to paste."""
    frontend = server.config.app.state.frontend  # type: ignore[union-attr]
    while not (server.started and frontend.engine.ready):
        if server.should_exit:
            return
        time.sleep(0.05)
    url = f"http://{server.config.host}:{server.config.port}"
    announce(f"ready after {time.monotonic() - begun:.1f} s: {url} serves {', '.join(manifest.models)}")
    snippet = SNIPPET.format(url=url, model=next(iter(manifest.models)))
    announce("try it in another terminal:\n\n" + "\n".join(f"    {line}" for line in snippet.splitlines()) + "\n")
