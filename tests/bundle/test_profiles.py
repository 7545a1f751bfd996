"""`extends`: what a child replaces, what it inherits, and what it never inherits."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sie_triton.bundle import Bundle, expand

from .conftest import Load, Make

PARENT = {
    "max_batch_tokens": 100,
    "compute_precision": "bfloat16",
    "adapter_path": "sie_server.adapters.bert_flash:BertFlashAdapter",
    "adapter_options": {
        "loadtime": {"max_seq_length": 64, "normalize": False},
        "runtime": {"pooling": "cls", "query_template": "q: {text}"},
    },
    "adaptive_batching": {"enabled": False, "gain": 0.5},
}


def _child(make: Make, **child: Any) -> Bundle:
    return make(max_sequence_length=512, profiles={"default": PARENT, "child": {"extends": "default", **child}})


def test_an_empty_child_inherits_everything(make: Make) -> None:
    resolved = _child(make).resolve("child")
    assert resolved.max_batch_tokens == 100
    assert resolved.compute_precision == "bfloat16"
    assert resolved.adapter_class == "BertFlashAdapter"
    assert resolved.loadtime == {"max_seq_length": 64, "normalize": False}
    assert resolved.runtime == {"pooling": "cls", "query_template": "q: {text}"}
    assert resolved.adaptive_batching == {"enabled": False, "gain": 0.5}


def test_a_null_does_not_reset_the_precision(make: Make) -> None:
    assert _child(make, compute_precision=None).resolve("child").compute_precision == "bfloat16"


def test_zero_batch_tokens_are_a_value(make: Make) -> None:
    assert _child(make, max_batch_tokens=0).resolve("child").max_batch_tokens == 0


def test_runtime_is_replaced_whole_and_loadtime_independently(make: Make) -> None:
    resolved = _child(make, adapter_options={"runtime": {"muvera": {}}}).resolve("child")
    assert resolved.runtime == {"muvera": {}}
    assert resolved.loadtime == {"max_seq_length": 64, "normalize": False}
    resolved = _child(make, adapter_options={"loadtime": {"normalize": True}}).resolve("child")
    assert resolved.loadtime == {"normalize": True}
    assert resolved.runtime["pooling"] == "cls"


def test_an_empty_map_inherits(make: Make) -> None:
    resolved = _child(make, adapter_options={"loadtime": {}, "runtime": {}}).resolve("child")
    assert resolved.runtime["pooling"] == "cls"
    assert resolved.loadtime["normalize"] is False


def test_adaptive_batching_merges_field_by_field(make: Make) -> None:
    resolved = _child(make, adaptive_batching={"enabled": None, "gain": "0.25", "min_wait_ms": 2}).resolve("child")
    assert resolved.adaptive_batching == {"enabled": False, "gain": 0.25, "min_wait_ms": 2.0}


def test_a_profile_without_extends_inherits_nothing(make: Make) -> None:
    alone = {"max_batch_tokens": 1, "adapter_path": "m:C"}
    resolved = make(profiles={"default": PARENT, "alone": alone}).resolve("alone")
    assert (resolved.compute_precision, resolved.loadtime, resolved.runtime) == (None, {}, {})


def test_a_variant_advertises_its_load_time_limit_and_the_default_does_not(make: Make) -> None:
    default, child = expand(_child(make))
    assert (default.max_sequence_length, default.token_limit) == (512, 64)
    assert (child.max_sequence_length, child.token_limit) == (64, 64)


@pytest.mark.parametrize("limit", [0, -1, "64", None, True, 64.0])
def test_only_a_positive_whole_number_is_a_load_time_limit(limit: object, make: Make) -> None:
    resolved = _child(make, adapter_options={"loadtime": {"max_seq_length": limit}}).resolve("child")
    assert (resolved.max_sequence_length, resolved.token_limit) == (512, 512)


def test_resolved_options_are_the_callers_own(make: Make) -> None:
    bundle = _child(make, adapter_options={"runtime": {"nested": {"list": [1]}}})
    resolved: Any = bundle.resolve("child")
    resolved.runtime["nested"]["list"].append(2)
    resolved.to_json()["runtime"]["nested"]["list"].append(3)
    assert bundle.resolve("child").runtime == {"nested": {"list": [1]}}
    assert resolved.runtime == {"nested": {"list": [1, 2]}}


def test_an_unknown_profile_is_the_callers_bug(make: Make) -> None:
    with pytest.raises(KeyError, match="nope"):
        make().resolve("nope")


def test_canonical_json_ignores_the_order_of_keys(make: Make) -> None:
    one = _child(make, adapter_options={"runtime": {"a": {"x": 1, "y": "é"}, "b": 2}}).resolve("child")
    two = _child(make, adapter_options={"runtime": {"b": 2, "a": {"y": "é", "x": 1}}}).resolve("child")
    other = _child(make, adapter_options={"runtime": {"b": 2, "a": {"y": "é", "x": 2}}}).resolve("child")
    assert one.canonical_json() == two.canonical_json() != other.canonical_json()
    assert json.loads(one.canonical_json())["model_id"] == "acme/small:child"


def test_merge_keys_follow_yaml(load: Load) -> None:
    text = """
sie_id: acme/merged
hf_id: acme/merged
tasks: {score: {}}
profiles:
  default: &base
    max_batch_tokens: 1
    compute_precision: float16
    adapter_path: m:C
  other:
    <<: [{max_batch_tokens: 7}, *base]
    compute_precision: float32
"""
    bundle, diagnostics = load(text)
    assert bundle is not None, diagnostics
    other = bundle.resolve("other")
    assert (other.max_batch_tokens, other.compute_precision, other.adapter_path) == (7, "float32", "m:C")
    assert bundle.profiles["other"].extends is None


def test_positions_say_where_each_value_stands(make: Make) -> None:
    bundle = make()
    lines = bundle.path.read_text(encoding="utf-8").splitlines()
    for path in ("sie_id", "tasks.encode.dense.dim", "profiles.default.adapter_path"):
        where = bundle.positions[path]
        assert where.path == bundle.path
        key, value = lines[where.line - 1][: where.column - 1], lines[where.line - 1][where.column - 1 :]
        assert key.strip() == f"{path.rpartition('.')[2]}:"
        assert value in ("acme/small", "8", "sie_server.adapters.bert_flash:BertFlashAdapter")


def test_positions_reach_into_the_options(make: Make) -> None:
    bundle = make(profiles={"default": PARENT})
    where = bundle.positions["profiles.default.adapter_options.runtime.pooling"]
    line = bundle.path.read_text(encoding="utf-8").splitlines()[where.line - 1]
    assert line[where.column - 1 :] == "cls"
