from __future__ import annotations

import json

import pytest
from sie_frontend.contract.errors import WireError
from sie_frontend.contract.negotiation import (
    WireFormat,
    check_machine_profile,
    check_remote,
    request_format,
    response_format,
)

MSGPACK, JSON = WireFormat.MSGPACK, WireFormat.JSON


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        (None, JSON),
        ("", JSON),
        ("text/plain", JSON),
        ("application/json", JSON),
        ("application/msgpack", MSGPACK),
        ("application/x-msgpack", MSGPACK),
        ("application/msgpack; charset=utf-8", MSGPACK),
        ("Application/MsgPack", MSGPACK),
    ],
)
def test_request_format(content_type: str | None, expected: WireFormat) -> None:
    assert request_format(content_type) is expected


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, MSGPACK),
        ("", MSGPACK),
        ("*/*", MSGPACK),
        ("text/html", MSGPACK),
        ("application/*", MSGPACK),
        ("application/msgpack", MSGPACK),
        ("application/json", JSON),
        ("text/html, application/json;q=0.1", JSON),
        ("application/json;q=0.9, application/msgpack", MSGPACK),
        ("application/json, application/x-msgpack;q=0", MSGPACK),
    ],
)
def test_response_format(accept: str | None, expected: WireFormat) -> None:
    assert response_format(accept) is expected


@pytest.mark.parametrize("header", [None, "forbid"])
def test_remote_accepted(header: str | None) -> None:
    check_remote(header)


@pytest.mark.parametrize("header", ["", "Forbid", "allow"])
def test_remote_refused(header: str) -> None:
    with pytest.raises(WireError, match="accepts only 'forbid'"):
        check_remote(header)


def test_machine_profile() -> None:
    check_machine_profile(None, "l4")
    check_machine_profile("l4", "l4")
    with pytest.raises(WireError) as refusal:
        check_machine_profile("a100", "l4")
    detail = json.loads(refusal.value.body())["detail"]
    assert (refusal.value.status, detail["code"]) == (400, "INVALID_INPUT")
    assert (detail["requested_profile"], detail["worker_identity"]) == ("a100", "l4")
