"""The warden's own duties, without a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from embedded.client import regions
from sie_triton.embedded import warden


def test_regions_of_the_dead_are_swept_and_those_of_the_living_kept() -> None:
    prefix = f"{warden.PREFIX}test{os.getpid()}"
    dead, living = f"{prefix}dead", f"{prefix}living"
    holder = subprocess.Popen(
        [sys.executable, "-c", f"import runpy, sys, time; m = runpy.run_path({warden.__file__!r});"
         f"m['mark']({living!r}); print('held', flush=True); time.sleep(600)"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        for name in (f"{dead}.lock", f"{dead}region", f"{living}region"):
            (warden.SHARED_MEMORY / name).touch()
        warden.sweep()
        assert regions(dead) == []
        assert sorted(regions(living)) == [f"{living}.lock", f"{living}region"]
    finally:
        holder.kill()
        holder.communicate()
    warden.sweep()
    assert regions(living) == [f"{living}region"] or regions(living) == []
    warden.remove_regions(prefix)


def test_a_plan_that_cannot_run_is_told(tmp_path: Path) -> None:
    """The warden's own answer where tritonserver cannot even be executed."""
    prefix = f"{warden.PREFIX}plan{os.getpid()}"
    plan = {"command": [str(tmp_path / "absent")], "prefix": prefix, "scratch": "/nowhere", "grace": 1}
    run = subprocess.Popen(
        [sys.executable, "-I", "-S", warden.__file__, json.dumps(plan)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with run:
        assert run.wait(60) == 127
        assert run.stderr
        assert f"cannot run `{tmp_path / 'absent'}`" in run.stderr.read()
    assert regions(prefix) == []
