"""What we make of an answer is what SIE's own SDK made of it: results, exceptions, number of attempts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contract.recorded import sdk_answers, sdk_outcomes
from sdk_recordings import rendered
from sdk_server import KINDS, Canned, FakeTime, Kind, Step, StubServer, call
from sie_sdk import _wire, errors
from sie_sdk.types import Item

MSGPACK = {"Content-Type": "application/msgpack"}
JSON = {"Content-Type": "application/json"}
GOOD = Canned(
    200,
    {**MSGPACK, "X-SIE-Served-By": "local"},
    _wire.pack({"model": "m", "items": [{"dense": {"values": np.array([0.5, -0.5, 0.25, 0.0], "<f4")}}]}),
)

KEYWORDS: dict[str, dict[str, Any]] = {
    "429_no_retry_after_budget": {"provision_timeout_s": 0.5},
    "503_model_loading_budget": {"provision_timeout_s": 0.7},
    "503_model_loading_budget_nowait": {"provision_timeout_s": 0.7, "wait_for_capacity": False},
    "503_provisioning_nowait": {"wait_for_capacity": False},
    "503_queue_full_budget": {"provision_timeout_s": 0.5},
    "503_resource_exhausted_no_oom_retries": {"max_oom_retries": 0},
    "504_nowait": {"wait_for_capacity": False},
}
CALLS: dict[str, tuple[Any, ...]] = {
    "list_models_500": ("list_models",),
    "get_model_404": ("get_model", "m"),
    "get_capacity_not_gateway": ("get_capacity",),
    "get_capacity_404": ("get_capacity",),
}
ENCODE = ("encode", "m", Item(text="x"))
SCORE = ("score", "m", Item(text="q"), [Item(text="a")])

# Where SIE's SDK lets an AssertionError and a KeyError escape, a malformed answer is a RequestError like any other.
MALFORMED = {
    "encode_list_instead_of_ndarray__BAD": "Malformed encode MessagePack response "
    "(status=200, content_type=application/msgpack, body_bytes=78)",
    "score_missing_rank__BAD": "Malformed score MessagePack response "
    "(status=200, content_type=application/msgpack, body_bytes=43)",
}

NAMES = json.loads((Path(__file__).parent / "outcome_names.json").read_text())


def test_every_recording_is_replayed() -> None:
    assert sorted(sdk_outcomes()) == sorted(NAMES)
    assert sdk_answers().keys() <= set(NAMES)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_outcome_equals_the_recording(name: str, kind: Kind) -> None:
    outcome = sdk_outcomes()[name]
    steps, time = _script(name, outcome)
    short = name.removeprefix("ERR ")
    method, *args = CALLS.get(short, SCORE if short.startswith("score") else ENCODE)
    with StubServer(*steps) as server:
        if "returned" in outcome:
            result = call(kind, server.url, method, *args, time=time, **KEYWORDS.get(short, {}))
            expected = dict(outcome["returned"])
            if kind == "async" and method == "encode":
                del expected["model"]
            assert rendered(result) == expected
        else:
            with pytest.raises(errors.SIEError) as caught:
                call(kind, server.url, method, *args, time=time, **KEYWORDS.get(short, {}))
            _check(caught.value, name, outcome, kind)
    if "attempts" in outcome:
        assert len(server.received) == outcome["attempts"]


def _script(name: str, outcome: Mapping[str, Any]) -> tuple[list[Step], FakeTime]:
    if not name.startswith("ERR "):
        return [_recorded(name)], FakeTime()
    if name.startswith("ERR get_capacity"):
        worker, missing = Canned(200, JSON, b'{"type": "worker"}'), Canned(404, JSON, b'{"detail": "Not Found"}')
        return [worker if "gateway" in name else missing], FakeTime()
    reply = _recorded(name)
    if name == "ERR 429_no_retry_after_budget":
        # Waits of 3/4 leave 0.5, 0.125 and 0.03 s: the recorded server took longer than the last.
        return [reply, reply, "hang"], FakeTime(dice=0.0)
    again: int = outcome["attempts"] - 1 if "returned" in outcome else 1
    return [*[reply] * again, *([GOOD] if "returned" in outcome else [])], FakeTime()


def _recorded(name: str) -> Canned:
    answer = sdk_answers()[name]
    return Canned(answer.status, answer.headers, answer.body)


def _check(error: errors.SIEError, name: str, outcome: Mapping[str, Any], kind: Kind) -> None:
    if name in MALFORMED:
        assert (type(error), str(error)) == (errors.RequestError, MALFORMED[name])
        return
    message = outcome["msg"]
    # The two HTTP libraries word a timeout differently.
    message, shown = (
        (message.rpartition(": ")[0], str(error).rpartition(": ")[0])
        if "ReadTimeout" in message
        else (
            message,
            str(error),
        )
    )
    assert (type(error).__name__, shown) == (outcome["raised"], message)
    assert [base.__name__ for base in type(error).__mro__[1:4]] == outcome.get(
        "mro", [base.__name__ for base in type(error).__mro__[1:4]]
    )
    attributes = outcome.get("attrs", {"code": outcome.get("code")})
    if name.startswith("ERR "):
        assert {key: getattr(error, key) for key in attributes} == attributes
    else:
        assert {key: str(getattr(error, key)) for key in attributes} == attributes


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b'{"detail": {"code": "C"}}', "C", "{'code': 'C'}"),
        (b'{"error": {"code": "C"}}', "C", "HTTP 404"),
        (b'{"error": {"code": 5, "message": 6}}', None, "6"),
        (b'{"error": "first", "detail": {"code": "C", "message": "second"}}', None, "first"),
        (b'{"error": {}, "detail": "second"}', None, "HTTP 404"),
        (b'{"neither": 1}', None, "HTTP 404"),
        (b"", None, "HTTP 404"),
        (b"<html>", None, "<html>"),
        (b"\xff", None, "\ufffd"),
    ],
    ids=str,
)
def test_error_bodies(body: bytes, code: str | None, message: str) -> None:
    with StubServer(Canned(404, JSON, body)) as server, pytest.raises(errors.RequestError) as caught:
        call("sync", server.url, *ENCODE)
    assert (caught.value.code, str(caught.value)) == (code, message)


def test_missing_items_are_named_where_ids_tell() -> None:
    def mismatch(sent: list[Item], came: list[dict[str, Any]]) -> errors.IncompleteBatchError:
        reply = Canned(200, {**MSGPACK, "X-SIE-Request-ID": "r1"}, _wire.pack({"model": "m", "items": came}))
        with StubServer(reply) as server, pytest.raises(errors.IncompleteBatchError) as caught:
            call("sync", server.url, "encode", "m", sent)
        return caught.value

    sent = [Item(id="a", text="x"), Item(id="b", text="y"), Item(id="c", text="z")]
    error = mismatch(sent, [{"id": "b"}])
    assert (error.expected, error.received, error.missing_ids, error.request_id) == (3, 1, ["a", "c"], "r1")
    assert str(error).endswith("Missing item id(s): a, c.")
    assert [result["id"] for result in error.results] == ["b"]
    assert mismatch(sent, [{}]).missing_ids is None
    assert mismatch([Item(text="x"), *sent], [{"id": "b"}]).missing_ids is None
    assert mismatch(sent, [{"id": name} for name in "abca"]).missing_ids is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_gives_a_list_in_order(kind: Kind) -> None:
    items = [{"id": str(index), "dense": {"values": np.full(2, index, "<f4")}} for index in range(3)]
    timing = {"total_ms": 1.0}
    reply = Canned(200, {**MSGPACK, "X-SIE-Units-Pairs": "4"}, _wire.pack({"items": items, "timing": timing}))
    with StubServer(reply) as server:
        results = call(kind, server.url, "encode", "m", [Item(text="x")] * 3)
    assert [(result["id"], result["dense"].tolist()) for result in results] == [
        ("0", [0, 0]),
        ("1", [1, 1]),
        ("2", [2, 2]),
    ]
    assert "model" not in results[0]
    # What describes the request is repeated, never shared.
    results[0]["timing"]["total_ms"] = 9.0
    results[0]["request"]["usage"]["pairs"] = 9
    assert (results[1]["timing"], results[1]["request"]) == (timing, {"usage": {"pairs": 4}})


def test_all_metadata_headers_arrive() -> None:
    digest = "0123456789abcdef" * 4
    headers = {
        "X-SIE-Request-ID": "r",
        "X-SIE-Credits-Debited": "3",
        "X-SIE-Execution-Identity-SHA256": digest,
        "X-SIE-Execution-Binding-SHA256": digest,
        "X-SIE-Runtime-Instance": digest,
        "X-SIE-Served-By": "remote",
        "X-SIE-Upstream": "up-1",
        "X-SIE-Fallback-Reason": "saturated",
        "X-SIE-Fallback-Error": "E_1",
        "X-SIE-Units-Input-Tokens": "1",
        "X-SIE-Units-Pairs": "2",
        "X-SIE-Units-Content-Input-Tokens": "3",
        "X-SIE-Units-Images": "4",
        "X-SIE-Units-Pages": "5",
        "X-SIE-Units-Output-Tokens": "6",
        "X-SIE-Units-Audio-Ms": "18446744073709551615",
    }
    reply = Canned(200, {**MSGPACK, **headers}, _wire.pack({"model": "m", "scores": []}))
    with StubServer(reply) as server:
        result = call("sync", server.url, *SCORE)
    assert result["request"] == {
        "id": "r",
        "credits_debited": 3,
        "execution_identity_sha256": digest,
        "execution_binding_sha256": digest,
        "runtime_instance_id": digest,
        "served_by": "remote",
        "upstream": "up-1",
        "fallback_reason": "saturated",
        "fallback_error": "E_1",
        "usage": {
            "input_tokens": 1,
            "pairs": 2,
            "content_input_tokens": 3,
            "images": 4,
            "pages": 5,
            "output_tokens": 6,
            "audio_ms": 2**64 - 1,
        },
    }


@pytest.mark.parametrize(
    ("method", "body"),
    [
        (ENCODE, {}),
        (ENCODE, {"items": {}}),
        (ENCODE, {"items": [1]}),
        (ENCODE, {"items": [{}], "timing": []}),
        (ENCODE, {"items": [{"dense": 1}]}),
        (ENCODE, {"items": [{"dense": {}}]}),
        (ENCODE, {"items": [{"dense": {"values": np.float32(1)}}]}),
        (ENCODE, {"items": [{"sparse": {"indices": np.zeros(1, "<i4")}}]}),
        (ENCODE, {"items": [{"multivector": {"values": [[0.5]]}}]}),
        (SCORE, {}),
        (SCORE, {"scores": []}),
        (SCORE, {"model": 1, "scores": []}),
        (SCORE, {"model": "m", "scores": None}),
        (SCORE, {"model": "m", "scores": [{"item_id": "a", "rank": 0}]}),
        (SCORE, {"model": "m", "scores": ["a"]}),
    ],
    ids=str,
)
def test_malformed_answers(method: tuple[Any, ...], body: object) -> None:
    with StubServer(Canned(200, MSGPACK, _wire.pack(body))) as server, pytest.raises(errors.RequestError) as caught:
        call("sync", server.url, *method)
    assert str(caught.value).startswith(f"Malformed {method[0]} MessagePack response (status=200,")


@pytest.mark.parametrize(
    ("method", "body", "message"),
    [
        (("list_models",), b"[]", "Malformed models JSON"),
        (("list_models",), b"{}", "Malformed models JSON"),
        (("list_models",), b'{"models": {}}', "Malformed models JSON"),
        (("get_model", "m"), b"not json", "Malformed model JSON"),
        (("get_model", "m"), b"[" * 100_000, "Malformed model JSON"),
        (("get_capacity",), b"null", "Malformed health JSON"),
        (ENCODE, b"\xc0", "Unexpected encode response shape: NoneType"),
        (SCORE, b"\x90", "Unexpected score response shape: list"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_answers_of_another_shape(method: tuple[Any, ...], body: bytes, message: str) -> None:
    with StubServer(Canned(200, {}, body)) as server, pytest.raises(errors.RequestError, match=message) as caught:
        call("sync", server.url, *method)
    assert "content_type=unknown" in str(caught.value)
