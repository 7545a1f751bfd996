"""A run that does not end is given up, others are not; and a process that gives one up says so as it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from sie_triton.embedded.last_resort import UNFINISHED
from sie_triton.embedded.run_limit import VARIABLE, RunLimit, limit_from_environment


def test_only_a_run_that_takes_too_long_is_given_up() -> None:
    given_up = threading.Event()
    taken: list[float] = []

    def give_up(seconds: float) -> None:
        taken.append(seconds)
        given_up.set()

    limit = RunLimit("p", 0.3, give_up)
    for _ in range(8):
        with limit.run():
            time.sleep(0.06)
    time.sleep(0.4)
    assert not given_up.is_set()
    with limit.run():
        assert given_up.wait(60)
    assert len(taken) == 1 and taken[0] > 0.3


def test_a_process_ends_itself_and_names_its_model() -> None:
    program = (
        "import time; from sie_triton.embedded.run_limit import RunLimit\n"
        "with RunLimit('acme__p', 0.2).run():\n    time.sleep(60)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == UNFINISHED
    assert "model `acme__p` has computed one run for" in done.stderr and "(0.2 s)" in done.stderr


@pytest.mark.parametrize(("text", "seconds"), [("", 0.0), ("120", 120.0), ("2.5", 2.5), ("-1", 0.0), ("soon", 0.0)])
def test_what_the_environment_says(text: str, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, text)
    assert limit_from_environment() == seconds
    monkeypatch.delenv(VARIABLE)
    assert limit_from_environment() == 0.0
