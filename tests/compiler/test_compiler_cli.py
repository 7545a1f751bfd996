from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import sie_triton
from compiler import tiny
from compiler.command import sie_triton as call
from compiler.conftest import Playback, Tiny
from compiler.folders import minilm_facts
from compiler.test_compiler_stages import ENCODER
from compiler.test_compiler_verify import change_weights, noise
from sie_triton.embedded.ports import free_port
from sie_triton.repository.publish import tree_digests

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
COMMANDS = ("plan", "build", "verify", "serve", "up", "explain")
ESCAPE = "\x1b["
WITHOUT_HEAVY_IMPORTS = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers", "onnx", "onnxruntime", "onnxscript"}:
            raise AssertionError(f"{name} was imported")
sys.meta_path.insert(0, Refuse())
sys.argv[0] = "sie-triton"
from sie_triton.cli import main
main()
"""


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, where importing anything heavy is an error."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_HEAVY_IMPORTS, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


# Without torch


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)])
def test_help_needs_no_torch(arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_plan_needs_no_torch(tmp_path: Path) -> None:
    done = run("plan", "-m", MINILM, "--json", "--weights", minilm_facts(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)[0]["name"] == "sentence-transformers__all-MiniLM-L6-v2"


def test_an_unchanged_build_needs_no_torch(tiny_model: Tiny, repository: Path) -> None:
    done = run(*build_arguments(tiny_model, repository))
    assert (done.returncode, done.stdout) == (0, "")
    assert "unchanged acme/tiny" in done.stderr


def test_help_teaches() -> None:
    done = call("--help")
    assert done.code == 0
    for name in COMMANDS:
        assert re.search(rf"^\W*{name}\s+\w+", done.stdout, re.MULTILINE), name
    assert "sie-triton up -m sentence-transformers/all-MiniLM-L6-v2" in done.stdout


def test_version() -> None:
    assert call("--version").stdout == f"{sie_triton.__version__}\n"


# Wrong usage


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["plan"],
        ["build"],
        ["nonsense"],
        ["plan", "--nonsense"],
        ["serve", "--port", "0"],
        ["serve", "--port", "70000"],
        ["serve", "--port", "many"],
        ["build", "-m", "a", "--weights", "one", "--weights", "two"],
        ["build", "-m", "a", "-m", "b", "--weights", "one"],
        ["build", "-m", "a", "--weights", "b=one"],
    ],
)
def test_wrong_usage_is_two(arguments: list[str]) -> None:
    done = call(*arguments)
    assert done.code == 2
    assert done.stdout == "" or arguments == []


@pytest.mark.parametrize(
    ("model", "hint"),
    [
        ("BAAI/bge-small-en-v15", "did you mean `BAAI/bge-small-en-v1.5`"),
        ("baai/BGE-small-en-v1.5", "did you mean `BAAI/bge-small-en-v1.5`"),
        ("all-MiniLM-L6-v2", f"did you mean `{MINILM}`"),
        (f"{MINILM}:default", f"the default profile is addressed as `{MINILM}`"),
        (f"{MINILM}:candel", f"did you mean `{MINILM}:candle`"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "build", "up"])
def test_an_unknown_model_gets_a_suggestion(
    command: str, model: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    done = call(command, "-m", model, *(["--port", str(free_port())] if command == "up" else []))
    assert (done.code, done.stdout) == (2, "")
    assert "SIE111" in done.stderr
    assert hint in done.stderr


def test_all_unknown_models_are_named_at_once() -> None:
    done = call("plan", "-m", "no/one", "-m", "no/two")
    assert done.code == 2
    assert done.stderr.count("SIE111") == 2


def test_every_mistake_of_a_bundle_has_its_line(tmp_path: Path) -> None:
    text = tiny.BUNDLE.replace("dim: 32", "dim: wide").replace("max_batch_tokens: 1024", "max_batch_token: 1024")
    done = call("plan", "-m", tiny.MODEL_ID, "--bundles", tiny.write_bundle(tmp_path, text))
    assert (done.code, done.stdout) == (2, "")
    for word in ("dim: wide", "max_batch_token:"):
        line = next(i for i, text_line in enumerate(text.splitlines(), 1) if word in text_line)
        assert f"{tmp_path / 'tiny.yaml'}:{line}:" in done.stderr


def test_a_refused_adapter_is_told_with_its_reason(tmp_path: Path) -> None:
    text = tiny.BUNDLE.replace("bert_flash:BertFlashAdapter", "florence2:Florence2Adapter")
    done = call("plan", "-m", tiny.MODEL_ID, "--bundles", tiny.write_bundle(tmp_path, text))
    assert (done.code, done.stdout) == (2, "")
    assert "SIE201" in done.stderr
    assert "cannot be compiled" in done.stderr


# Work that fails


def build_arguments(model: Tiny, repository: Path) -> list[str | Path]:
    return [
        *("build", "-m", tiny.MODEL_ID, "--bundles", model.bundles),
        *("--weights", f"{tiny.MODEL_ID}={model.checkpoint}", "-r", repository),
        *("--layout", "ensemble", "--device", "cpu"),
    ]


def test_missing_weights_are_one(tiny_model: Tiny, tmp_path: Path) -> None:
    done = call("build", "-m", tiny.MODEL_ID, "--bundles", tiny_model.bundles, "--weights", tmp_path / "no")
    assert (done.code, done.stdout) == (1, "")
    assert "SIE302" in done.stderr


def test_a_build_that_fails_verification_is_one(
    tiny_model: Tiny, built: Path, repository: Path, playback: Playback
) -> None:
    playback.graphs = lambda staging: change_weights(staging / ENCODER, noise)
    done = call(*build_arguments(tiny_model, repository), "--force")
    assert (done.code, done.stdout) == (1, "")
    assert "SIE501" in done.stderr
    assert tree_digests(repository) == tree_digests(built)


@pytest.mark.usefixtures("playback")
def test_a_build_says_what_it_did_on_stderr(tiny_model: Tiny, tmp_path: Path) -> None:
    first = call(*build_arguments(tiny_model, tmp_path / "repository"))
    assert (first.code, first.stdout) == (0, "")
    assert "built acme/tiny, acme/tiny:raw from sha256:" in first.stderr
    assert ", for cpu in float32\n" in first.stderr
    assert re.search(r"dense in float32: min cosine (1\.0|0\.99999)\d* ?,", first.stderr)
    second = call(*build_arguments(tiny_model, tmp_path / "repository"))
    assert (second.code, second.stdout) == (0, "")
    assert "unchanged acme/tiny, acme/tiny:raw" in second.stderr


def test_one_profile_can_be_built_alone(tiny_model: Tiny, tmp_path: Path) -> None:
    done = call("plan", "-m", f"{tiny.MODEL_ID}:raw", "--bundles", tiny_model.bundles, "--json")
    assert [plan["served"] for plan in json.loads(done.stdout)] == [["acme/tiny:raw"]]


@pytest.mark.parametrize("command", ["verify", "serve"])
def test_no_repository_is_one(command: str, tmp_path: Path) -> None:
    done = call(command, "-r", tmp_path / "nowhere")
    assert (done.code, done.stdout) == (1, "")
    assert "SIE603" in done.stderr
    assert "build one with `sie-triton build`" in done.stderr


@pytest.mark.parametrize("command", ["serve", "up"])
def test_a_port_that_is_taken_is_told_before_any_work(command: str, repository: Path, tiny_model: Tiny) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        model: list[str | Path] = ["-m", tiny.MODEL_ID, "--bundles", tiny_model.bundles] if command == "up" else []
        done = call(command, "-r", repository, "--port", port, *model)
    assert (done.code, done.stdout) == (1, "")
    assert "SIE705" in done.stderr
    assert "--port" in done.stderr


# Colour


def test_pipes_get_no_escapes() -> None:
    for done in (call("plan", "-m", MINILM), call("plan", "-m", "nobody/knows")):
        assert ESCAPE not in done.stdout + done.stderr


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_no_color_is_respected_where_there_is_a_terminal(environment: dict[str, str], coloured: bool) -> None:
    """`FORCE_COLOR` stands for the terminal; `NO_COLOR` must win over it."""
    done = run("plan", "-m", "nobody/knows", FORCE_COLOR="1", TERM="xterm-256color", **environment)
    assert done.returncode == 2
    assert bool(re.search(r"\x1b\[[0-9;]*3\dm", done.stderr)) == coloured
