"""The official `sie-sdk` and `openai` clients against our server: right answers, and those that our client gives."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from recipes.made import oracle

from .calls import BGE_M3, CALLS, CLIP, CROSS_ENCODER, DIMS, MISSPELT, OUTPUT_TYPES, QUERY, TEXTS

pytestmark = pytest.mark.official

Array = NDArray[Any]
IDS = [f"text-{index}" for index in range(len(TEXTS))]


def array(written: Mapping[str, Any]) -> Array:
    """The array that a driver wrote."""
    data = base64.b64decode(written["base64"])
    found: Array = np.ndarray(written["shape"], dtype=written["dtype"], buffer=data)
    return found


def arrays(outcomes: Mapping[str, Any], call: str, output: str) -> list[Array]:
    """One output of every item of a call; a sparse one is its values."""
    found = [result[output] for result in outcomes["sync"][call]["returned"]]
    return [array(entry["values"] if output == "sparse" else entry) for entry in found]


def comparable(outcome: Any) -> Any:
    """An outcome without what two equal requests may differ in: the time that each took."""
    if isinstance(outcome, list):
        return [comparable(entry) for entry in outcome]
    if isinstance(outcome, dict):
        return {key: sorted(value) if key == "timing" else comparable(value) for key, value in outcome.items()}
    return outcome


def test_each_client_is_the_one_it_should_be(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    assert theirs["distributions"] == {"sie-sdk": "0.10.1"}
    assert list(ours["distributions"]) == ["sie-triton-sdk"]


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("call", CALLS)
def test_ours_returns_and_raises_what_theirs_does(
    call: str, kind: str, theirs: dict[str, Any], ours: dict[str, Any]
) -> None:
    assert comparable(ours[kind][call]) == comparable(theirs[kind][call])


@pytest.mark.parametrize("call", CALLS)
def test_async_results_are_the_sync_ones_without_the_model(call: str, theirs: dict[str, Any]) -> None:
    sync, concurrent = comparable(theirs["sync"][call]), comparable(theirs["async"][call])
    returned = sync.get("returned")
    results = returned if isinstance(returned, list) else [returned]
    for result in results:
        if result and "timing" in result:  # an encoding
            assert result.pop("model") == BGE_M3
    assert concurrent == sync


@pytest.mark.parametrize("call", [name for name in CALLS if name.startswith("outputs ")])
def test_exactly_the_wanted_outputs_come_and_are_right(call: str, theirs: dict[str, Any]) -> None:
    wanted = call.removeprefix("outputs ").split("+")
    results = theirs["sync"][call]["returned"]
    assert [result["id"] for result in results] == IDS
    for result, expected in zip(results, oracle("bge_m3").encode(list(TEXTS), is_query=False), strict=True):
        assert [output for output in OUTPUT_TYPES if output in result] == wanted
        if "dense" in wanted:
            assert expected.dense is not None
            np.testing.assert_allclose(array(result["dense"]), expected.dense, atol=1e-5)
        if "sparse" in wanted:
            assert expected.sparse is not None
            np.testing.assert_array_equal(array(result["sparse"]["indices"]), expected.sparse.ids)
            np.testing.assert_allclose(array(result["sparse"]["values"]), expected.sparse.weights, atol=1e-4)
        if "multivector" in wanted:
            assert expected.multivector is not None
            np.testing.assert_allclose(array(result["multivector"]), expected.multivector, atol=1e-5)


def test_ids_are_echoed_and_a_list_gives_a_list(theirs: dict[str, Any]) -> None:
    returned = {name: outcome.get("returned") for name, outcome in theirs["sync"].items()}
    assert "id" not in returned["single"]
    assert returned["single with an id"]["id"] == "only"
    assert returned["single with an id"]["dense"] == returned["single"]["dense"]
    assert [result["dense"] for result in returned["list of one"]] == [returned["single"]["dense"]]
    assert [result.get("id") for result in returned["some with ids"]] == ["first", None, ""]
    for plain, named in zip(returned["list"], returned["list with ids"], strict=True):
        assert "id" not in plain
        assert plain["dense"] == named["dense"]


def test_an_instruction_goes_before_the_text(theirs: dict[str, Any]) -> None:
    dense = {name: outcome.get("returned", {}) for name, outcome in theirs["sync"].items()}
    assert dense["instruction"]["dense"] == dense["instruction written out"]["dense"]
    assert dense["instruction"]["dense"] != dense["not a query"]["dense"]
    assert dense["query"]["dense"] == dense["not a query"]["dense"]  # BGE-M3 treats both alike


def test_all_at_once_gives_what_each_gives_alone(theirs: dict[str, Any]) -> None:
    assert [result["id"] for result in theirs["at_once"]] == IDS
    together = theirs["sync"]["outputs dense+sparse+multivector"]["returned"]
    for one, other in zip(theirs["at_once"], together, strict=True):
        for output in ("dense", "multivector"):
            np.testing.assert_allclose(array(one[output]), array(other[output]), atol=1e-5)
        assert one["sparse"]["indices"] == other["sparse"]["indices"]


def _int8(row: Array) -> Array:
    scaled: Array = np.round(row / np.abs(row).max(-1, keepdims=True) * 127)
    return scaled.astype(np.int8)


def _uint8(row: Array) -> Array:
    low, high = row.min(-1, keepdims=True), row.max(-1, keepdims=True)
    scaled: Array = np.round((row - low) / (high - low) * 255)
    return scaled.astype(np.uint8)


def _bits(row: Array) -> Array:
    return np.packbits(row > 0, axis=-1)


@pytest.mark.parametrize(
    ("dtype", "convert"),
    [
        ("float32", lambda row: row),
        ("float16", lambda row: row.astype(np.float16)),
        ("int8", _int8),
        ("uint8", _uint8),
        ("binary", _bits),
        ("ubinary", _bits),
    ],
)
def test_every_dtype_is_made_from_the_float32_row(
    dtype: str, convert: Callable[[Array], Array], theirs: dict[str, Any]
) -> None:
    for output in ("dense", "multivector"):
        plain = arrays(theirs, "outputs dense+sparse+multivector", output)
        for got, row in zip(arrays(theirs, f"dtype {dtype}", output), plain, strict=True):
            expected = convert(row)
            assert got.dtype == expected.dtype
            np.testing.assert_array_equal(got, expected)
    weights = np.float16 if dtype == "float16" else np.float32
    plain = arrays(theirs, "outputs dense+sparse+multivector", "sparse")
    for got, row in zip(arrays(theirs, f"dtype {dtype}", "sparse"), plain, strict=True):
        assert got.dtype == weights
        np.testing.assert_array_equal(got, row.astype(weights))


@pytest.mark.parametrize(("family", "model"), [("bge_m3", BGE_M3), ("cross_encoder_bert_identity", CROSS_ENCODER)])
def test_scores_are_right_in_order_and_named(family: str, model: str, theirs: dict[str, Any]) -> None:
    plain = theirs["sync"][f"score {model}"]["returned"]
    named = theirs["sync"][f"score {model} with ids"]["returned"]
    assert named["query_id"] == "asked"
    assert "query_id" not in plain
    for result, prefix in ((plain, "item-"), (named, "text-")):
        assert result["model"] == model
        assert [entry["rank"] for entry in result["scores"]] == list(range(len(TEXTS)))
        scores = {entry["item_id"]: entry["score"] for entry in result["scores"]}
        assert list(scores.values()) == sorted(scores.values(), reverse=True)
        expected = oracle(family).score(QUERY, list(TEXTS))
        np.testing.assert_allclose([scores[f"{prefix}{i}"] for i in range(len(TEXTS))], expected, atol=1e-4)


@pytest.mark.parametrize("model", [BGE_M3, CROSS_ENCODER])
def test_ties_keep_the_order_they_came_in(model: str, theirs: dict[str, Any]) -> None:
    scores = theirs["sync"][f"score {model} with ties"]["returned"]["scores"]
    tied = [entry for entry in scores if entry["item_id"] in ("item-0", "item-2", "late")]
    assert [entry["item_id"] for entry in tied] == ["item-0", "item-2", "late"]
    assert len({entry["score"] for entry in tied}) == 1


@pytest.mark.parametrize("mode", ["dense", "sparse", "colbert", "hybrid"])
def test_score_modes_are_right(mode: str, theirs: dict[str, Any]) -> None:
    entries = theirs["sync"][f"score {mode}"]["returned"]["scores"]
    scores = {entry["item_id"]: entry["score"] for entry in entries}
    expected = oracle("bge_m3").score(QUERY, list(TEXTS), options={"score_mode": mode})
    np.testing.assert_allclose([scores[name] for name in IDS], expected, atol=1e-4)


def test_the_models_are_listed_with_their_dims(theirs: dict[str, Any]) -> None:
    models = {model["name"]: model for model in theirs["sync"]["list_models"]["returned"]}
    assert sorted(models) == [CLIP, BGE_M3, CROSS_ENCODER]
    assert models[BGE_M3]["dims"] == {"dense": DIMS, "sparse": 250002, "multivector": DIMS}
    assert models[BGE_M3]["outputs"] == [*OUTPUT_TYPES, "score"]
    assert models[CROSS_ENCODER]["outputs"] == ["score"]
    assert (models[CLIP]["dims"], models[CLIP]["inputs"]) == ({"dense": 20}, ["text", "image"])
    for call, model in (("get_model", BGE_M3), ("get_model of a reranker", CROSS_ENCODER)):
        one = dict(theirs["sync"][call]["returned"])
        assert one.pop("certificate")["implementation"].startswith("sentence-transformers ")
        assert one == models[model]


@pytest.mark.parametrize(
    ("call", "status", "code", "message"),
    [
        ("unknown model", 404, "MODEL_NOT_FOUND", f"Model '{MISSPELT}' not found Did you mean '{BGE_M3}'?"),
        ("unknown model to score", 404, "MODEL_NOT_FOUND", f"Model '{MISSPELT}' not found Did you mean '{BGE_M3}'?"),
        ("unknown model to get", 404, "MODEL_NOT_FOUND", f"Model '{MISSPELT}' not found Did you mean '{BGE_M3}'?"),
        ("unlike any model", 404, "MODEL_NOT_FOUND", "Model 'no/such-thing' not found"),
        ("unknown output type", 400, "INVALID_INPUT", "'output_types' entries must be one of"),
        ("unknown dtype", 400, "INVALID_INPUT", "Unsupported output_dtype: bfloat16"),
        ("no items", 400, "INVALID_INPUT", "Field 'items' must not be empty"),
        ("no text", 400, "INVALID_INPUT", "BGEM3FlashAdapter requires text input"),
        ("nothing to score", 400, "INVALID_INPUT", "Field 'items' must not be empty"),
        ("encode with a reranker", 400, "INVALID_INPUT", f"Model '{CROSS_ENCODER}' does not support output types"),
    ],
)
def test_refusals_are_request_errors(call: str, status: int, code: str, message: str, theirs: dict[str, Any]) -> None:
    raised = theirs["sync"][call]["raised"]
    assert raised["kinds"][0] == "RequestError"
    assert (raised["status_code"], raised["code"]) == (status, code)
    assert raised["message"].startswith(message)


def test_openai_gets_the_sdks_vectors_in_both_encodings(openai: dict[str, Any], theirs: dict[str, Any]) -> None:
    expected = arrays(theirs, "list", "dense")
    for call in ("default", "float", "native dimensions"):
        answer = openai[call]["returned"]
        assert answer["model"] == BGE_M3
        assert [entry["index"] for entry in answer["data"]] == list(range(len(TEXTS)))
        for entry, row in zip(answer["data"], expected, strict=True):
            np.testing.assert_array_equal(np.asarray(entry["embedding"], dtype=np.float32), row)
    (single,) = openai["single"]["returned"]["data"]
    np.testing.assert_array_equal(
        np.asarray(single["embedding"], dtype=np.float32), array(theirs["sync"]["single"]["returned"]["dense"])
    )
    assert openai["default"]["returned"]["usage"]["prompt_tokens"] > 0


@pytest.mark.parametrize(
    ("call", "kind", "status", "code", "param", "words"),
    [
        ("wrong dimensions", "BadRequestError", 400, "unsupported_field", "dimensions", f"dimensions={DIMS + 1}"),
        ("unknown model", "NotFoundError", 404, "model_not_found", None, f"Did you mean '{BGE_M3}'?"),
        ("no input", "BadRequestError", 400, "invalid_request", "input", "Input cannot be empty"),
    ],
)
def test_openai_raises_its_own_errors(
    call: str, kind: str, status: int, code: str, param: str | None, words: str, openai: dict[str, Any]
) -> None:
    raised = openai[call]["raised"]
    assert (raised["kind"], raised["status"], raised["type"]) == (kind, status, "invalid_request_error")
    assert (raised["code"], raised["param"]) == (code, param)
    assert words in raised["message"]
