"""`sie-triton` in a fork of one process that has imported already what every build imports.

A build imports torch, transformers and sentence-transformers: some ten seconds of a processor, each time, in a session
that makes dozens of builds. What a fork computes is the same. Whoever needs the program as a user starts it, with
another environment or other hash seed, gets a process of its own.

The session's own workers are such forks as well: each of them would import the same, before its first test.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import json
import os
import resource
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import NoReturn

COMMAND = (sys.executable, "-m", "sie_triton.cli")
HASH_SEED = "1"
"""The order of sets in the processes that are forked."""
_ADDRESS = "SIE_TRITON_TESTS_PREPARED"
_IMPORTED = (
    "sentence_transformers",
    "sie_triton.compiler.build",
    "sie_triton.compiler.text_graphs",
    "sie_triton.witness.testify",
)
# It may import still, while every processor is busy.
_ANSWER_SECONDS = 300
_TAKEN = b"+"
_PYTHON = "python"
_PR_SET_PDEATHSIG = 1
_LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.argv[:] = ["sie-triton", *sys.argv[2:]]
from sie_triton.cli import main
main()
"""


def worker() -> str:
    """What pytest-xdist starts a worker by: this file, in place of Python."""
    return f"popen//python={shlex.join((sys.executable, __file__, _PYTHON))}"


def run(
    arguments: Sequence[str | Path], env: Mapping[str, str], timeout: float, *, file_bytes: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `sie-triton` to its end with the environment `env`: in a fork where that is the same, else on its own.

    No file may grow beyond `file_bytes`: the write fails then, as on a full disk.
    """
    words = [*map(str, arguments)]
    if address := os.environ.get(_ADDRESS):
        with contextlib.suppress(ConnectionError, FileNotFoundError):
            return _forked(address, words, env, timeout, file_bytes)
    return _alone(words, env, timeout, file_bytes)


class Begun:
    """`sie-triton` in a fork, at work: what a `subprocess.Popen` would be."""

    def __init__(self, asking: socket.socket) -> None:
        self._asking = asking
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Its status, as of a process. Raises `TimeoutExpired`."""
        if self.returncode is None:
            self._asking.settimeout(timeout)
            try:
                self.returncode = int(self._asking.recv(16))
            except TimeoutError:
                raise subprocess.TimeoutExpired(COMMAND, timeout or 0) from None
            self._asking.close()
        return self.returncode

    def kill(self) -> None:
        """SIGKILL, unless it has ended."""
        if self.returncode is None:
            self._asking.shutdown(socket.SHUT_WR)


def begin(arguments: Sequence[str | Path], env: Mapping[str, str]) -> Begun | subprocess.Popen[bytes]:
    """Start `sie-triton`, as `run` does; what it prints goes nowhere."""
    words = [*map(str, arguments)]
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 # no path of the file system
        if address := os.environ.get(_ADDRESS):
            with contextlib.suppress(ConnectionError, FileNotFoundError):
                asking = _asked(address, _request(words, env), (nowhere.fileno(), nowhere.fileno()))
                if asking is not None:
                    return Begun(asking)
        return subprocess.Popen([*COMMAND, *words], stdout=nowhere, stderr=nowhere, env=env)


def _alone(
    words: list[str], env: Mapping[str, str], timeout: float, file_bytes: int | None
) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *words]
    if file_bytes is not None:
        command = [sys.executable, "-c", _LIMITED, str(file_bytes), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, env=env)


def start(folder: Path) -> None:
    """Let the processes of this session find one to fork, which imports meanwhile and ends with this one."""
    address = folder / "prepared.sock"
    os.environ[_ADDRESS] = str(address)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(address))
    listener.listen(64)
    forked = subprocess.Popen(
        [sys.executable, __file__, str(os.getpid()), str(listener.fileno())],
        pass_fds=[listener.fileno()],
        env={**os.environ, "PYTHONHASHSEED": HASH_SEED},
    )
    listener.close()
    atexit.register(_end, forked)


def _forked(
    address: str, words: list[str], env: Mapping[str, str], timeout: float, file_bytes: int | None
) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        asking = _asked(address, _request(words, env, file_bytes), (out.fileno(), err.fileno()))
        if asking is None:
            return _alone(words, env, timeout, file_bytes)
        begun = Begun(asking)
        try:
            status = begun.wait(timeout)
        finally:
            begun.kill()
        said = [(stream.seek(0), stream.read().decode())[1] for stream in (out, err)]
        return subprocess.CompletedProcess([*COMMAND, *words], status, *said)


def _request(words: list[str], env: Mapping[str, str], file_bytes: int | None = None) -> dict[str, object]:
    return {"words": words, "env": dict(env), "cwd": str(Path.cwd()), "file_bytes": file_bytes}


def _asked(address: str, request: Mapping[str, object], streams: Sequence[int]) -> socket.socket | None:
    """Where the status of a fork will be said; None if the program needs a process of its own.

    `streams` are what it prints to, and before them what it reads, if anything.
    """
    asking = socket.socket(socket.AF_UNIX)
    asking.settimeout(_ANSWER_SECONDS)
    asking.connect(address)
    asked = json.dumps(request).encode()
    socket.send_fds(asking, [len(asked).to_bytes(4, "big")], streams)
    asking.sendall(asked)
    if asking.recv(1) == _TAKEN:
        return asking
    asking.close()
    return None


def _end(forked: subprocess.Popen[bytes]) -> None:
    forked.kill()
    forked.wait()


# What stands for Python where a worker is started


def _be_python(arguments: list[str]) -> NoReturn:
    """Run `python -u -c PROGRAM` in a fork that has this process's streams, and end as it does."""
    *_, program = arguments
    request = {**_request([], os.environ), "program": program}
    with contextlib.suppress(ConnectionError, FileNotFoundError):
        asking = _asked(os.environ[_ADDRESS], request, (0, 1, 2))
        if asking is not None:
            # Whoever reads what the fork says shall see its end.
            os.closerange(0, 2)
            sys.exit(Begun(asking).wait())
    os.execv(sys.executable, [sys.executable, *arguments])


# The process that is forked


# Whether there is a hub is asked of a constant, which a fork can set.
_OFFLINE = "HF_HUB_OFFLINE"
# Nor does it matter what a build sets itself, in the process of a test as well, or how wide a terminal is.
_NO_SETTINGS = (
    *("TMPDIR", "PYTHONHASHSEED", "_", "PWD", "COLUMNS", "LINES", "TRANSFORMERS_NO_ADVISORY_WARNINGS"),
    _OFFLINE,
)


def _settings(env: Mapping[str, str]) -> dict[str, str]:
    """What of an environment may decide what is imported, and how."""
    return {
        name: value
        for name, value in env.items()
        if not name.startswith(("PYTEST_", "SIE_TRITON_")) and name not in _NO_SETTINGS
    }


def _serve(parent: int, listener: socket.socket) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    settings = _settings(os.environ)
    for name in _IMPORTED:
        __import__(name)
    # torch and scikit-learn set variables as they are imported: whoever asks may have imported them, or not.
    own = {name: value for name, value in os.environ.items() if name not in settings}
    gc.freeze()  # or the first collection of each fork would copy everything
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks for their status: each answers for itself
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _answer(connection, settings, own)
        connection.close()


def _answer(connection: socket.socket, settings: Mapping[str, str], own: Mapping[str, str]) -> NoReturn:
    """Run what is asked for, and say its status; end it if nobody waits for it any more.

    `settings` are those of this process before it imported anything, `own` the variables that imports have set since.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, streams, _, _ = socket.recv_fds(connection, 4, 3)
    asked = json.loads(_read(connection, int.from_bytes(size, "big")))
    seed = asked["env"].get("PYTHONHASHSEED", HASH_SEED)
    wanted = {name: value for name, value in _settings(asked["env"]).items() if own.get(name) != value}
    if wanted != settings or seed != HASH_SEED:
        os._exit(0)
    connection.sendall(_TAKEN)
    child = os.fork()
    if child == 0:
        connection.close()
        _become(asked, streams)
    ended = os.pidfd_open(child)
    ready, _, _ = select.select([connection.fileno(), ended], [], [])
    if ended not in ready:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(OSError):
        connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _become(asked: dict[str, object], streams: list[int]) -> NoReturn:
    """Be the program."""
    status = 1
    try:
        *read, out, err = streams
        os.dup2(read[0] if read else os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        for stream in streams:
            os.close(stream)
        os.chdir(str(asked["cwd"]))
        os.environ.clear()
        os.environ.update(asked["env"])  # type: ignore[call-overload] # JSON gives what was sent
        tempfile.tempdir = None  # as the environment says now
        if size := asked["file_bytes"]:
            assert isinstance(size, int)
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        from huggingface_hub import constants

        constants.HF_HUB_OFFLINE = os.environ.get(_OFFLINE) == "1"
        if program := asked.get("program"):
            # Not this file: whatever starts processes by `multiprocessing` looks there.
            sys.modules["__main__"] = ModuleType("__main__")
            sys.argv = ["-c"]
            exec(str(program), vars(sys.modules["__main__"]))
            os._exit(0)
        words = asked["words"]
        assert isinstance(words, list)
        sys.argv = ["sie-triton", *words]
        from sie_triton.cli import main

        main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else bool(end.code)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _read(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        found += connection.recv(size - len(found))
    return found


if __name__ == "__main__":
    if sys.argv[1] == _PYTHON:
        _be_python(sys.argv[2:])
    _serve(int(sys.argv[1]), socket.socket(fileno=int(sys.argv[2])))
