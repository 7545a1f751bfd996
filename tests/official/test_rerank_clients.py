"""The rerank clients that other people wrote, unmodified: what they are given is the model's own ranking."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipes.made import oracle

from .calls import CROSS_ENCODER, QUERY, TEXTS
from .conftest import drive
from .environment import Unavailable, rerank_interpreter

pytestmark = pytest.mark.official

Outcomes = Mapping[str, Any]
COHERE = ("v1", "v1 documents", "v1 fields", "v2", "v2 top", "v1 unknown", "v2 unknown")
OTHERS = (
    *(f"cohere {name}" for name in COHERE),
    *(f"litellm {name}" for name in ("cohere", "cohere chunks", "cohere fields", "jina_ai", "jina_ai top")),
    *(f"litellm {name}" for name in ("hosted_vllm", "cohere unknown")),
    *(f"langchain {name}" for name in ("cohere", "cohere compressor", "jina top", "jina")),
)


@pytest.fixture(scope="module")
def cohere(interpreter: Path, url: str) -> Outcomes:
    """What Cohere's newest package returned and raised."""
    return drive(interpreter, "rerank_driver", url, "cohere")


@pytest.fixture(scope="module")
def others(url: str) -> Outcomes:
    """What LiteLLM, LangChain and the older package of Cohere that it needs returned and raised."""
    if not os.environ.get("SIE_TRITON_ALL_CLIENTS"):
        pytest.skip("their packages take minutes to install: `SIE_TRITON_ALL_CLIENTS=1 make e2e` does")
    try:
        return drive(rerank_interpreter(), "rerank_driver", url, "cohere", "litellm", "langchain")
    except Unavailable as reason:
        pytest.skip(str(reason))


def check(call: str, outcome: Any) -> None:
    """The ranking is the oracle's, or the refusal reached the caller in words."""
    if call.endswith("unknown"):
        assert f"Did you mean '{CROSS_ENCODER}'?" in outcome["message"]
        return
    assert isinstance(outcome, list), outcome
    scores = np.asarray(oracle("cross_encoder_bert_identity").score(QUERY, list(TEXTS)))
    best = np.argsort(-scores, kind="stable")
    wanted = best[:2] if call.endswith(("top", "documents")) else best
    assert [index for index, _ in outcome] == wanted.tolist()
    np.testing.assert_allclose([score for _, score in outcome], scores[wanted], atol=1e-4)


@pytest.mark.parametrize("call", [f"cohere {name}" for name in COHERE])
def test_cohere(call: str, cohere: Outcomes) -> None:
    check(call, cohere[call])


@pytest.mark.parametrize("call", OTHERS)
def test_litellm_and_langchain(call: str, others: Outcomes) -> None:
    check(call, others[call])


def test_every_call_is_checked(cohere: Outcomes, others: Outcomes) -> None:
    assert sorted(cohere) == sorted(f"cohere {name}" for name in COHERE)
    assert sorted(others) == sorted(OTHERS)


def test_openai_lists_the_models(openai: dict[str, Any]) -> None:
    assert CROSS_ENCODER in openai["models"]["returned"]
