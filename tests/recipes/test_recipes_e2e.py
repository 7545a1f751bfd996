"""Each recipe, compiled, served by the real tritonserver, asked through the SDK and compared with the references.

The families are served in a few groups: on the embedded server every graph is a process.
"""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import tritonclient.http
from sie_sdk import SIEAsyncClient, SIEClient
from sie_sdk.types import EncodeResult, Item, OutputType
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from sie_triton.bundle import expand, load_bundle
from sie_triton.compiler.build import compile_models
from sie_triton.compiler.options import BuildOptions, select
from sie_triton.diagnostics import DiagnosticError

from .bodies import load_body
from .built import SERVED, BuiltFamilies
from .corpus import LONG_TEXT, QUERY, TEXTS
from .factory import FAMILIES
from .made import made, oracle
from .oracle import Expected
from .references import tokenize
from .serving import Served, serve

pytestmark = pytest.mark.e2e

REMOTE = [name for name, family in FAMILIES.items() if family.remote_only]
ALL_TEXTS = [*TEXTS, LONG_TEXT]


class Groups:
    """The families in groups: each compiled and served when first asked for, and served until the end."""

    def __init__(self, built: BuiltFamilies) -> None:
        self._built = built
        self._running: dict[int, Served] = {}

    def _served(self, family: str) -> Served:
        number = self._built.group(family)
        if number not in self._running:
            self._running[number] = serve(self._built.repository(number))
        return self._running[number]

    def url(self, family: str) -> str:
        """Where the family is served."""
        return self._served(family).url

    def triton(self, family: str) -> str:
        """Where tritonserver itself answers for the family."""
        return self._served(family).triton.url

    def executions(self, family: str) -> dict[str, int]:
        """How often each Triton model of the family's server ran, by tritonserver's own count."""
        with urllib.request.urlopen(self._served(family).triton.metrics_url, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        found = (re.fullmatch(r'nv_inference_exec_count\{model="([^"]+)".*\} (\d+)', line) for line in lines)
        return {match[1]: int(match[2]) for match in found if match}

    def stop(self) -> None:
        """Stop what is served."""
        for served in self._running.values():
            served.stop()
        self._running = {}


@pytest.fixture(scope="module")
def groups(built_families: BuiltFamilies) -> Iterator[Groups]:
    """All groups of this module's tests."""
    served = Groups(built_families)
    yield served
    served.stop()


@pytest.fixture
def client(family: str, groups: Groups) -> Iterator[SIEClient]:
    """A client of the server that has the family of this test."""
    with SIEClient(groups.url(family)) as connected:
        yield connected


def _outputs(name: str) -> list[OutputType]:
    return [output for output in get_args(OutputType) if output in FAMILIES[name].encode]


def _check(result: EncodeResult, expected: Expected, outputs: list[OutputType]) -> None:
    if "dense" in outputs:
        assert expected.dense is not None
        assert _cosine(result["dense"], expected.dense) >= 0.99999
        np.testing.assert_allclose(np.linalg.norm(result["dense"]), np.linalg.norm(expected.dense), rtol=1e-4)
    if "sparse" in outputs:
        assert expected.sparse is not None
        indices, values = result["sparse"]["indices"], result["sparse"]["values"]
        np.testing.assert_array_equal(indices, expected.sparse.ids)
        np.testing.assert_allclose(values, expected.sparse.weights, atol=1e-4)
    if "multivector" in outputs:
        assert expected.multivector is not None
        assert result["multivector"].shape == expected.multivector.shape
        for ours, theirs in zip(result["multivector"], expected.multivector, strict=True):
            assert _cosine(ours, theirs) >= 0.99999


def _cosine(left: np.ndarray, right: np.ndarray) -> float:
    a, b = left.astype(np.float64), right.astype(np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


@pytest.mark.parametrize("family", [name for name in SERVED if FAMILIES[name].encode])
@pytest.mark.parametrize("is_query", [False, True], ids=["document", "query"])
def test_outputs_are_those_of_the_reference(family: str, is_query: bool, client: SIEClient) -> None:
    outputs = _outputs(family)
    items = [Item(text=text) for text in ALL_TEXTS]
    results = client.encode(FAMILIES[family].sie_id, items, output_types=outputs, is_query=is_query)
    expected = oracle(family).encode(ALL_TEXTS, is_query=is_query)
    for result, reference in zip(results, expected, strict=True):
        _check(result, reference, outputs)


@pytest.mark.parametrize("family", [name for name in SERVED if FAMILIES[name].score])
def test_scores_are_those_of_the_reference(family: str, client: SIEClient) -> None:
    long = [] if family == "zerank" else [LONG_TEXT]
    documents = [*TEXTS, *long]
    items = [Item(text=text, id=str(index)) for index, text in enumerate(documents)]
    result = client.score(FAMILIES[family].sie_id, Item(text=QUERY), items)
    scores = {entry["item_id"]: entry["score"] for entry in result["scores"]}
    expected = oracle(family).score(QUERY, documents)
    np.testing.assert_allclose([scores[str(i)] for i in range(len(documents))], expected, atol=1e-4)
    assert [entry["score"] for entry in result["scores"]] == sorted(scores.values(), reverse=True)


@pytest.mark.parametrize("family", [name for name in SERVED if "bge" in name and FAMILIES[name].score])
@pytest.mark.parametrize("mode", ["dense", "sparse", "colbert", "hybrid"])
def test_bge_m3_scores_in_every_mode(family: str, mode: str, client: SIEClient) -> None:
    options = {"score_mode": mode}
    result = client.score(
        FAMILIES[family].sie_id,
        Item(text=QUERY),
        [Item(text=t, id=str(i)) for i, t in enumerate(TEXTS)],
        options=options,
    )
    scores = {entry["item_id"]: entry["score"] for entry in result["scores"]}
    expected = oracle(family).score(QUERY, TEXTS, options=options)
    np.testing.assert_allclose([scores[str(i)] for i in range(len(TEXTS))], expected, atol=1e-4)


@pytest.mark.parametrize("family", [name for name in SERVED if "bge" in name and FAMILIES[name].score])
def test_bge_m3_vectors_as_projected(family: str, client: SIEClient) -> None:
    outputs: list[OutputType] = ["dense", "multivector"]
    results = client.encode(
        FAMILIES[family].sie_id, [Item(text=t) for t in TEXTS], output_types=outputs, options={"normalize": False}
    )
    for result, reference in zip(results, oracle(family).encode(TEXTS, options={"normalize": False}), strict=True):
        assert reference.multivector is not None
        assert reference.dense is not None
        assert abs(float(np.linalg.norm(reference.multivector[0])) - 1) > 0.01
        np.testing.assert_allclose(result["multivector"], reference.multivector, atol=1e-4)
        np.testing.assert_allclose(result["dense"], reference.dense, atol=1e-4)


@pytest.mark.parametrize("family", [name for name in SERVED if "bge" in name and FAMILIES[name].score])
@pytest.mark.parametrize("instruction", [None, "Find the part"])
@pytest.mark.parametrize("mode", ["dense", "hybrid"])
def test_bge_m3_scores_with_an_instruction_and_unnormalised(
    family: str, instruction: str | None, mode: str, client: SIEClient
) -> None:
    model, options = FAMILIES[family].sie_id, {"score_mode": mode}
    items = [Item(text=t, id=str(i)) for i, t in enumerate(TEXTS)]
    expected = oracle(family).score(QUERY, TEXTS, options=options, instruction=instruction)
    for normalize in ({}, {"normalize": False}):
        result = client.score(model, Item(text=QUERY), items, instruction=instruction, options={**options, **normalize})
        scores = {entry["item_id"]: entry["score"] for entry in result["scores"]}
        np.testing.assert_allclose([scores[str(i)] for i in range(len(TEXTS))], expected, atol=1e-4)
        # Each document is billed as a pair with the query, and the instruction stands before both.
        before = f"{instruction} " if instruction else ""
        query, *texts = (
            len(tokenize(oracle(family).folder, before + text, max_length=None)[0]) for text in (QUERY, *TEXTS)
        )
        assert result["usage"]["input_tokens"] == len(TEXTS) * query + sum(texts)


@pytest.mark.parametrize("family", [name for name in SERVED if FAMILIES[name].encode])
def test_company_never_changes_an_answer(family: str, client: SIEClient) -> None:
    model, outputs = FAMILIES[family].sie_id, _outputs(family)
    alone = [client.encode(model, Item(text=text), output_types=outputs) for text in ALL_TEXTS]
    together = client.encode(model, [Item(text=text) for text in ALL_TEXTS], output_types=outputs)

    async def at_once() -> list[EncodeResult]:
        async with SIEAsyncClient(client.base_url) as concurrent:
            calls = (concurrent.encode(model, Item(text=text), output_types=outputs) for text in ALL_TEXTS)
            return list(await asyncio.gather(*calls))

    for one, other, third in zip(alone, together, asyncio.run(at_once()), strict=True):
        for output in outputs:
            for company in (other, third):
                _same(one, company, output)


def _same(one: EncodeResult, other: EncodeResult, output: str) -> None:
    if output == "sparse":
        np.testing.assert_array_equal(one["sparse"]["indices"], other["sparse"]["indices"])
        np.testing.assert_allclose(one["sparse"]["values"], other["sparse"]["values"], atol=1e-5)
    else:
        np.testing.assert_allclose(one[output], other[output], atol=1e-5, rtol=1e-5)  # type: ignore[literal-required]


@pytest.mark.parametrize("family", REMOTE)
def test_what_lives_in_remote_code_is_refused_with_the_reason(family: str, tmp_path: Path) -> None:
    bundle, mistakes = load_bundle(made(family).bundle_path)
    assert bundle is not None, mistakes
    with pytest.raises(DiagnosticError) as refused:
        compile_models([select(bundle, expand(bundle))], BuildOptions(repository=tmp_path / "repository"))
    assert [d.code for d in refused.value.diagnostics] == ["SIE407"], refused.value
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize("family", ["bge_m3"])
def test_heads_that_nobody_asked_for_are_never_computed(family: str, client: SIEClient, groups: Groups) -> None:
    name = FAMILIES[family].sie_id.replace("/", "__")
    before = groups.executions(family)
    client.encode(FAMILIES[family].sie_id, Item(text=QUERY), output_types=["dense"])
    after = groups.executions(family)
    ran = {model: after[model] - before[model] for model in after if model.startswith(name)}
    assert ran == {
        name: 1,
        f"{name}.encoder": 1,
        f"{name}.dense": 1,
        f"{name}.token_weights": 0,
        f"{name}.multivector": 0,
    }
    client.encode(FAMILIES[family].sie_id, Item(text=QUERY), output_types=["dense", "sparse", "multivector"])
    # All three outputs come from one more run of the encoder.
    assert groups.executions(family)[f"{name}.encoder"] == after[f"{name}.encoder"] + 1


# Padded rows, sent to Triton directly


def _padded(rows: list[list[int]], pad: int, side: str) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and mask `[rows, longest + 2]`: on the left, or moved by one place so that both sides are padded."""
    width = max(map(len, rows)) + 2
    ids, mask = np.full((len(rows), width), pad), np.zeros((len(rows), width), np.int64)
    for index, row in enumerate(rows):
        start = {"left": width - len(row), "both": 1, "right": 0}[side]
        ids[index, start : start + len(row)] = row
        mask[index, start : start + len(row)] = 1
    return ids, mask


def _infer(url: str, model: str, output: str, arrays: dict[str, np.ndarray]) -> np.ndarray:
    inputs = []
    for name, array in arrays.items():
        inputs.append(tritonclient.http.InferInput(name, list(array.shape), "INT64"))
        inputs[-1].set_data_from_numpy(array)
    with tritonclient.http.InferenceServerClient(url.removeprefix("http://")) as client:
        found: np.ndarray = client.infer(model, inputs).as_numpy(output)
    return found


# Causal and not, pooled at the last token, at the first, by the mean; positions that count distances, and XLM-R's,
# which count ids that are not the pad token.
@pytest.mark.parametrize("side", ["right", "left", "both"])
@pytest.mark.parametrize(
    ("family", "pooling"), [("qwen3", "last"), ("modernbert", "cls"), ("gte_original", "cls"), ("xlm_roberta", "mean")]
)
def test_rows_may_be_padded_on_either_side(family: str, pooling: str, side: str, groups: Groups) -> None:
    folder, (tokenizer, pad) = made(family).folder, _tokenizer(family)
    rows = [tokenizer.encode(text).ids for text in TEXTS[:4]]
    body = load_body(folder)
    states = [body(row, None) for row in rows]
    pooled = [{"last": s[-1], "cls": s[0], "mean": s.mean(0)}[pooling] for s in states]
    ids, mask = _padded(rows, pad, side)
    found = _infer(groups.triton(family), _triton_name(family), "dense", {"input_ids": ids, "attention_mask": mask})
    for ours, theirs in zip(found, pooled, strict=True):
        assert _cosine(ours, theirs.numpy()) >= 0.99999


@pytest.mark.parametrize("side", ["right", "left", "both"])
def test_a_last_token_is_scored_on_either_side(side: str, groups: Groups) -> None:
    tokenizer, pad = _tokenizer("causal_qwen3")
    rows = [tokenizer.encode(f"{QUERY} {text}").ids for text in TEXTS[:4]]
    model = AutoModelForCausalLM.from_pretrained(made("causal_qwen3").folder, dtype=torch.float32).eval()
    answers = [tokenizer.token_to_id("no"), tokenizer.token_to_id("yes")]
    with torch.no_grad():
        logits = [model(input_ids=torch.tensor([row])).logits[0, -1, answers] for row in rows]
    expected = [float(torch.softmax(pair, 0)[1]) for pair in logits]
    ids, mask = _padded(rows, pad, side)
    arrays = {"input_ids": ids, "attention_mask": mask}
    found = _infer(groups.triton("causal_qwen3"), _triton_name("causal_qwen3"), "score", arrays)
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-4)


def _tokenizer(family: str) -> tuple[Tokenizer, int]:
    folder = made(family).folder
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(40)
    return tokenizer, json.loads((folder / "config.json").read_text())["pad_token_id"] or 0


def _triton_name(family: str) -> str:
    return FAMILIES[family].sie_id.replace("/", "__")
