"""Requests that a real SIE 0.10.1 was asked beside us, and what it said.

The entries' numbers are in the tests' names. What depends on a model's numbers is compared in `tests/recipes`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from compiler import tiny
from contract.recorded import refusals
from frontend.conftest import Service
from frontend.fake_triton import FakeTriton
from frontend.repository import token_ids, write_repository
from sie_frontend.contract.errors import WireError
from sie_frontend.contract.requests import parse_encode
from sie_frontend.manifest import Model, read_manifest
from sie_frontend.outputs.bge_m3 import outputs_for
from sie_frontend.outputs.dense import Pooled
from sie_frontend.outputs.heads import Heads
from sie_frontend.outputs.sparse import weigh_query
from sie_frontend.serving.lora import weights_of
from sie_frontend.settings import Settings
from sie_frontend.text.lengths import coerced_length
from sie_frontend.text.reader import TextReader
from tokenizers import Tokenizer

from sie_triton.verify.public_model import CaseCall

_ENCODE = """\
sie_id: acme/tiny
hf_id: acme/tiny
tasks:
  encode:
    {output}:
      dim: 32
max_sequence_length: 48
profiles:
  default:
    max_batch_tokens: 1024
    adapter_path: sie_server.adapters.some:{adapter}
    adapter_options:
      loadtime: {loadtime}
      runtime: {runtime}
"""
_SCORE = """\
sie_id: acme/tiny
hf_id: acme/tiny
tasks:
  score: {{}}
max_sequence_length: 48
profiles:
  default:
    max_batch_tokens: 1024
    adapter_path: sie_server.adapters.some:{adapter}
"""
COLBERT = {"token_dim": 32, "query_prefix": "", "doc_prefix": "", "skip_special_tokens": False}


def told(error: WireError) -> tuple[int, str | None, str]:
    return error.status, error.code, error.message


def built(
    folder: Path, adapter: str, output: str = "dense", *, loadtime: Any = None, runtime: Any = None, **config: object
) -> tuple[Model, TextReader, Path]:
    """The tiny model, behind an adapter."""
    text = _SCORE if output == "score" else _ENCODE
    bundle = text.format(
        adapter=adapter, output=output, loadtime=json.dumps(loadtime or {}), runtime=json.dumps(runtime or {})
    )
    repository = write_repository(folder / "repository", bundle, **config)
    model = read_manifest(repository).models[tiny.MODEL_ID]
    return model, TextReader(model.text, repository, profiles=model.profiles), repository


# 2: LoRA


@pytest.mark.parametrize("adapter", ["SentenceTransformerDenseAdapter", "BertFlashAdapter"])
def test_2d_lora_is_refused_where_the_adapter_has_none(adapter: str, tmp_path: Path) -> None:
    model_id = "sentence-transformers/all-MiniLM-L6-v2"
    model, _, _ = built(tmp_path, adapter)
    with pytest.raises(WireError) as caught:
        weights_of(model_id, {model_id: model}, {"lora_id": "a/b"})
    assert told(caught.value) == refusals()["2d"]
    for nothing in ({}, {"lora_id": None}, {"lora_id": ""}):
        assert weights_of(model_id, {model_id: model}, nothing) == model_id


def test_2ab_lora_is_refused_for_good_where_the_adapter_has_it(tmp_path: Path) -> None:
    """SIE says 503 and loads it; here it never comes, and a client that tries again would wait for nothing."""
    model, _, _ = built(tmp_path, "PyTorchEmbeddingAdapter", runtime={"pooling": "cls"})
    assert refusals()["2a"][:2] == (503, "LORA_LOADING")
    with pytest.raises(WireError, match="Model 'm' does not support LoRA here: 'a/b' is not built in") as caught:
        weights_of("m", {"m": model}, {"lora_id": "a/b"})
    assert (caught.value.status, caught.value.code) == (400, "INVALID_INPUT")


def test_2c_a_lora_that_is_built_in_is_found_by_name_and_by_profile(tmp_path: Path) -> None:
    """SIE loads the adapter that a call or the call's profile names; here it is a model of its own, beside the base."""
    base, _, _ = built(tmp_path, "PyTorchEmbeddingAdapter", runtime={"pooling": "cls"})
    lora = msgspec.structs.replace(base, lora="a/b")
    models = {"other:legal": lora, "m:cls": base, "m:flash": msgspec.structs.replace(lora, adapter="BGEM3FlashAdapter")}
    models |= {"m": base, "m:legal": lora}
    assert weights_of("m", models, {"lora_id": "a/b"}) == "m:legal"
    assert weights_of("m:legal", models, {"lora_id": "a/b"}) == "m:legal"
    assert weights_of("m:legal", models, {"lora_id": None}) == "m:cls"
    assert weights_of("m:cls", models, {}) == "m:cls"
    for other in ("c/d", "a/B"):
        with pytest.raises(WireError, match=f"'{other}' is not built in"):
            weights_of("m", models, {"lora_id": other})
    with pytest.raises(WireError, match="the base model's weights are not built in"):
        weights_of("m:legal", {"m:legal": lora}, {"lora_id": None})


# 5: null


def test_5a_a_template_is_switched_off_by_null(tmp_path: Path) -> None:
    templates = {"query_template": "search {text}", "doc_template": "embed {text}"}
    model, maker, repository = built(tmp_path, "BertFlashAdapter", runtime=templates)
    profile = model.profiles["default"]
    for is_query, name, word in ((True, "query_template", "search"), (False, "doc_template", "embed")):
        plain, off = (
            maker.rows(["cell"], CaseCall({**profile, **options}), is_query=is_query)[0].ids.tolist()
            for options in ({}, {name: None})
        )
        assert plain == token_ids(repository, f"{word} cell")
        assert off == token_ids(repository, "cell")
        # Another profile's options do not have this one's template.
        assert maker.rows(["cell"], CaseCall({}), is_query=is_query)[0].ids.tolist() == token_ids(repository, "cell")


@pytest.mark.parametrize(
    ("adapter", "own", "null", "unsaid"),
    [
        ("Qwen2FlashAdapter", "last", "mean", "mean"),
        ("BertFlashAdapter", "cls", "mean", "mean"),
        ("ModernBERTFlashAdapter", "mean", "mean", "cls"),
        ("PyTorchEmbeddingAdapter", "mean", "last_token", "last_token"),
    ],
)
def test_5c_pooling_null_is_another_spelling(adapter: str, own: str, null: str, unsaid: str, tmp_path: Path) -> None:
    model, _, repository = built(tmp_path, adapter, runtime={"pooling": own})
    head = Heads(model.heads, repository).encoded("dense")
    pooled: dict[str, Pooled] = model.heads["dense"].poolings  # type: ignore[union-attr]
    for options, pooling in (({"pooling": None}, null), ({}, unsaid), ({"pooling": "anything"}, null)):
        assert head.tensors(CaseCall(options), is_query=False) == (pooled[pooling].normalized,)
    assert head.tensors(CaseCall({"pooling": own, "normalize": False}), is_query=False)[0].endswith("_unnormalized")


# 7: token limits


@pytest.mark.parametrize(
    ("asked", "limit"),
    [
        (0, None),
        ("12", 12),
        (None, None),
        (-3, None),
        (12.7, 12),
        (True, 1),
        (" 7 ", 7),
        (10**30, 10**30),
        ("-1", None),
    ],
)
def test_7_limits_are_coerced(asked: object, limit: int | None) -> None:
    assert coerced_length({"max_seq_length": asked}, "max_seq_length") == limit


@pytest.mark.parametrize("asked", ["many", [], {}, float("inf"), float("nan"), "1.5", ""])
def test_7_what_is_no_number_is_refused(asked: object) -> None:
    with pytest.raises(WireError, match=r"'options\.max_seq_length' must be a positive integer or null"):
        coerced_length({"max_seq_length": asked}, "max_seq_length")


@pytest.mark.parametrize(("adapter", "output"), [("SPLADEFlashAdapter", "sparse"), ("ColBERTAdapter", "multivector")])
def test_7_and_the_text_is_cut_there(adapter: str, output: str, tmp_path: Path) -> None:
    _, maker, _ = built(tmp_path, adapter, output, loadtime=COLBERT if output == "multivector" else {})

    def tokens(asked: object) -> int:
        return len(maker.rows(["the cell " * 40], CaseCall({"max_seq_length": asked}), is_query=False)[0])

    assert [tokens(asked) for asked in (0, "12", 12.7, None, 1000)] == [48, 12, 12, 48, 48]
    for below in (1, "1", True):
        with pytest.raises(WireError, match=r"is 1, and the special tokens alone take 2") as caught:
            tokens(below)
        assert caught.value.status == 400
    assert tokens(2) == 2


def test_a_limit_of_queries_is_coerced_too(tmp_path: Path) -> None:
    _, maker, _ = built(tmp_path, "ColBERTModernBERTFlashAdapter", "multivector", loadtime=COLBERT)
    rows = maker.rows(["the cell " * 40], CaseCall({"query_max_length": "12"}), is_query=True)
    assert len(rows[0]) == 12
    with pytest.raises(WireError, match=r"'options\.query_max_length' is 1"):
        maker.rows(["x"], CaseCall({"query_max_length": 1}), is_query=True)


def test_pairs_obey_a_limit_but_for_the_adapter_that_ignores_it(tmp_path: Path) -> None:
    long = "the cell " * 40
    _, maker, _ = built(tmp_path / "flash", "BertFlashCrossEncoderAdapter", "score", num_labels=1)
    assert len(maker.pairs(long, [long], CaseCall({"max_seq_length": 12}))[0]) == 12
    with pytest.raises(WireError, match="is 2, and the special tokens alone take 3"):
        maker.pairs(long, [long], CaseCall({"max_seq_length": 2}))
    with pytest.raises(WireError, match="must be a positive integer"):
        maker.pairs(long, [long], CaseCall({"max_seq_length": "12"}))
    _, plain, _ = built(tmp_path / "plain", "CrossEncoderAdapter", "score", num_labels=1)
    wrong: list[object] = [1, 12, "12", "many", []]
    for asked in wrong:
        assert len(plain.pairs(long, [long], CaseCall({"max_seq_length": asked}))[0]) == 48


def test_pairs_that_multiply_a_query_are_refused(tmp_path: Path) -> None:
    _, maker, _ = built(tmp_path, "BertFlashCrossEncoderAdapter", "score", num_labels=1)
    with pytest.raises(WireError, match="The texts of one request must hold at most 35651584 bytes"):
        maker.pairs("q " * 50_000, ["x"] * 512, CaseCall({}))
    with pytest.raises(WireError, match="Field 'query' must hold at most 2097152 bytes"):
        maker.pairs("q" * 1_500_000, ["x"], CaseCall({}, "y" * 1_500_000))


# 8: score options of BGE-M3


@pytest.mark.parametrize(
    ("entry", "options"),
    [
        ("8a", {"score_mode": "hybrid", "score_weights": {"dense": -1}}),
        ("8b", {"score_mode": "hybrid", "score_weights": [1, 2, 3]}),
        ("8c", {"score_mode": None}),
        ("8d", {"score_mode": "hybrid", "score_weights": {"dense": 0, "sparse": 0, "colbert": 0}}),
    ],
)
def test_8_score_options_are_refused_as_recorded(entry: str, options: dict[str, Any]) -> None:
    with pytest.raises(WireError) as caught:
        outputs_for(options)
    assert told(caught.value) == refusals()[entry]


@pytest.mark.parametrize("value", [True, "1", None, float("nan"), float("inf"), -0.5, [1]])
def test_a_weight_is_a_number_from_zero_up(value: object) -> None:
    with pytest.raises(WireError, match=r"score_weights\['sparse'\] must be a non-negative number, got"):
        outputs_for({"score_mode": "hybrid", "score_weights": {"sparse": value}})


def test_weights_of_another_mode_are_not_read() -> None:
    assert outputs_for({"score_mode": "sparse", "score_weights": [1]}) == ("sparse",)


# 9, 16: shapes


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with FakeTriton() as triton:
        yield Service(Settings(repository=write_repository(tmp_path / "repository"), triton_url=triton.url))


@pytest.mark.parametrize(
    ("entry", "body"),
    [
        ("9", {"items": [{"text": "cell"}], "params": {"options": {"output_types": None}}}),
        ("16", {"items": [{"text": "x", "audio": "x"}]}),
    ],
)
@pytest.mark.asyncio
async def test_9_16_shapes_are_refused_as_recorded(entry: str, body: dict[str, Any], service: Service) -> None:
    async with service.open() as client:
        response: httpx.Response = await client.post(f"/v1/encode/{tiny.MODEL_ID}", json=body)
    detail = response.json()["detail"]
    assert (response.status_code, detail["code"], detail["message"]) == refusals()[entry]


@pytest.mark.parametrize("field", ["audio", "video", "document"])
def test_16_every_medium_is_checked(field: str) -> None:
    def parse(value: object) -> None:
        body = json.dumps({"items": [{"text": "x", field: value}]}).encode()
        parse_encode(body, "application/json")

    for good in (None, {"data": "AAAA"}, {"data": "AAAA", "format": "wav", "more": 1}):
        parse(good)
    for bad, message in (
        ([1], f"Expected `object | null`, got `array` - at `$.items[0].{field}`"),
        ({}, f"Object missing required field `data` - at `$.items[0].{field}`"),
        ({"data": 5}, f"Expected `bytes`, got `int` - at `$.items[0].{field}.data`"),
        ({"data": "A"}, f"Invalid base64 encoded string - at `$.items[0].{field}.data`"),
    ):
        with pytest.raises(WireError) as caught:
            parse(bad)
        assert told(caught.value) == (400, "INVALID_INPUT", message)


# 10: what is billed


@pytest.mark.parametrize(
    ("adapter", "counts"), [("ColBERTModernBERTFlashAdapter", "processed"), ("ColBERTAdapter", "raw")]
)
def test_10a_usage_of_late_interaction(adapter: str, counts: str, tmp_path: Path) -> None:
    model, _, _ = built(tmp_path, adapter, "multivector", loadtime=COLBERT)
    assert model.text.usage == counts


# 18: punctuation


def test_18_punctuation_is_what_the_vocabulary_spells_so(tmp_path: Path) -> None:
    """Characters without an entry of their own do not stand for the unknown token."""
    model, maker, repository = built(tmp_path, "ColBERTAdapter", "multivector", loadtime=COLBERT)
    tokenizer = Tokenizer.from_file(str(repository / model.text.tokenization.path))
    vocabulary = tokenizer.get_vocab()
    ascii_punctuation = [chr(c) for c in range(33, 127) if not chr(c).isalnum()]
    assert "~" not in vocabulary
    assert maker.punctuation_ids.tolist() == sorted(vocabulary[c] for c in ascii_punctuation if c in vocabulary)
    heads = Heads(model.heads, repository)
    [row] = maker.rows(["cell ~ \u0e2a, body."], CaseCall({}), is_query=False)
    vectors = np.arange(len(row) * 32, dtype=np.float32).reshape(len(row), 32)
    kept = heads.encoded("multivector").read({"multivector": vectors}, row, CaseCall({}), heads, is_query=False)
    dropped = [token for token in row.ids.tolist() if token in {vocabulary[","], vocabulary["."]}]
    assert len(dropped) == 2
    assert len(kept) == len(row) - 2
    assert vocabulary["[UNK]"] in row.ids.tolist()


def test_an_id_that_a_weight_table_lacks_has_no_weight(tmp_path: Path) -> None:
    _, maker, _ = built(tmp_path, "SPLADEFlashAdapter", "sparse")
    [row] = maker.rows(["the cell"], CaseCall({}), is_query=True)
    assert max(row.ids) > 8
    vector = weigh_query(row, np.arange(8, dtype=np.float32))
    assert vector.indices.tolist() == [2, 3]
    assert vector.values.tolist() == [2.0, 3.0]
