"""What is made of each failure of the three HTTP libraries, met on real sockets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import logging
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from certificates import write_pair
from sdk_server import KINDS, Canned, Kind, Received, StubServer, call
from sie_sdk import SIEAsyncClient, SIEClient
from sie_sdk._protocol import Outcome, Send
from sie_sdk._reply import Reply
from sie_sdk._retry import Failure, TransportFault
from sie_sdk._settings import resolve_settings
from sie_sdk.transport import with_aiohttp, with_httpx, with_urllib3
from sie_sdk.transport.common import CLOSED, is_transient
from sie_sdk.types import Item
from test_sdk_transport import ENCODE, GOOD, free_port

Serve = Callable[[socket.socket], None]


def exchange(
    kind: Kind,
    url: str,
    *,
    body: bytes = b"x",
    connect_s: float = 20.0,
    read_s: float = 20.0,
    proxy: str | None = None,
    api_key: str | None = None,
) -> Outcome:
    """One POST through the library of a client."""
    settings = replace(resolve_settings(url, api_key=api_key), proxy=proxy)
    send = Send("POST", "/v1/encode/m", {}, body, connect_s, read_s)

    async def asynchronous() -> Outcome:
        http = with_aiohttp.AiohttpHttp(settings, None, lambda _: None)
        try:
            return await http.exchange(send)
        finally:
            await http.close()

    if kind == "async":
        return asyncio.run(asynchronous())
    http = with_urllib3.Urllib3Http(settings, None, lambda _: None)
    try:
        return http.exchange(send)
    finally:
        http.close()


def exchanges(kind: Kind, url: str, bodies: list[bytes], *, pause_s: float = 0.0) -> list[Outcome]:
    """Several POSTs through one client, with pauses in which nothing runs."""
    settings = resolve_settings(url)
    sends = [Send("POST", "/v1/encode/m", {}, body, 20, 20) for body in bodies]
    found = []
    if kind == "sync":
        http = with_urllib3.Urllib3Http(settings, None, lambda _: None)
        for send in sends:
            found.append(http.exchange(send))
            time.sleep(pause_s)
        http.close()
        return found

    async def make() -> with_aiohttp.AiohttpHttp:
        return with_aiohttp.AiohttpHttp(settings, None, lambda _: None)

    with contextlib.closing(asyncio.new_event_loop()) as loop:
        asynchronous = loop.run_until_complete(make())
        for send in sends:
            found.append(loop.run_until_complete(asynchronous.exchange(send)))
            time.sleep(pause_s)
        loop.run_until_complete(asynchronous.close())
    return found


@contextlib.contextmanager
def listening(serve: Serve) -> Iterator[int]:
    """A port where `serve` gets each connection, in a thread of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        opened = []

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                opened.append(connection)
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in opened:
                connection.close()


def silent(_: socket.socket) -> None:
    """Read nothing and say nothing."""


def received(connection: socket.socket) -> bytes:
    """What came; nothing of a connection that the test has closed."""
    try:
        return connection.recv(65536)
    except OSError:
        return b""


def kind_of(outcome: Outcome) -> tuple[TransportFault, bool]:
    assert isinstance(outcome, Failure), outcome
    return outcome.kind, outcome.transient


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_refuses(kind: Kind) -> None:
    assert kind_of(exchange(kind, f"http://127.0.0.1:{free_port()}")) == (TransportFault.CONNECT, True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_nobody_has(kind: Kind) -> None:
    outcome = exchange(kind, "http://nobody.invalid")
    assert isinstance(outcome, Failure)
    assert outcome.kind is TransportFault.CONNECT


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_takes_no_connection(kind: Kind) -> None:
    """Its backlog is full, so that the system drops what comes."""
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        outcome = exchange(kind, f"http://127.0.0.1:{full.getsockname()[1]}", connect_s=0.3)
    assert kind_of(outcome) == (TransportFault.CONNECT, True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_handshake_that_nobody_answers(kind: Kind) -> None:
    """Nothing of the request was sent yet: it may be tried again."""
    with listening(silent) as port:
        outcome = exchange(kind, f"https://127.0.0.1:{port}", connect_s=0.3, read_s=0.6)
    assert kind_of(outcome) == (TransportFault.CONNECT, True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_without_tls(kind: Kind) -> None:
    with StubServer(GOOD) as server:
        assert kind_of(exchange(kind, server.url.replace("http", "https"))) == (TransportFault.CONNECT, False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_certificate_that_nobody_vouches_for(kind: Kind, tls: Tls) -> None:
    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            tls.served().wrap_socket(connection, server_side=True)

    with listening(serve) as port:
        assert kind_of(exchange(kind, f"https://127.0.0.1:{port}")) == (TransportFault.CONNECT, False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_that_nobody_takes(kind: Kind) -> None:
    """aiohttp by itself would wait for ever."""
    with listening(silent) as port:
        outcome = exchange(kind, f"http://127.0.0.1:{port}", body=bytes(64 << 20), read_s=0.3)
    assert kind_of(outcome) == (TransportFault.WRITE_TIMEOUT, True)


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_does_not_come(kind: Kind) -> None:
    with listening(silent) as port:
        outcome = exchange(kind, f"http://127.0.0.1:{port}", read_s=0.4)
    assert kind_of(outcome)[0] is TransportFault.READ_TIMEOUT


@pytest.mark.parametrize("kind", KINDS)
def test_writing_may_take_longer_than_connecting(kind: Kind) -> None:
    def slowly(connection: socket.socket) -> None:
        left = 32 << 20
        time.sleep(0.6)
        while left > 0:
            left -= len(connection.recv(1 << 20))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with listening(slowly) as port:
        outcome = exchange(kind, f"http://127.0.0.1:{port}", body=bytes(32 << 20), connect_s=0.2, read_s=20)
    assert isinstance(outcome, Reply)
    assert outcome.body == b"ok"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("said", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
def test_an_answer_that_is_none(kind: Kind, said: bytes) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        with contextlib.suppress(OSError):  # nobody listens to nonsense to its end
            connection.sendall(said)
            connection.shutdown(socket.SHUT_RDWR)

    with listening(answer) as port:
        assert kind_of(exchange(kind, f"http://127.0.0.1:{port}"))[0] is TransportFault.LOST


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_without_a_length(kind: Kind) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-A: 1\r\nConnection: close\r\n\r\nall")
        connection.shutdown(socket.SHUT_RDWR)

    with listening(answer) as port:
        outcome = exchange(kind, f"http://127.0.0.1:{port}")
    assert isinstance(outcome, Reply)
    assert (outcome.status, outcome.body, outcome.headers["x-a"]) == (200, b"all", "1")


@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_that_the_server_closed_is_not_used_again(kind: Kind) -> None:
    closing = Canned(200, {**GOOD.headers, "Connection": "close"}, GOOD.body)

    async def asynchronous(url: str) -> None:
        async with SIEAsyncClient(url) as client:
            for _ in range(3):
                await client.encode("m", Item(text="x"), wait_for_capacity=False)

    with StubServer(closing) as server:
        if kind == "async":
            asyncio.run(asynchronous(server.url))
        else:
            with SIEClient(server.url) as client:
                for _ in range(3):
                    client.encode("m", Item(text="x"), wait_for_capacity=False)
        assert len(server.received) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_and_its_body_come_together(kind: Kind) -> None:
    """A server that reads them apart wakes twice for each request."""
    reads = []

    def answer(connection: socket.socket) -> None:
        reads.append(connection.recv(65536))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with listening(answer) as port:
        assert isinstance(exchange(kind, f"http://127.0.0.1:{port}", body=b"the body"), Reply)
    assert reads[0].endswith(b"\r\n\r\nthe body")


@pytest.mark.parametrize("kind", KINDS)
def test_credentials_in_the_url_are_sent_and_not_shown(kind: Kind) -> None:
    with StubServer(GOOD) as server:
        call(kind, server.url.replace("//", "//user:p%40ss@"), *ENCODE)
    expected = f"Basic {base64.b64encode(b'user:p@ss').decode()}"
    assert [seen.headers["authorization"] for seen in server.received] == [expected]


def test_a_free_connection_is_waited_for_no_longer_than_an_answer() -> None:
    with (
        StubServer("hang") as server,
        SIEClient(server.url, max_connections=1, read_timeout_s=0.5) as client,
        ThreadPoolExecutor(2) as threads,
    ):
        calls = [threads.submit(client.encode, "m", Item(text="x"), wait_for_capacity=False) for _ in range(2)]
        words = {str(one.exception())[:17] for one in calls}
    assert words <= {"Failed to connect", "Request timed out"}


@pytest.mark.parametrize("kind", KINDS)
def test_interim_answers_are_none(kind: Kind) -> None:
    """One that was taken for the answer would leave the real one to the next call."""

    def hinting(connection: socket.socket) -> None:
        while asked := received(connection):
            connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
            time.sleep(0.05)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + asked[-1:])

    with listening(hinting) as port:
        outcomes = exchanges(kind, f"http://127.0.0.1:{port}", [b"1", b"2", b"3"])
    assert [one.body for one in outcomes if isinstance(one, Reply)] == [b"1", b"2", b"3"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_that_was_closed_meanwhile_is_not_used(kind: Kind) -> None:
    """Also where the event loop stood still, and has not heard of it."""
    opened = []

    def leaving(connection: socket.socket) -> None:
        opened.append(connection)
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        connection.shutdown(socket.SHUT_RDWR)

    with listening(leaving) as port:
        outcomes = exchanges(kind, f"http://127.0.0.1:{port}", [b"1", b"2", b"3"], pause_s=0.2)
    assert [type(one) for one in outcomes] == [Reply] * 3
    assert len(opened) == 3


def test_a_connection_is_not_kept_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies between may have forgotten it without a word, and then there is no answer."""
    opened = []

    def serve(connection: socket.socket) -> None:
        opened.append(connection)
        while received(connection):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    monkeypatch.setattr("sie_sdk.transport.with_urllib3.KEPT_S", 0.2)
    with listening(serve) as port:
        exchanges("sync", f"http://127.0.0.1:{port}", [b"1", b"2"])
        exchanges("sync", f"http://127.0.0.1:{port}", [b"1", b"2"], pause_s=0.3)
    assert len(opened) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_that_is_taken_slowly_is_in_time(kind: Kind) -> None:
    """The limit is for each piece."""

    def slowly(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        left = 16 << 20
        while left > 0:
            left -= len(connection.recv(1 << 18))
            time.sleep(0.01)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with listening(slowly) as port:
        begun = time.monotonic()
        outcome = exchange(kind, f"http://127.0.0.1:{port}", body=bytes(16 << 20), read_s=0.5)
    assert isinstance(outcome, Reply), outcome
    assert time.monotonic() - begun > 0.6


@pytest.mark.parametrize("kind", KINDS)
def test_no_time_is_no_time(kind: Kind) -> None:
    with listening(silent) as port:
        outcome = exchange(kind, f"http://127.0.0.1:{port}", read_s=0)
    assert kind_of(outcome)[0] is TransportFault.READ_TIMEOUT


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_header(kind: Kind) -> None:
    with StubServer(Canned(200, {**GOOD.headers, "X-Long": "x" * 20_000}, GOOD.body)) as server:
        assert call(kind, server.url, *ENCODE)["dense"].tolist() == [0.5]


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_can_be_nobodys_is_not_tried_again(kind: Kind) -> None:
    try:
        outcome = exchange(kind, f"http://{'a' * 70}.example")
    except ValueError:
        return
    assert kind_of(outcome) == (TransportFault.CONNECT, False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", ["a\ud800b", "a\nb", "a\x7f"])
def test_ids_that_make_no_url(kind: Kind, model: str) -> None:
    with pytest.raises(ValueError, match="model id"):
        call(kind, "http://127.0.0.1:9", "encode", model, Item(text="x"))


@pytest.mark.parametrize("model", ["a%41b", "a?", "x?y=a b", "a+b", "é", "a/../b", "~a'(b)", "a%zz"])
def test_both_clients_ask_for_the_same(model: str) -> None:
    with StubServer(GOOD) as server:
        for kind in KINDS:
            call(kind, server.url, "encode", model, Item(text="x"))
    assert len({seen.path for seen in server.received}) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", ["ключ", "a\0b", "a\r\nX-Other: b", "é"])
def test_values_that_no_header_has(kind: Kind, value: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        call(kind, "http://127.0.0.1:9", *ENCODE, client={"api_key": value})
    with pytest.raises(ValueError, match="printable ASCII"):
        call(kind, "http://127.0.0.1:9", *ENCODE, gpu=value)


@pytest.mark.parametrize("client", [SIEClient, SIEAsyncClient])
def test_certificates_are_read_when_a_client_is_made(
    client: type[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that read them after a fork might wait for a lock that nobody holds any more."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(OSError, match="No such file"):
        client("https://sie.example")


def test_closing_ends_calls_that_wait_for_a_connection() -> None:
    def late(_: Received) -> Canned:
        time.sleep(1)
        return GOOD

    with StubServer(late) as server, ThreadPoolExecutor(3) as threads:
        client = SIEClient(server.url, max_connections=1)
        calls = [threads.submit(client.encode, "m", Item(text="x"), wait_for_capacity=False) for _ in range(3)]
        time.sleep(0.3)
        client.close()
        ends = sorted(str(one.exception(10)) for one in calls)
    assert ends == [CLOSED, CLOSED, "None"]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 does not tell who cancelled a task")
def test_closing_cancels_nobodys_task() -> None:
    async def several(url: str) -> list[Any]:
        client = SIEAsyncClient(url, max_connections=1, read_timeout_s=1)
        calls = [asyncio.create_task(client.encode("m", Item(text="x"), wait_for_capacity=False)) for _ in range(3)]
        await asyncio.sleep(0.2)
        await client.close()
        return list(await asyncio.gather(*calls, return_exceptions=True))

    with StubServer("hang") as server:
        found = asyncio.run(several(server.url))
    assert [one for one in found if isinstance(one, asyncio.CancelledError)] == []


# Proxies


@pytest.mark.parametrize("kind", KINDS)
def test_a_proxy_that_gives_no_tunnel(kind: Kind) -> None:
    """It will not give one later either."""

    def refuse(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    with listening(refuse) as port:
        outcome = exchange(kind, "https://sie.example", proxy=f"http://127.0.0.1:{port}")
    assert kind_of(outcome)[0] is TransportFault.OTHER
    assert isinstance(outcome, Failure)
    assert "403" in str(outcome.error)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("user", ["", "me:s%20ecret@"])
def test_a_tunnel_through_a_proxy(kind: Kind, user: str, tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy gets its own credentials, and never the server's."""
    asked: list[bytes] = []

    def tunnel(connection: socket.socket) -> None:
        asked.append(connection.recv(65536))
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with contextlib.suppress(OSError), tls.served().wrap_socket(connection, server_side=True) as inner:
            inner.recv(65536)
            inner.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhere")

    for library in ("with_urllib3", "with_aiohttp"):
        monkeypatch.setattr(f"sie_sdk.transport.{library}.certificates", tls.trusted)
    with listening(tunnel) as port:
        outcome = exchange(
            kind, "https://127.0.0.1:444", proxy=f"http://{user}127.0.0.1:{port}", api_key="of-the-server"
        )
    assert isinstance(outcome, Reply), outcome
    assert outcome.body == b"here"
    assert asked[0].startswith(b"CONNECT 127.0.0.1:444 HTTP/1.")
    assert (base64.b64encode(b"me:s ecret") in asked[0]) is bool(user)
    assert b"of-the-server" not in asked[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_a_socks_proxy(kind: Kind, scheme: str) -> None:
    """`socks5h` leaves the name to the proxy, which alone may know it."""
    pytest.importorskip("aiohttp_socks")
    pytest.importorskip("socks")
    hosts: list[bytes] = []

    def socks(connection: socket.socket) -> None:
        connection.recv(2 + connection.recv(2, socket.MSG_PEEK)[1])
        connection.sendall(b"\x05\x00")
        _, _, _, form = connection.recv(4)
        length = {1: 4, 4: 16}.get(form) or connection.recv(1)[0]
        hosts.append(connection.recv(length))
        connection.recv(2)
        connection.sendall(b"\x05\x00\x00\x01" + bytes(6))
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhere")

    with listening(socks) as port:
        host = "sie.example" if scheme == "socks5h" else "localhost"
        outcome = exchange(kind, f"http://{host}:8080", proxy=f"{scheme}://127.0.0.1:{port}")
    assert isinstance(outcome, Reply), outcome
    assert outcome.body == b"here"
    assert hosts in ([b"sie.example"] if scheme == "socks5h" else [b"\x7f\0\0\1"], [bytes(15) + b"\1"])


# What the libraries themselves would say or do


# What asyncio itself says of connections that nobody closed is no log.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_event_loops_that_end_without_close_are_no_alarm(caplog: pytest.LogCaptureFixture) -> None:
    """aiohttp tells the log of each session that nobody closed."""

    def use(url: str) -> None:
        client = SIEAsyncClient(url)
        for _ in range(3):
            asyncio.run(client.encode("m", Item(text="x")))

    with StubServer(GOOD) as server, caplog.at_level(logging.DEBUG, "asyncio"):
        use(server.url)
        gc.collect()
    assert [record for record in caplog.records if "nclosed" in record.getMessage()] == []


FORGETFUL = """
import asyncio, sys
from sie_sdk import SIEAsyncClient
from sie_sdk.types import Item
client = SIEAsyncClient(sys.argv[1])
for _ in range(2):
    asyncio.run(client.encode("m", Item(text="x")))
"""


def test_a_client_that_is_forgotten_says_nothing_at_the_end() -> None:
    with StubServer(GOOD) as server:
        done = subprocess.run(
            [sys.executable, "-c", FORGETFUL, server.url], capture_output=True, text=True, check=False, timeout=60
        )
    assert (done.returncode, done.stderr) == (0, "")


def subclasses(root: type[Any]) -> set[type[Any]]:
    return {root}.union(*(subclasses(kind) for kind in root.__subclasses__()))


def test_every_failure_of_httpx_is_ours() -> None:
    abstract = {httpx.RequestError, httpx.TransportError, httpx.TimeoutException, httpx.NetworkError}
    final = {
        httpx.CloseError,
        httpx.DecodingError,
        httpx.LocalProtocolError,
        httpx.ProxyError,
        httpx.TooManyRedirects,
        httpx.UnsupportedProtocol,
    }
    known = subclasses(httpx.RequestError) - abstract - {httpx.ProtocolError}
    assert known == set(with_httpx.KINDS) | final
    for kind in final:
        assert with_httpx.failure(kind("x")).kind is TransportFault.OTHER


def test_every_failure_of_aiohttp_is_ours() -> None:
    """None is left to the last line by chance: those that end there cannot be met here."""
    ours = {kind for kind in subclasses(aiohttp.ClientError) if kind.__module__.startswith("aiohttp")}
    met = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, aiohttp.ClientResponseError, aiohttp.InvalidURL)
    left = {kind.__name__ for kind in ours if not issubclass(kind, met)}
    redirects = {"RedirectClientError", "NonHttpUrlRedirectClientError"}
    assert left - redirects <= {"ClientError", "UploadAbortedError", "NonHttpUrlClientError"}


@pytest.mark.parametrize(
    ("cause", "transient"),
    [
        (ConnectionRefusedError(111, "refused"), True),
        (socket.gaierror(socket.EAI_AGAIN, "later"), True),
        (socket.gaierror(socket.EAI_NONAME, "unknown host"), False),
        (PermissionError(13, "no"), False),
        (ssl.SSLCertVerificationError("bad certificate"), False),
        (OSError("All connection attempts failed"), True),
    ],
    ids=str,
)
def test_only_what_may_pass_is_retried(cause: Exception, transient: bool) -> None:
    try:
        try:
            raise cause
        except Exception as low:
            raise httpx.ConnectError("cannot") from low
    except httpx.ConnectError as error:
        assert with_httpx.failure(error) == Failure(TransportFault.CONNECT, error, transient)
    assert is_transient(cause) is transient


@dataclass(frozen=True)
class Tls:
    """A certificate that a server signed itself."""

    certificate: Path
    key: Path

    def served(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context

    def trusted(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.certificate)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return Tls(*write_pair(tmp_path_factory.mktemp("tls")))
