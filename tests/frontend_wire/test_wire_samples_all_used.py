"""No recording lies there unread: every one belongs to a family, and every family to the tests that read it.

The families' own tests go by the names of the recordings and fail for one that they do not know.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch

import pytest
from contract.recorded import HERE, sdk_requests

TESTS = HERE.parent
RECORDINGS = "frontend_wire/test_wire_recordings.py"
OPENAPI = "contract/test_openapi.py"

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "arrays/quant_*": ("frontend_wire/test_wire_quantize.py",),
    "arrays/*": ("frontend_wire/test_wire_muvera.py",),
    "bundles/*": ("bundle/test_catalogue_resolved.py", "docs/test_names.py"),
    "exchanges/encode_*": (RECORDINGS, OPENAPI, "sdk/test_sdk_wire.py"),
    "exchanges/get_*": ("frontend/test_application.py",),
    "exchanges/models_*": (OPENAPI, "frontend/test_application.py"),
    "exchanges/oai_*": (RECORDINGS, OPENAPI),
    "exchanges/score_*": (RECORDINGS, OPENAPI, "frontend_wire/test_wire_score_over_http.py"),
    "facts/adapter_classes": ("bundle/test_catalog.py",),
    "facts/bundle_verdicts": ("bundle/test_yaml_validation.py",),
    "facts/missing_text_messages": ("bundle/test_catalog.py",),
    "facts/muvera_cases": ("frontend_wire/test_wire_muvera.py",),
    "facts/option_keys": ("recipes/test_factory.py",),
    "facts/promised_call": ("e2e/test_serving_life.py",),
    "facts/refusals": ("frontend_wire/test_wire_differential.py",),
    "resolved/*": ("bundle/test_catalogue_resolved.py",),
    "sdk_answers/ERR *": ("sdk/test_sdk_outcomes.py", "frontend_wire/test_wire_errors.py"),
    "sdk_answers/*": ("sdk/test_sdk_outcomes.py", "frontend_wire/test_wire_responses.py"),
    "sdk_requests/paths": ("sdk/test_sdk_requests.py",),
    "sdk_requests/requests": (
        "sdk/test_sdk_requests.py",
        "frontend_wire/test_wire_openai.py",
        "frontend_wire/test_wire_requests.py",
    ),
}
"""The first pattern that fits a file and an entry of it names the family. The tests are those that read it."""

READERS: Mapping[str, str] = {
    "bundles": "public_bundles",
    "sdk_answers/ERR *": "sdk_answers()",
    "sdk_answers/*": "sdk_answers()",
    "sdk_requests/paths": "sdk_paths()",
    "sdk_requests/requests": "sdk_requests()",
}
"""By what a test reads a family, or a file. Every other one is read by the function of its own name."""


def family(name: str) -> str | None:
    return next((pattern for pattern in FAMILIES if fnmatch(name, pattern)), None)


def reader(pattern: str) -> str:
    file, _, entry = pattern.partition("/")
    return READERS.get(pattern) or READERS.get(file) or f"{entry if file == 'facts' else file}()"


def recordings() -> Iterator[str]:
    for path in sorted(HERE.glob("*.json")):
        for entry in json.loads(path.read_text(encoding="utf-8")):
            yield f"{path.stem}/{entry}"


def test_every_recording_belongs_to_a_family() -> None:
    found = list(recordings())
    assert len(found) > 400
    assert [name for name in found if family(name) is None] == []
    assert {family(name) for name in found} == set(FAMILIES), "a family without recordings"


def test_the_folder_holds_nothing_else() -> None:
    assert {path.suffix for path in HERE.iterdir() if path.is_file()} == {".json", ".py"}


@pytest.mark.parametrize("pattern", FAMILIES)
def test_the_tests_of_a_family_read_it(pattern: str) -> None:
    """By the function that gives the recordings, in the test, or in a helper or a fixture beside it."""
    for test in FAMILIES[pattern]:
        text = (TESTS / test).read_text(encoding="utf-8")
        helpers = [*re.findall(r"^from \.?(\w+) import", text, re.MULTILINE), "conftest"]
        files = [(TESTS / test).with_name(f"{helper}.py") for helper in helpers]
        text += "".join(file.read_text(encoding="utf-8") for file in files if file.exists())
        assert reader(pattern) in text, test


def test_a_new_recording_would_be_noticed() -> None:
    assert family("exchanges/encode_new") == "exchanges/encode_*"
    assert family("exchanges/extract_x") is None
    assert family("facts/new") is None
    assert family("streams/x") is None


@pytest.mark.parametrize("name", ["openai_embeddings_default", "openai_embeddings_float"])
def test_what_openai_s_client_sends_is_addressed_to_us(name: str) -> None:
    sent = sdk_requests()[name]
    assert (sent.method, sent.path) == ("POST", "/v1/embeddings")
    assert sent.headers["content-type"] == "application/json"
