"""`sie-triton-frontend`: one frontend process in front of Tritons that already run."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
import time

import uvicorn

from sie_frontend import __version__
from sie_frontend.http.admin import AdminServer
from sie_frontend.http.app import create_app
from sie_frontend.http.drain import DrainingServer
from sie_frontend.http.limits import limited_protocol
from sie_frontend.http.tls import tls_files
from sie_frontend.manifest import ManifestError
from sie_frontend.residency.carrier import Discharge, Memory
from sie_frontend.serving.ailments import Ailments
from sie_frontend.settings import Settings, SettingsError, add_arguments
from sie_frontend.triton.reach import obstacle
from sie_frontend.watch import logs

log = logging.getLogger("sie_frontend")


def make_server(
    settings: Settings,
    memory: Memory | None = None,
    ailments: Ailments | None = None,
    discharge: Discharge | None = None,
) -> uvicorn.Server:
    """The HTTP server of one repository; `run` serves until SIGINT or SIGTERM and answers what is in flight first.

    `memory` tells what loaded Triton models take and `ailments` which of them went down, where they run on this
    machine; `discharge` is told of what is unloaded.
    Raises `ManifestError` if the repository cannot be served, `SettingsError` if the settings do not fit it.
    """
    tls = tls_files(settings)
    app = create_app(settings, memory=memory, ailments=ailments, discharge=discharge)
    if settings.beyond_loopback and not settings.keyed:
        log.warning(
            "%s is no loopback address and no key is asked for: whoever reaches port %d may use every model; "
            "`sie-triton keys new` and `SIE_TRITON_API_KEYS_FILE` change that",
            settings.host,
            settings.port,
        )
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=int(settings.shutdown_grace_s),
        timeout_keep_alive=75,
        backlog=2048,
        http=limited_protocol(settings.answer_timeout_s),
        ws="none",
        ssl_certfile=tls.certificate if tls else None,
        ssl_keyfile=tls.key if tls else None,
    )
    frontend = app.state.frontend
    admin = None
    if settings.admin_port is not None:
        admin = AdminServer(frontend, settings.admin_host, settings.admin_port)
    return DrainingServer(config, frontend.drain, delay_s=settings.drain_delay_s, admin=admin, tls=tls)


def tell_waiting(server: uvicorn.Server, *, after_s: float = 3.0, again_s: float = 30.0) -> None:
    """Until the models answer for the first time, log what keeps them, and what to look at."""
    frontend = server.config.app.state.frontend  # type: ignore[union-attr]
    begun, told_at = time.monotonic(), time.monotonic() + after_s
    while not (server.should_exit or (server.started and frontend.ready)):
        if server.started and time.monotonic() >= told_at:
            found = obstacle(frontend.settings.triton_url, frontend.engine.manifest.triton_models)
            waited = time.monotonic() - begun
            log.warning("waiting for Triton at %s for %.0f s now: %s", frontend.settings.triton_url, waited, found)
            told_at = time.monotonic() + again_s
        time.sleep(0.1)


def main() -> None:
    """Entry point of the container image; settings come from the environment, options override them."""
    parser = argparse.ArgumentParser(prog="sie-triton-frontend", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    add_arguments(parser)
    given = vars(parser.parse_args())
    # Also while the repository is fetched, and after the server is done: the temporary folder must go.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        settings = Settings.from_environment(**given)
        logs.configure(settings.log_format)
        server = make_server(settings)
        threading.Thread(target=tell_waiting, args=(server,), name="tell-waiting", daemon=True).start()
        server.run()
    except (SettingsError, ManifestError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
