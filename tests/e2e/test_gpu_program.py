"""benchmarks/gpu.py in short, on the CPU: the way that a GPU is measured, without one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import MINILM_ID

from benchmarks import gpu, gpu_peer
from benchmarks.gpu_inputs import corpus_for
from e2e.processes import Serving

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).resolve().parents[2]


def test_a_model_is_asked_and_compared(serving: Serving, minilm: Path) -> None:
    """The served vectors are sentence-transformers', and every speed is one."""
    case = gpu.Case("MiniLM", minilm, "onnx", "float32", MINILM_ID)
    machine = gpu.Machine("cpu", "here", 0.15, (8,), (1, 4), 24)
    texts, lengths = corpus_for(minilm, machine.texts)
    found, vectors = gpu.asked(serving.url, case, machine, texts, lengths)
    gpu.compare(found, vectors, gpu_peer.measured(str(minilm), gpu.asked_of_peer(case, machine, texts, sum(lengths))))
    assert found.min_cosine >= 0.99999
    assert list(found.tokens_per_second) == ["1 x 1", "4 x 1", "8 x 24"]
    assert min(found.tokens_per_second.values()) > 0
    assert found.peer["8"] > 0
    assert found.computing is None
    cells = gpu.line(found).split("|")
    assert float(cells[-2]) == round(found.tokens_per_second["8 x 24"] / found.peer["8"], 2)


@pytest.mark.skipif(not os.environ.get("SIE_TRITON_ALL_RECIPES"), reason="builds: SIE_TRITON_ALL_RECIPES=1")
def test_the_whole_program_in_short(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--size", "tiny", "--json", str(tmp_path / "found.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "| tiny, torchscript, bfloat16 | 0.99" in done.stdout
    assert "Left out" not in done.stdout
    assert (tmp_path / "found.json").is_file()


def test_what_does_not_fit_into_the_time_is_left_out_and_said() -> None:
    clock = gpu.Clock(1)
    assert clock.has(10, "a")
    assert not clock.has(61, "b")
    assert clock.left_out == ["b"]


def test_children_of_a_block_have_its_cores_alone() -> None:
    before = os.sched_getaffinity(0)
    one = sorted(before)[:1]
    asks = [sys.executable, "-c", "import os; print(sorted(os.sched_getaffinity(0)))"]
    with gpu.affinity(one):
        told = subprocess.run(asks, capture_output=True, text=True, check=True).stdout
    assert told.strip() == str(one)
    assert os.sched_getaffinity(0) == before
