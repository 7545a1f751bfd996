"""Why a Triton does not serve what it should, in words for whoever runs it. Asks by itself, outside the event loop."""

from __future__ import annotations

import http.client
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterable
from typing import Any, Final

_ASK_S: Final = 3.0
_NAMED: Final = 3
_PORTS: Final = "Triton's HTTP port is 8000 by default, its gRPC port 8001 and its metrics 8002"

DIRECT: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""As the frontend's own connections to Triton, through no proxy."""


def first_address(triton_url: str) -> str:
    """`host:port` of the first of the Tritons that a setting names."""
    return triton_url.split(",", maxsplit=1)[0].strip().removeprefix("http://").removeprefix("dns://").rstrip("/")


def obstacle(triton_url: str, names: Iterable[str]) -> str:
    """Why the Triton at `triton_url` (the first of several) does not serve these models, and what to look at."""
    address = first_address(triton_url)
    try:
        _ask(f"http://{address}/v2")
        states = {entry["name"]: entry for entry in _ask(f"http://{address}/v2/repository/index", b"{}")}
    except urllib.error.HTTPError as error:
        with error:
            return f"what answers at {address} is no Triton (HTTP {error.code} for /v2); {_PORTS}"
    except (http.client.HTTPException, ValueError, KeyError, TypeError):
        return f"what answers at {address} does not speak Triton's HTTP; {_PORTS}"
    except OSError as error:
        return _silence(address, getattr(error, "reason", error))
    return _lacking([(name, states.get(name)) for name in names])


def _ask(url: str, body: bytes | None = None) -> Any:
    with DIRECT.open(urllib.request.Request(url, body), timeout=_ASK_S) as answer:
        return json.load(answer)


def _silence(address: str, reason: object) -> str:
    if isinstance(reason, socket.gaierror):
        return f"the name in {address} is not known here; check its spelling, and in a cluster its namespace"
    if isinstance(reason, ConnectionRefusedError):
        return f"nothing listens at {address}; check that it runs, the host and the port: {_PORTS}"
    if isinstance(reason, ConnectionResetError):
        return f"what listens at {address} closes the connection; {_PORTS}"
    if isinstance(reason, TimeoutError):
        return f"{address} does not answer within {_ASK_S:.0f} s; check the host, and what firewalls let through"
    return f"{address} cannot be reached: {reason}; check the host and the port"


def _lacking(states: list[tuple[str, Any]]) -> str:
    unknown = [name for name, state in states if state is None]
    if unknown:
        return f"it runs, and its repository has no {_listed(unknown)}; start it on a copy of this repository"
    down = [(name, state) for name, state in states if state.get("state") != "READY"]
    reasons = "; ".join(
        f"`{name}`: {state.get('reason') or state.get('state') or 'not loaded'}" for name, state in down[:_NAMED]
    )
    return f"it runs, and has not loaded {_listed([name for name, _ in down])} ({reasons})" if down else "it starts"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(f"`{name}`" for name in names[:_NAMED]) + more
