"""A stub that ended by itself is told from one that the server ended, without a server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.waiting import eventually
from sie_triton.embedded.alarm import Alarm
from sie_triton.embedded.stubs import CRASHED_S, STOPPED_S, Death, StubWatch


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose first argument lies in the repository, as a stub's; it waits for somebody to write."""
    fifo = tmp_path / "double" / "1" / "fifo"
    fifo.parent.mkdir(parents=True)
    os.mkfifo(fifo)
    with subprocess.Popen(["cat", fifo]) as process:
        yield process
        process.kill()


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def seen(watch: StubWatch, pid: int) -> bool:
    assert watch.look(os.getpid()) == []
    return watch.models.get(pid) == "double"


def deaths(watch: StubWatch) -> list[Death]:
    found: list[Death] = []

    def look() -> bool:
        found.extend(watch.look(os.getpid()))
        return bool(found)

    assert eventually(look)
    return found


def test_a_zombie_that_stays_one_has_crashed_and_is_told_once(tmp_path: Path, stub: subprocess.Popen[bytes]) -> None:
    watch = StubWatch(tmp_path)
    assert eventually(lambda: seen(watch, stub.pid))
    assert watch.living("double") == 1
    stub.kill()
    assert eventually(lambda: state(stub.pid) == "Z")
    now = time.monotonic()
    assert watch.look(os.getpid(), now) == []  # tritonserver may be about to collect it
    [death] = watch.look(os.getpid(), now + CRASHED_S + 0.01)
    assert (death.pid, death.model) == (stub.pid, "double")
    assert death.cause == "was killed by SIGKILL, as the kernel does where memory runs out"
    assert watch.living("double") == 0
    assert watch.look(os.getpid(), now + 60) == []


def test_a_stub_that_the_server_ended_is_no_death(tmp_path: Path, stub: subprocess.Popen[bytes]) -> None:
    watch = StubWatch(tmp_path)
    assert eventually(lambda: seen(watch, stub.pid))
    watch.dismiss("double")
    stub.kill()
    assert eventually(lambda: state(stub.pid) == "Z")
    assert watch.look(os.getpid()) == []
    assert watch.look(os.getpid(), time.monotonic() + 60) == []
    stub.wait()
    watch.look(os.getpid(), time.monotonic() + 60)
    assert watch.models == {}


def test_a_stub_that_nobody_saw_alive_is_told_without_a_name(tmp_path: Path, stub: subprocess.Popen[bytes]) -> None:
    stub.kill()
    assert eventually(lambda: state(stub.pid) == "Z")
    [death] = deaths(StubWatch(tmp_path))
    assert (death.pid, death.model) == (stub.pid, None)


def test_a_stopped_stub_is_ended_and_named(tmp_path: Path, stub: subprocess.Popen[bytes]) -> None:
    watch = StubWatch(tmp_path)
    assert eventually(lambda: seen(watch, stub.pid))
    os.kill(stub.pid, signal.SIGSTOP)
    assert eventually(lambda: state(stub.pid) == "T")
    now = time.monotonic()
    assert watch.look(os.getpid(), now) == []
    os.kill(stub.pid, signal.SIGCONT)  # a short stop is nobody's matter
    assert eventually(lambda: state(stub.pid) != "T")
    assert watch.look(os.getpid(), now + STOPPED_S + 0.01) == []
    os.kill(stub.pid, signal.SIGSTOP)
    assert eventually(lambda: state(stub.pid) == "T")
    now = time.monotonic()
    assert watch.look(os.getpid(), now) == []
    assert state(stub.pid) == "T"
    assert watch.look(os.getpid(), now + STOPPED_S + 0.01) == []
    [death] = deaths(watch)
    assert death.cause.startswith("was stopped for 0.") and death.cause.endswith("and had to be ended")


def test_a_stub_that_stands_still_is_told_from_one_that_works_and_from_a_machine_that_does(
    tmp_path: Path, stub: subprocess.Popen[bytes]
) -> None:
    watch = StubWatch(tmp_path)
    assert eventually(lambda: seen(watch, stub.pid) and state(stub.pid) == "S")
    now = time.monotonic()

    def looks(pid: int, seconds: float, pause: float = 0.25) -> float:
        nonlocal now
        until = now + seconds
        while now < until:
            now += pause
            assert watch.look(os.getpid(), now) == []
        return watch.stood_still(pid)

    still = looks(stub.pid, 1)
    assert looks(stub.pid, 10) == pytest.approx(still + 10)
    assert looks(stub.pid, 60, pause=60) == pytest.approx(still + 11), "the machine was frozen for a minute"

    worker = tmp_path / "busy" / "1" / "model.py"
    worker.parent.mkdir(parents=True)
    worker.write_text("while True: pass")
    with subprocess.Popen([sys.executable, worker]) as busy:
        try:
            now = time.monotonic() + 120
            assert eventually(lambda: watch.look(os.getpid(), now) == [] and busy.pid in watch.models)
            for _ in range(5):
                time.sleep(0.1)
                assert looks(busy.pid, 0.25) == 0
        finally:
            busy.kill()
    assert looks(stub.pid, 1) > 12
    watch.end(stub.pid, "did nothing")
    [death] = deaths(watch)
    assert (death.pid, death.cause) == (stub.pid, "did nothing")


def test_whoever_looks_may_sleep_until_a_stub_ends(tmp_path: Path, stub: subprocess.Popen[bytes]) -> None:
    watch, alarm = StubWatch(tmp_path), Alarm()
    try:
        assert eventually(lambda: seen(watch, stub.pid))
        assert [pid for pid in watch.alive if alarm.watch(pid)] == watch.alive
        ending = threading.Timer(0.1, stub.kill)
        ending.start()
        begun = time.monotonic()
        alarm.sleep(20)
        assert time.monotonic() - begun < 10 and state(stub.pid) == "Z"
        now = time.monotonic()
        assert watch.look(os.getpid(), now) == []
        assert watch.alive == [] and watch.pause(now) == pytest.approx(CRASHED_S)
        assert watch.look(os.getpid(), now + watch.pause(now) + 1e-6) != []
        assert 0.1 < watch.pause(now) < STOPPED_S, "what has been told is no reason to look"
    finally:
        alarm.close()


def test_an_alarm_is_rung_before_during_and_after_a_sleep() -> None:
    alarm = Alarm()
    for _ in range(100_000):  # more than a pipe holds
        alarm.ring()
    begun = time.monotonic()
    alarm.sleep(20)
    while time.monotonic() - begun < 10:
        before = time.monotonic()
        alarm.sleep(0.01)
        if time.monotonic() - before >= 0.01:
            break
    threading.Timer(0.05, alarm.ring).start()
    alarm.sleep(20)
    assert time.monotonic() - begun < 10
    assert not alarm.watch(2**22 + 1)  # no such process
    alarm.close()
    alarm.ring()
    alarm.close()
