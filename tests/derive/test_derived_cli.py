"""Models without a bundle on the command line: folders, lists, ids, and what is written and printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from compiler.command import sie_triton as call
from compiler.folders import EMPTY_SAFETENSORS, minilm_facts, write_folder

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
# Any socket is an error: nothing may ask anybody.
NO_SOCKETS = """
import sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.bind"):
        raise AssertionError("a socket was opened")
sys.addaudithook(refuse)
sys.argv[0] = "sie-triton"
from sie_triton.cli import main
main()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint that is MiniLM's without its weights."""
    return minilm_facts(tmp_path / "checkpoints" / "my-model")


def planned(*arguments: str | Path) -> list[str]:
    done = call("plan", *arguments, "--json")
    assert done.code == 0, done.stderr
    return [model for plan in json.loads(done.stdout) for model in plan["served"]]


def test_a_folder_is_a_model_by_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    for written in ("./my-model", "../checkpoints/my-model", str(folder), "./my-model/"):
        assert planned("-m", written) == ["my-model"]
    monkeypatch.chdir(folder)
    assert planned("-m", ".") == ["my-model"]


def test_an_id_of_ones_own_is_given_by_weights(folder: Path) -> None:
    assert planned("-m", "my/name", "--weights", f"my/name={folder}") == ["my/name"]
    assert planned("-m", "my/name", "--weights", folder) == ["my/name"]


def test_lists_and_several_models(folder: Path, tmp_path: Path) -> None:
    other = minilm_facts(tmp_path / "other")
    models = tmp_path / "models.txt"
    models.write_text(f"# ours\n\n  {folder}  # the first\n{other}\n{folder}\n", encoding="utf-8")
    assert planned("-m", f"@{models}", "-m", MINILM) == ["my-model", "other", MINILM, f"{MINILM}:candle"]


def test_the_derived_bundle_is_printed_and_saved_and_then_found(folder: Path, tmp_path: Path) -> None:
    bundles = tmp_path / "bundles"
    done = call("plan", "-m", "my/name", "--weights", folder, "--save-bundle", bundles)
    assert "dim: 384  # hidden_size of config.json" in done.stderr
    saved = bundles / "my__name.yaml"
    assert saved.read_text(encoding="utf-8") in done.stderr
    assert f"weights_path: {folder}" in saved.read_text(encoding="utf-8")
    # Again is no mistake, and the saved one needs no weights named.
    assert call("plan", "-m", "my/name", "--weights", folder, "--save-bundle", bundles).code == 0
    again = call("plan", "-m", "my/name", "--bundles", bundles)
    assert (again.code, again.stderr, again.stdout == done.stdout) == (0, "", True)


def test_another_bundle_is_not_overwritten(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "my-model.yaml").write_text("mine: true\n", encoding="utf-8")
    done = call("plan", "-m", folder, "--save-bundle", tmp_path)
    assert (done.code, "SIE114" in done.stderr) == (2, True)
    assert (tmp_path / "my-model.yaml").read_text(encoding="utf-8") == "mine: true\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-m", "@nowhere.txt"], "cannot be read"),
        (["-m", "@empty.txt"], "name no model"),
        (["-m", "/"], "has no name"),
        (["-m", "./a/same", "-m", "./b/same"], "two folders are called"),
        (["-m", "./a/same", "--weights", "./b/same"], "holds its own weights"),
        (["-m", "./a/same", "--weights", "same=./b/same"], "holds its own weights"),
        (["-m", "x", "-m", "y", "--weights", "./b/same"], "say which the folder is for"),
    ],
)
def test_what_is_not_clear_is_wrong_usage(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("# none\n", encoding="utf-8")
    done = call("plan", *arguments)
    assert done.code == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())


def test_nothing_found_names_near_ids_and_the_way_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = call("plan", "-m", "BAAI/bge-small-en-v1.6")
    assert done.code == 2
    for said in (
        "SIE111: unknown model `BAAI/bge-small-en-v1.6`",
        "did you mean `BAAI/bge-small-en-v1.5`",
        "pass its folder, `--weights BAAI/bge-small-en-v1.6=FOLDER`",
        "`build` asks the hub for it",
    ):
        assert said in done.stderr
    monkeypatch.chdir(folder.parent)
    assert "for the folder write `-m ./my-model`" in call("plan", "-m", "my-model").stderr


def test_a_known_id_in_other_letters_is_a_misspelling(tmp_path: Path) -> None:
    """The hub would take it, and give it without its prompt."""
    done = call("plan", "-m", "baai/bge-small-en-v1.5")
    assert (done.code, "did you mean `BAAI/bge-small-en-v1.5`" in done.stderr) == (2, True)
    assert "its weights were not found" not in done.stderr


def test_a_folder_that_is_no_checkpoint_is_told_as_one(tmp_path: Path) -> None:
    (tmp_path / "gguf").mkdir()
    (tmp_path / "gguf" / "model.gguf").write_bytes(b"GGUF")
    done = call("build", "-m", tmp_path / "gguf", "-r", tmp_path / "repository")
    assert (done.code, "SIE327" in done.stderr) == (1, True)
    assert not (tmp_path / "repository").exists()


# A cache of the hub's


def offline(cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", NO_SOCKETS, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with one model, whole."""
    root, commit = tmp_path / "hub" / "models--acme--small", "c" * 40
    write_folder(root / "snapshots" / commit, {})
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(commit, encoding="utf-8")
    return tmp_path / "hub"


def test_a_whole_cache_needs_no_network(cache: Path) -> None:
    done = offline(cache, "plan", "-m", "acme/small")
    assert done.returncode == 0, done.stderr
    assert "acme__small serves acme/small" in done.stdout
    assert f"hf_revision: {'c' * 40}" in done.stderr
    assert "without modules.json" in done.stderr


@pytest.mark.parametrize("command", ["plan", "build"])
def test_a_cache_that_was_cut_short_names_the_file(command: str, cache: Path, tmp_path: Path) -> None:
    snapshot = cache / "models--acme--small" / "snapshots" / ("c" * 40)
    (snapshot / "tokenizer.json").write_bytes(b"")
    (snapshot / "model.safetensors").write_bytes(EMPTY_SAFETENSORS[:4])
    done = offline(cache, command, "-m", "acme/small")
    assert done.returncode == 2
    assert "SIE111" in done.stderr
    assert "tokenizer.json" in done.stderr or "model.safetensors" in done.stderr
    assert "--weights acme/small=FOLDER" in done.stderr
