"""A run that is alone: which way is taken, and that several threads compute the same from the same memory."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from embedded.graphs import FLOAT, graph
from sie_triton.embedded.alone import QuickerWay
from sie_triton.embedded.backends.onnxruntime.mapped import open_mapped


def settled(way: QuickerWay, size: int, seconds: tuple[float, float], runs: int = 48) -> list[int]:
    """What is chosen while the two ways take so long."""
    taken = []
    for _ in range(runs):
        taken.append(way.choose(size))
        way.took(size, taken[-1], seconds[taken[-1]])
    return taken


def test_the_quicker_way_is_taken_and_the_other_tried_now_and_then() -> None:
    way = QuickerWay()
    first = settled(way, 22, (0.007, 0.004))
    assert set(first[:6]) == {0, 1}
    assert 42 < sum(first[6:]) + 3 < 48


def test_a_machine_that_becomes_busy_is_noticed() -> None:
    way = QuickerWay()
    settled(way, 22, (0.007, 0.004))
    assert sum(settled(way, 22, (0.010, 0.030))) < 12
    assert sum(settled(way, 22, (0.007, 0.002), runs=480)[-100:]) > 90


@pytest.mark.parametrize("when", [0, 4, 40])
def test_one_run_that_was_kept_for_seconds_does_not_make_its_way_the_slower_one_for_long(when: int) -> None:
    way = QuickerWay()
    settled(way, 22, (0.007, 0.004), runs=when)
    way.took(22, 1, 3.0)
    assert sum(settled(way, 22, (0.007, 0.004), runs=100)[-50:]) > 40


def test_sizes_are_judged_apart() -> None:
    way = QuickerWay()
    settled(way, 22, (0.007, 0.004))
    settled(way, 500, (0.050, 0.090))
    assert sum(settled(way, 22, (0.007, 0.004))) > 40
    assert sum(settled(way, 500, (0.050, 0.090))) < 8


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three products whose factors are packed, and a table that is looked up."""
    random = np.random.default_rng(7)
    table = random.standard_normal((500, 256)).astype(np.float32)
    weights = {f"w{n}": random.standard_normal((256, 256)).astype(np.float32) for n in range(3)}
    nodes = [("Gather", ["table", "ids"], ["h0"])]
    nodes += [("MatMul", [f"h{n}", f"w{n}"], [f"h{n + 1}"]) for n in range(3)]
    model = graph(
        nodes,
        [("ids", onnx.TensorProto.INT64, ("b", "n"))],
        [("h3", FLOAT, ("b", "n", 256))],
        {"table": table, **weights},
    )
    file = tmp_path_factory.mktemp("mapped") / "model.onnx"
    onnx.save(model, file)
    return file


def test_what_a_killed_process_left_goes_and_what_another_writes_stays(path: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIE_EMBEDDED_SERVER_FOLDER", str(tmp_path))
        left, others = tmp_path / "mapped-left", tmp_path / "mapped-others"
        for folder in (left, others):
            folder.mkdir()
            (folder / "weights.bin").write_bytes(b"half of them")
        lock = os.open(others, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            assert len(open_mapped(path, options, (1, 2))) == 2
        finally:
            os.close(lock)
        assert list(tmp_path.iterdir()) == [others]


def options() -> ort.SessionOptions:
    made = ort.SessionOptions()
    made.intra_op_num_threads = made.inter_op_num_threads = 1
    made.log_severity_level = 3
    return made


def test_threads_change_no_bit_and_the_weights_are_mapped(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIE_EMBEDDED_SERVER_FOLDER", str(path.parent))
    plain = ort.InferenceSession(path, options(), providers=["CPUExecutionProvider"])
    one, two = open_mapped(path, options, (1, 2))
    assert [entry.name for entry in path.parent.iterdir()] == ["model.onnx"]
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(path.parent) in line]
    assert mapped and all("weights.bin (deleted)" in line for line in mapped)
    for shape in ((1, 1), (1, 22), (5, 9), (12, 64)):
        ids = np.arange(np.prod(shape), dtype=np.int64).reshape(shape) % 500
        (expected,) = plain.run(None, {"ids": ids})
        for session in (one, two):
            (found,) = session.run(None, {"ids": ids})
            np.testing.assert_array_equal(found, expected)


FULL = """
import resource, sys
from pathlib import Path
import onnxruntime as ort
from sie_triton.embedded.backends.onnxruntime import mapped
write = mapped._write

def cut(path, options, graph):
    write(path, options, graph)
    if sys.argv[2] == "cut":
        with graph.with_name("weights.bin").open("r+b") as file:
            file.truncate(file.seek(0, 2) - 1)

mapped._write = cut
if sys.argv[2] == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    mapped.open_mapped(Path(sys.argv[1]), ort.SessionOptions, (1, 2))
except Exception as error:
    print(type(error).__name__, list(Path(sys.argv[1]).parent.glob("*mapped-*")))
"""


@pytest.mark.parametrize("how", ["full", "cut"])
def test_weights_that_were_not_written_whole_are_not_mapped(tmp_path: Path, how: str) -> None:
    """A mapping that reaches behind the end of its file would end the process when it is read."""
    weights = {"w": np.ones((256, 256), np.float32)}
    model = graph([("MatMul", ["x", "w"], ["y"])], [("x", FLOAT, ("b", 256))], [("y", FLOAT, ("b", 256))], weights)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    environment = {**os.environ, "SIE_EMBEDDED_SERVER_FOLDER": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", FULL, path, how], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "Fail []\n"
