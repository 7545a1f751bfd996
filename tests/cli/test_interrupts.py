"""Ctrl-C in a process of its own, whose main thread computes in C, or loses the exception where nobody can catch it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sie_triton.cli import main

_COMPUTES = """
import hashlib, sys, tempfile, threading
from pathlib import Path
from sie_triton import interrupts
with interrupts.watched(), tempfile.TemporaryDirectory(dir=sys.argv[1]) as folder, interrupts.fleeting(Path(folder)):
    # By another thread, when this one is in C already.
    threading.Timer(0.3, print, ("begun",), {"flush": True}).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # an hour in C, without the interpreter's lock
"""
_DROPPED = """
import os, signal, sys, time, weakref
from sie_triton import interrupts
if len(sys.argv) > 1:
    watching = interrupts.watched()
    watching.__enter__()

class Something: pass

def called(_):
    os.kill(os.getpid(), signal.SIGINT)
    sum(range(100))

thing = Something()
reference = weakref.ref(thing, called)
del thing
time.sleep(1)
print("went on")
"""


@contextmanager
def running(program: str, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_the_first_is_answered_while_c_computes_and_the_second_ends(tmp_path: Path) -> None:
    with running(_COMPUTES, tmp_path) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == "stopping; Ctrl-C again ends at once\n"
        assert process.poll() is None
        assert [*tmp_path.iterdir()]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("watched", [False, True])
def test_one_that_python_drops_comes_again(watched: bool) -> None:
    """Without us, the program goes on as if nobody had pressed anything."""
    done = subprocess.run(
        [sys.executable, "-c", _DROPPED, *["watched"] * watched],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    dropped = "Exception ignored in" in done.stderr
    assert ("went on" in done.stdout, dropped, done.returncode == 0) == (not watched, not watched, not watched)


def test_nothing_stays_behind_a_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What tests, and programs that call us, have set is there again."""
    hook, woken = sys.unraisablehook, signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(woken)
    monkeypatch.setattr("sys.argv", ["sie-triton", "--version"])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().out
    assert sys.unraisablehook is hook
    assert signal.set_wakeup_fd(woken) == woken


def test_whoever_ignores_interrupts_is_left_alone() -> None:
    program = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + _COMPUTES.replace(
        "2**31 - 1", "2000000"
    )
    with running(program, ".") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.05)
        assert process.wait(60) == 0


def test_the_command_line_says_that_it_was_interrupted(tmp_path: Path) -> None:
    """The signal comes from within, when a command imports what it needs."""
    program = """
import os, signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "sie_triton.bundle":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
sys.argv[:] = ["sie-triton", "catalog"]
from sie_triton.entry import main
main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 130
    assert "interrupted" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
