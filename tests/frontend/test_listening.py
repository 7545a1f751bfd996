"""How a frontend listens: TLS by files, a port of its own for health and metrics, browsers, and what it warns of."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from certificates import write_pair
from compiler import tiny
from sie_frontend.http.tls import TlsFiles, tls_files
from sie_frontend.main import make_server
from sie_frontend.settings import Settings, SettingsError
from sie_sdk import SIEClient
from sie_sdk.types import Item

from frontend.conftest import Service
from frontend.fake_triton import FakeTriton
from frontend.key_help import SECRET, bearer, behind_keys, key
from frontend.process import FrontendProcess, until


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.txt"


def test_a_whole_one(
    repository: Path, triton: FakeTriton, tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS, keys, a port for metrics: the program as a container runs it, and the SDK in front of it."""
    certificate, private = write_pair(tmp_path / "tls")
    keys = tmp_path / "keys.txt"
    keys.write_text(key(at_once="8").line)
    arguments = ("--repository", repository, "--triton-url", triton.url, "--admin-port", "0")
    tls = ("--tls-certificate", certificate, "--tls-key", private)
    secured = FrontendProcess(log, *arguments, *tls, "--api-keys-file", keys, scheme="https")
    with secured as frontend:
        admin = frontend.wait_for(r"health and metrics are on (http://127\.0\.0\.1:\d+)")[1]
        until(lambda: httpx.get(f"{admin}/readyz").status_code == 200)
        assert "sie_frontend_ready 1.0" in httpx.get(f"{admin}/metrics").text
        assert httpx.get(f"{admin}/v1/models").status_code == 404
        url = f"https://127.0.0.1:{frontend.port}"
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/livez")  # nobody trusts this certificate
        context = ssl.create_default_context(cafile=certificate)
        with httpx.Client(base_url=url, verify=context) as client:
            assert client.get("/livez").text == "ok"
            assert client.get("/metrics").status_code == 404
            assert client.get("/v1/models").status_code == 401
            assert client.get("/v1/models", headers=bearer()).status_code == 200
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with SIEClient(url, api_key=SECRET) as sdk:
            assert sdk.encode(tiny.MODEL_ID, Item(text="the cell"))["dense"].shape == (32,)
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"http://127.0.0.1:{frontend.port}/livez")
        frontend.terminate()
        assert frontend.wait() == 0
    assert "why=no_key" in frontend.log
    assert SECRET not in frontend.log
    assert "Traceback" not in frontend.log


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda certificate, _: certificate.unlink(), r"`SIE_TRITON_TLS_CERTIFICATE` \(.*\) cannot be read: no such"),
        (lambda _, private: private.unlink(), r"`SIE_TRITON_TLS_KEY` \(.*\) cannot be read: no such"),
        (lambda _, private: private.write_text("x"), "one of them is not PEM"),
        (lambda certificate, _: certificate.write_bytes(b""), "one of them is not PEM"),
        (lambda _, private: private.write_bytes(write_pair(private.parent / "x")[1].read_bytes()), "is not the certif"),
        (lambda _, private: private.parent.joinpath("cert.pem").rename(private), "one of them|cannot be read"),
    ],
)
def test_files_that_cannot_be_used_are_named(
    spoil: Callable[[Path, Path], object], expected: str, repository: Path, tmp_path: Path
) -> None:
    certificate, private = write_pair(tmp_path / "tls")
    settings = Settings(repository, tls_certificate=str(certificate), tls_key=str(private))
    assert tls_files(settings) is not None
    spoil(certificate, private)
    with pytest.raises(SettingsError, match=expected):
        make_server(settings)


def test_an_encrypted_key_is_refused_and_asks_nobody(tmp_path: Path) -> None:
    certificate, private = write_pair(tmp_path / "tls", password=b"secret")
    with pytest.raises(SettingsError, match="the key is encrypted"):
        TlsFiles(str(certificate), str(private))


def test_half_a_pair_is_refused(repository: Path) -> None:
    for given in ({"tls_key": "x"}, {"tls_certificate": "x"}):
        with pytest.raises(SettingsError, match="must be set together"):
            make_server(Settings(repository, **given))  # type: ignore[arg-type]


def test_a_renewed_certificate_is_taken_and_a_broken_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, private = write_pair(tmp_path / "tls")
    files = TlsFiles(str(certificate), str(private))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)

    def shown() -> bytes:
        """The certificate that a client sees."""
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = context.wrap_bio(there, back, server_side=True)
        client = trusting.wrap_bio(back, there)
        for _ in range(4):
            for side in (client, server):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    continue
        return client.getpeercert(binary_form=True) or b""

    first = shown()
    assert first == ssl.PEM_cert_to_DER_cert(certificate.read_text())
    good = private.read_bytes()
    other, other_key = write_pair(tmp_path / "other")
    certificate.write_bytes(other.read_bytes())  # and not its key yet
    for _ in range(3):
        files.renew(context)
        assert shown() == first
    assert caplog.text.count("the certificate from before stays in use") == 1
    private.write_bytes(other_key.read_bytes())
    files.renew(context)
    assert shown() == ssl.PEM_cert_to_DER_cert(other.read_text()) != first
    assert good != private.read_bytes()


def test_a_port_that_is_taken_is_named(repository: Path, triton: FakeTriton, log: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AssertionError) as caught:
            FrontendProcess(log, "--repository", repository, "--triton-url", triton.url, "--admin-port", str(port))
    assert f"error: `SIE_TRITON_ADMIN_PORT`: 127.0.0.1:{port} cannot be listened on: address already in use" in str(
        caught.value
    )
    assert "Traceback" not in log.read_text()


# Browsers


PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}


@pytest.mark.asyncio
async def test_browsers_are_told_nothing_by_default(service: Service) -> None:
    async with service.open() as client:
        response = await client.options("/v1/embeddings", headers={"origin": "https://a.example", **PREFLIGHT})
        assert response.status_code == 405
        asked = await client.get("/v1/models", headers={"origin": "https://a.example"})
        assert not [name for name in asked.headers if name.startswith("access-control")]


@pytest.mark.asyncio
async def test_pages_of_the_listed_origins_may_ask(service: Service) -> None:
    settings = service.having(cors_origins="https://a.example, http://localhost:3000").settings
    async with behind_keys(settings, key()) as client:
        for origin, allowed in (
            ("https://a.example", True),
            ("http://localhost:3000", True),
            ("https://b.example", False),
        ):
            without = {"authorization": ""}
            response = await client.options("/v1/embeddings", headers={"origin": origin, **PREFLIGHT, **without})
            assert (response.status_code == 200) == allowed
            assert (response.headers.get("access-control-allow-origin") == origin) == allowed
            # A page that asks without a key is told why, if it may read the answer.
            refused = await client.get("/v1/models", headers={"origin": origin, **without})
            assert refused.status_code == 401
            assert (refused.headers.get("access-control-allow-origin") == origin) == allowed
        assert "access-control-allow-credentials" not in refused.headers


@pytest.mark.parametrize(
    "origins", ["a.example", "https://a.example/", "https://*.example", "null", "https://a.example/x"]
)
def test_what_is_no_origin_is_refused(origins: str) -> None:
    with pytest.raises(SettingsError, match="SIE_TRITON_CORS_ORIGINS"):
        Settings(cors_origins=origins)


# Beyond loopback


@pytest.mark.parametrize(
    ("host", "keyed", "warned"),
    [
        ("127.0.0.1", False, False),
        ("127.8.8.8", False, False),
        ("::1", False, False),
        ("localhost", False, False),
        ("0.0.0.0", False, True),
        ("::", False, True),
        ("", False, True),
        ("127.0.0.1.example", False, True),
        ("10.0.0.1", False, True),
        ("0.0.0.0", True, False),
    ],
)
def test_an_open_door_is_said_loudly(
    host: str, keyed: bool, warned: bool, repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        make_server(Settings(repository, host=host, api_keys=key().line if keyed else None))
    assert ("no key is asked for" in caplog.text) == warned
