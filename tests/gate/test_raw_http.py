"""Bytes that no HTTP library sends, on the real server: answers stay in order, and nothing is kept without an end."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import psutil
import pytest
from compiler import tiny
from frontend.process import FrontendProcess, until

from gate.raw import Answer, Raw
from gate.served import frontend_process

ENCODE = f"/v1/encode/{tiny.MODEL_ID}".encode()
BODY = json.dumps({"items": [{"text": "the cell"}]}).encode()
CLOSE = b"connection: close\r\n"
ACCEPT = b"accept: application/json\r\n"


@pytest.fixture(scope="module")
def frontend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontendProcess]:
    limits = {"SIE_TRITON_BODY_TIMEOUT_S": "2", "SIE_TRITON_ANSWER_TIMEOUT_S": "1.5"}
    with frontend_process(tmp_path_factory.mktemp("gate"), **limits) as process:
        yield process
        assert "Traceback" not in process.log


def head(line: bytes, *headers: bytes) -> bytes:
    return b"".join([line, b" HTTP/1.1\r\nhost: x\r\n", *headers, b"\r\n"])


def post(*headers: bytes, body: bytes = BODY, path: bytes = ENCODE, length: int | None = None) -> bytes:
    size = b"content-length: %d\r\n" % (len(body) if length is None else length)
    return head(b"POST " + path, ACCEPT, size, *headers) + body


def ask(frontend: FrontendProcess, *parts: bytes, pause: float = 0.0, method: str = "POST") -> list[Answer]:
    with Raw(frontend.port) as raw:
        raw.send(*parts, pause=pause)
        return raw.answers((method,) * 99)


def statuses(frontend: FrontendProcess, *parts: bytes, pause: float = 0.0, method: str = "POST") -> list[int]:
    return [answer.status for answer in ask(frontend, *parts, pause=pause, method=method)]


def chunks(*parts: bytes, last: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + last


CHUNKED = head(b"POST " + ENCODE, ACCEPT, CLOSE, b"transfer-encoding: chunked\r\n")


def test_what_http_allows_is_answered(frontend: FrontendProcess) -> None:
    [plain] = ask(frontend, post(CLOSE))
    assert plain.status == 200
    items = json.loads(plain.body)["items"]
    url = b"http://x:1"
    for asked in (
        [post(CLOSE, path=url + ENCODE)],  # absolute
        [post(CLOSE, path=ENCODE.replace(b"/", b"%2F").replace(b"%2F", b"/", 3))],
        [post(CLOSE).replace(b"HTTP/1.1", b"HTTP/1.0").replace(CLOSE, b"")],
        [CHUNKED + chunks(BODY)],
        [CHUNKED, *[chunks(bytes([byte]), last=b"") for byte in BODY], b"0\r\n\r\n"],
        [CHUNKED + chunks(BODY, last=b"0\r\nx-sum: 1\r\n\r\n")],
        [CHUNKED + b"%x;name=value\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)],
        [post(CLOSE)[:1], post(CLOSE)[1:40], post(CLOSE)[40:]],
        [post(CLOSE, b"expect: 100-continue\r\n")],
    ):
        [answer] = ask(frontend, *asked, pause=0.001)
        assert answer.status == 200, asked
        assert json.loads(answer.body)["items"] == items
    [answer] = ask(frontend, head(b"HEAD /livez", CLOSE), method="HEAD")
    assert (answer.status, answer.body) == (200, b"")


def test_100_continue_is_said_before_the_body(frontend: FrontendProcess) -> None:
    with Raw(frontend.port) as raw:
        request = post(CLOSE, b"expect: 100-continue\r\n")
        raw.send(request[: -len(BODY)])
        assert raw.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.send(BODY)
        assert [answer.status for answer in raw.answers(("POST",))] == [200]


def test_an_upgrade_is_left_out_and_where_it_would_cost_the_body_it_is_refused(frontend: FrontendProcess) -> None:
    """As Java's client asks first, unless it is told to speak HTTP/1.1."""
    asks = b"connection: upgrade, http2-settings\r\nupgrade: %s\r\nhttp2-settings: AAEAAEAA\r\n"
    [refused] = ask(frontend, post(asks % b"h2c"))
    assert (refused.status, b"without `Upgrade`" in refused.body) == (400, True)
    for path, protocol in ((b"/livez", b"h2c"), (b"/v1/models", b"websocket")):
        with Raw(frontend.port) as raw:  # which may stay open
            raw.send(head(b"GET " + path, asks % protocol, b"sec-websocket-version: 13\r\n"))
            assert raw.socket.recv(1 << 16).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "request_",
    [
        post(CLOSE, b"transfer-encoding: chunked\r\n"),  # both lengths
        head(b"POST " + ENCODE, b"transfer-encoding: chunked\r\n", b"content-length: 5\r\n") + chunks(BODY),
        post(CLOSE, b"content-length: 3\r\n"),  # two of them
        head(b"POST " + ENCODE, b"content-length: +5\r\n"),
        head(b"POST " + ENCODE, b"content-length: 0x5\r\n"),
        head(b"POST " + ENCODE, b"content-length: 99999999999999999999999\r\n"),
        head(b"POST " + ENCODE, b"content-length: -1\r\n"),
        head(b"POST " + ENCODE, b"transfer-encoding: chunked, gzip\r\n"),
        head(b"POST " + ENCODE, b"transfer-encoding : chunked\r\n"),
        CHUNKED + b"zz\r\n",
        CHUNKED + b"-1\r\n",
        CHUNKED + b"%x\r\n%sXX0\r\n\r\n" % (len(BODY), BODY),
        CHUNKED + b"fffffffffffffffff\r\n",
        b"GET /livez HTTP/1.1\r\nhost: x\r\n folded: y\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nhost: x\r\na: b\x00c\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nhost: x\r\na\x00b: c\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nhost: x\r\na b: c\r\n\r\n",
        b"GET /li\x00vez HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /livez HTTP/9.9\r\nhost: x\r\n\r\n",
        b"CONNECT x:80 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"NONSENSE /livez HTTP/1.1\r\nhost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS on a port that speaks none
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_may_be_read_in_two_ways_is_refused_and_the_connection_ends(
    frontend: FrontendProcess, request_: bytes
) -> None:
    """Between a proxy and us nobody may disagree where a request ends."""
    found = statuses(frontend, request_, head(b"GET /livez"))
    assert found in ([400], [404]), found
    assert frontend.status("/livez") == 200


def test_a_path_is_decoded_once_and_an_id_may_hold_anything(frontend: FrontendProcess) -> None:
    for path, status in (
        (b"/v1/encode/acme%2Ftiny", 200),
        (b"/v1/encode/acme%252Ftiny", 404),
        (b"/v1/encode/acme/tiny%00", 404),
        (b"/v1/encode/acme/tiny%0A", 404),
        (b"/v1/encode/%2e%2e/%2e%2e/etc/passwd", 404),
        (b"/v1/encode/../../metrics", 404),
        (b"/v1/encode/%ff%fe", 404),
        (b"/v1/encode/", 404),
        (b"/v1/encode/" + b"x" * 30_000, 404),
        (b"//v1/encode/acme/tiny", 404),
    ):
        [answer] = ask(frontend, post(CLOSE, path=path))
        assert answer.status == status, path
        if status == 404 and path.startswith(b"/v1/encode/"):
            assert json.loads(answer.body)["detail"]["code"] == "MODEL_NOT_FOUND", path


def test_a_body_that_is_longer_or_shorter_than_it_says(frontend: FrontendProcess) -> None:
    # What is too much is the next request, and no HTTP; the first one gets its answer before anything else.
    assert statuses(frontend, post(), b"\x00\x01 more") in ([200], [200, 400])
    assert statuses(frontend, post(body=BODY + b"x", length=len(BODY))) in ([200], [200, 400])
    begun = time.monotonic()
    [late] = ask(frontend, post(CLOSE, length=len(BODY) + 1))
    assert (late.status, json.loads(late.body)["detail"]["code"]) == (408, "REQUEST_TIMEOUT")
    assert time.monotonic() - begun < 8
    with Raw(frontend.port) as raw:  # its client leaves
        raw.send(post(length=len(BODY) + 1))
        raw.socket.shutdown(socket.SHUT_WR)
        assert raw.rest() == b""


def test_a_client_that_sends_a_byte_now_and_then_is_408(frontend: FrontendProcess) -> None:
    for request in (post(CLOSE, body=b"", length=10_000), CHUNKED):
        drip = [b"1\r\n{\r\n" if request is CHUNKED else b"{"] * 100
        begun = time.monotonic()
        found = statuses(frontend, request, *drip, pause=0.1)
        assert found == [408]
        assert time.monotonic() - begun < 20


def test_pipelined_requests_are_answered_in_order_and_only_so_many(frontend: FrontendProcess) -> None:
    texts = [f"the cell {number}" for number in range(20)]
    requests = [post(body=json.dumps({"items": [{"id": text, "text": text}]}).encode()) for text in texts]
    found = ask(frontend, b"".join(requests) + post(CLOSE))
    assert [json.loads(answer.body)["items"][0].get("id") for answer in found] == [*texts, None]
    # In front of what is no HTTP, those that came whole are answered, and none is answered twice or by the 400.
    found = ask(frontend, b"".join(requests[:3]) + b"\x00nonsense\r\n\r\n")
    assert [answer.status for answer in found] in ([200, 200, 200], [200, 200, 200, 400])
    many = ask(frontend, b"".join(requests) * 50)
    assert 20 <= len(many) <= 60
    assert {answer.status for answer in many} == {200}
    assert [json.loads(a.body)["items"][0]["id"] for a in many] == (texts * 50)[: len(many)]


class Memory:
    """What a process holds of its own."""

    def __init__(self, frontend: FrontendProcess) -> None:
        self._process = psutil.Process(frontend.process.pid)
        self._start = self._now()

    def _now(self) -> int:
        return int(self._process.memory_full_info().uss)

    @property
    def grown_mb(self) -> float:
        """Since the start."""
        return (self._now() - self._start) / 2**20


def test_nothing_that_has_no_end_is_collected(frontend: FrontendProcess) -> None:
    """Each would be hundreds of megabytes, or minutes of copying."""
    large = b"x" * (64 << 10)
    statuses(frontend, post(CLOSE))
    memory = Memory(frontend)
    cpu = psutil.Process(frontend.process.pid).cpu_times().user
    for beginning, part in (
        (CHUNKED + b"0\r\na: ", large),  # one endless trailer
        (CHUNKED + b"0\r\n", b"a: " + large[:4096] + b"\r\n"),
        (CHUNKED + b"5;", large),  # an endless extension of a chunk
        (CHUNKED + b"0" * 10, b"0" * 65536),  # an endless length
        (b"GET /" + large, large),
        (head(b"GET /livez")[:-2], b"a: b\r\n" * 10_000),  # 100,000 headers and more
        (head(b"GET /livez")[:-2] + b"a:", large),
    ):
        with Raw(frontend.port) as raw:
            raw.send(beginning, *[part] * 400)
            found = raw.rest()
        assert found == b"" or found[9:12] in (b"431", b"400"), found
    assert memory.grown_mb < 12
    assert psutil.Process(frontend.process.pid).cpu_times().user - cpu < 5
    assert frontend.status("/livez") == 200


def test_an_answer_that_nobody_takes_is_not_kept(frontend: FrontendProcess) -> None:
    """Answers of a megabyte to clients that ask and do not read."""
    item = {"text": "the cell " * 4}
    body = json.dumps({"items": [item] * 512}).encode()
    asked = post(body=body)
    with Raw(frontend.port) as raw:
        raw.send(post(CLOSE, body=body))
        size = len(raw.rest())
    assert size > 100_000
    process = psutil.Process(frontend.process.pid)
    memory = Memory(frontend)
    idle = []
    for _ in range(4):
        raw = Raw(frontend.port)
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.socket.settimeout(5)
        raw.send(asked * 30)
        idle.append(raw)
    begun = time.monotonic()
    until(
        lambda: (
            not [
                c
                for c in process.net_connections("tcp")
                if c.status == psutil.CONN_ESTABLISHED and c.laddr.port == frontend.port
            ]
        ),
        20,
    )
    assert time.monotonic() - begun < 20
    for raw in idle:
        raw.socket.close()
    assert memory.grown_mb < 60
    assert frontend.status("/livez") == 200
