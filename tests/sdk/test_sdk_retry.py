"""The retry table of `sie_sdk._retry`, row by row, with the waits in seconds. Only the clock is fake."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import numpy as np
import pytest
from sdk_server import KINDS, Canned, FakeTime, Kind, StubServer, call
from sie_sdk import _retry, _wire, errors
from sie_sdk._reply import retry_after
from sie_sdk.types import Item

GOOD = Canned(
    200,
    {"Content-Type": "application/msgpack"},
    _wire.pack({"model": "m", "items": [{"dense": {"values": np.zeros(2, "<f4")}}]}),
)


def refusal(status: int, code: str | None = None, hint: float | str | None = None, **fields: Any) -> Canned:
    body = json.dumps({"detail": {"code": code, "message": "no", **fields}}).encode()
    headers = {"Content-Type": "application/json"} | ({} if hint is None else {"Retry-After": str(hint)})
    return Canned(status, headers, body)


def encode(kind: Kind, *steps: Any, time: FakeTime, **keywords: Any) -> tuple[errors.SIEError | None, int]:
    """The exception, if any, and the number of requests."""
    with StubServer(*steps) as server:
        try:
            call(kind, server.url, "encode", "m", Item(text="x"), time=time, **keywords)
        except errors.SIEError as error:
            return error, len(server.received)
        return None, len(server.received)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("step", "keywords", "dice", "sleeps"),
    [
        (refusal(503, "PROVISIONING", 7), {}, 1, [7]),
        (refusal(503, "PROVISIONING"), {}, 1, [5]),
        (refusal(503, "PROVISIONING"), {}, 0, [3.75]),
        (refusal(503, "MODEL_LOADING", 0), {}, 0, [0]),
        (refusal(503, "MODEL_LOADING"), {}, 0, [5]),
        (refusal(503, "MODEL_LOADING", 2), {"wait_for_capacity": False}, 0, [2]),
        (refusal(503, "LORA_LOADING"), {}, 0, [1]),
        (refusal(503, "LORA_LOADING", 3), {"wait_for_capacity": False}, 0, [3]),
        (refusal(503, "RESOURCE_EXHAUSTED", 12), {}, 0, [12]),
        (refusal(503, "RESOURCE_EXHAUSTED", 99), {}, 0, [30]),
        (refusal(503, "RESOURCE_EXHAUSTED"), {}, 0, [3.75]),
        (refusal(503, "QUEUE_FULL", 4), {}, 0, [4]),
        (refusal(503, "QUEUE_FULL"), {}, 0, [0.75]),
        (refusal(503, "QUEUE_FULL"), {"wait_for_capacity": False}, 1, [1]),
        (refusal(503, "BILLING_CAPACITY_UNAVAILABLE"), {}, 1, [1]),
        (refusal(503, "QUEUE_UNAVAILABLE", 2), {}, 0, [2]),
        (refusal(503, "transport_failure", 2), {}, 0, [2]),
        (refusal(429, "RATE_LIMIT", 6), {}, 0, [6]),
        (refusal(429), {"wait_for_capacity": False}, 1, [1]),
        (refusal(504), {}, 0, [5]),
        (refusal(504, "TIMEOUT", 2), {}, 0, [2]),
        (refusal(503, "MODEL_LOADING", 50), {"provision_timeout_s": 20}, 0, [20]),
        ("hang up", {}, 1, [5]),
        ("hang up midway", {}, 0, [3.75]),
    ],
    ids=str,
)
def test_one_retry_then_success(
    kind: Kind, step: Any, keywords: dict[str, Any], dice: float, sleeps: list[float]
) -> None:
    time = FakeTime(dice=dice)
    assert encode(kind, step, GOOD, time=time, **keywords) == (None, 2)
    assert time.sleeps == sleeps


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("step", "keywords", "raised", "attempts", "sleeps"),
    [
        (refusal(503, "PROVISIONING", 3), {"wait_for_capacity": False}, errors.ProvisioningError, 1, []),
        (refusal(503, "PROVISIONING", 4), {"provision_timeout_s": 10}, errors.ProvisioningError, 4, [4, 4, 2]),
        (refusal(503, "MODEL_LOADING", 4), {"provision_timeout_s": 10}, errors.ModelLoadingError, 4, [4, 4, 2]),
        (refusal(503, "LORA_LOADING"), {}, errors.LoraLoadingError, 11, [1] * 10),
        (refusal(503, "LORA_LOADING", 8), {"provision_timeout_s": 10}, errors.LoraLoadingError, 2, [8, 2]),
        (refusal(503, "RESOURCE_EXHAUSTED"), {}, errors.ResourceExhaustedError, 4, [5, 10, 20]),
        (refusal(503, "RESOURCE_EXHAUSTED", 0), {}, errors.ResourceExhaustedError, 4, [0, 10, 20]),
        (refusal(503, "RESOURCE_EXHAUSTED", 9), {}, errors.ResourceExhaustedError, 4, [9, 18, 30]),
        (refusal(503, "RESOURCE_EXHAUSTED"), {"provision_timeout_s": 9}, errors.ResourceExhaustedError, 2, [5]),
        (refusal(503, "RESOURCE_EXHAUSTED"), {"max_oom_retries": 1}, errors.ResourceExhaustedError, 2, [5]),
        (refusal(503, "QUEUE_FULL", 4), {"provision_timeout_s": 10}, errors.ServerError, 3, [4, 4]),
        (refusal(503, "QUEUE_UNAVAILABLE"), {}, errors.ServerError, 1, []),
        (refusal(503, "transport_failure"), {}, errors.ServerError, 1, []),
        (refusal(429, "X", 4), {"provision_timeout_s": 10}, errors.RateLimitError, 3, [4, 4]),
        (refusal(504, None, 4), {"provision_timeout_s": 10}, errors.ServerError, 3, [4, 4, 2]),
        (refusal(503, "MODEL_NOT_LOADED", 0), {}, errors.ServerError, 1, []),
        (refusal(503, None, 0), {}, errors.ServerError, 1, []),
        (refusal(500, "MODEL_LOADING", 0), {}, errors.ServerError, 1, []),
        (refusal(502, "MODEL_LOAD_FAILED", 0), {}, errors.ModelLoadFailedError, 1, []),
        (refusal(402, "INSUFFICIENT_CREDITS", 0), {}, errors.InsufficientCreditsError, 1, []),
        (refusal(402, "KEY_SPEND_LIMIT_EXCEEDED"), {}, errors.SpendLimitError, 1, []),
        (refusal(402, "OTHER"), {}, errors.RequestError, 1, []),
        (refusal(403, "ACCOUNT_SUSPENDED"), {}, errors.AccountInactiveError, 1, []),
        (refusal(403, "ACCOUNT_PENDING_REVIEW"), {}, errors.AccountInactiveError, 1, []),
        (refusal(403, "THIRD_PARTY_RUNTIME_UNLISTED"), {}, errors.RelayUnavailableError, 1, []),
        (refusal(403), {}, errors.RequestError, 1, []),
        (refusal(503, "ACCOUNT_STATE_UNAVAILABLE", 1), {}, errors.AccountStateUnavailableError, 1, []),
        (refusal(413, "INPUT_TOO_LONG"), {}, errors.RequestError, 1, []),
        ("hang up", {"wait_for_capacity": False}, errors.SIEConnectionError, 1, []),
        ("hang up", {"provision_timeout_s": 7}, errors.SIEConnectionError, 2, [5, 2]),
    ],
    ids=str,
)
def test_giving_up(
    kind: Kind,
    step: Any,
    keywords: dict[str, Any],
    raised: type[errors.SIEError],
    attempts: int,
    sleeps: list[float],
) -> None:
    time = FakeTime()
    error, received = encode(kind, step, time=time, **keywords)
    assert type(error) is raised
    assert (received, time.sleeps) == (attempts, sleeps)


def test_what_the_exceptions_carry() -> None:
    time = FakeTime()
    region = refusal(403, "THIRD_PARTY_REGION_UNAVAILABLE", key_region="eu", deployment_region="us")
    error, _ = encode("sync", region, time=time)
    assert isinstance(error, errors.RelayUnavailableError)
    assert (error.code, error.key_region, error.deployment_region) == ("THIRD_PARTY_REGION_UNAVAILABLE", "eu", "us")
    failed = refusal(502, "MODEL_LOAD_FAILED", error_class="OOM", permanent=False, attempts="many")
    error, _ = encode("sync", failed, time=time)
    assert isinstance(error, errors.ModelLoadFailedError)
    assert (error.model, error.error_class, error.permanent, error.attempts) == ("m", "OOM", False, 1)
    error, _ = encode("sync", refusal(503, "LORA_LOADING", 0), time=time, options={"lora": "fr"})
    assert isinstance(error, errors.LoraLoadingError)
    assert (error.model, error.lora) == ("m", "fr")
    error, _ = encode("sync", refusal(503, "PROVISIONING"), time=time, gpu="p/l4", wait_for_capacity=False)
    assert isinstance(error, errors.ProvisioningError)
    assert (error.gpu, str(error)) == ("l4", "No capacity available for GPU 'l4'. Server is provisioning.")
    error, _ = encode("sync", refusal(429, "X", 1000), time=time)
    assert isinstance(error, errors.RateLimitError)
    assert (error.code, error.status_code, error.retry_after) == ("RATE_LIMIT", 429, 1000.0)


@pytest.mark.parametrize("kind", KINDS)
def test_score_does_not_wait_for_loras(kind: Kind) -> None:
    with StubServer(refusal(503, "LORA_LOADING", 0)) as server, pytest.raises(errors.ServerError):
        call(kind, server.url, "score", "m", Item(text="q"), [Item(text="a")])
    assert len(server.received) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", [("list_models",), ("get_model", "m"), ("get_capacity",)], ids=str)
def test_reading_is_never_retried(kind: Kind, method: tuple[str, ...]) -> None:
    with StubServer(refusal(503, "MODEL_LOADING", 0)) as server, pytest.raises(errors.ServerError):
        call(kind, server.url, *method)
    assert len(server.received) == 1


def test_no_budget_means_no_request() -> None:
    error, received = encode("sync", GOOD, time=FakeTime(), provision_timeout_s=0)
    assert (type(error), received) == (errors.ProvisioningError, 0)


def test_the_retries_of_one_call_share_one_budget() -> None:
    steps = [refusal(503, "QUEUE_FULL", 4), refusal(504, None, 4), refusal(503, "PROVISIONING", 4), GOOD]
    time = FakeTime()
    assert encode("sync", *steps, time=time, provision_timeout_s=10) == (None, 4)
    assert time.sleeps == [4, 4, 2]


def test_the_first_retry_is_logged_loudly(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="sie_sdk"):
        encode("sync", refusal(503, "MODEL_LOADING", 1), refusal(503, "MODEL_LOADING", 1), GOOD, time=FakeTime())
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "HTTP 503 MODEL_LOADING from http://127.0.0.1:" in caplog.records[0].message


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("1.5", 1.5),
        ("0", 0.0),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert retry_after({} if header is None else {"retry-after": header}) == seconds


def test_retry_after_as_a_date() -> None:
    later = format_datetime(datetime.now(timezone.utc) + timedelta(hours=1), usegmt=True)
    assert retry_after({"retry-after": later}) == pytest.approx(3600, abs=60)


def test_every_rule_is_in_the_documented_table() -> None:
    for _, code in _retry._RULES:
        assert str(code) in str(_retry.__doc__)
    for status in _retry._RULES_BY_STATUS:
        assert f"| {status} |" in str(_retry.__doc__)
