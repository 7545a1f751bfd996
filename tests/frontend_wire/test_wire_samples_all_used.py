"""No recording lies there unread: every file belongs to one family, and every family to the tests that read it.

The families' own tests go by the names of the recordings and fail for one that they do not know. Files that only spell
others out for people (hex, repr, summaries) are compared here with what they spell out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path

import msgpack
import pytest
from recordings import load, names

TESTS = Path(__file__).resolve().parents[1]
HERE = "frontend_wire/test_wire_samples_all_used.py"
RECORDINGS = "frontend_wire/test_wire_recordings.py"

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "catalog_resolved_0.10.1.json": ("bundle/test_catalogue_resolved.py",),
    "errors/*.body.hex.txt": (HERE,),
    "errors/*": ("sdk/test_sdk_outcomes.py", "frontend_wire/test_wire_errors.py"),
    "golden/SUMMARY*.json": (HERE,),
    "golden/muvera_cases.json": ("frontend_wire/test_wire_muvera.py",),
    "golden/muvera_quant_golden.npz": ("frontend_wire/test_wire_muvera.py", "frontend_wire/test_wire_quantize.py"),
    "golden/yaml_validation.json": ("bundle/test_yaml_validation.py",),
    "golden/get_*": ("frontend/test_application.py",),
    "golden/models_*": ("frontend/test_application.py",),
    "golden/encode_*": (RECORDINGS,),
    "golden/oai_*": (RECORDINGS,),
    "golden/score_*": (RECORDINGS, "frontend_wire/test_wire_score_over_http.py"),
    "requests/*.body.repr.txt": (HERE,),
    "requests/openai_*.headers.txt": (HERE,),
    "requests/openai_*": ("frontend_wire/test_wire_openai.py",),
    "requests/*": ("sdk/test_sdk_requests.py", "frontend_wire/test_wire_requests.py"),
    "responses/*.body.hex.txt": (HERE,),
    "responses/*": ("sdk/test_sdk_outcomes.py", "frontend_wire/test_wire_responses.py"),
    "sdk_outcomes.json": ("sdk/test_sdk_outcomes.py",),
}
"""The first pattern that fits names the family. The tests are those that read it, themselves or by their helpers."""


@pytest.fixture
def samples(shared: Path) -> Path:
    return shared / "wire-samples"


def family(name: str) -> str | None:
    return next((pattern for pattern in FAMILIES if fnmatch(name, pattern)), None)


def test_every_file_belongs_to_a_family(samples: Path) -> None:
    found = {path.relative_to(samples).as_posix() for path in samples.rglob("*") if path.is_file()}
    assert len(found) > 400
    assert [name for name in sorted(found) if family(name) is None] == []
    assert {family(name) for name in found} == set(FAMILIES), "a family without files"


@pytest.mark.parametrize("pattern", FAMILIES)
def test_the_tests_of_a_family_read_its_folder(pattern: str) -> None:
    """By the name of the folder or the file, in the test or in a helper beside it that the test imports."""
    folder = pattern.partition("/")[0]
    for test in FAMILIES[pattern]:
        text = (TESTS / test).read_text(encoding="utf-8")
        helpers = re.findall(r"^from (\w+) import", text, re.MULTILINE)
        files = [(TESTS / test).with_name(f"{helper}.py") for helper in helpers]
        text += "".join(file.read_text(encoding="utf-8") for file in files if file.exists())
        assert folder in text, test
        assert "shared" in text, test


def test_a_new_file_would_be_noticed() -> None:
    assert family("golden/encode_new.req.bin") == "golden/encode_*"
    assert family("golden/extract_x.txt") is None
    assert family("streams/x.txt") is None


def test_every_part_of_an_exchange_has_its_exchange(samples: Path) -> None:
    golden = samples / "golden"
    recorded = names(golden)
    parts = [path for path in golden.iterdir() if re.search(r"\.(req\.bin|resp\.\w+)$", path.name)]
    assert len(parts) > 150
    assert {path.name.split(".")[0] for path in parts} <= recorded
    for folder in ("requests", "responses", "errors"):
        bodies = [path.name.partition(".body.")[0] for path in (samples / folder).glob("*.body.*")]
        assert {f"{name}.headers.txt" for name in bodies} <= {path.name for path in (samples / folder).iterdir()}


def test_the_summaries_tell_of_the_same_answers(samples: Path) -> None:
    golden = samples / "golden"
    first, scores = (json.loads((golden / f"SUMMARY{part}.json").read_text("utf-8")) for part in ("", "_score"))
    # Four names were recorded again, against a model that scores: the later recording is the one that lies there.
    for name, told in {**first, **scores}.items():
        exchange = load(golden, name)
        assert told["status"] == exchange.status, name
        if told.get("ct"):
            assert exchange.response_headers["content-type"].startswith(told["ct"].split(";")[0]), name


@pytest.mark.parametrize("folder", ["errors", "responses"])
def test_the_hex_spells_the_body(samples: Path, folder: str) -> None:
    spellings = sorted((samples / folder).glob("*.body.hex.txt"))
    assert spellings
    for path in spellings:
        body = path.with_name(path.name.replace(".hex.txt", ".msgpack")).read_bytes()
        assert bytes.fromhex(path.read_text()) == body, path.name


def test_the_repr_spells_the_body(samples: Path) -> None:
    spellings = sorted((samples / "requests").glob("*.body.repr.txt"))
    assert spellings
    for path in spellings:
        body = path.with_name(path.name.replace(".repr.txt", ".msgpack")).read_bytes()
        first, *others = path.read_text(encoding="utf-8").splitlines()
        written = bytes.fromhex(first.partition(": ")[2])
        assert written == body[: len(written)], path.name
        if others and not first.startswith("hex(first"):
            assert others[0].partition(": ")[2] == repr(msgpack.unpackb(body, strict_map_key=False)), path.name


@pytest.mark.parametrize("name", ["openai_embeddings_default", "openai_embeddings_float"])
def test_what_openai_s_client_sends_is_addressed_to_us(samples: Path, name: str) -> None:
    first, *lines = (samples / "requests" / f"{name}.headers.txt").read_text().strip().splitlines()
    assert first.split()[:2] == ["POST", "/v1/embeddings"]
    headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in lines)}
    assert headers["content-type"] == "application/json"
