"""`sie-triton-frontend`: one frontend process in front of a Triton that already runs."""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import replace
from pathlib import Path

import uvicorn

from sie_frontend import __version__
from sie_frontend.app import create_app
from sie_frontend.manifest import ManifestError
from sie_frontend.settings import Settings, SettingsError
from sie_frontend.triton_client import parse_url


def make_server(settings: Settings) -> uvicorn.Server:
    """The HTTP server of one repository; `run` serves until SIGINT or SIGTERM and answers what is in flight first.

    Raises `ManifestError` if the repository cannot be served, `SettingsError` if Triton's address is none.
    """
    try:
        parse_url(settings.triton_url)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    config = uvicorn.Config(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=int(settings.shutdown_grace_s),
        timeout_keep_alive=75,
        backlog=2048,
    )
    return uvicorn.Server(config)


def main() -> None:
    """Entry point of the container image; settings come from the environment, flags override them."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        settings = Settings.from_environment()
    except SettingsError as error:
        sys.exit(f"error: {error}")
    parser = argparse.ArgumentParser(prog="sie-triton-frontend", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--repository", type=Path, default=settings.repository, help="the built model repository")
    parser.add_argument("--triton-url", default=settings.triton_url, help="host:port of Triton's HTTP endpoint")
    parser.add_argument("--host", default=settings.host, help="address to listen on")
    parser.add_argument("--port", type=int, default=settings.port, help="port to listen on")
    parser.add_argument("--device", default=settings.device, choices=["cpu", "cuda"], help="what Triton runs on")
    flags = parser.parse_args()
    try:
        make_server(replace(settings, **vars(flags))).run()
    except (ManifestError, SettingsError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
