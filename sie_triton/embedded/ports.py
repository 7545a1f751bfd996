"""Loopback ports: a free one, or who holds the one that was asked for."""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path
from typing import Final

from sie_triton.diagnostics import Diagnostic

LOOPBACK = "127.0.0.1"
_LISTENING = "0A"
# Below those that Linux hands out by itself (net.ipv4.ip_local_port_range), and above those that services are known by.
_NOT_OUTGOING: Final = range(20_000, 32_768)


def free_port(*others: int | None) -> int:
    """A port that is free now, and none of `others`, which somebody is about to bind.

    It is not reserved, but no outgoing connection takes it before its server binds it.
    """
    for port in random.SystemRandom().sample(_NOT_OUTGOING, 64):
        if port in others:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port
    while True:
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            port = int(probe.getsockname()[1])
        if port not in others:
            return port


def port_problem(port: int, purpose: str) -> Diagnostic | None:
    """`SIE705` if `port` cannot be bound on the loopback interface, else None. `purpose` names it to the user."""
    with socket.socket() as probe:
        # As tritonserver does: connections in TIME_WAIT are no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError as error:
            holder = listener(port)
            cause = f"it is held by {holder}" if holder else (error.strerror or str(error)).lower()
            return Diagnostic(
                "SIE705",
                f"port {port} ({purpose}) on {LOOPBACK} cannot be used: {cause}",
                hint="stop that process, or choose another port (0 picks a free one)",
            )
    return None


def listener(port: int) -> str | None:
    """`process ID (command line)` of the process that listens on `port`; None if there is none or we may not see it."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    if not inodes:
        return None
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if not any(str(handle.readlink()) in inodes for handle in (process / "fd").iterdir()):
                continue
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue  # it has just ended, or it is another user's
        return f"process {process.name} (`{command[:120]}`)"
    return "a process of another user"
