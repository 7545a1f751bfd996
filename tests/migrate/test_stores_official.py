"""Stores that other people wrote, filled by their own clients and read by ours, where their packages are installed.

The packages are too large for every run. `SIE_TRITON_STORES_PYTHON` names an interpreter that has them
(CONTRIBUTING.md); without it, or without the package of a store, its test is skipped.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.official
DRIVER = Path(__file__).parent / "stores_driver.py"
ROOT = DRIVER.parents[2]
NEEDS = {"qdrant": "qdrant_client", "pgvector": "psycopg, pgserver", "chroma": "chromadb", "lancedb": "lancedb"}


@pytest.mark.parametrize("store", NEEDS)
def test_what_a_store_holds_is_what_is_read(store: str, tmp_path: Path) -> None:
    python = os.environ.get("SIE_TRITON_STORES_PYTHON")
    if not python:
        pytest.skip("SIE_TRITON_STORES_PYTHON names no interpreter with the stores' packages")
    if subprocess.run([python, "-c", f"import {NEEDS[store]}"], capture_output=True, check=False).returncode:
        pytest.skip(f"{python} lacks {NEEDS[store]}")
    done = subprocess.run(
        [python, DRIVER, store, tmp_path],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
