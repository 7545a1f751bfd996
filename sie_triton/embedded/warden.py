"""The process between us and tritonserver: it makes sure that nothing outlives us.

Run as a script (`python -I -S warden.py PLAN`), never imported by the parent: it must start in milliseconds, have
one thread (a parent-death signal follows the *thread* that forked) and depend on nothing but the standard library.
PLAN is JSON: `command`, `prefix` (of the shared-memory regions), `scratch` (a folder to remove at the end) and
`grace` (seconds between SIGTERM and SIGKILL when the parent vanishes). Standard error is tritonserver's log.

It prints tritonserver's process id, then waits for the first of
- tritonserver's end;
- a line `stop SECONDS` on standard input;
- the end of standard input, or another parent than at the start: our parent died, however that happened;
- SIGTERM.

Whatever the reason, it then ends tritonserver and its stubs, removes their shared-memory regions and the scratch
folder, and exits with tritonserver's status (128 + N for signal N).

The regions' owner is marked by a lock file `PREFIX.lock` beside them, which every descendant holds open: a lock
that can be taken marks the leavings of a server of which nothing lives, whichever process-id namespace it had.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
PREFIX = "sie_triton_"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def remove_regions(prefix: str) -> None:
    """Remove every shared-memory region that begins with `prefix`, the lock last."""
    for region in sorted(SHARED_MEMORY.glob(f"{prefix}*"), key=lambda region: region.suffix == ".lock"):
        with contextlib.suppress(OSError):
            region.unlink()


def orphaned() -> Iterator[str]:
    """Every prefix of which no process is left; its lock is held while the caller has it."""
    for path in SHARED_MEMORY.glob(f"{PREFIX}*.lock"):
        try:
            lock = os.open(path, os.O_RDWR)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            continue
        try:
            yield path.stem
        finally:
            os.close(lock)


def sweep() -> None:
    """Remove the regions of servers of which no process is left."""
    for prefix in orphaned():
        remove_regions(prefix)


def mark(prefix: str) -> None:
    """Hold the lock file of `prefix` until this process and all its descendants are gone."""
    path = SHARED_MEMORY / f"{prefix}.lock"
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock).st_nlink:
            os.set_inheritable(lock, True)
            return
        os.close(lock)  # another warden's sweep came between the two calls above


def spawn(command: list[str]) -> int:
    """Start `command` in a process group of its own, to be terminated if this process dies; return its id."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    warden = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        os.setpgid(0, 0)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != warden:
            os._exit(1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.execv(command[0], command)
    except OSError as error:
        os.write(2, f"cannot run `{command[0]}`: {error}\n".encode())
    os._exit(127)


def watch(server: int, parent: int, grace: float) -> int:
    """Wait until `server` has ended, ending it when asked or orphaned; return its wait status."""
    wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    asked: list[int] = []
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sources = [0, wake]
    deadline: float | None = None
    while True:
        status = reap(server)
        if status is not None:
            return status
        if deadline is None and (asked or os.getppid() != parent):
            deadline = terminate(server, grace)
        if deadline is not None and time.monotonic() >= deadline:
            kill_group(server)
        # A signal may have been handled just before this call: the bound is what makes that harmless.
        ready, _, _ = select.select(sources, [], [], 0.1 if deadline else 1.0)
        if wake in ready:
            os.read(wake, 4096)
        if 0 in ready:
            line = os.read(0, 4096).decode()
            if not line:
                sources.remove(0)
            words = line.split()
            if deadline is None:
                deadline = terminate(server, float(words[1]) if words else grace)


def reap(server: int) -> int | None:
    """Collect every child that has ended; return the wait status of `server` if it was among them."""
    status = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, code = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            if pid == server:
                status = code
    return status


def terminate(server: int, grace: float) -> float:
    """Ask `server` to end; return the moment at which to stop asking."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(server, signal.SIGTERM)
    return time.monotonic() + grace


def kill_group(server: int) -> None:
    """Kill whatever is left of the group that `server` led."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server, signal.SIGKILL)


def main() -> int:
    """Guard one tritonserver from its start to its end."""
    parent = os.getppid()
    plan = json.loads(sys.argv[1])
    sweep()
    mark(plan["prefix"])
    server = spawn(plan["command"])
    os.write(1, f"{server}\n".encode())
    try:
        status = watch(server, parent, plan["grace"])
    finally:
        kill_group(server)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)  # orphaned stubs come to us, their reaper
        remove_regions(plan["prefix"])
        shutil.rmtree(plan["scratch"], ignore_errors=True)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


if __name__ == "__main__":
    sys.exit(main())
