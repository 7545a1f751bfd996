"""`sie-triton serve`: a supervised tritonserver as a child and, in this process, the frontend."""

from __future__ import annotations

import errno
import logging
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from sie_frontend.main import make_server
from sie_frontend.manifest import Manifest, ManifestError
from sie_frontend.serving.ailments import Ailments
from sie_frontend.settings import Settings, SettingsError
from sie_frontend.storage import is_url
from sie_frontend.watch import logs

from sie_triton.diagnostics import Diagnostic, DiagnosticError
from sie_triton.embedded.fetching import ensure_installation
from sie_triton.embedded.ports import listener
from sie_triton.embedded.server import ServerSpec
from sie_triton.embedded.supervisor import State, Supervisor, Transition
from sie_triton.interrupts import left_to_others
from sie_triton.repository.publish import check_whole
from sie_triton.serving.crowding import crowded
from sie_triton.serving.ending import Ending
from sie_triton.serving.machines import choose_machine, embedded_name
from sie_triton.serving.restarts import Announce, Restarts, ailments_of
from sie_triton.serving.waiting import announce_ready

log = logging.getLogger("sie_triton")

# A process that computes one run for longer has no caller left: so long a frontend waits, unless it was told otherwise.
RUN_LIMIT_S = 120.0
LOG_NAME = "tritonserver.log"
_PORT_HINTS = {
    errno.EADDRINUSE: "stop the process that holds it, or choose another with `--port`",
    errno.EACCES: "ports below 1024 need rights that this user has not: choose another with `--port`",
}


def check_places(log_dir: Path) -> None:
    """Make the folder of the logs. Raise `DiagnosticError` (`SIE713`) if it or a temporary file cannot be written."""
    try:
        log_dir.mkdir(parents=True, exist_ok=True)
        with (log_dir / LOG_NAME).open("ab"):
            pass
    except OSError as error:
        raise _unusable(
            f"the log cannot be written to `{log_dir}`", error, "name another folder with `--log-dir`"
        ) from None
    try:
        with tempfile.TemporaryFile(buffering=0) as file:
            file.write(b"\0")  # on a full disk an empty one can be made
    except OSError as error:
        raise _unusable("no temporary file can be written", error, "free some space, or set `TMPDIR`") from None


def _unusable(what: str, error: OSError, hint: str) -> DiagnosticError:
    return DiagnosticError([Diagnostic("SIE713", f"{what}: {(error.strerror or str(error)).lower()}", hint=hint)])


def check_prerequisites(host: str, port: int, announce: Announce, *, embedded: bool = True) -> None:
    """Raise `DiagnosticError` for anything that would stop `serve` later: a taken port, a missing tritonserver.

    With `embedded`, a tritonserver that is missing is fetched, if that is possible and allowed.
    """
    _check_port(host, port)
    if embedded:
        ensure_installation(announce)


def _check_port(host: str, port: int) -> None:
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
                        f"the frontend cannot listen on {host}:{port}: {_cause(error, port)}",
                        hint=_PORT_HINTS.get(error.errno or 0, "choose another address with `--host`"),
                    )
                ]
            ) from None


def _empty(repository: str | Path) -> Diagnostic:
    return Diagnostic("SIE604", f"`{repository}` holds no model", hint="`sie-triton build -m ID`")


def _cause(error: OSError, port: int) -> str:
    holder = listener(port) if error.errno == errno.EADDRINUSE else None
    return f"it is held by {holder}" if holder else (error.strerror or str(error)).lower()


def serve_repository(
    repository: str | Path,
    manifest: Manifest,
    *,
    host: str,
    port: int,
    device: str,
    triton_url: str | None,
    api_keys_file: str | None = None,
    log_dir: Path,
    announce: Announce,
    **loading: Any,
) -> None:
    """Serve until SIGINT or SIGTERM, then leave nothing running.

    `repository` is a folder; with `triton_url`, it may be an object store's URL. `loading` are the settings of the
    frontend that say when models are loaded and unloaded.
    Raises `DiagnosticError` if tritonserver cannot be started, or has failed too often to be restarted, and
    `KeyboardInterrupt` where Ctrl-C was what ended it.
    """
    manifest = manifest.served()
    if not manifest.models:
        raise DiagnosticError([_empty(repository)])
    check_prerequisites(host, port, announce, embedded=triton_url is None)
    if not is_url(repository):
        check_whole(Path(repository), manifest, graphs=triton_url is None)
    machine = choose_machine(manifest, device, repository, triton_url)
    begun = time.monotonic()
    settings = _settings(
        repository=repository,
        triton_url=triton_url,
        host=host,
        port=port,
        device=machine,
        api_keys_file=api_keys_file,
        **loading,
    )
    # Until uvicorn takes over, and again after it, a SIGTERM must run the `finally` below.
    signal.signal(signal.SIGTERM, _exit_on_signal)
    supervisor = None
    server: uvicorn.Server | None = None
    ending, interrupted = Ending(), False

    def end_serving() -> None:
        if server is not None:
            server.should_exit = True

    restarts = Restarts(announce, end_serving)
    try:
        if triton_url is None:
            check_places(log_dir)
            _tell_crowding(manifest, machine, announce)
            spec = ServerSpec(
                Path(repository),
                log_dir / LOG_NAME,
                config_name=embedded_name(Path(repository), manifest, machine),
                gpu=machine != "cpu",
                on_demand=settings.on_demand,
                run_limit_s=settings.triton_timeout_s,
                served=lambda: _served_by(server),
            )
            supervisor = Supervisor(spec, on_change=restarts, on_trouble=restarts.trouble)
            restarts.ailments = Ailments(partial(ailments_of, supervisor), supervisor.suspect)
            ending = Ending(supervisor)
            settings = replace(settings, triton_url=supervisor.url)
        server = _make_server(settings, supervisor, restarts.ailments)
        if supervisor is not None:
            supervisor.start()
        announcing = (server, manifest, begun, announce)
        remote = {"remote": triton_url is not None}
        threading.Thread(
            target=announce_ready, args=announcing, kwargs=remote, name="announce-ready", daemon=True
        ).start()
        ending.follow(server)
        with left_to_others():
            server.run()
    except SettingsError as error:
        raise _wrong_setting(error) from None
    except KeyboardInterrupt:
        interrupted = True
    finally:
        with left_to_others():
            ending.await_end()
    if interrupted:
        raise KeyboardInterrupt
    ending.raise_interrupt()
    restarts.raise_failure()


def _served_by(server: uvicorn.Server | None) -> Collection[str]:
    """The Triton models that a frontend answers with now; nothing before it has begun."""
    app = None if server is None else server.config.app
    return () if app is None else app.state.frontend.served_parts  # type: ignore[union-attr]


def _settings(**given: Any) -> Settings:
    """Settings from the environment that `given` overrides."""
    try:
        return Settings.from_environment(**given)
    except SettingsError as error:
        raise _wrong_setting(error) from None


def _make_server(settings: Settings, supervisor: Supervisor | None, ailments: Ailments) -> uvicorn.Server:
    """The frontend; it is told what the models of a supervised server take."""
    try:
        if settings.access_log or settings.log_format != "text" or settings.keyed:
            # The user asked for these logs explicitly: they must not need `--verbose` as well.
            logs.configure(settings.log_format)
        # On a GPU, what a process holds of this machine's memory says nothing of its model.
        measured = supervisor.model_memory if supervisor and settings.device == "cpu" else None
        if supervisor is None:
            return make_server(settings)
        return make_server(settings, measured, ailments, supervisor.discharge)
    except SettingsError as error:
        raise _wrong_setting(error) from None
    except ManifestError as error:
        raise DiagnosticError([Diagnostic("SIE603", str(error))]) from None


def _wrong_setting(error: SettingsError) -> DiagnosticError:
    hint = "change the variable or the option; docs/configuration.md has them all"
    return DiagnosticError([Diagnostic("SIE712", str(error), hint=hint)])


def _tell_crowding(manifest: Manifest, machine: str, announce: Announce) -> None:
    if machine == "cpu" and (told := crowded(manifest)):
        announce(told)


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
    """Run the embedded tritonserver alone until SIGINT or SIGTERM. Raises as `serve_repository`."""
    manifest = manifest.served()
    if not manifest.models:
        raise DiagnosticError([_empty(repository)])
    check_whole(repository, manifest, graphs=True)
    ensure_installation(announce)
    machine = choose_machine(manifest, device, repository)
    ended = threading.Event()
    restarts = Restarts(announce, ended.set)

    def changed(transition: Transition) -> None:
        if transition.state is State.READY:
            announce(f"tritonserver is ready: http://{host}:{http_port}")
        restarts(transition)

    check_places(log_dir)
    _tell_crowding(manifest, machine, announce)
    spec = ServerSpec(
        repository,
        log_dir / LOG_NAME,
        host=host,
        http_port=http_port,
        metrics_port=metrics_port,
        config_name=embedded_name(repository, manifest, machine),
        gpu=machine != "cpu",
        run_limit_s=RUN_LIMIT_S,
    )
    supervisor = Supervisor(spec, on_change=changed, on_trouble=restarts.trouble)
    ending = Ending(supervisor)

    def end(number: int, _: FrameType | None) -> None:
        ending.note(number)
        ended.set()

    with left_to_others():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
        supervisor.start()
        try:
            ended.wait()
        finally:
            supervisor.stop()
    ending.raise_interrupt()
    restarts.raise_failure()


def _exit_on_signal(number: int, frame: FrameType | None) -> None:
    sys.exit(0)
