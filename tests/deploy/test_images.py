"""The images' own commands, as docker/Dockerfile has them, on this machine: installed, started, and joined up.

No engine is needed and none is used, so that nothing is said here of kernels, users and mounts.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sie_frontend import __version__
from sie_frontend.manifest import SCHEMA_VERSION, Manifest, TensorSpec, TritonModel, dump_manifest

from deploy.conftest import MODEL_ID, dense_model
from deploy.dockerfile import Machine, last
from deploy.test_compose import services
from sie_triton.embedded.ports import free_port

pytestmark = pytest.mark.e2e

# What the frontend's dependencies weigh, without the interpreter; docs/docker.md states the measured size.
FRONTEND_MIB = 300


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    made = Machine(tmp_path_factory.mktemp("image"))
    for stage in ("wheels", "base", "frontend-dependencies", "frontend"):
        for _ in made.build(stage):
            pass
    return made


@pytest.fixture(scope="module")
def frontend_mib(machine: Machine) -> int:
    """Measured before the server's packages join the frontend's."""
    packages = next(machine.place("/opt/sie/lib").glob("python3.*/site-packages"))
    assert not list(packages.glob("torch*"))
    assert not list(packages.glob("pip*"))
    return sum(path.stat().st_size for path in packages.rglob("*") if path.is_file()) >> 20


@pytest.fixture(scope="module")
def server(machine: Machine, frontend_mib: int) -> Machine:
    for stage in ("server-dependencies", "server"):
        for _ in machine.build(stage):
            pass
    return machine


@pytest.fixture(scope="module")
def builder(server: Machine) -> Machine:
    """Skips where the index with torch's CPU builds cannot be reached; a gigabyte is installed where it can."""
    command = "uv pip install --dry-run --no-deps --torch-backend cpu torch"
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        env=server.environ("builder"),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if "Failed to fetch" in done.stderr:
        pytest.skip("no index with CPU builds of torch can be reached")
    for stage in ("builder-dependencies", "builder"):
        for _ in server.build(stage):
            pass
    return server


def entry(machine: Machine, image: str) -> str:
    """The program of an image's entry point, as installed."""
    found = last(machine.stages, image, "ENTRYPOINT")
    assert found is not None
    [program] = found.words
    path = shutil.which(program, path=machine.environ(image)["PATH"])
    assert path is not None, f"{program} was not installed"
    return path


def output(machine: Machine, image: str, *arguments: str) -> str:
    done = subprocess.run(
        [entry(machine, image), *arguments],
        env=machine.environ(image),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_frontend_is_slim_and_starts(machine: Machine, frontend_mib: int) -> None:
    print(f"site-packages of the frontend: {frontend_mib} MiB")
    assert frontend_mib < FRONTEND_MIB
    assert output(machine, "frontend", "--version").strip() == __version__


def test_the_server_is_the_compiler_without_torch(server: Machine) -> None:
    assert output(server, "server", "--version").strip() == __version__
    assert MODEL_ID in output(server, "server", "plan", "-m", MODEL_ID)


def test_the_builder_hands_its_models_to_the_compiler(builder: Machine, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(builder.place("/usr/local/bin/build-models"))],
        env=builder.environ("builder") | {"MODELS": "no/such-model", "SIE_TRITON_REPOSITORY": str(tmp_path / "r")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2
    assert "no/such-model" in done.stderr
    assert output(builder, "server", "--version").strip() == __version__


@contextmanager
def started(
    machine: Machine, image: str, arguments: list[str], **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A container's process; at the end it must go on SIGTERM within the grace that Compose gives it."""
    process = subprocess.Popen(
        [entry(machine, image), *arguments], env=machine.environ(image) | environment, cwd=machine.root
    )
    try:
        yield process
        process.terminate()
        assert process.wait(40) in (0, -15)
    finally:
        process.kill()
        process.wait()


def healthy(machine: Machine, image: str, test: list[str], process: subprocess.Popen[bytes] | None = None) -> bool:
    """One run of a health check by the image's own Python, repeated while a `process` is given and lives."""
    for _ in range(300):
        python = machine.place("/opt/sie/bin/python3")
        done = subprocess.run(
            [str(python), *test[2:]], env=machine.environ(image), capture_output=True, check=False, timeout=60
        )
        if done.returncode == 0 or process is None:
            return done.returncode == 0
        assert process.poll() is None, f"{image} ended with {process.returncode}"
        time.sleep(0.2)
    return False


def test_triton_and_the_frontend_meet_as_compose_has_them(server: Machine, tmp_path: Path) -> None:
    """The commands, settings and health checks of docker-compose.yml, on other ports and another folder."""
    write_servable(tmp_path / "repository")
    ports = {8000: free_port(), 8002: free_port(), 8080: free_port()}

    def here(text: str) -> str:
        for port, other in ports.items():
            text = text.replace(str(port), str(other))
        text = text.replace("/models/repository", str(tmp_path / "repository")).replace("triton:", "127.0.0.1:")
        return text.replace("/tmp/log", str(tmp_path / "log")).replace("0.0.0.0", "127.0.0.1")

    triton, frontend = services()["triton"], services()["frontend"]
    checks = {name: [here(word) for word in services()[name]["healthcheck"]["test"]] for name in ("triton", "frontend")}
    settings = {key: here(value) for key, value in frontend["environment"].items() if value is not None}
    with ExitStack() as running:
        web = running.enter_context(started(server, "frontend", [], **settings))
        url = f"http://127.0.0.1:{ports[8080]}"
        assert wait_for(f"{url}/livez", web) == 200
        assert not healthy(server, "frontend", checks["frontend"]), "there is no Triton yet"
        core = running.enter_context(started(server, "server", [here(word) for word in triton["command"]]))
        assert healthy(server, "server", checks["triton"], core)
        assert healthy(server, "frontend", checks["frontend"], web)
        answer = post(f"{url}/v1/encode/{MODEL_ID}", {"items": [{"text": "a b c"}]})
        # ids 5, 6 and 7 add up to 18; each value of the vector is the sum, then normalised.
        assert answer["items"][0]["dense"]["values"] == pytest.approx([0.5, 0.5, 0.5, 0.5])
        with urllib.request.urlopen(f"http://127.0.0.1:{ports[8002]}/metrics", timeout=5) as metrics:
            assert b"nv_inference_pending_request_count" in metrics.read()


def wait_for(url: str, process: subprocess.Popen[bytes]) -> int:
    for _ in range(150):
        assert process.poll() is None
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return int(response.status)
        except urllib.error.URLError:
            time.sleep(0.2)
    return 0


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    headers = {"content-type": "application/json", "accept": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


def write_servable(repository: Path) -> None:
    """A repository with one graph that can be computed by hand: four times the sum of the ids, and that normalised."""
    onnx = pytest.importorskip("onnx")
    tokenizers = pytest.importorskip("tokenizers")
    helper, types = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Mul", ["input_ids", "attention_mask"], ["kept"]),
        helper.make_node("Cast", ["kept"], ["values"], to=types.FLOAT),
        helper.make_node("ReduceSum", ["values", "last"], ["total"], keepdims=1),
        helper.make_node("Concat", ["total"] * 4, ["dense_unnormalized"], axis=1),
        helper.make_node("LpNormalization", ["dense_unnormalized"], ["dense"], axis=1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        "sum",
        [helper.make_tensor_value_info(name, types.INT64, ("b", "n")) for name in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info(name, types.FLOAT, ("b", 4)) for name in ("dense", "dense_unnormalized")],
        [helper.make_tensor("last", types.INT64, [1], [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    version = repository / "sum" / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(model.SerializeToString())
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "a": 5, "b": 6, "c": 7}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(version / "tokenizer.json"))
    (repository / "sum" / "config.pbtxt").write_text(
        """\
name: "sum"
backend: "onnxruntime"
platform: "onnxruntime_onnx"
default_model_filename: "model.onnx"
max_batch_size: 64
input [ { name: "input_ids" data_type: TYPE_INT64 dims: [ -1 ] },
        { name: "attention_mask" data_type: TYPE_INT64 dims: [ -1 ] } ]
output [ { name: "dense" data_type: TYPE_FP32 dims: [ 4 ] },
         { name: "dense_unnormalized" data_type: TYPE_FP32 dims: [ 4 ] } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
dynamic_batching { }
"""
    )
    inputs = (TensorSpec("input_ids", "INT64", (-1,)), TensorSpec("attention_mask", "INT64", (-1,)))
    outputs = (TensorSpec("dense", "FP32", (4,)), TensorSpec("dense_unnormalized", "FP32", (4,)))
    entry_ = dense_model(
        "sum",
        "sum/1/tokenizer.json",
        limit=16,
        dims={"dense": 4},
    )
    manifest = Manifest(SCHEMA_VERSION, {MODEL_ID: entry_}, {"sum": TritonModel(inputs, outputs, {})}, {})
    (repository / "manifest.json").write_bytes(dump_manifest(manifest))
