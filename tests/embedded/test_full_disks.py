"""A full /dev/shm and a full disk are survived and named: on small file systems that only a process of ours sees."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e


def alone(mounts: Sequence[tuple[Path, str]], command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command that alone sees these small file systems; skips where that is not permitted."""
    if shutil.which("unshare") is None:
        pytest.skip("`unshare` is not installed")
    mounted = [f"mount -t tmpfs -o size={size} none {shlex.quote(str(place))}" for place, size in mounts]
    refusals = []
    for unshare in (("unshare", "-m"), ("unshare", "-r", "-m")):
        tried = subprocess.run([*unshare, "sh", "-ec", "; ".join(mounted)], capture_output=True, text=True, check=False)
        if tried.returncode == 0:
            script = "; ".join([*mounted, f"exec {shlex.join(command)}"])
            return subprocess.run(
                [*unshare, "sh", "-ec", script], capture_output=True, text=True, timeout=120, check=False
            )
        refusals.append(tried.stderr.strip())
    pytest.skip(f"file systems of one's own are not permitted here: {refusals}")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("full")
    for name in ("log", "disk"):
        (folder / name).mkdir()
    mounts = [(Path("/dev/shm"), "16m"), (folder / "log", "1m"), (folder / "disk", "1m")]
    done = alone(mounts, [sys.executable, "-m", "embedded.full_driver", str(folder)])
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.fixture(scope="module", autouse=True)
def importable() -> Any:
    """The driver's process imports what we do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
        yield


def test_a_full_shared_memory_costs_the_large_requests_and_nothing_else(found: dict[str, Any]) -> None:
    told = found["shared memory"]
    small, large, *others = told["full"]
    assert [small, *others] == ["right"] * 3
    assert large.startswith("OUT_OF_MEMORY: ") and "No space left on device" in large
    assert told["freed"] == ["right"] * 3 and told["the same server"]


def test_a_large_answer_of_a_stream_is_refused_in_time(found: dict[str, Any]) -> None:
    """What could not be sent could not be refused either, and its caller would wait for ever."""
    told = found["shared memory"]
    small, *large, again = told["streams"]
    assert small == again == "right" and told["the same process"]
    assert len(large) == 3 and all(one.startswith("OUT_OF_MEMORY: ") and "no room" in one for one in large)


def test_a_model_that_dies_meanwhile_is_named_and_back_when_there_is_room(found: dict[str, Any]) -> None:
    told = found["shared memory"]
    assert told["other"] == "right" and told["freed"][0] == "right"
    assert any("model `one` could not be loaded again" in one and "No space left" in one for one in told["told"])


def test_a_server_that_starts_without_shared_memory_says_so_soon(found: dict[str, Any]) -> None:
    told = found["shared memory"]
    assert told["start"]["code"] == "SIE708" and "No space left on device" in told["start"]["message"]
    assert told["start_s"] < 60


def test_a_log_that_cannot_grow_stops_nobody(found: dict[str, Any]) -> None:
    assert found["shared memory"]["log is full"] == ["right", "right"]


def test_on_a_full_disk_nothing_is_published_and_what_was_stays(found: dict[str, Any]) -> None:
    told = found["disk"]
    assert told["published"]["code"] == "SIE612" and "No space left on device" in told["published"]["message"]
    assert "what was published is as it was" in told["published"]["hint"]
    assert told["kept"] == "the one before" and set(told["left"]) <= {"filler", "repository", ".repository.lock"}


def test_a_server_without_a_place_for_temporary_files_says_so(found: dict[str, Any]) -> None:
    told = found["disk"]["no temporary file"]
    assert told["code"] == "SIE713" and "TMPDIR" in told["hint"] and "no space left" in told["message"].lower()
