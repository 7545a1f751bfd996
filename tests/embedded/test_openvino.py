"""OpenVINO beside ONNX Runtime: the same graphs give the same numbers, and without the package nothing breaks."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from google.protobuf import text_format
from onnx import numpy_helper, parser

from embedded.client import infer, results
from embedded.graphs import add_model, doubling, onnx_config
from sie_triton.diagnostics import DiagnosticError
from sie_triton.eight_bits.rewrite import EightBits, eight_bit_graph
from sie_triton.embedded import openvino_engine
from sie_triton.embedded.openvino_engine import OpenVinoError, OpenVinoGraph, wanted_precision
from sie_triton.embedded.server import ServerSpec, TritonServer
from sie_triton.lint.config import model_config_pb2
from sie_triton.planning.plan import GraphOptions
from sie_triton.planning.precisions import precisions_for
from sie_triton.verify.model_runner import open_onnx

there = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs `openvino`, an extra")
RANDOM = np.random.default_rng(11)
ASKS = 'optimization { execution_accelerators { cpu_execution_accelerator [ { name: "openvino" } ] } }'
LAYER = """<ir_version: 10, opset_import: ["" : 18]>
layer (float[batch, 64] states) => (float[batch, 64] normed, float[batch, 128] up) {
    normed = LayerNormalization<axis = -1>(states, gain)
    up = MatMul(normed, weight)
}"""

# Each child has the package, and no table of it yet. One that hangs does so with Python's lock: a signal ends it.
FIRST_RUNS = """
import os, signal, sys, threading
from pathlib import Path
import numpy as np
import openvino
from sie_triton.embedded.openvino_engine import OpenVinoGraph

def first_runs():
    signal.alarm(30)
    graph = OpenVinoGraph(Path(sys.argv[1]), threads=4, streams=4)
    together = threading.Barrier(4)
    def run():
        together.wait()
        graph.run(["up"], {"states": np.zeros((2, 64), np.float32)})
    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()

for _ in range(4):
    if (child := os.fork()) == 0:
        first_runs()
        os._exit(0)
    print(os.waitpid(child, 0)[1])
"""


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    model = parser.parse_model(LAYER)
    weight = (RANDOM.standard_normal((64, 128)) / 8).astype(np.float32)
    for name, array in (("gain", np.ones(64, np.float32)), ("weight", weight)):
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@there
@pytest.mark.parametrize("eight_bits", [False, True])
def test_a_graph_gives_what_onnx_runtime_gives(layer: Path, eight_bits: bool) -> None:
    if eight_bits:
        model = onnx.load(str(layer))
        eight_bit_graph(model, EightBits(32), {})
        onnx.save(model, layer)
    states = RANDOM.standard_normal((5, 64)).astype(np.float32)
    theirs = ort.InferenceSession(str(layer), providers=["CPUExecutionProvider"]).run(
        ["up", "normed"], {"states": states}
    )
    graph = OpenVinoGraph(layer, threads=1)
    ours = graph.run(["up", "normed"], {"states": states})
    # In 8 bits the two may round states or not, as the processor has it.
    for a, b in zip(ours, theirs, strict=True):
        assert np.abs(a - b).max() < (2e-2 if eight_bits else 1e-5) * np.abs(b).max()
    assert [(tensor.name, tensor.data_type, tensor.dims) for tensor in graph.inputs] == [
        ("states", "TYPE_FP32", (-1, 64))
    ]
    assert {tensor.name for tensor in graph.outputs} == {"normed", "up"}


@there
def test_streams_compute_side_by_side_what_one_computes(layer: Path) -> None:
    feeds = [{"states": RANDOM.standard_normal((rows, 64)).astype(np.float32)} for rows in (1, 3, 8, 2, 5)]
    wanted = [OpenVinoGraph(layer, threads=1).run(["up"], feed)[0] for feed in feeds]
    graph = OpenVinoGraph(layer, threads=1, streams=2)
    with ThreadPoolExecutor(5) as threads:
        for _ in range(8):
            found = threads.map(lambda feed: graph.run(["up"], feed)[0], feeds)
            for ours, expected in zip(found, wanted, strict=True):
                np.testing.assert_array_equal(ours, expected)


@there
def test_a_run_that_is_alone_has_threads_of_its_own(layer: Path) -> None:
    graph = OpenVinoGraph(layer, threads=1, streams=2, alone_threads=2)
    assert graph._alone is not None, "two streams of one thread are not one of two"
    for rows in (1, 3):
        feed = {"states": np.random.default_rng(rows).standard_normal((rows, 64)).astype(np.float32)}
        [expected] = graph.run(["up"], feed)
        [alone] = graph.run_alone(["up"], feed)
        np.testing.assert_allclose(alone, expected, atol=1e-5)
        assert alone is not graph.run_alone(["up"], feed)[0]
    [only] = OpenVinoGraph(layer, threads=1).run_alone(["up"], feed)
    np.testing.assert_allclose(only, expected, atol=1e-5)


@there
def test_the_first_runs_of_a_process_may_come_at_once(layer: Path) -> None:
    """Without an order among them, two of five such processes hung for good, inside OpenVINO's binding."""
    done = subprocess.run([sys.executable, "-c", FIRST_RUNS, str(layer)], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["0"] * 4, done.stdout + done.stderr


@there
@pytest.mark.e2e
def test_streams_do_not_spoil_each_others_weights_of_8_bits(built_repository: Path, tmp_path: Path) -> None:
    """Streams of one compiled model did, on a processor with VNNI: of six in three streams, five gave wrong vectors."""
    model = onnx.load(str(built_repository / "sentence-transformers__all-MiniLM-L6-v2" / "1" / "model.onnx"))
    eight_bit_graph(model, EightBits(64), {})
    onnx.save(model, tmp_path / "model.onnx")
    feeds = []
    for tokens in (10, 22, 62):
        ids = RANDOM.integers(1000, 20000, (1, tokens))
        feeds.append({"input_ids": ids, "attention_mask": np.ones_like(ids)})
    alone = OpenVinoGraph(tmp_path / "model.onnx", threads=1)
    wanted = [alone.run(["dense"], feed)[0] for feed in feeds]
    for _ in range(4):
        graph = OpenVinoGraph(tmp_path / "model.onnx", threads=3, streams=3)
        with ThreadPoolExecutor(3) as threads:
            found = list(threads.map(graph.run, [["dense"]] * 3, feeds))
        for [ours], expected in zip(found, wanted, strict=True):
            assert (ours * expected).sum() > 0.9999


@there
def test_a_graph_that_it_lacks_is_refused_in_words(tmp_path: Path) -> None:
    text = LAYER.replace("LayerNormalization<axis = -1>(states, gain)", "acme.Nothing(states)")
    text = text.replace('["" : 18]', '["" : 18, "acme" : 1]')
    onnx.save(parser.parse_model(text.replace("weight)", "normed)")), tmp_path / "model.onnx")
    with pytest.raises(OpenVinoError, match="OpenVINO does not load the graph"):
        OpenVinoGraph(tmp_path / "model.onnx", threads=1)


def test_a_build_says_which_package_is_missing(layer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sie_triton.verify.model_runner.installed", lambda: False)
    config = text_format.Parse(ASKS, model_config_pb2().ModelConfig())
    with pytest.raises(DiagnosticError) as caught:
        open_onnx(config, layer, None)
    [problem] = caught.value.diagnostics
    assert problem.code == "SIE530" and "sie-triton[openvino]" in str(problem.hint)


def test_precisions_of_the_accelerator() -> None:
    assert wanted_precision({}) == "f32" and wanted_precision({openvino_engine.PRECISION_KEY: "bf16"}) == "bf16"
    with pytest.raises(OpenVinoError, match="`int4`, not `f32` or `bf16`"):
        wanted_precision({openvino_engine.PRECISION_KEY: "int4"})


def test_bfloat16_of_an_onnx_graph_needs_the_engine() -> None:
    from sie_triton.bundle import load_bundles

    bundles, _ = load_bundles(Path(__file__).resolve().parents[2] / "model_bundles")
    profile = bundles["sentence-transformers/all-MiniLM-L6-v2"].resolve("default")
    asked = GraphOptions(precision="bfloat16", devices=("cpu",), engine="openvino")
    assert precisions_for(profile, asked) == {"cpu": "bfloat16"}
    with pytest.raises(DiagnosticError, match="SIE215"):
        precisions_for(profile, GraphOptions(precision="bfloat16", devices=("cpu",)))
    with pytest.raises(DiagnosticError, match="computes ONNX graphs on a CPU"):
        precisions_for(profile, GraphOptions(devices=("cuda",), engine="openvino"))


@pytest.mark.e2e
def test_the_server_computes_by_openvino_or_says_that_it_is_not_there(tmp_path: Path) -> None:
    vector = '{ name: "x" data_type: TYPE_FP32 dims: [ -1 ] }'
    config = onnx_config(vector, vector.replace('"x"', '"y"'), ASKS)
    add_model(tmp_path / "repository", "double", config, doubling())
    log = tmp_path / "triton.log"
    server = TritonServer(ServerSpec(tmp_path / "repository", log))
    server.start()
    try:
        server.wait_ready(60)
        answer = results(infer(server.url, "double", {"x": ("FP32", [1, 2], [1.5, -2.0])}))
        assert answer == {"y": ([1, 2], [3.0, -4.0])}
        missing = "asks for OpenVINO, which is not installed" in log.read_text(encoding="utf-8", errors="replace")
        assert missing is (importlib.util.find_spec("openvino") is None)
    finally:
        server.stop(5)
