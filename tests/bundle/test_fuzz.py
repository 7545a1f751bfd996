"""Whatever the bytes: diagnostics or a bundle, never an exception, and never both or neither."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sie_triton.bundle import expand, load_bundle
from sie_triton.planning.catalogue import catalogue_table

QUICK = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])

VALID = b"""sie_id: acme/small
hf_id: acme/small
inputs: {text: true}
tasks: {encode: {dense: {dim: 8}}, score: {}}
max_sequence_length: 512
profiles:
  default: &base
    max_batch_tokens: 1024
    adapter_path: sie_server.adapters.bge_m3:BGEM3Adapter
    adapter_options: {loadtime: {max_seq_length: 8, a: [1, 2.5, null]}, runtime: {pooling: cls}}
  other: {extends: default, adaptive_batching: {gain: 0.5}}
  merged: {<<: *base}
"""

# Tokens that mean something to YAML or to the schema, so that random soups of them reach deep.
TOKENS = (
    *"[]{}:,?-&*!|>'\"%@`#\n\t \x00\x85\ufeff\u2028",
    *(
        ": ",
        "- ",
        "\n  ",
        "<<: ",
        "&a ",
        "*a",
        "!!int ",
        "!!binary ",
        "!!timestamp ",
        "!!set ",
        "!!omap ",
        "!x ",
        "---\n",
    ),
    *(
        "sie_id",
        "hf_id",
        "tasks",
        "encode",
        "dense",
        "dim",
        "profiles",
        "default",
        "extends",
        "adapter_options",
        "loadtime",
    ),
    *("2026-13-45", "0x", "1:99:1", "1e999", ".nan", "=", "~", "yes", "9" * 5000, "0b", "\\U00110000", "%YAML 9.9\n"),
)

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | st.binary(max_size=4)
)
keys = st.sampled_from([token for token in TOKENS if token.isidentifier()]) | st.text(max_size=4) | st.integers(0, 3)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)


def _load(folder: Path, data: bytes) -> None:
    path = folder / "fuzz.yaml"
    path.write_bytes(data)
    bundle, diagnostics = load_bundle(path)
    assert (bundle is None) == bool(diagnostics)
    for diagnostic in diagnostics:
        assert diagnostic.code.startswith("SIE1")
        assert str(diagnostic).startswith(str(path))
    if bundle is not None:
        for profile in expand(bundle):
            profile.canonical_json()
        assert len(catalogue_table([bundle])) == len(bundle.profiles)


def test_the_seed_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "seed.yaml"
    path.write_bytes(VALID)
    assert load_bundle(path)[1] == []


@QUICK
@given(st.binary(max_size=200))
def test_any_bytes(tmp_path: Path, data: bytes) -> None:
    _load(tmp_path, data)


@QUICK
@given(st.lists(st.sampled_from(TOKENS), max_size=40))
def test_any_soup_of_yaml(tmp_path: Path, tokens: list[str]) -> None:
    _load(tmp_path, "".join(tokens).encode())


@QUICK
@given(st.integers(0, len(VALID)), st.integers(0, 12), st.lists(st.sampled_from(TOKENS), max_size=3))
def test_any_splice_into_a_valid_bundle(tmp_path: Path, at: int, cut: int, tokens: list[str]) -> None:
    _load(tmp_path, VALID[:at] + "".join(tokens).encode() + VALID[at + cut :])


@QUICK
@given(st.sampled_from([("profiles", "default"), ("tasks", "encode"), ("profiles",), ("tasks",), ()]), keys, values)
def test_any_value_anywhere(tmp_path: Path, place: tuple[str, ...], key: Any, value: Any) -> None:
    document = yaml.safe_load(VALID)
    target = document
    for step in place:
        target = target[step]
    target[key] = value
    _load(tmp_path, yaml.safe_dump(document, allow_unicode=True).encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(
    "tag", ["!!int", "!!float", "!!bool", "!!null", "!!timestamp", "!!binary", "!!merge", "!!value", "!!omap"]
)
@pytest.mark.parametrize("text", ["''", "x", "'0x'", "'0b'", "'-'", "'1:'", "2026-13-45", "{a: b}", "[a]"])
def test_any_tag_on_any_value(tag: str, text: str, tmp_path: Path) -> None:
    _load(tmp_path, VALID + f"{tag} {text}: 1\nhf_revision: {tag} {text}\n".encode())
