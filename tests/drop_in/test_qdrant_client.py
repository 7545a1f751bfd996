"""qdrant-client's own inference on our classes: what it stores and finds is what the references rank."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from environments import Unavailable, environment, interpreter
from recipes.made import made, oracle
from recipes.references import maxsim, sparse_dot

from .qdrant_driver import QUERY, TEXTS

pytestmark = [pytest.mark.e2e, pytest.mark.official]

TESTS = Path(__file__).resolve().parent.parent
NAMES = {"dense": "bert", "sparse": "splade_bert", "late": "colbert_root_linear"}
# The newest, and one that has `add` and `query` still.
VERSIONS = ("1.20.0", "1.14.3")


def python(version: str) -> Path:
    """The interpreter that has qdrant-client in this version, and no Fastembed."""
    if version != VERSIONS[0] and not os.environ.get("SIE_TRITON_ALL_CLIENTS"):
        pytest.skip("its packages take long to install: `SIE_TRITON_ALL_CLIENTS=1 make e2e` does")
    base = interpreter("3.12")
    if base is None:
        pytest.skip("there is no Python 3.12 here")
    try:
        return environment(f"qdrant-client-{version}", base)
    except Unavailable as reason:
        pytest.skip(str(reason))


def run(version: str, arguments: list[str], url: str) -> subprocess.CompletedProcess[str]:
    environ = {key: value for key, value in os.environ.items() if key not in ("SIE_API_KEY", "SIE_BASE_URL")}
    return subprocess.run(
        # Warnings are qdrant-client's own, of methods that it will drop.
        [python(version), "-E", "-s", "-W", "ignore", *arguments],
        cwd=TESTS,
        env={**environ, "SIE_BASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module", params=VERSIONS)
def outcome(request: pytest.FixtureRequest, tiny_url: str) -> Mapping[str, Any]:
    """What the driver printed."""
    models = [made(NAMES[kind]).sie_id for kind in ("dense", "sparse", "late")]
    done = run(request.param, ["-m", "drop_in.qdrant_driver", *models], tiny_url)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return {**found, "version": request.param}


def wanted(kind: str) -> dict[int, float]:
    """The score of each text by the references' vectors."""
    side = oracle(NAMES[kind])
    bare = {"query_template": None, "doc_template": None}  # Fastembed adds nothing, whatever the bundle says
    [query] = side.encode([QUERY], is_query=kind != "dense", options=bare)
    scores = {}
    for place, document in enumerate(side.encode(list(TEXTS), options=bare)):
        if kind == "dense":
            assert query.dense is not None and document.dense is not None
            norms = np.linalg.norm(query.dense) * np.linalg.norm(document.dense)
            scores[place] = float(query.dense @ document.dense / norms)
        elif kind == "sparse":
            assert query.sparse is not None and document.sparse is not None
            scores[place] = sparse_dot(query.sparse, document.sparse)
        else:
            assert query.multivector is not None and document.multivector is not None
            scores[place] = maxsim(query.multivector, document.multivector)
    # A sparse search finds only what shares a token.
    return {place: score for place, score in scores.items() if kind != "sparse" or score > 0}


@pytest.mark.parametrize("kind", NAMES)
def test_documents_are_stored_and_found(kind: str, outcome: Mapping[str, Any]) -> None:
    hits, expected = outcome["documents"][kind], wanted(kind)
    assert [place for place, _ in hits] == sorted(expected, key=lambda place: -expected[place])
    np.testing.assert_allclose(
        [score for _, score in hits], [expected[place] for place, _ in hits], rtol=1e-4, atol=1e-4
    )


def test_add_and_query_where_there_are_such(outcome: Mapping[str, Any]) -> None:
    if outcome["version"] == VERSIONS[0]:
        assert "added" not in outcome  # it dropped them
        return
    expected = wanted("dense")
    places = [TEXTS.index(document) for document, _ in outcome["added"]]
    assert places == sorted(expected, key=lambda place: -expected[place])
    scores = [score for _, score in outcome["added"]]
    np.testing.assert_allclose(scores, [expected[place] for place in places], atol=1e-4)


def test_too_late_and_no_server_are_said_and_leave_nothing(tiny_url: str) -> None:
    program = """
import sys
sys.path.insert(0, "../sdk")
import sie_triton_fastembed
try:
    sie_triton_fastembed.install()
except sie_triton_fastembed.ServerUnreachableError as error:
    print(error)
assert not {"fastembed", "qdrant_client"} & set(sys.modules)
import qdrant_client
try:
    sie_triton_fastembed.install()
except RuntimeError as error:
    print(error)
"""
    done = run(VERSIONS[0], ["-c", program], "http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    unreachable, late = done.stdout.splitlines()
    assert "http://127.0.0.1:9" in unreachable
    assert "`qdrant_client` is imported already" in late
