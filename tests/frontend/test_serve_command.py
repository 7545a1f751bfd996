"""`sie-triton serve` as a command: its variables, repositories that are not whole, places that cannot be used."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from compiler import tiny
from compiler.command import sie_triton
from sie_frontend.manifest import read_manifest
from sie_frontend.settings import known_settings

from frontend.fake_triton import FakeTriton
from frontend.key_help import bearer, key
from frontend.process import until
from sie_triton.diagnostics import DiagnosticError
from sie_triton.embedded.ports import free_port
from sie_triton.pages.command_line import commands, parameters
from sie_triton.repository.publish import check_whole

TOKENIZER = f"{tiny.TRITON_NAME}/1/tokenizer.json"
LOADING = {f"SIE_TRITON_{name}" for name in ("LOAD", "MEMORY_BUDGET", "PRELOAD", "PIN", "IDLE_EVICT_S")}
TOLD = LOADING | {f"SIE_TRITON_{name}" for name in ("REPOSITORY", "TRITON_URL", "HOST", "PORT", "DEVICE")}


@contextmanager
def serving(folder: Path, *arguments: str | Path, **environment: str) -> Iterator[tuple[int, Path]]:
    """`serve` on the port that `SIE_TRITON_PORT` names, and its output."""
    output = folder / "output.txt"
    port = free_port()
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "sie_triton", "serve", *map(str, arguments)],
            env={**os.environ, "SIE_TRITON_PORT": str(port), **environment},
            cwd=folder,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:

        def answers() -> bool:
            assert process.poll() is None, output.read_text()
            try:
                return httpx.get(f"http://127.0.0.1:{port}/readyz", verify=False).status_code == 200
            except httpx.TransportError:
                return False

        until(answers)
        yield port, output
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def model_names(port: int) -> list[str]:
    return [model["name"] for model in httpx.get(f"http://127.0.0.1:{port}/v1/models").json()["models"]]


# Variables


def test_every_option_of_serve_that_is_a_setting_has_its_variable() -> None:
    variables = {known.flag: known.variable for known in known_settings()}
    for command, wanted in (("serve", TOLD), ("up", TOLD - {"SIE_TRITON_TRITON_URL"})):
        options = {spelling: p.variable for p in parameters(commands()[command]) for spelling in p.spellings}
        shared = set(options) & set(variables)
        assert {options[flag] for flag in shared} == wanted | {"SIE_TRITON_API_KEYS_FILE"}
        assert all(options[flag] == variables[flag] for flag in shared)


def test_serve_heeds_its_variables(repository: Path, triton: FakeTriton, tmp_path: Path) -> None:
    """All five at once: without any of them it would not come to serve this repository on this port."""
    environment = {
        "SIE_TRITON_REPOSITORY": str(repository),
        "SIE_TRITON_TRITON_URL": triton.url,
        "SIE_TRITON_HOST": "localhost",
        "SIE_TRITON_DEVICE": "cpu",
    }
    with serving(tmp_path, **environment) as (port, _):
        assert tiny.MODEL_ID in model_names(port)


def test_serve_asks_for_the_keys_of_a_file(repository: Path, triton: FakeTriton, tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text(key().line)
    environment = {"SIE_TRITON_REPOSITORY": str(repository), "SIE_TRITON_TRITON_URL": triton.url}
    with serving(tmp_path, "--api-keys-file", keys, **environment) as (port, _):
        url = f"http://127.0.0.1:{port}/v1/models"
        assert httpx.get(url).status_code == 401
        assert httpx.get(url, headers=bearer()).status_code == 200


def test_an_option_wins_over_its_variable(repository: Path, triton: FakeTriton, tmp_path: Path) -> None:
    environment = {"SIE_TRITON_REPOSITORY": "/nowhere", "SIE_TRITON_TRITON_URL": "nobody"}
    with serving(tmp_path, "-r", repository, "--triton-url", triton.url, **environment) as (port, _):
        assert tiny.MODEL_ID in model_names(port)


@pytest.mark.parametrize(
    ("variable", "value"), [("SIE_TRITON_PORT", "many"), ("SIE_TRITON_PORT", "70000"), ("SIE_TRITON_DEVICE", "tpu")]
)
def test_a_wrong_variable_is_named(
    variable: str, value: str, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    done = sie_triton("serve", "-r", repository)
    assert done.code == 2
    assert variable in done.stderr


def test_up_says_that_it_has_no_use_for_another_triton(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SIE_TRITON_TRITON_URL", "elsewhere:8000")
    done = sie_triton("up", "-m", "no/model", "-r", tmp_path / "repository", "--port", str(free_port()))
    assert "`SIE_TRITON_TRITON_URL` has no effect" in done.stderr
    assert "SIE111" in done.stderr


# Repositories elsewhere


def test_serve_reads_an_object_store(s3: str, triton: FakeTriton, tmp_path: Path) -> None:
    """Beside a Triton that runs elsewhere nothing but manifest and tokenizers is fetched."""
    cache = tmp_path / "cache"
    arguments = ("-r", s3, "--triton-url", triton.url)
    with serving(tmp_path, *arguments, XDG_CACHE_HOME=str(cache)) as (port, _):
        assert tiny.MODEL_ID in model_names(port)
    assert not cache.exists()


@pytest.mark.parametrize("command", ["verify", "tune", "build -m x", "up -m x", "deploy kubernetes -o out"])
def test_who_works_on_folders_says_so(command: str) -> None:
    done = sie_triton(*command.split(), "-r", "s3://bucket/models")
    assert done.code == 2
    assert "works on a folder" in " ".join(done.stderr.split())


# What is not whole


@pytest.fixture
def copy(stored: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stored, tmp_path / "copy"))


@pytest.mark.parametrize("command", ["serve", "triton", "tune", "deploy kubernetes -o out"])
def test_a_models_folder_that_is_gone_is_named(
    command: str, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(copy / tiny.TRITON_NAME)
    ports = ["--port", str(free_port())] if command == "serve" else []
    done = sie_triton(*command.split(), "-r", copy, *ports)
    assert done.code == 1
    assert f"SIE610: the folder of model `{tiny.TRITON_NAME}` is missing" in done.stderr
    assert "sie-triton build --force -m ID" in done.stderr


def test_files_that_are_gone_are_named(copy: Path) -> None:
    (copy / tiny.TRITON_NAME / "1" / "model.onnx").unlink()
    manifest = read_manifest(copy)
    with pytest.raises(DiagnosticError, match=r"SIE610: `acme__tiny` lacks `1/model.onnx`"):
        check_whole(copy, manifest)
    check_whole(copy, manifest, graphs=False)
    (copy / TOKENIZER).unlink()
    with pytest.raises(DiagnosticError, match=r"SIE610: `acme__tiny` lacks `1/tokenizer.json`"):
        check_whole(copy, manifest, graphs=False)


@pytest.mark.parametrize("damage", ["gone", "other", "folder"])
def test_both_frontends_name_a_tokenizer_that_is_not_whole(
    damage: str, copy: Path, triton: FakeTriton, tmp_path: Path
) -> None:
    (copy / TOKENIZER).unlink()
    if damage == "other":
        (copy / TOKENIZER).write_bytes(b"{}")
    if damage == "folder":
        (copy / TOKENIZER).mkdir()
    served = sie_triton("serve", "-r", copy, "--triton-url", triton.url, "--port", str(free_port()))
    alone = subprocess.run(
        [sys.executable, "-m", "sie_frontend.main", "--repository", str(copy)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    for code, said in ((served.code, served.stderr), (alone.returncode, alone.stderr)):
        assert code == 1
        assert "tokenizer.json" in said
        assert "Traceback" not in said


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (None, "no `manifest.json`"),
        ("[1]", "not a valid manifest"),
        ('{"schema_version": 99}', "has schema version 99"),
        ('{"schema_version": 4, "models": {}, "triton_models": {}, "built": {}}', "SIE604"),
        ("\0\0", "not a valid manifest"),
    ],
)
@pytest.mark.parametrize("command", ["serve", "triton"])
def test_what_is_no_repository_is_told(command: str, manifest: str | None, said: str, tmp_path: Path) -> None:
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    done = sie_triton(command, "-r", tmp_path)
    assert done.code == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


# Places


def test_a_log_folder_that_is_a_file_is_told(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sie_triton.serving.serve.choose_machine", lambda *_: "cpu")
    (tmp_path / "file").touch()
    for command in ("serve --port", "triton --http-port"):
        done = sie_triton(*command.split(), str(free_port()), "-r", copy, "--log-dir", tmp_path / "file")
        assert (done.code, "SIE713: the log cannot be written" in done.stderr) == (1, True), done.stderr


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.7"])
def test_an_address_that_is_not_ours_is_told(host: str, repository: Path, triton: FakeTriton) -> None:
    done = sie_triton("serve", "-r", repository, "--triton-url", triton.url, "--host", host)
    assert done.code == 1
    assert f"SIE705: the frontend cannot listen on {host}:8080" in done.stderr
    assert "--host" in done.stderr


def test_an_interrupt_while_the_program_is_imported_leaves_no_traceback() -> None:
    """The signal comes from within: the first module that the command line imports sends it."""
    program = """
import os, signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
from sie_triton.entry import main
main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGINT
    assert done.stderr == ""
