"""What a build chooses for its graphs: layout, format, precision, devices; and what is then served where."""

from __future__ import annotations

import http.server
import importlib.util
import json
import shutil
import socket
import threading
from pathlib import Path
from typing import Any

import msgspec
import onnx
import pytest
import transformers
from safetensors.torch import load_file, save_file
from sie_frontend.manifest import Manifest, read_manifest

from compiler import tiny
from compiler.command import sie_triton
from compiler.conftest import Tiny
from sie_triton.bundle import ResolvedProfile
from sie_triton.compiler.build import compile_models
from sie_triton.diagnostics import DiagnosticError
from sie_triton.embedded.ports import free_port
from sie_triton.formats import FORMATS
from sie_triton.lint import lint_repository
from sie_triton.planning.plan import GraphOptions
from sie_triton.planning.precisions import precisions_for
from sie_triton.serving.machines import RUNTIMES, check_runtimes, choose_machine, config_name, remote_machine
from sie_triton.verify.checks import verify_repository


def profile(precision: str | None, **runtime: Any) -> ResolvedProfile:
    fields: dict[str, Any] = {
        "sie_id": "acme/m",
        "profile": "default",
        "adapter_path": "m:C",
        "max_batch_tokens": 1024,
        "compute_precision": precision,
        "loadtime": {},
        "runtime": runtime,
        "adaptive_batching": {},
        "max_sequence_length": 64,
    }
    return ResolvedProfile(**fields)


@pytest.mark.parametrize(
    ("bundle", "options", "expected"),
    [
        (None, GraphOptions(), {"cpu": "float32", "cuda": "float16"}),
        ("float16", GraphOptions(), {"cpu": "float32", "cuda": "float16"}),
        ("float32", GraphOptions(), {"cpu": "float32", "cuda": "float32"}),
        # ONNX graphs of bfloat16 could not be verified: the other type of 16 bits stands in.
        ("bfloat16", GraphOptions(), {"cpu": "float32", "cuda": "float16"}),
        ("bfloat16", GraphOptions(format="torchscript"), {"cpu": "float32", "cuda": "bfloat16"}),
        ("bfloat16", GraphOptions(precision="float32"), {"cpu": "float32", "cuda": "float32"}),
        (None, GraphOptions(precision="float16"), {"cpu": "float16", "cuda": "float16"}),
        (None, GraphOptions(precision="int8"), {"cpu": "int8", "cuda": "float16"}),
        ("float32", GraphOptions(precision="int8", devices=("cpu",)), {"cpu": "int8"}),
        (None, GraphOptions(devices=("cuda",)), {"cuda": "float16"}),
        ("bfloat16", GraphOptions(engine="openvino"), {"cpu": "float32", "cuda": "float16"}),
        (None, GraphOptions(precision="bfloat16", engine="openvino"), {"cpu": "bfloat16", "cuda": "float16"}),
    ],
)
def test_precision_is_the_builds_else_the_bundles_else_the_devices(
    bundle: str | None, options: GraphOptions, expected: dict[str, str]
) -> None:
    assert precisions_for(profile(bundle), options) == expected


def test_a_bundle_chooses_for_the_cpu_among_its_runtime_options() -> None:
    asks = profile("float32", cpu_precision="int8")
    assert precisions_for(asks, GraphOptions()) == {"cpu": "int8", "cuda": "float32"}
    assert precisions_for(asks, GraphOptions(precision="float32")) == {"cpu": "float32", "cuda": "float32"}
    assert precisions_for(asks, GraphOptions(format="torchscript"))["cpu"] == "float32"
    with pytest.raises(DiagnosticError, match="SIE217"):
        precisions_for(profile(None, cpu_precision="int4"), GraphOptions())


def test_a_precision_that_the_format_cannot_carry_is_refused() -> None:
    with pytest.raises(DiagnosticError, match="SIE215") as caught:
        precisions_for(profile(None), GraphOptions(precision="bfloat16"))
    [problem] = caught.value.diagnostics
    assert "`--engine openvino` or `--format torchscript`" in str(problem.hint)


def test_int8_is_planned_for_cpus_alone() -> None:
    done = sie_triton("plan", "-m", "sentence-transformers/all-MiniLM-L6-v2", "--precision", "int8")
    assert done.code == 0
    assert "for cpu in int8, cuda in float16" in done.stdout


@pytest.mark.parametrize("asked", [("int8",), ("bfloat16", "--engine", "openvino")], ids=lambda asked: asked[0])
@pytest.mark.parametrize("model", ["vidore/colpali-v1.3-hf", "Qwen/Qwen3-VL-Embedding-2B"])
def test_what_nothing_measures_is_refused(model: str, asked: tuple[str, ...]) -> None:
    done = sie_triton("plan", "-m", model, "--precision", *asked, "--device", "cpu")
    assert (done.code, "SIE216" in done.stderr) == (2, True), done.stderr
    assert f"in {asked[0]} for a CPU: what that does to answers is measured" in done.stderr


@pytest.mark.parametrize(
    "model", ["BAAI/bge-m3", "BAAI/bge-reranker-base", "colbert-ir/colbertv2.0", "Qdrant/splade-ecommerce-esci"]
)
def test_int8_is_planned_for_every_kind_of_output_of_texts(model: str) -> None:
    done = sie_triton("plan", "-m", model, "--precision", "int8", "--device", "cpu")
    assert done.code == 0, done.stderr
    assert "for cpu in int8" in done.stdout


def test_what_is_accepted_has_a_name_and_a_number() -> None:
    model = "sentence-transformers/all-MiniLM-L6-v2"
    for wrong in ("cosines=0.9", "cosine", "nearest=two", "batch=-1"):
        done = sie_triton("build", "-m", model, "--precision", "int8", "--accept", wrong)
        assert (done.code, "SIE220" in done.stderr) == (2, True), done.stderr


@pytest.fixture(scope="module")
def everything(tiny_model: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as a user gets it who chooses nothing."""
    repository = tmp_path_factory.mktemp("machines") / "repository"
    compile_models([tiny_model.target()], tiny_model.options(repository, graphs=GraphOptions()))
    return repository


@pytest.mark.export
def test_one_head_is_one_graph_for_every_machine(everything: Path) -> None:
    (folder,) = (path for path in everything.iterdir() if path.is_dir())
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert folder.name == tiny.TRITON_NAME
    assert files == {
        "config.pbtxt",
        "configs/cuda.pbtxt",
        "configs/cuda-tensorrt.pbtxt",
        "configs/embedded.pbtxt",
        "1/model.onnx",
        "1/model.float16.onnx",
        "1/tokenizer.json",
        "1/reference.npz",
    }
    manifest = read_manifest(everything)
    assert verify_repository(everything, manifest) == []
    assert [str(finding) for finding in lint_repository(everything) if finding.severity != "info"] == []
    record = manifest.built[tiny.TRITON_NAME]
    assert record.precisions == {"cpu": "float32", "cuda": "float16"}
    assert record.configs == {"cpu": "", "cuda": "cuda", "cuda-tensorrt": "cuda-tensorrt"}
    assert record.layout == "fused"
    assert set(record.parity) == {"float32", "float16"}
    for distance in record.parity["float16"].values():
        assert distance.min_cosine is not None
        # Nobody would believe a reduced precision that rounds nothing.
        assert 0.999 <= distance.min_cosine < 1.0 - 1e-9


def packed(repository: Path, graph: str = "model.onnx") -> bool:
    """Whether a graph finds its real tokens by itself; the manifest must say the same of the CPU's."""
    nodes = {node.op_type for node in onnx.load(str(repository / tiny.TRITON_NAME / "1" / graph)).graph.node}
    costs = {model.inputs["text"].batching["cpu"].padding_cost for model in read_manifest(repository).models.values()}
    if graph == "model.onnx":
        assert ("NonZero" in nodes) == (costs != {None})
    return "NonZero" in nodes


@pytest.mark.export
def test_only_graphs_that_no_gpu_uses_are_packed(everything: Path, tiny_model: Tiny, tmp_path: Path) -> None:
    assert packed(everything)
    assert not packed(everything, "model.float16.onnx")
    batching = next(iter(read_manifest(everything).models.values())).inputs["text"].batching
    assert {machine: numbers.padding_cost is not None for machine, numbers in batching.items()} == {
        "cpu": True,
        "cuda": False,
        "cuda-tensorrt": False,
    }
    for name, graphs in {
        "shared": GraphOptions(precision="float32"),
        "unwanted": GraphOptions(devices=("cpu",), packing=False),
    }.items():
        compile_models([tiny_model.target()], tiny_model.options(tmp_path / name, graphs=graphs))
        assert not packed(tmp_path / name)


@pytest.mark.export
def test_a_packed_graph_that_misses_gives_way_to_the_padded_one(
    tiny_model: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sie_triton.onnx_graphs import packing

    def damaging(model: onnx.ModelProto, ids: str, mask: str) -> float | None:
        cost = packing.pack(model, ids, mask)
        last = max(number for number, node in enumerate(model.graph.node) if node.op_type == "NonZero")
        model.graph.node[last].op_type = "Identity"  # every token is taken for the one at place 0 or 1
        return cost

    monkeypatch.setattr("sie_triton.onnx_graphs.finish.pack", damaging)
    said: list[str] = []
    graphs = GraphOptions(devices=("cpu",))
    compile_models([tiny_model.target()], telling(tiny_model.options(tmp_path / "r", graphs=graphs), said))
    assert any("padded takes its place" in line for line in said)
    assert not packed(tmp_path / "r")
    assert verify_repository(tmp_path / "r", read_manifest(tmp_path / "r")) == []


@pytest.mark.export
def test_a_written_graph_that_misses_gives_way_to_the_traced_one(
    tiny_model: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Misread(transformers.AutoConfig):  # type: ignore[misc] # the package has no types
        @classmethod
        def from_pretrained(cls, *args: Any, **options: Any) -> Any:
            found = transformers.AutoConfig.from_pretrained(*args, **options)
            found.layer_norm_eps = 1.0
            return found

    monkeypatch.setattr("sie_triton.onnx_graphs.writer.AutoConfig", Misread)
    said: list[str] = []
    graphs = GraphOptions(devices=("cpu",))
    compile_models([tiny_model.target()], telling(tiny_model.options(tmp_path / "r", graphs=graphs), said))
    assert any("what torch traces takes its place" in line for line in said)
    assert verify_repository(tmp_path / "r", read_manifest(tmp_path / "r")) == []


@pytest.mark.export
def test_half_the_weights_and_the_same_signature(everything: Path) -> None:
    graphs = {
        name: onnx.load(str(everything / tiny.TRITON_NAME / "1" / name))
        for name in ("model.onnx", "model.float16.onnx")
    }
    full, half = graphs["model.onnx"].graph, graphs["model.float16.onnx"].graph
    assert [v.SerializeToString() for v in (*full.input, *full.output)] == [
        v.SerializeToString() for v in (*half.input, *half.output)
    ]
    types = {t.data_type for t in half.initializer if len(t.dims) > 1 and t.data_type != onnx.TensorProto.INT64}
    assert types == {onnx.TensorProto.FLOAT16}


@pytest.mark.export
def test_a_precision_that_misses_gives_way_unless_it_was_insisted_on(tiny_model: Tiny, tmp_path: Path) -> None:
    # Weights far beyond float16's largest number: they become infinite there, and NaN right after. In float32 the layer
    # norm behind them makes them harmless.
    loud = Tiny(tiny_model.bundles, tmp_path / "loud")
    shutil.copytree(tiny_model.checkpoint, loud.checkpoint)
    tensors = load_file(loud.checkpoint / "model.safetensors")
    tensors["embeddings.word_embeddings.weight"] *= 1e7
    save_file(tensors, loud.checkpoint / "model.safetensors", metadata={"format": "pt"})
    said: list[str] = []
    options = telling(loud.options(tmp_path / "auto", graphs=GraphOptions()), said)
    (built,) = compile_models([loud.target()], options)
    assert built.precisions == {"cpu": "float32", "cuda": "float32"}
    assert any("float32 takes its place" in line for line in said)
    assert not list((tmp_path / "auto").rglob("*float16*"))
    assert not packed(tmp_path / "auto")
    assert verify_repository(tmp_path / "auto", read_manifest(tmp_path / "auto")) == []
    with pytest.raises(DiagnosticError, match="SIE506"):
        compile_models([loud.target()], loud.options(tmp_path / "firm", graphs=GraphOptions(precision="float16")))
    assert not (tmp_path / "firm").exists()


def telling(options: Any, said: list[str]) -> Any:
    from dataclasses import replace

    return replace(options, announce=said.append)


# What is served where


def manifest_for(everything: Manifest, **configs: dict[str, str]) -> Manifest:
    (record,) = everything.built.values()
    built = {name: msgspec.structs.replace(record, configs=found) for name, found in configs.items()}
    return msgspec.structs.replace(everything, built=built)


BOTH = {"cpu": "", "cuda": "cuda", "cuda-tensorrt": "cuda-tensorrt"}
CUDA_ONLY = {"cuda": "", "cuda-tensorrt": "cuda-tensorrt"}


@pytest.mark.parametrize(
    ("configs", "device", "machine", "name"),
    [
        ({"a": BOTH}, "auto", "cpu", None),
        ({"a": BOTH}, "cpu", "cpu", None),
        ({"a": BOTH}, "cuda", "cuda", "cuda"),
        ({"a": BOTH}, "cuda-tensorrt", "cuda-tensorrt", "cuda-tensorrt"),
        ({"a": BOTH, "b": CUDA_ONLY}, "cuda", "cuda", "cuda"),
        ({"b": CUDA_ONLY}, "cuda", "cuda", None),
    ],
)
def test_the_device_chooses_the_configuration(
    built: Path, configs: dict[str, dict[str, str]], device: str, machine: str, name: str | None
) -> None:
    manifest = manifest_for(read_manifest(built), **configs)
    url = None if machine == "cpu" else "127.0.0.1:9"
    assert choose_machine(manifest, device, built, url) == machine
    assert config_name(manifest, machine) == name


def test_what_no_model_was_built_for_is_refused(built: Path) -> None:
    manifest = manifest_for(read_manifest(built), a=BOTH, b=CUDA_ONLY)
    with pytest.raises(DiagnosticError, match=r"SIE605.*not built for cpu"):
        choose_machine(manifest, "cpu", built)


@pytest.mark.skipif(Path("/proc/driver/nvidia/gpus").is_dir(), reason="this machine has a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda-tensorrt"])
def test_the_embedded_server_says_who_computes_on_cuda(device: str, built: Path) -> None:
    manifest = manifest_for(read_manifest(built), a=BOTH)
    with pytest.raises(DiagnosticError, match="SIE606") as refused:
        choose_machine(manifest, device, built)
    assert f"--model-config-name={device}" in str(refused.value.diagnostics[0].hint)


@pytest.mark.parametrize(
    ("group", "optimization", "machine"),
    [
        ("KIND_CPU", {}, "cpu"),
        ("KIND_GPU", {}, "cuda"),
        (
            "KIND_GPU",
            {"execution_accelerators": {"gpu_execution_accelerator": [{"name": "tensorrt"}]}},
            "cuda-tensorrt",
        ),
    ],
)
def test_a_running_triton_says_what_it_computes_on(
    group: str, optimization: dict[str, Any], machine: str, built: Path
) -> None:
    manifest = read_manifest(built)

    class Triton(http.server.BaseHTTPRequestHandler):
        """Answers as tritonserver does: an ensemble has no instances, a graph says its kind."""

        def do_GET(self) -> None:
            name = self.path.split("/")[3]
            ensemble = bool(manifest.triton_models[name].depends_on)
            config: dict[str, Any] = {"name": name, "optimization": optimization}
            config["instance_group"] = [] if ensemble else [{"kind": group}]
            body = json.dumps(config).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Triton) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            assert remote_machine(manifest, f"127.0.0.1:{server.server_port}") == machine
        finally:
            server.shutdown()


@pytest.mark.skipif(Path("/proc/driver/nvidia/gpus").is_dir(), reason="this machine has a GPU")
def test_a_missing_gpu_is_told_before_any_building(tiny_model: Tiny, tmp_path: Path) -> None:
    port = str(free_port())
    model = ("-m", tiny.MODEL_ID, "--bundles", tiny_model.bundles, "-r", tmp_path / "repository")
    done = sie_triton("up", *model, "--device", "cuda", "--port", port)
    assert done.code == 1
    assert "SIE606" in done.stderr
    assert "loading torch" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_triton_is_taken_for_a_cpu(built: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def babble() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(b"this is not HTTP\r\n\r\n")

        threading.Thread(target=babble, daemon=True).start()
        assert remote_machine(read_manifest(built), f"127.0.0.1:{server.getsockname()[1]}") == "cpu"


def test_a_triton_that_does_not_answer_is_taken_for_a_cpu(built: Path) -> None:
    assert remote_machine(read_manifest(built), f"127.0.0.1:{free_port()}") == "cpu"


@pytest.mark.parametrize(("graph_format", "package"), [("onnx", "onnxruntime"), ("torchscript", "torch")])
def test_what_computes_a_format_must_be_installed(
    graph_format: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_runtimes({graph_format})
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(DiagnosticError, match=f"SIE714.*with {package}, which is not installed"):
        check_runtimes({graph_format})


def test_every_format_has_its_runtime() -> None:
    assert set(RUNTIMES) == set(FORMATS)


def test_the_tritons_behind_a_name_say_what_they_compute_on(built: Path) -> None:
    """`dns://name:port` is asked as any other, and no proxy is."""

    class Triton(http.server.BaseHTTPRequestHandler):
        """One whose models have GPU instances."""

        def do_GET(self) -> None:
            body = json.dumps({"instance_group": [{"kind": "KIND_GPU"}]}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Triton) as server,
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.setenv("http_proxy", "http://127.0.0.1:9")
        environment.delenv("no_proxy", raising=False)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            assert remote_machine(read_manifest(built), f"dns://localhost:{server.server_port}") == "cuda"
        finally:
            server.shutdown()
