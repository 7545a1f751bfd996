"""SIE's recorded verdicts on small variants of one bundle, replayed: the same ones accepted, the same ones refused.

The recordings hold verdicts and messages; the variants are rebuilt here from their names and those messages.
"""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from contract.recorded import bundle_verdicts

from .conftest import Load

FAKE = "sie_server.adapters.fake.adapter:FakeAdapter"
MISSING = object()


def _variant(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "sie_id": "a/b",
        "hf_id": "x/y",
        "tasks": {"encode": {"dense": {"dim": 4}}},
        "profiles": {"default": {"max_batch_tokens": 1, "adapter_path": FAKE}},
    }
    return {key: value for key, value in {**base, **changes}.items() if value is not MISSING}


def _default(**changes: Any) -> dict[str, Any]:
    profile = {"max_batch_tokens": 1, "adapter_path": FAKE, **changes}
    return _variant(profiles={"default": {key: value for key, value in profile.items() if value is not MISSING}})


def _profiles(**others: Any) -> dict[str, Any]:
    return _variant(profiles={"default": {"max_batch_tokens": 1, "adapter_path": FAKE}, **others})


def _dense(**spec: Any) -> dict[str, Any]:
    return _variant(tasks={"encode": {"dense": spec}})


VARIANTS: dict[str, dict[str, Any]] = {
    "base": _variant(),
    "unknown_top_key": _variant(foo=1),
    "no_source": _variant(hf_id=MISSING),
    "package_and_hf": _variant(package_backed=True),
    "profiles_empty": _variant(profiles={}),
    "no_default_ok": _variant(profiles={"a": {"max_batch_tokens": 1, "adapter_path": FAKE}}),
    "extends_unknown": _profiles(a={"extends": "z"}),
    "extends_chain": _profiles(a={"extends": "default"}, b={"extends": "a"}),
    "no_adapter_path": _default(adapter_path=MISSING),
    "no_max_batch": _default(max_batch_tokens=MISSING, adapter_path="x:y"),
    "unknown_profile_key": _default(foo=1),
    "unknown_adapter_options_key": _default(adapter_options={"foo": {}}),
    "bad_precision": _default(compute_precision="int8"),
    "tasks_empty": _variant(tasks={}),
    "tasks_missing": _variant(tasks=MISSING),
    "dim_str": _dense(dim="4"),
    "dim_extra": _dense(dim=4, x=1),
    "dim_negative": _dense(dim=-1),
    "score_true": _variant(tasks={"score": True}),
    "score_empty_map": _variant(tasks={"score": {}}),
    "inputs_extra": _variant(inputs={"foo": True}),
    "pool_upper": _variant(pool="POOL"),
    "pool_bad": _variant(pool="a b"),
    "max_batch_zero": _default(max_batch_tokens=0),
    "max_seq_str": _variant(max_sequence_length="512"),
    "hf_revision_branch": _variant(hf_revision="main"),
    "loadtime_null": _default(adapter_options={"loadtime": None}),
    "adapter_options_null": _default(adapter_options=None),
    "tp_bool": _default(adapter_options={"loadtime": {"tensor_parallel_size": True}}),
}

# The words of SIE's message that name the mistake; ours must speak of the same key.
BLAMED = {
    "unknown_top_key": "foo",
    "no_source": "weights",
    "package_and_hf": "package_backed",
    "profiles_empty": "profiles",
    "extends_unknown": "`z`",
    "extends_chain": "`b` extends `a`, which itself extends `default`",
    "no_adapter_path": "adapter_path",
    "no_max_batch": "max_batch_tokens",
    "unknown_profile_key": "foo",
    "unknown_adapter_options_key": "foo",
    "bad_precision": "compute_precision",
    "tasks_missing": "tasks",
    "dim_extra": "tasks.encode.dense",
    "score_true": "tasks.score",
    "inputs_extra": "inputs",
    "pool_bad": "pool",
    "loadtime_null": "profiles.default.adapter_options.loadtime",
    "adapter_options_null": "profiles.default.adapter_options",
    "tp_bool": "tensor_parallel_size",
}


def test_every_recorded_case_is_replayed() -> None:
    assert bundle_verdicts().keys() == VARIANTS.keys()
    assert {name for name, verdict in bundle_verdicts().items() if verdict is None} == BLAMED.keys()


@pytest.mark.parametrize("name", VARIANTS)
def test_same_verdict(name: str, load: Load) -> None:
    bundle, diagnostics = load(yaml.safe_dump(VARIANTS[name], sort_keys=False))
    if (recorded := bundle_verdicts()[name]) is not None:
        assert bundle is not None, diagnostics
        assert {"outputs": list(bundle.outputs), "dims": dict(bundle.dims)} == recorded
    else:
        assert bundle is None
        [diagnostic] = diagnostics
        assert BLAMED[name] in diagnostic.message
        assert diagnostic.where is not None and diagnostic.where.line > 0 and diagnostic.where.column > 0


@pytest.mark.parametrize(
    ("written", "read"),
    [("4", 4), ("'4'", 4), ("' 4 '", 4), ("4.0", 4), ("'4.0'", 4), ("'1_000'", 1000), ("'+4'", 4), ("true", 1)],
)
def test_numbers_are_read_as_leniently_as_sie_does(written: str, read: int, load: Load) -> None:
    bundle, diagnostics = load(yaml.safe_dump(_variant()).replace("dim: 4", f"dim: {written}"))
    assert bundle is not None, diagnostics
    assert bundle.dims == {"dense": read}
    assert type(bundle.dims["dense"]) is int


@pytest.mark.parametrize(
    "written", ["4.5", "'4.'", "'0x4'", "'1__0'", "''", "null", "[4]", "'٤'", ".inf", ".nan", "'" + "9" * 5000 + "'"]
)
def test_what_is_not_a_whole_number_is_refused_as_sie_does(written: str, load: Load) -> None:
    bundle, [diagnostic] = load(yaml.safe_dump(_variant()).replace("dim: 4", f"dim: {written}"))
    assert bundle is None
    assert diagnostic.message.startswith("`tasks.encode.dense.dim` must be a whole number, not ")


@pytest.mark.parametrize(
    ("written", "read"), [("true", True), ("'off'", False), ("'Y'", True), ("1", True), ("0.0", False)]
)
def test_booleans_are_read_as_leniently_as_sie_does(written: str, read: bool, load: Load) -> None:
    bundle, diagnostics = load(f"{yaml.safe_dump(_variant())}\ninputs: {{image: {written}}}\n")
    assert bundle is not None, diagnostics
    assert bundle.inputs == (("text", "image") if read else ("text",))
