"""benchmarks/faults.py in short: what callers notice of processes that are killed, stopped and starved."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from compiler import tiny
from embedded.graphs import FLOAT, INT64, graph
from frontend.repository import write_repository
from residency.world import CONFIG, OUTPUTS
from sie_frontend.manifest import dump_manifest, read_manifest

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).resolve().parents[2]
VOCABULARY = 2000


def write_graph(file: Path, seed: int) -> None:
    """Every output is the sum of a random vector for each real token, of this model's own table."""
    nodes: list[Any] = [
        ("Gather", ["table", "input_ids"], ["vectors"], {"axis": 0}),
        ("Cast", ["attention_mask"], ["real"], {"to": FLOAT}),
        ("Unsqueeze", ["real", "last"], ["column"]),
        ("Mul", ["vectors", "column"], ["kept"]),
        *(("ReduceSum", ["kept", "axis"], [name], {"keepdims": 0}) for name in OUTPUTS),
    ]
    table = np.random.default_rng(seed).normal(size=(VOCABULARY, 32)).astype(np.float32)
    constants = {"table": table, "last": np.asarray([2]), "axis": np.asarray([1])}
    inputs = [("input_ids", INT64, ("b", "n")), ("attention_mask", INT64, ("b", "n"))]
    onnx.save(graph(nodes, inputs, [(name, FLOAT, ("b", 32)) for name in OUTPUTS], constants), file)


@pytest.fixture(scope="module")
def three_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models of ONNX Runtime, one of them in two processes."""
    folder = tmp_path_factory.mktemp("faults")
    repository, whole = folder / "repository", None
    repository.mkdir()
    for seed, name in enumerate(("first", "second", "third")):
        bundle = tiny.BUNDLE.replace("acme/tiny", f"acme/{name}")
        one = read_manifest(write_repository(folder / name / "repository", bundle))
        whole = one if whole is None else msgspec.structs.replace(whole, models={**whole.models, **one.models})
        model = (folder / name / "repository" / f"acme__{name}").rename(repository / f"acme__{name}")
        config = CONFIG.replace('"python"', '"onnxruntime"')
        (model / "config.pbtxt").write_text(config.replace("count: 1", "count: 2") if name == "third" else config)
        write_graph(model / "1" / "model.onnx", seed)
    assert whole is not None
    (repository / "manifest.json").write_bytes(dump_manifest(whole))
    return repository


def test_callers_notice_nothing_but_time(three_models: Path) -> None:
    arguments = ("--repository", str(three_models), "--short", "--limit", "150")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults", *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["faults"] == {
        "a killed process": 3,
        "a stopped process": 1,
        "no memory": 1,
        "a killed tritonserver": 1,
    }
    assert result["calls"] > 200 and result["bad_requests"] > 5
    assert set(result["longest_call_s"]) == {"acme/first", "acme/second", "acme/third"}
    assert result["missed"] == []
