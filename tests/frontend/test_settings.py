"""Settings: one table drives the environment, the command line and the check of every value."""

from __future__ import annotations

import argparse
import re
import signal
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sie_frontend.manifest import Built, Certificate, read_manifest
from sie_frontend.settings import Settings, SettingsError, add_arguments, known_settings

from sie_triton.diagnostics import DiagnosticError
from sie_triton.serving.serve import serve_repository

# Another value than the default, as text and as the field holds it.
SECRETS = {"api_keys", "api_keys_file", "tls_certificate", "tls_key"}
OTHER: dict[str, tuple[str, Any]] = {
    "repository": ("s3://bucket/prefix", "s3://bucket/prefix"),
    "triton_url": ("a:8000,b:8001", "a:8000,b:8001"),
    "host": ("0.0.0.0", "0.0.0.0"),
    "port": ("9000", 9000),
    "device": ("cuda", "cuda"),
    "api_keys_file": ("keys.txt", "keys.txt"),
    "api_keys": ("search sha256:00", "search sha256:00"),
    "tls_certificate": ("cert.pem", "cert.pem"),
    "tls_key": ("key.pem", "key.pem"),
    "cors_origins": ("https://a.example", "https://a.example"),
    "admin_port": ("9001", 9001),
    "admin_host": ("0.0.0.0", "0.0.0.0"),
    "ready_models": ("acme/tiny", "acme/tiny"),
    "load": ("on-demand", "on-demand"),
    "memory_budget": ("1.5GiB", 3 * 2**29),
    "preload": ("acme/tiny", "acme/tiny"),
    "pin": ("acme/tiny", "acme/tiny"),
    "idle_evict_s": ("60", 60.0),
    "load_timeout_s": ("30", 30.0),
    "load_cooldown_s": ("3", 3.0),
    "pending_items": ("7", 7),
    "max_items": ("8", 8),
    "max_body_bytes": ("9", 9),
    "body_timeout_s": ("9.5", 9.5),
    "request_timeout_s": ("60", 60.0),
    "answer_timeout_s": ("61", 61.0),
    "max_images": ("10", 10),
    "max_item_images": ("11", 11),
    "max_image_bytes": ("12", 12),
    "max_image_pixels": ("13", 13),
    "pending_images": ("14", 14),
    "image_threads": ("15", 15),
    "inflight_extra": ("2", 2),
    "keep_busy": ("1", 1),
    "triton_timeout_s": ("1.5", 1.5),
    "drain_delay_s": ("5", 5.0),
    "shutdown_grace_s": ("0.5", 0.5),
    "log_format": ("json", "json"),
    "access_log": ("true", True),
    "machine_profile": ("h100", "h100"),
}


def parse(*arguments: str) -> dict[str, Any]:
    """What the command line gives `Settings`."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_arguments(parser)
    return vars(parser.parse_args(arguments))


def test_every_field_is_a_setting_with_a_name_and_a_meaning() -> None:
    assert [known.name for known in known_settings()] == [field.name for field in fields(Settings)] == list(OTHER)
    assert len({known.variable for known in known_settings()}) == len(OTHER)
    for known in known_settings():
        assert re.fullmatch(r"SIE_[A-Z_]+", known.variable)
        assert len(known.help) > 20


@pytest.mark.parametrize("name", OTHER)
def test_the_variable_and_the_option_mean_the_same(name: str) -> None:
    [known] = [known for known in known_settings() if known.name == name]
    text, value = OTHER[name]
    option = (known.flag,) if value is True else (known.flag, text)
    assert getattr(Settings(), name) == known.default != value
    for settings in (
        Settings.from_environment({known.variable: text}),
        Settings.from_environment({}, **parse(*option)),
    ):
        assert getattr(settings, name) == value
        assert [f.name for f in fields(Settings) if getattr(settings, f.name) != getattr(Settings(), f.name)] == [name]
    # A variable that is set to nothing, as compose files do, is not set; but for secrets, which would be missed.
    empty = Settings.from_environment({known.variable: ""})
    given: dict[str, Any] = {name: ""} if name in SECRETS else {}
    assert empty == replace(Settings(), **given)


@pytest.mark.parametrize("known", known_settings(), ids=lambda known: known.name)
def test_a_default_written_out_is_the_default(known: Any) -> None:
    given = {} if known.name in SECRETS else {known.variable: known.default_text}
    assert Settings.from_environment(given) == Settings()


def test_an_option_wins_over_its_variable_even_over_one_that_is_wrong() -> None:
    environment = {"SIE_TRITON_PORT": "many", "SIE_TRITON_ACCESS_LOG": "yes"}
    settings = Settings.from_environment(environment, **parse("--port", "9", "--no-access-log"))
    assert (settings.port, settings.access_log) == (9, False)


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("SIE_TRITON_PORT", "many", "must be a whole number, not 'many'"),
        ("SIE_TRITON_PORT", "-1", "must be a whole number, not '-1'"),
        ("SIE_TRITON_PORT", "٣", "must be a whole number"),
        ("SIE_TRITON_PORT", "70000", "must be a port up to 65535, not 70000"),
        ("SIE_TRITON_DRAIN_DELAY_S", "nan", "must be a number of seconds, not 'nan'"),
        ("SIE_TRITON_DRAIN_DELAY_S", "-1", "must be a number of seconds, not '-1'"),
        ("SIE_TRITON_SHUTDOWN_GRACE_S", "inf", "must be a number of seconds, not 'inf'"),
        ("SIE_TRITON_ACCESS_LOG", "maybe", "must be `true` or `false`, not 'maybe'"),
        ("SIE_TRITON_LOG_FORMAT", "xml", "must be `text` or `json`, not 'xml'"),
        ("SIE_TRITON_DEVICE", "tpu", "must be `cpu` or `cuda` or `cuda-tensorrt`, not 'tpu'"),
        ("SIE_TRITON_TRITON_URL", "triton", "must be `host:port`"),
        ("SIE_TRITON_TRITON_URL", "https://triton:8000", "must be `host:port`"),
        ("SIE_TRITON_TRITON_URL", "triton:0", "must be `host:port`"),
        ("SIE_TRITON_TRITON_URL", "triton:1/a b", "must be `host:port`"),
        ("SIE_TRITON_TRITON_URL", "a:8000,", "not ''"),
        ("SIE_TRITON_TRITON_URL", "a:8000,http://a:8000/", "names 'a:8000' twice"),
    ],
)
def test_a_mistake_names_the_variable_and_the_cure(variable: str, text: str, expected: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({variable: text})
    assert str(caught.value).startswith(f"`{variable}` ")
    assert expected in str(caught.value)


@pytest.mark.parametrize("arguments", [("--port", "x"), ("--device", "tpu"), ("--drain-delay-s", "-1")])
def test_a_wrong_option_is_refused(arguments: tuple[str, ...]) -> None:
    with pytest.raises(argparse.ArgumentError) as caught:
        parse(*arguments)
    assert arguments[0] in str(caught.value)


def test_replicas_are_read_in_order_and_without_decoration() -> None:
    urls = Settings(triton_url="http://a:8000/, b.example:1 ,[::1]:8000,dns://triton.prod:8000,c:1/path").triton_urls
    assert urls == ("a:8000", "b.example:1", "[::1]:8000", "dns://triton.prod:8000", "c:1/path")


@pytest.mark.parametrize("url", ["triton", "a:1,a:1"])
def test_serve_calls_a_wrong_setting_a_diagnostic(url: str, repository: Path, tmp_path: Path) -> None:
    certificate = Certificate("sentence-transformers", "0" * 64, 1, ("vectors",))
    built = Built("key", "sha256:0", {"cpu": "float32"}, {"cpu": ""}, "onnx", "ensemble", {}, {}, (), certificate)
    manifest = msgspec.structs.replace(read_manifest(repository), built={"x": built})
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(DiagnosticError) as caught:
            serve_repository(
                repository,
                manifest,
                host="127.0.0.1",
                port=0,
                device="cpu",
                triton_url=url,
                log_dir=tmp_path,
                announce=print,
            )
    finally:
        signal.signal(signal.SIGTERM, handler)
    [mistake] = caught.value.diagnostics
    assert mistake.code == "SIE712"
    assert mistake.message.startswith("`SIE_TRITON_TRITON_URL` ")


def test_a_folder_may_be_a_path() -> None:
    assert Settings(Path("/models")).repository == Path("/models")
