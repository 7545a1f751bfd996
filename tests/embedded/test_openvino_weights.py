"""Weights that OpenVINO maps: the same numbers, less memory, and nothing worse where there is no room for a file."""

from __future__ import annotations

import importlib.util
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from sie_triton.embedded.once import FOLDER_VARIABLE

pytestmark = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs `openvino`, an extra")
WIDTH = 1700
BYTES = 2 * WIDTH * WIDTH * 4
TABLE = """<ir_version: 10, opset_import: ["" : 18]>
table (int64[batch, sequence] ids) => (float[batch, sequence, 1700] output) {
    looked = Gather(rows, ids)
    output = MatMul(looked, weight)
}"""
# What a process holds and has mapped of the weights after it has computed, in bytes, and what it computes.
ASKED = """
import re, signal, sys
from pathlib import Path
import numpy as np
from sie_triton.embedded.openvino_engine import OpenVinoGraph

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
graph = OpenVinoGraph(Path(sys.argv[1]), threads=1, streams=2)
[found] = graph.run(["output"], {"ids": np.asarray([[3, 5, 7]])})
maps = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
mapped = [one for one in maps if "mapped-" in one.partition("\\n")[0] and "model.bin" in one.partition("\\n")[0]]
held = sum(int(re.search(r"^Rss: +(\\d+)", one, re.MULTILINE)[1]) * 1024 for one in mapped)
print(len(mapped), held, *found[0, :, 0].tolist())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    model = parser.parse_model(TABLE)
    random = np.random.default_rng(5)
    for name in ("rows", "weight"):
        array = random.standard_normal((WIDTH, WIDTH)).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def computed(path: Path, folder: Path | None, limit: int | None = None) -> tuple[int, int]:
    """How many files are mapped, and how much of them is held; what is computed is right."""

    def before() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-c", ASKED, str(path)]
    environment = {**os.environ, "TMPDIR": str(path.parent)} | ({FOLDER_VARIABLE: str(folder)} if folder else {})
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, preexec_fn=before)
    assert done.returncode == 0, done.stderr
    mapped, held, *numbers = done.stdout.split()
    rows, weight = (numpy_helper.to_array(one).astype(np.float64) for one in onnx.load(path).graph.initializer)
    np.testing.assert_allclose([float(number) for number in numbers], (rows @ weight)[[3, 5, 7], 0], rtol=1e-3)
    return int(mapped), int(held)


def test_weights_are_mapped_and_only_what_is_read_is_held(path: Path, tmp_path: Path) -> None:
    (folder := tmp_path / "server").mkdir()
    mapped, held = computed(path, folder)
    assert mapped and held < BYTES / 4
    assert list(folder.iterdir()) == []


def test_without_room_for_a_file_they_are_held_as_before(path: Path, tmp_path: Path) -> None:
    assert computed(path, tmp_path / "nowhere") == (0, 0)
    (folder := tmp_path / "server").mkdir()
    assert computed(path, folder, limit=BYTES // 3) == (0, 0)
    assert list(folder.iterdir()) == []


def test_outside_a_server_nothing_is_written(path: Path) -> None:
    """Nobody would clean up after a build that is killed."""
    assert computed(path, None) == (0, 0)
    assert list(path.parent.iterdir()) == [path]
