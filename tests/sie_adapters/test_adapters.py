"""SIE's own adapters on the same checkpoints as ours: texts, pictures, both, scores, and what `usage` tells of them.

sie-server needs Python 3.12 and gigabytes of packages. `SIE_TRITON_SIE_SERVER_PYTHON` names an interpreter that has
sie-server 0.10.1 with transformers 4.57; without it these tests are skipped.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from e2e.processes import Serving, sie_triton
from frontend.pictures import encoded, noise
from PIL import Image
from sie_frontend.rows import Array

from .cases import ADAPTERS, Adapter

pytestmark = pytest.mark.official

TESTS = Path(__file__).resolve().parents[1]
FIRST, SECOND, STRIP, TALL = (
    base64.b64encode(encoded(Image.fromarray(noise(*size)), "PNG")).decode()
    for size in ((50, 80), (28, 28), (300, 40), (31, 200))
)
TEXT = "retrieval systems embed"
SHOWN: dict[str, Any] = {"text": "unread", "images": [TALL]}
CALLS: list[dict[str, Any]] = [
    {"items": [{"text": TEXT}, {"text": "Two Dogs, one bone; what's that?"}, {"text": ""}]},
    {"items": [{"images": [FIRST]}, {"images": [SECOND]}, {"images": [STRIP]}]},
    {"items": [{"images": [FIRST]}, {"text": TEXT}]},
    {"items": [SHOWN]},
    {"items": [SHOWN, {"text": TEXT}]},
    {"items": [SHOWN, {"images": [FIRST]}]},
    {"items": [{"text": "", "images": [TALL]}, {"images": [FIRST]}]},
    {"items": [SHOWN, {"images": [FIRST]}, {"text": TEXT}]},
    {"items": [{"text": TEXT, "images": [FIRST]}], "is_query": True},
    {"items": [{"text": TEXT}], "is_query": True, "instruction": "find it"},
]
# Page models cut what is longer than their bundle says, and SIE's do not.
LONG: list[dict[str, Any]] = [{"items": [{"text": "the quick brown fox jumps over the lazy dog " * 40}]}]
# SIE's ColQwen2.5 answers each image by itself, so that an item of several has no place of its own.
SEVERAL: list[dict[str, Any]] = [{"items": [{"images": [FIRST, TALL]}, {"text": TEXT}]}]
PAIRS: list[dict[str, Any]] = [
    {"query": {"text": TEXT}, "items": [{"images": [FIRST]}, {"text": "a dog"}]},
    {"query": {"text": TEXT, "images": [SECOND]}, "items": [{"text": "b", "images": [TALL]}], "instruction": "Find"},
]


def calls_of(name: str) -> list[dict[str, Any]]:
    if name == "judge":
        return PAIRS
    long = LONG if ADAPTERS[name].wire == "dense" else []
    return [*CALLS, *long, *([] if name == "colqwen" else SEVERAL)]


@pytest.fixture(scope="module")
def interpreter() -> str:
    python = os.environ.get("SIE_TRITON_SIE_SERVER_PYTHON")
    if not python:
        pytest.skip("SIE_TRITON_SIE_SERVER_PYTHON names no interpreter with sie-server 0.10.1")
    return python


@pytest.fixture(scope="module")
def root(interpreter: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of each, and one repository."""
    folder = tmp_path_factory.mktemp("sie_adapters")
    (folder / "bundles").mkdir()
    chosen: list[str] = []
    for name, adapter in ADAPTERS.items():
        (folder / name).mkdir()
        text = adapter.write(folder / name, f"acme/{name}")
        (folder / "bundles" / f"{name}.yaml").write_text(text, encoding="utf-8")
        chosen += ["-m", f"acme/{name}"]
        chosen += ["--weights", f"{adapter.base}={folder / name / 'base'}"] if adapter.base else []
    bundles = ("--bundles", folder / "bundles", "--device", "cpu")
    done = sie_triton("build", *bundles, *chosen, "-r", folder / "repository")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def serving(root: Path) -> Iterator[Serving]:
    server = Serving(root / "repository", root / "serving")
    server.wait_ready()
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module", params=ADAPTERS)
def told(request: pytest.FixtureRequest, interpreter: str, root: Path) -> tuple[str, Adapter, list[dict[str, Any]]]:
    """The name of an adapter, and what SIE makes of every call."""
    name, adapter = request.param, ADAPTERS[request.param]
    asked = root / f"{name}.json"
    document = {"outputs": [adapter.wire], "settings": dict(adapter.settings), "calls": calls_of(name)}
    asked.write_text(json.dumps(document), encoding="utf-8")
    command = [interpreter, "-m", "sie_adapters.driver", adapter.path, str(root / name / "theirs"), str(asked)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["HF_HUB_OFFLINE"] = "1"
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=False, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr
    return name, adapter, json.loads(done.stdout)


def wire(item: dict[str, Any]) -> dict[str, Any]:
    return {**item, "images": [{"data": data} for data in item["images"]]} if "images" in item else item


def answer(serving: Serving, route: str, body: dict[str, Any]) -> dict[str, Any]:
    made = httpx.post(f"{serving.url}/v1/{route}", json=body, headers={"accept": "application/json"}, timeout=120)
    assert made.status_code == 200, made.text
    found: dict[str, Any] = made.json()
    return found


def cosines(ours: Array, theirs: Array) -> Array:
    """Of rows with each other; SIE's pages that are padded to the longest of their call have rows of zeros."""
    theirs = theirs[np.abs(theirs).sum(axis=-1) > 0]
    assert ours.shape == theirs.shape
    made: Array = (ours * theirs).sum(axis=-1) / np.linalg.norm(ours, axis=-1) / np.linalg.norm(theirs, axis=-1)
    return made


def test_the_same_vectors_and_usage(told: tuple[str, Adapter, list[dict[str, Any]]], serving: Serving) -> None:
    name, adapter, answers = told
    if adapter.wire == "score":
        pytest.skip("scores have a test of their own")
    for call, theirs in zip(calls_of(name), answers, strict=True):
        params: dict[str, Any] = {"output_types": [adapter.wire]}
        params |= {"instruction": call["instruction"]} if "instruction" in call else {}
        params |= {"options": {"is_query": True}} if "is_query" in call else {}
        body = answer(serving, f"encode/acme/{name}", {"items": list(map(wire, call["items"])), "params": params})
        assert body.get("usage") == theirs["usage"], call
        for item, (vectors,) in zip(body["items"], theirs["vectors"], strict=True):
            ours = np.atleast_2d(np.array(item[adapter.wire]["values"]))
            assert cosines(ours, np.atleast_2d(np.array(vectors))).min() >= 0.99999


def test_the_same_scores_and_usage(told: tuple[str, Adapter, list[dict[str, Any]]], serving: Serving) -> None:
    name, adapter, answers = told
    if adapter.wire != "score":
        pytest.skip("vectors have a test of their own")
    for call, theirs in zip(calls_of(name), answers, strict=True):
        items = [{**wire(item), "id": str(number)} for number, item in enumerate(call["items"])]
        asked = {key: call[key] for key in ("instruction",) if key in call}
        body = answer(serving, f"score/acme/{name}", {"query": wire(call["query"]), "items": items, **asked})
        found = {entry["item_id"]: entry["score"] for entry in body["scores"]}
        ours = [found[str(number)] for number in range(len(items))]
        np.testing.assert_allclose(ours, theirs["scores"], atol=1e-4, rtol=0)
        assert body["usage"] == theirs["usage"]
