"""Poison among good requests on a real server, and a small request that means a large one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from compiler import tiny
from sie_frontend.manifest import dump_manifest, read_manifest

from e2e.processes import Serving, descendants, sie_triton
from sie_triton.repository.record import redigest

pytestmark = pytest.mark.e2e

NOT_FINITE, BEYOND = "saltwort", "<image_soft_token>"
MEBIBYTE = 1 << 20


def add_tokens(path: Path, *words: str) -> list[int]:
    """Add words to a `tokenizer.json`, as `added_tokens` with the next ids; returns the ids."""
    from tokenizers import Tokenizer

    tokenizer: Any = Tokenizer.from_file(str(path))
    tokenizer.add_tokens(list(words))
    tokenizer.save(str(path))
    ids: list[int] = [tokenizer.token_to_id(word) for word in words]
    return ids


def spoil(checkpoint: Path, row: int) -> None:
    """Add one embedding row, of NaN, to a checkpoint: it stands for a text whose numbers overflow."""
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(checkpoint / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    table = tensors[name]
    assert row == len(table)
    tensors[name] = torch.cat((table, torch.full((1, table.shape[1]), float("nan"))))
    save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "vocab_size": row + 1}))


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server with a word whose numbers are not finite, and one that the embedding has no row for.

    The second one is added behind the build's back, and the manifest does not know the embedding's rows, as those of
    older builds do not: the graph itself fails on it.
    """
    folder = tmp_path_factory.mktemp("isolation")
    checkpoint = tiny.write_checkpoint(folder / "checkpoint")
    [row] = add_tokens(checkpoint / "tokenizer.json", NOT_FINITE)
    spoil(checkpoint, row)
    bundles, repository = tiny.write_bundle(folder / "bundles"), folder / "repository"
    chosen = ("-m", tiny.MODEL_ID, "--bundles", bundles, "--weights", checkpoint)
    done = sie_triton("build", *chosen, "-r", repository)
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(repository)
    add_tokens(repository / manifest.models[tiny.MODEL_ID].text.tokenization.path, BEYOND)
    for model_id, model in manifest.models.items():
        entry = model.inputs["text"]
        unaware = msgspec.structs.replace(model.text.tokenization, vocabulary=None)
        entry = msgspec.structs.replace(entry, reads=msgspec.structs.replace(model.text, tokenization=unaware))
        manifest.models[model_id] = msgspec.structs.replace(model, inputs={"text": entry})
    changed = redigest(manifest, repository, [tiny.TRITON_NAME])
    (repository / "manifest.json").write_bytes(dump_manifest(changed))
    server = Serving(repository, folder / "serving")
    server.wait_ready()
    yield server
    server.stop()


def ask(client: httpx.Client, *texts: str, **options: Any) -> httpx.Response:
    body = {"items": [{"text": text} for text in texts], "params": {"options": options}}
    return client.post(f"/v1/encode/{tiny.MODEL_ID}", json=body, headers={"accept": "application/json"})


def vector(response: httpx.Response) -> list[float]:
    assert response.status_code == 200, response.text
    values: list[float] = response.json()["items"][0]["dense"]["values"]
    return values


@pytest.mark.parametrize(
    ("poison", "message"),
    [
        (NOT_FINITE, "internal error during encoding: `items[1]` gave numbers that are not finite"),
        (BEYOND, "internal error during encoding (items[1])"),
    ],
)
def test_32_threads_with_a_tenth_of_poison(poisoned: Serving, poison: str, message: str) -> None:
    limits = httpx.Limits(max_connections=64)
    with httpx.Client(base_url=poisoned.url, timeout=60, limits=limits) as client, ThreadPoolExecutor(32) as threads:
        texts = [f"good text {'about cells ' * (n % 5)}{n}" for n in range(40)]
        alone = {text: vector(ask(client, text)) for text in texts}

        def one(number: int) -> tuple[str, httpx.Response]:
            if number % 10 == 0:
                return "", ask(client, "good", f"a {poison} of the sea")
            text = texts[number % len(texts)]
            return text, ask(client, text)

        answers = list(threads.map(one, range(400)))
        for text, response in answers:
            if text:
                np.testing.assert_allclose(vector(response), alone[text], atol=1e-5)
            else:
                detail = response.json()["detail"]
                assert (response.status_code, detail["code"]) == (500, "INFERENCE_ERROR")
                assert detail["message"].startswith(message)
        assert client.get("/readyz").status_code == 200
        assert "sie_frontend_pending_items 0.0" in client.get("/metrics").text


def peak_of(pids: set[int]) -> int:
    """The most memory that these processes had together, each at its own time, in bytes."""
    total = 0
    for pid in pids:
        status = Path(f"/proc/{pid}/status").read_text()
        total += int(status.partition("VmHWM:")[2].split()[0]) * 1024
    return total


AMPLIFIERS: list[tuple[str, dict[str, Any], list[str], int]] = [
    ("the reported request", {"doc_template": "{text}" * 1000}, ["x" * 100_000], 400),
    ("two megabytes a thousand times", {"doc_template": "{text}" * 1000}, ["x" * (2 * MEBIBYTE)], 400),
    ("an instruction before every item", {"instruction": "y " * 50_000}, [f"x{n}" for n in range(512)], 400),
    ("an instruction in a template", {"doc_template": "{instruction}" * 900, "instruction": "z" * 9_000}, ["x"], 400),
    ("many texts, each some times", {"doc_template": "{text}" * 100}, [f"{n} {'x' * 900}" for n in range(500)], 400),
    ("a long text that is allowed", {"doc_template": "{text}" * 10}, ["the cell " * 10_000], 200),
    ("many texts that are allowed", {"doc_template": "{text}" * 6}, [f"{n} {'x y ' * 225}" for n in range(500)], 200),
]


@pytest.mark.parametrize(("name", "options", "texts", "status"), AMPLIFIERS, ids=[row[0] for row in AMPLIFIERS])
def test_no_request_costs_more_than_its_size(
    poisoned: Serving, name: str, options: dict[str, Any], texts: list[str], status: int
) -> None:
    processes = descendants(poisoned.process.pid) | {poisoned.process.pid}
    with httpx.Client(base_url=poisoned.url, timeout=60) as client:
        vector(ask(client, "warm"))
        for pid in processes:
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak starts from what is held now
        before = peak_of(processes)
        response = ask(client, *texts, **options)
        assert response.status_code == status, response.text[:300]
        if status == 400:
            assert response.json()["detail"]["code"] == "INVALID_INPUT"
            assert "bytes of UTF-8 text" in response.json()["detail"]["message"]
        assert peak_of(processes) - before < 200 * MEBIBYTE
        assert status == 200 or response.elapsed.total_seconds() < 10
