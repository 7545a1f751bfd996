"""Random requests over every operation of the document: a short form of `python -m gate.schema_fuzz`."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from frontend.key_help import bearer, key

from gate.schema_fuzz import EVERYTHING, fuzz
from gate.served import frontend_process

pytestmark = pytest.mark.official


def test_every_answer_is_as_the_document_says(tmp_path: Path) -> None:
    with frontend_process(tmp_path, SIE_TRITON_API_KEYS=key(verbs=EVERYTHING).line) as frontend:
        report = fuzz(frontend.url, tmp_path, seed=7, examples=4)
        assert report["complete"], report["printed"]
        assert not report["failures"] and not report["errors"], report["printed"]
        assert report["operations"]["tested"] == report["operations"]["total"] >= 18
        assert report["test_cases"]["generated"] > 40
        metrics = httpx.get(f"{frontend.url}/metrics", headers=bearer()).text
        assert 'kind="inference_error"' not in metrics
    assert "Traceback" not in frontend.log
