from __future__ import annotations

import json
from typing import Any

import msgpack
import numpy as np
import pytest
from contract.recorded import sdk_answers
from numpy.typing import NDArray
from replay import array, item_outputs
from sie_frontend.contract.dtypes import dtype_label
from sie_frontend.contract.errors import WireError
from sie_frontend.contract.negotiation import WireFormat
from sie_frontend.contract.responses import ScoreEntry, Timing, Usage, rank_scores, score_body, success_headers
from sie_frontend.outputs.response import ItemOutputs, encode_body
from sie_frontend.outputs.sparse import SparseVector

TIMING = Timing(4.25, 0.5, 0.1, 3.0)
CANNED = (
    "encode_all_outputs",
    "encode_dense_binary",
    "encode_dense_f16",
    "encode_dense_f32",
    "encode_dense_int8",
    "encode_dense_uint8",
    "encode_multivector",
    "encode_multivector_zero_tokens",
    "encode_sparse",
    "encode_sparse_empty",
)


def _body(items: list[ItemOutputs], dims: dict[str, int], wire_format: WireFormat = WireFormat.MSGPACK) -> bytes:
    return encode_body("m", items, declared_dims=dims, timing=TIMING, usage=None, wire_format=wire_format)


@pytest.mark.parametrize("name", CANNED)
def test_bodies_that_the_sdk_accepted(name: str) -> None:
    body = sdk_answers()[name].body
    written = msgpack.unpackb(body)
    usage = Usage(**written["usage"]) if "usage" in written else None
    dims: dict[str, int] = {}
    items = []
    for entry in written["items"]:
        sparse = entry.get("sparse")
        for output, key in (("dense", "dims"), ("sparse", "dims"), ("multivector", "token_dims")):
            if output in entry and entry[output][key] is not None:
                dims[output] = entry[output][key]
        items.append(
            item_outputs(
                entry.get("id"),
                dense=array(entry["dense"]["values"]) if "dense" in entry else None,
                sparse=SparseVector(array(sparse["indices"]), array(sparse["values"])) if sparse else None,
                multivector=array(entry["multivector"]["values"]) if "multivector" in entry else None,
            )
        )
    rebuilt = encode_body(
        written["model"],
        items,
        declared_dims=dims,
        timing=Timing(**written["timing"]),
        usage=usage,
        wire_format=WireFormat.MSGPACK,
    )
    assert rebuilt == body


@pytest.mark.parametrize(
    ("dtype", "length", "declared", "label", "dims"),
    [
        ("float32", 8, 8, "float32", 8),
        ("float16", 8, 8, "float16", 8),
        ("int8", 8, 8, "int8", 8),
        ("uint8", 8, 8, "uint8", 8),
        ("uint8", 1, 8, "binary", 8),
        ("uint8", 2, 9, "binary", 9),
        ("uint8", 1, 1, "uint8", 1),
        ("uint8", 1280, None, "uint8", 1280),
        ("float32", 10240, None, "float32", 10240),
        ("float32", 4, 8, "float32", 8),
        ("float64", 8, 8, "float32", 8),
    ],
)
def test_labels_and_dims(dtype: str, length: int, declared: int | None, label: str, dims: int) -> None:
    values: NDArray[Any] = np.zeros(length, dtype=dtype)
    declared_dims = {} if declared is None else {"dense": declared, "multivector": declared}
    items = [item_outputs(dense=values, multivector=np.stack([values] * 3))]
    assert dtype_label(values, declared) == label
    for wire_format in WireFormat:
        body = _body(items, declared_dims, wire_format)
        decoded = msgpack.unpackb(body) if wire_format is WireFormat.MSGPACK else json.loads(body)
        entry = decoded["items"][0]
        assert (entry["dense"]["dtype"], entry["dense"]["dims"]) == (label, dims)
        tokens = entry["multivector"]
        assert (tokens["dtype"], tokens["token_dims"], tokens["num_tokens"]) == (label, dims, 3)


def test_a_sparse_vector_that_is_not_declared_has_null_dims() -> None:
    sparse = SparseVector(np.array([3], dtype=np.int32), np.array([0.5], dtype=np.float32))
    for wire_format in WireFormat:
        body = _body([item_outputs(sparse=sparse)], {"multivector": 4}, wire_format)
        decoded = msgpack.unpackb(body) if wire_format is WireFormat.MSGPACK else json.loads(body)
        assert decoded["items"][0]["sparse"]["dims"] is None


@pytest.mark.parametrize("count", [0, 1, 15, 16, 65535, 65536])
def test_any_number_of_items(count: int) -> None:
    decoded = msgpack.unpackb(_body([item_outputs(id="x")] * count, {}))
    assert list(decoded) == ["model", "items", "timing"]
    assert len(decoded["items"]) == count


def test_json_prints_every_digit_and_nests_rows() -> None:
    values = np.array([[0.1, 1 / 3], [1.0, 2.0]], dtype=np.float32)
    body = _body([item_outputs("i", dense=values[0], multivector=values[:, ::-1])], {}, WireFormat.JSON)
    item = json.loads(body)["items"][0]
    assert b"0.10000000149011612" in body
    assert item["dense"]["values"] == [float(value) for value in values[0]]
    assert item["multivector"]["values"] == [[float(value) for value in row[::-1]] for row in values]
    assert list(item) == ["id", "dense", "multivector"]
    assert list(json.loads(body)["timing"]) == [
        "total_ms",
        "queue_ms",
        "tokenization_ms",
        "inference_ms",
        "postprocessing_ms",
    ]


def test_narrow_values_are_json_numbers_too() -> None:
    items = [item_outputs(dense=np.array([-127, 127], dtype=np.int8)), item_outputs(dense=np.array([0.5], dtype="f2"))]
    decoded = json.loads(_body(items, {}, WireFormat.JSON))
    assert [item["dense"]["values"] for item in decoded["items"]] == [[-127, 127], [0.5]]


def test_usage_leaves_out_what_is_unknown() -> None:
    assert Usage(3).as_map() == {"input_tokens": 3}
    expected = {"input_tokens": 12, "images": 0, "input_tokens_details": {"content_tokens": 8}}
    assert Usage(12, 0, 8).as_map() == expected


def test_headers() -> None:
    headers = success_headers(
        Timing(10.25, 0.0, 1.239, 3.0, 0.041), wire_format=WireFormat.JSON, runtime_instance="ab" * 32
    )
    assert headers == {
        "x-sie-server-version": "0.10.1",
        "x-queue-time": "0.00",
        "x-tokenization-time": "1.24",
        "x-inference-time": "3.00",
        "x-total-time": "10.25",
        "x-postprocessing-time": "0.04",
        "x-sie-served-by": "local",
        "x-sie-runtime-instance": "ab" * 32,
        "content-type": "application/json",
    }
    for nothing in (None, 0.0):
        quiet = success_headers(
            Timing(1.0, 0.0, 0.0, 1.0, nothing), wire_format=WireFormat.MSGPACK, runtime_instance=""
        )
        assert "x-postprocessing-time" not in quiet


def test_ranking_is_stable_and_names_the_nameless() -> None:
    ranking = rank_scores(np.array([0.5, 0.9, 0.5, -1.0]), ["", None, None, "x"], "m")
    assert ranking == [
        ScoreEntry("item-1", float(np.float32(0.9)), 0),
        ScoreEntry("", 0.5, 1),
        ScoreEntry("item-2", 0.5, 2),
        ScoreEntry("x", -1.0, 3),
    ]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.filterwarnings("ignore:overflow")
def test_scores_that_are_not_finite(bad: float) -> None:
    with pytest.raises(WireError) as refusal:
        rank_scores(np.array([0.1, bad]), [None, None], "X")
    assert refusal.value.status == 500
    assert refusal.value.code == "INFERENCE_ERROR"
    assert refusal.value.message == "Model 'X' produced non-finite scores"


def test_score_bodies() -> None:
    recorded = sdk_answers()
    ranking = [ScoreEntry("item-1", 0.9, 0), ScoreEntry("item-0", 0.1, 1)]
    usage = Usage(12, content_tokens=8)
    body = score_body("m", None, ranking, usage=usage, wire_format=WireFormat.MSGPACK)
    assert body == recorded["score_ok"].body
    empty = score_body("m", "q1", [], usage=None, wire_format=WireFormat.MSGPACK)
    assert empty == recorded["score_query_id"].body
    in_json = score_body("m", None, ranking, usage=None, wire_format=WireFormat.JSON)
    assert json.loads(in_json) == {
        "model": "m",
        "query_id": None,
        "scores": [{"item_id": "item-1", "score": 0.9, "rank": 0}, {"item_id": "item-0", "score": 0.1, "rank": 1}],
    }
