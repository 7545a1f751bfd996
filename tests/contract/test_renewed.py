"""Where the recordings of the reference server lie beside the checkout, this folder holds what they hold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest

from contract.recorded import HERE, body_of, exchanges
from contract.renew import SAMPLES, TAKEN, exchange_names, renewed, strays
from sie_triton.bundle import load_bundles

OUTSIDE = HERE.parents[2] / "shared"
if not (OUTSIDE / SAMPLES).is_dir():
    pytest.skip("the reference server's recordings are not here: nothing to compare with", allow_module_level=True)

FILES = sorted(path.name for path in HERE.glob("*.json"))


@pytest.fixture(scope="module")
def anew() -> dict[str, str]:
    """Every file as it would be written now."""
    return renewed(OUTSIDE)


def _bodies(members: dict[str, Any]) -> Any:
    """Bytes in place of their spelling: two zlibs compress differently."""
    return body_of(members) if members.keys() in ({"zlib"}, {"base64"}) else members


def test_every_file_is_renewed(anew: dict[str, str]) -> None:
    assert sorted(anew) == FILES


@pytest.mark.parametrize("name", FILES)
def test_the_same_recordings_in_the_same_order(name: str, anew: dict[str, str]) -> None:
    here, there = (
        json.dumps(json.loads(text, object_hook=_bodies), default=bytes.hex)
        for text in ((HERE / name).read_text(encoding="utf-8"), anew[name])
    )
    assert here == there, "run `PYTHONPATH=tests python -m contract.renew FOLDER`"


def test_the_public_bundles_are_read_alike_from_their_facts(public_bundles: Path) -> None:
    written, mistakes = load_bundles(OUTSIDE / "sie-models")
    rebuilt, others = load_bundles(public_bundles)
    assert (mistakes, others) == ([], [])
    assert list(rebuilt) == list(written)
    for sie_id, bundle in written.items():
        assert replace(rebuilt[sie_id], path=bundle.path) == bundle
        assert rebuilt[sie_id].path.name == bundle.path.name
        for name, profile in bundle.profiles.items():
            for options, ours in (
                (profile.loadtime, rebuilt[sie_id].profiles[name].loadtime),
                (profile.runtime, rebuilt[sie_id].profiles[name].runtime),
            ):
                assert json.dumps(ours) == json.dumps(options)


# What the recordings spell out for people, against what they spell out.


def test_a_recording_without_a_place_is_noticed(tmp_path: Path) -> None:
    assert strays(OUTSIDE / SAMPLES) == []
    (tmp_path / "golden").mkdir()
    (tmp_path / "golden" / "extract_x.txt").touch()
    (tmp_path / "golden" / "encode_new.txt").touch()
    assert strays(tmp_path) == ["golden/extract_x.txt"]
    found = [path.relative_to(OUTSIDE / SAMPLES).as_posix() for path in (OUTSIDE / SAMPLES).rglob("*")]
    assert all(any(Path(name).match(pattern) for name in found) for pattern in TAKEN), "a pattern without files"


def test_every_part_of_an_exchange_has_its_exchange() -> None:
    golden = OUTSIDE / SAMPLES / "golden"
    parts = [path for path in golden.iterdir() if path.name.endswith(".req.bin") or ".resp." in path.name]
    assert len(parts) > 150
    assert {path.name.split(".")[0] for path in parts} <= exchange_names(golden) == exchanges().keys()
    for folder in ("requests", "responses", "errors"):
        bodies = [path.name.partition(".body.")[0] for path in (OUTSIDE / SAMPLES / folder).glob("*.body.*")]
        names = {path.name for path in (OUTSIDE / SAMPLES / folder).iterdir()}
        assert {f"{name}.headers.txt" for name in bodies} <= names


def test_the_summaries_tell_of_the_same_answers() -> None:
    golden = OUTSIDE / SAMPLES / "golden"
    first, scores = (json.loads((golden / f"SUMMARY{part}.json").read_text("utf-8")) for part in ("", "_score"))
    # Four names were recorded again, against a model that scores: the later recording is the one that lies there.
    for name, told in {**first, **scores}.items():
        exchange = exchanges()[name]
        assert told["status"] == exchange.status, name
        if told.get("ct"):
            assert exchange.response_headers["content-type"].startswith(told["ct"].split(";")[0]), name


@pytest.mark.parametrize("folder", ["errors", "responses"])
def test_the_hex_spells_the_body(folder: str) -> None:
    spellings = sorted((OUTSIDE / SAMPLES / folder).glob("*.body.hex.txt"))
    assert spellings
    for path in spellings:
        body = path.with_name(path.name.replace(".hex.txt", ".msgpack")).read_bytes()
        assert bytes.fromhex(path.read_text()) == body, path.name


def test_the_repr_spells_the_body() -> None:
    spellings = sorted((OUTSIDE / SAMPLES / "requests").glob("*.body.repr.txt"))
    assert spellings
    for path in spellings:
        body = path.with_name(path.name.replace(".repr.txt", ".msgpack")).read_bytes()
        first, *others = path.read_text(encoding="utf-8").splitlines()
        written = bytes.fromhex(first.partition(": ")[2])
        assert written == body[: len(written)], path.name
        if others and not first.startswith("hex(first"):
            assert others[0].partition(": ")[2] == repr(msgpack.unpackb(body, strict_map_key=False)), path.name
