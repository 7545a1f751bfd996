"""No process of ours lets ONNX Runtime write an id of the machine or look up its telemetry host."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.waiting import eventually
from embedded.client import infer
from embedded.graphs import DOUBLING_CONFIG, add_model, doubling
from sie_triton.embedded.server import ServerSpec, TritonServer

pytestmark = pytest.mark.e2e

VARIABLE = "ORT_DISABLE_TELEMETRY"
# Notes every name that its process looks up, and finds none.
LOOKUPS = """
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    FILE *notes = fopen(getenv("LOOKUPS"), "a");
    if (notes) { fprintf(notes, "%s\\n", name ? name : ""); fclose(notes); }
    return EAI_NONAME;
}
"""
THEIRS = """
import sys, time, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1] + "/double/1/model.onnx", providers=["CPUExecutionProvider"])
time.sleep(60)
"""
OURS = """
import sys, time
from pathlib import Path
from sie_triton.verify.model_runner import ModelRunner
ModelRunner(Path(sys.argv[1]), "double")
time.sleep(60)
"""


def environment(home: Path, library: Path) -> dict[str, str]:
    """One in which nothing has been switched off, and where everything can be seen."""
    home.mkdir()
    inherited = {key: value for key, value in os.environ.items() if key not in (VARIABLE, "XDG_CACHE_HOME")}
    return inherited | {"HOME": str(home), "LD_PRELOAD": str(library), "LOOKUPS": str(home / "lookups")}


def looked_up(home: Path) -> bool:
    notes = home / "lookups"
    return notes.exists() and "events.data.microsoft.com" in notes.read_text()


def written(home: Path) -> list[str]:
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file() and path.name != "lookups")


@pytest.fixture
def library(tmp_path: Path) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler to build what notes the names that are looked up")
    (tmp_path / "lookups.c").write_text(LOOKUPS)
    made = tmp_path / "lookups.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(made), str(tmp_path / "lookups.c")], check=True)
    return made


def test_onnx_runtime_tells_nobody(tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "repository"
    config = DOUBLING_CONFIG + '\ndefault_model_filename: "model.onnx"\n'
    add_model(repository, "double", config, doubling())
    homes = {name: tmp_path / name for name in ("server", "ours", "theirs")}
    environments = {name: environment(home, library) for name, home in homes.items()}
    with monkeypatch.context() as patch:
        for key in ("HOME", "LD_PRELOAD", "LOOKUPS"):
            patch.setenv(key, environments["server"][key])
        patch.delenv(VARIABLE, raising=False)
        server = TritonServer(ServerSpec(repository, tmp_path / "triton.log"))
        server.start()
    children = []
    try:
        server.wait_ready(120)
        for name, program in (("ours", OURS), ("theirs", THEIRS)):
            command = [sys.executable, "-c", program, str(repository)]
            children.append(subprocess.Popen(command, env=environments[name]))
        # Without the setting both happen, so that this test would see it: the lookup about ten seconds after the start.
        if not eventually(lambda: bool(written(homes["theirs"])), 60):
            pytest.skip("this ONNX Runtime has no telemetry")
        assert eventually(lambda: looked_up(homes["theirs"]), 60)
        time.sleep(3)
        assert infer(server.url, "double", {"x": ("FP32", [1, 1], [1])}).status_code == 200
        assert [child.poll() for child in children] == [None, None]
        for name in ("server", "ours"):
            assert not looked_up(homes[name]), name
            assert [path for path in written(homes[name]) if "onnxruntime" in path] == [], name
    finally:
        for child in children:
            child.kill()
            child.wait()
        server.stop(5)
