"""Fixtures that every test family shares."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The contract's recordings beside the checkout; tests that read them skip where they are absent."""
    folder = ROOT.parent / "shared"
    if not (folder / "wire-samples").is_dir():
        pytest.skip("the recorded contract (../shared) is not here")
    return folder
