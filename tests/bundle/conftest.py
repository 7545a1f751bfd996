"""Fixtures of the bundle tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sie_triton.bundle import Bundle, load_bundle, load_bundles
from sie_triton.diagnostics import Diagnostic

Load = Callable[[str], tuple[Bundle | None, list[Diagnostic]]]
Make = Callable[..., Bundle]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load a bundle from its text."""

    def from_text(text: str) -> tuple[Bundle | None, list[Diagnostic]]:
        path = tmp_path / "bundle.yaml"
        path.write_text(text, encoding="utf-8")
        return load_bundle(path)

    return from_text


@pytest.fixture
def make(load: Load) -> Make:
    """A valid bundle with these top-level values in place of a small dense model's."""

    def with_values(**changes: Any) -> Bundle:
        values: dict[str, Any] = {
            "sie_id": "acme/small",
            "hf_id": "acme/small",
            "tasks": {"encode": {"dense": {"dim": 8}}},
            "profiles": {
                "default": {
                    "max_batch_tokens": 1024,
                    "adapter_path": "sie_server.adapters.bert_flash:BertFlashAdapter",
                }
            },
            **changes,
        }
        bundle, diagnostics = load(yaml.safe_dump({k: v for k, v in values.items() if v is not None}))
        assert bundle is not None, diagnostics
        return bundle

    return with_values


@pytest.fixture(scope="session")
def catalogue_bundles(public_bundles: Path) -> dict[str, Bundle]:
    """Every real bundle of SIE's catalogue that the recordings hold."""
    bundles, diagnostics = load_bundles(public_bundles)
    assert diagnostics == []
    return bundles
