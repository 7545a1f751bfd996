"""Headers that no client of ours sends, over raw sockets to a server with keys, and what its log has of them."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from frontend.fake_triton import FakeTriton
from frontend.key_help import SECRET, key
from frontend.repository import write_repository
from frontend.test_slow_clients import answered, listening
from hypothesis import given, settings
from hypothesis import strategies as st
from sie_frontend.access.keyring import Denial, KeyRing
from sie_frontend.settings import Settings

GOOD = f"Bearer {SECRET}".encode()
OTHER = "sie_another-key-that-nobody-has-and-nobody-may-read"


def listed(*authorizations: bytes, path: bytes = b"/v1/models") -> bytes:
    lines = b"".join(b"authorization: " + value + b"\r\n" for value in authorizations)
    return b"GET " + path + b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n" + lines + b"\r\n"


# The status, where it is not 401.
CASES: list[tuple[bytes, int]] = [
    (listed(GOOD), 200),
    (listed(b"  " + GOOD + b"\t"), 200),
    (listed(), 401),
    (listed(b""), 401),
    (listed(GOOD, GOOD), 401),
    (listed(GOOD, b"Bearer " + OTHER.encode()), 401),
    (listed(b"Bearer " + OTHER.encode(), GOOD), 401),
    (listed(GOOD + b", " + GOOD), 401),
    (listed(b"Bearer", SECRET.encode()), 401),
    (listed(b"Bearer\t" + SECRET.encode()), 401),
    (listed(b"Bearer " + SECRET.encode() + b"\xc3\xa9"), 401),
    (listed(b"Bearer \xff\xfe\x80"), 401),
    (listed(b"Bearer " + b"x" * 60_000), 401),
    (listed(b"x" * 60_000), 401),
    (listed(*[b"Bearer x"] * 2_000), 401),
    (listed(b"Digest username=" + SECRET.encode()), 401),
    (listed(GOOD + b"\x00"), 400),
    (listed(b"Bearer \x00" + SECRET.encode()), 400),
    (listed(b"Bearer " + OTHER.encode() + b"\r\n " + SECRET.encode()), 400),
    (listed(GOOD, path=b"/v1/models?key=" + OTHER.encode()), 200),
    (b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization : " + GOOD + b"\r\n\r\n", 400),
    (b"garbage " + OTHER.encode() + b"\r\n\r\n", 400),
]


@pytest.mark.asyncio
async def test_what_is_no_key_opens_nothing_and_no_log_has_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with FakeTriton() as triton, caplog.at_level(logging.DEBUG):
        given_keys = f"{key().line}\n"
        repository = write_repository(tmp_path / "repository")
        served = Settings(repository, triton_url=triton.url, api_keys=given_keys, access_log=True)
        async with listening(served) as port:
            found = await asyncio.gather(*[answered(port, request) for request, _ in CASES])
    assert [int(answer[9:12]) for answer in found] == [status for _, status in CASES]
    told = caplog.text + str([vars(record) for record in caplog.records])
    assert told.count("denied") > 10
    for secret in (SECRET, OTHER):
        assert secret not in told
        assert not [answer for answer in found if secret.encode() in answer]


@pytest.mark.asyncio
async def test_connections_that_break_hold_no_place_of_a_key(tmp_path: Path) -> None:
    """At any byte of a request, or behind it: what its key may do at once is free again."""
    body = b'{"items": [{"text": "the cell"}]}'
    head = b"POST /v1/encode/acme/tiny HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: " + GOOD
    whole = head + b"\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    with FakeTriton() as triton:
        repository = write_repository(tmp_path / "repository")
        async with listening(Settings(repository, triton_url=triton.url, api_keys=key(at_once="1").line)) as port:
            while not (await answered(port, whole)).startswith(b"HTTP/1.1 200"):
                await asyncio.sleep(0.02)
            for end in (*range(len(whole) - len(body) - 4, len(whole) + 1, 5), *[len(whole)] * 10):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(whole[:end])
                await writer.drain()
                writer.transport.abort()
            until = asyncio.get_running_loop().time() + 5
            while not (found := await answered(port, whole)).startswith(b"HTTP/1.1 200"):
                assert found.startswith(b"HTTP/1.1 429"), found
                assert asyncio.get_running_loop().time() < until
                await asyncio.sleep(0.02)


@settings(max_examples=200)
@given(
    st.one_of(st.none(), st.text(), st.text().map(lambda text: f"Bearer {text}"), st.text().map(lambda t: SECRET + t))
)
def test_any_header_is_a_refusal(header: str | None) -> None:
    ring = KeyRing([key()])
    with pytest.raises(Denial) as caught:
        ring.grant(header, "encode")
    assert caught.value.status == 401
    assert SECRET not in caught.value.message


def test_nobody_can_tell_where_a_key_is_looked_for() -> None:
    """By its time: the place is a hash that is keyed anew in each process, and what lies there is compared whole."""
    one, other = KeyRing([key()]), KeyRing([key()])
    assert one._accounts.keys().isdisjoint(other._accounts.keys())
    [account] = one._accounts.values()
    [place] = one._accounts
    # Even if two keys shared a place, the digest decides.
    one._place = lambda digest: place  # type: ignore[method-assign]
    assert one.grant(f"Bearer {SECRET}", "encode").name == account.key.name
    with pytest.raises(Denial):
        one.grant("Bearer other", "encode")
