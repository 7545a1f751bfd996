"""A model that is left out on purpose is told so at once; nobody is asked for it."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import NoReturn

import pytest
from compiler.command import sie_triton as call
from compiler.folders import minilm_facts

from sie_triton.bundle import load_bundles
from sie_triton.bundle.left_out import TABLE
from sie_triton.cli.left_out import check_left_out
from sie_triton.cli.models import Wanted
from sie_triton.cli.targets import shipped_bundles
from sie_triton.diagnostics import DiagnosticError
from sie_triton.embedded import fetching
from sie_triton.pages import model_table


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever asks for an address fails the test; the cache is empty, and nothing says that it is offline."""

    def refuse(*_: object, **__: object) -> NoReturn:
        pytest.fail("a hub was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(fetching, "ensure_installation", refuse)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("command", ["plan", "build", "up", "add"])
def test_the_reason_comes_without_a_hub_and_without_tritonserver(command: str, tmp_path: Path) -> None:
    done = call(command, "-m", "qdrant/BM25", "-m", "Qwen/Qwen3-0.6B")
    assert done.code == 2
    assert "SIE116: `qdrant/BM25` is not served: counts words instead of running a model" in done.stderr
    assert "SIE116: `Qwen/Qwen3-0.6B` is not served: generates text token by token" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_taken_whatever_its_name(tmp_path: Path) -> None:
    folder = minilm_facts(tmp_path / "checkpoint")
    assert call("plan", "-m", "Qdrant/bm25", "--weights", folder).code == 0


def test_a_bundle_of_ones_own_is_taken(tmp_path: Path) -> None:
    folder = minilm_facts(tmp_path / "checkpoint")
    own = tmp_path / "bundles"
    assert call("plan", "-m", "Qdrant/bm25", "--weights", folder, "--save-bundle", own).code == 0
    assert call("plan", "-m", "Qdrant/bm25", "--bundles", own).code == 0


def test_what_needs_its_authors_code_is_tried_with_the_flag() -> None:
    model = "jinaai/jina-embeddings-v2-base-en"
    told = call("plan", "-m", model)
    assert "SIE116" in told.stderr and "`build` and `up` try it with `--trust-remote-code`" in told.stderr
    for wanted, trusted in ((model, True), ("google/siglip2-base-patch16-224", False)):
        check_left_out(Wanted((wanted,), {}), {}, trust_remote_code=trusted)
    with pytest.raises(DiagnosticError):
        check_left_out(Wanted(("Qdrant/bm25",), {}), {}, trust_remote_code=True)


def test_the_table_is_up_to_date_and_names_nothing_that_is_shipped(public_bundles: Path) -> None:
    text = TABLE.read_text(encoding="utf-8")
    assert text == model_table.render_left_out(public_bundles), "run `python -m sie_triton.pages`"
    shipped, _ = load_bundles(shipped_bundles())
    named = {line.split(" | ")[0] for line in text.splitlines()[1:]}
    assert named and not named & shipped.keys()
