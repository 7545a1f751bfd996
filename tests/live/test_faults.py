"""benchmarks/faults.py in short: what callers notice of processes that die and of models that come and go."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from compiler import tiny

from benchmarks.fault_world import Change, Grounds, World
from live.conftest import OTHER, Versions

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).resolve().parents[2]
THIRD, FOURTH = "acme/third", "acme/fourth"


@pytest.fixture
def grounds(versions: Versions, joined: Path, tmp_path: Path) -> Grounds:
    """Four models, of which one was built twice."""
    found = Grounds(tmp_path / "world")
    shutil.copytree(joined, found.repository)
    for model_id, version in ((THIRD, "a"), (FOURTH, "b")):
        tiny.write_bundle(versions.folder / model_id.replace("/", "-"), tiny.BUNDLE.replace(tiny.MODEL_ID, model_id))
        versions.build(found.repository, version, model_id)
    first = {tiny.MODEL_ID: "b", OTHER: "c", THIRD: "a", FOURTH: "b"}
    changes = (
        Change(tiny.MODEL_ID, "a", ("rollback", tiny.MODEL_ID)),
        Change(FOURTH, None, ("remove", FOURTH)),
        Change(tiny.MODEL_ID, "b", ("rollback", tiny.MODEL_ID)),
        Change(FOURTH, "b", ("rollback", FOURTH)),
    )
    checkpoints = {(model_id, version): versions.folder / version for model_id, version in first.items()}
    checkpoints[tiny.MODEL_ID, "a"] = versions.folder / "a"
    found.write(World((tiny.MODEL_ID, OTHER, THIRD), first, changes), checkpoints, tokens=48)
    return found


def test_callers_notice_nothing_but_time(grounds: Grounds, tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    arguments = ("--folder", str(grounds.folder), "--short", "--requests", "300", "--pause", "0.3", "--limit", "150")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults", *arguments, "--json", str(found)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| wrong vectors | 0 |" in done.stdout and "| aims that were missed | none |" in done.stdout
    result = json.loads(found.read_bytes())
    assert result["faults"] == {
        "a killed process": 3,
        "a stopped process": 1,
        "no memory": 1,
        "a killed tritonserver": 1,
        "a model replaced": 2,
        "a model removed": 1,
        "a model added": 1,
    }
    assert result["requests"] >= 300 and result["bad_requests"] > 5
    assert {f"{tiny.MODEL_ID}@a", f"{tiny.MODEL_ID}@b", f"{OTHER}@c", f"{THIRD}@a", f"{FOURTH}@b"} == set(
        result["answers_by_version"]
    )
    assert result["missed"] == []
