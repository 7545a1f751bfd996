"""The references themselves: known values, twins among architectures, and what each recipe must not depend on."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, NomicBertModel

from . import references
from .bodies import alibi_slopes, load_body, read_json
from .corpus import LONG_TEXT, QUERY, TEXTS
from .factory import make
from .made import made, oracle
from .oracle import Expected, Oracle
from .references import Sparse, TooLongError, maxsim, sparse_dot, tokenize
from .tiny_shapes import QUERY_INSTRUCTION


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def only(found: list[Expected]) -> Expected:
    (item,) = found
    return item


def dense_of(asked: Oracle, text: str, *, is_query: bool = False, instruction: str | None = None) -> np.ndarray:
    vector = only(asked.encode([text], is_query=is_query, instruction=instruction)).dense
    assert vector is not None
    return vector


def sparse_of(asked: Oracle, text: str, *, is_query: bool = False, instruction: str | None = None) -> Sparse:
    found = only(asked.encode([text], is_query=is_query, instruction=instruction)).sparse
    assert found is not None
    return found


def rows_of(asked: Oracle, text: str, *, is_query: bool) -> np.ndarray:
    rows = only(asked.encode([text], is_query=is_query)).multivector
    assert rows is not None
    return rows


# --- bodies -----------------------------------------------------------------------------------------------------------


def test_gte_written_out_equals_transformers_with_linear_scaling_of_a_larger_base(tmp_path: Path) -> None:
    """The two checkpoints differ in `config.json` alone; weights are copied so that only the arithmetic is compared."""
    native, original = made("gte").folder, tmp_path / "original"
    shutil.copytree(made("gte_original").folder, original)
    shutil.copy(native / "model.safetensors", original / "model.safetensors")
    for text in (*TEXTS, LONG_TEXT):
        ids, _ = tokenize(native, text, max_length=60)
        torch.testing.assert_close(load_body(original)(ids, None), load_body(native)(ids, None), atol=1e-5, rtol=0)


def test_nomic_bert_under_gpt2_names_is_the_native_class_with_the_native_names(tmp_path: Path) -> None:
    native, original = made("nomic_bert").folder, tmp_path / "original"
    shutil.copytree(made("nomic_bert_original").folder, original)
    shutil.copy(native / "model.safetensors", original / "model.safetensors")
    ids, _ = tokenize(native, TEXTS[1], max_length=60)
    model = NomicBertModel.from_pretrained(native).eval()
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
    torch.testing.assert_close(load_body(original)(ids, None), expected, atol=1e-5, rtol=0)


def test_alibi_slopes_are_those_of_the_paper() -> None:
    assert alibi_slopes(8) == [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]
    assert alibi_slopes(6) == [1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 2, 1 / 8]


def test_jina_bert_is_not_the_bert_that_transformers_takes_it_for() -> None:
    """Loading it as `BertModel` succeeds, and gives another vector: `config.json` says `model_type: bert`."""
    folder = made("jina_bert").folder
    ids, _ = tokenize(folder, TEXTS[0], max_length=None)
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        wrong = model(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(0)
    right = load_body(folder)(ids, None).mean(0)
    assert torch.cosine_similarity(wrong, right, dim=0) < 0.9


@pytest.mark.parametrize(
    ("name", "lifted"),
    [("qwen2", True), ("sentence_qwen2", False), ("mistral_bidirectional", True), ("llama_bidirectional", False)],
)
def test_bidirectional_decoders_see_what_follows(name: str, lifted: bool) -> None:
    folder = made(name).folder
    ids, _ = tokenize(folder, TEXTS[0], max_length=None)
    changed = [*ids[:-1], ids[0]]
    body = load_body(folder, bidirectional=lifted)
    assert not torch.allclose(body(ids, None)[0], body(changed, None)[0], atol=1e-3)


@pytest.mark.parametrize("name", ["qwen3", "mistral"])
def test_causal_decoders_do_not(name: str) -> None:
    folder = made(name).folder
    ids, _ = tokenize(folder, TEXTS[0], max_length=None)
    changed = [*ids[:-1], ids[0]]
    torch.testing.assert_close(load_body(folder)(ids, None)[:-1], load_body(folder)(changed, None)[:-1])


@pytest.mark.parametrize("name", ["modernbert", "embedding_gemma", "nomic_bert", "gte", "jina_bert"])
def test_the_order_of_words_matters(name: str) -> None:
    """Rotary positions, ALiBi and local windows do something at these sizes."""
    asked = oracle(name)
    forward, backward = (dense_of(asked, text) for text in ("sea wind rain", "rain wind sea"))
    assert float(forward @ backward) < 0.999


# --- text and options -------------------------------------------------------------------------------------------------


def test_templates_take_the_place_of_prefixes() -> None:
    folder = made("bert").folder
    direct = {
        side: references.dense(folder, f"{side}: {QUERY}", pooling="mean", max_length=48)
        for side in ("query", "passage")
    }
    np.testing.assert_array_equal(dense_of(oracle("bert"), QUERY, is_query=True), direct["query"])
    np.testing.assert_array_equal(dense_of(oracle("bert"), QUERY, instruction="dropped"), direct["passage"])


def test_without_a_template_an_instruction_prefixes_documents_too() -> None:
    expected = references.dense(made("modernbert").folder, f"find {QUERY}", pooling="cls", max_length=48)
    for is_query in (False, True):
        found = dense_of(oracle("modernbert"), QUERY, is_query=is_query, instruction="find")
        np.testing.assert_array_equal(found, expected)


def test_an_empty_instruction_counts_except_for_the_pytorch_adapter() -> None:
    default, empty = (dense_of(oracle("qwen3"), QUERY, is_query=True, instruction=value) for value in (None, ""))
    assert not np.allclose(default, empty, atol=1e-3)
    asked = oracle("mistral_bidirectional")
    default, empty = (dense_of(asked, QUERY, is_query=True, instruction=value) for value in (None, ""))
    np.testing.assert_array_equal(default, empty)
    text = f"<|user|>\n{QUERY_INSTRUCTION}\n<|embed|>\n{QUERY}"
    whole = references.dense(asked.folder, text, pooling="mean", max_length=48, bidirectional=True)
    np.testing.assert_array_equal(default, whole)


def test_a_single_quoted_template_keeps_its_backslash() -> None:
    found = dense_of(oracle("xlm_roberta"), QUERY, is_query=True)
    written = references.dense(
        made("xlm_roberta").folder, rf"Instruct: find\nQuery: {QUERY}", pooling="mean", max_length=48
    )
    np.testing.assert_array_equal(found, written)


def test_the_embedding_of_an_appended_eos_is_pooled_and_blank_text_is_zero() -> None:
    asked = oracle("mistral")
    ids, _ = tokenize(asked.folder, f"{QUERY}</s>", max_length=None)
    assert ids[-1] == 2
    by_hand = references.unit(load_body(asked.folder)(ids, None)[-1]).numpy()
    np.testing.assert_allclose(dense_of(asked, QUERY), by_hand, atol=1e-6)
    assert not dense_of(asked, "  ").any()


def test_runtime_pooling_and_normalize_of_a_request() -> None:
    asked = oracle("bert")
    states = load_body(asked.folder)(tokenize(asked.folder, f"passage: {QUERY}", max_length=48)[0], None)
    for pooling, expected in (("cls", states[0]), ("last", states.mean(0))):
        vector = only(asked.encode([QUERY], options={"pooling": pooling, "normalize": False})).dense
        assert vector is not None
        np.testing.assert_allclose(vector, expected.numpy(), atol=1e-6)


def test_limits_are_the_least_of_three_and_offsets_count() -> None:
    folder = made("roberta").folder
    assert read_json(folder / "config.json")["max_position_embeddings"] == 66
    assert [references.token_limit(folder, declared) for declared in (None, 48, 512)] == [64, 48, 64]
    assert len(tokenize(folder, LONG_TEXT, max_length=references.token_limit(folder, 48))[0]) == 48


# --- sparse -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["splade_bert", "splade_distilbert", "splade_roberta", "opensearch_gte"])
def test_documents_are_ascending_and_positive(name: str) -> None:
    found = sparse_of(oracle(name), TEXTS[1])
    assert found.ids == sorted(found.ids)
    assert (found.weights > 0).all()


def test_the_text_table_comes_first_and_a_malformed_one_makes_way() -> None:
    for name, file in (("opensearch_query_weights", "query_token_weights.txt"), ("opensearch_malformed_weights", None)):
        folder = made(name).folder
        if file is None:
            table = read_json(folder / "idf.json")
        else:
            lines = (folder / file).read_text(encoding="utf-8").splitlines()
            table = {token: float(weight) for token, weight in (line.split("\t") for line in lines)}
        words = references.tokenizer(folder)
        encoding = words.encode(TEXTS[0])
        expected = {token: table.get(text, 0) for token, text in zip(encoding.ids, encoding.tokens, strict=True)}
        found = sparse_of(oracle(name), TEXTS[0], is_query=True)
        assert found.ids == sorted(token for token, weight in expected.items() if weight > 0)
        np.testing.assert_allclose(found.weights, [expected[token] for token in found.ids], rtol=1e-6)


def test_queries_without_a_table_run_the_model() -> None:
    document, query = (sparse_of(oracle("splade_bert"), QUERY, is_query=is_query) for is_query in (False, True))
    assert query.ids == document.ids
    np.testing.assert_array_equal(query.weights, document.weights)


def test_gte_is_log_of_log_without_special_tokens() -> None:
    folder, specials = made("opensearch_gte").folder, {0, 1, 2, 3, 4}
    once = references.splade(folder, TEXTS[1], max_length=48)
    expected = {
        token: math.log1p(weight)
        for token, weight in zip(once.ids, once.weights.tolist(), strict=True)
        if token not in specials
    }
    found = sparse_of(oracle("opensearch_gte"), TEXTS[1])
    assert found.ids == list(expected)
    np.testing.assert_allclose(found.weights, list(expected.values()), atol=1e-6)
    assert not specials & set(sparse_of(oracle("opensearch_gte"), TEXTS[1], is_query=True).ids)
    assert specials & set(sparse_of(oracle("opensearch_idf"), TEXTS[1], is_query=True).ids)


def test_the_name_of_a_splade_checkpoint_does_not_double_its_log() -> None:
    assert "v3" in str(made("opensearch_idf").folder)
    plain = references.splade(made("opensearch_idf").folder, TEXTS[1], max_length=48)
    np.testing.assert_array_equal(sparse_of(oracle("opensearch_idf"), TEXTS[1]).weights, plain.weights)


def test_sparse_dot_is_over_shared_tokens() -> None:
    first = Sparse([3, 5, 9], np.array([1, 2, 4], dtype=np.float32))
    second = Sparse([9, 7, 3], np.array([0.5, 8, 0.25], dtype=np.float32))
    assert sparse_dot(first, second) == 4 * 0.5 + 1 * 0.25


# --- BGE-M3 -----------------------------------------------------------------------------------------------------------


def test_the_state_dicts_hold_what_their_safetensors_hold() -> None:
    from safetensors.torch import load_file

    for name in ("sparse_linear", "colbert_linear"):
        stored = torch.load(made("bge_m3").folder / f"{name}.pt", weights_only=True)
        twin = load_file(made("bge_m3").folder / f"{name}.safetensors")
        assert stored.keys() == twin.keys() == {"weight", "bias"}
        assert all(torch.equal(stored[key], twin[key]) for key in twin)


def test_bge_m3_by_hand() -> None:
    folder = made("bge_m3").folder
    text = "salt sea salt"
    found = references.bge_m3(folder, text, max_length=48)
    ids, _ = tokenize(folder, text, max_length=None)
    states = load_body(folder)(ids, None)
    head = torch.load(folder / "sparse_linear.pt", weights_only=True)
    weights = torch.relu(states @ head["weight"][0] + head["bias"])
    inner = {token: max(float(weights[i]) for i, other in enumerate(ids) if other == token) for token in ids[1:-1]}
    assert found.sparse.ids == [token for token, weight in inner.items() if weight > 0]
    np.testing.assert_allclose(found.sparse.weights, [inner[token] for token in found.sparse.ids], atol=1e-5)
    assert len(found.multivector) == len(ids) - 1
    np.testing.assert_allclose(found.dense, (states[0] / states[0].norm()).numpy(), atol=1e-6)


def test_bge_m3_score_modes() -> None:
    asked = oracle("bge_m3")
    modes = {
        mode: asked.score(QUERY, TEXTS, options={"score_mode": mode})
        for mode in ("dense", "sparse", "colbert", "hybrid")
    }
    np.testing.assert_allclose(modes["dense"], asked.score(QUERY, TEXTS))
    mixed = 0.4 * np.array(modes["dense"]) + 0.2 * np.array(modes["sparse"]) + 0.4 * np.array(modes["colbert"])
    np.testing.assert_allclose(modes["hybrid"], mixed)
    alone = asked.score(QUERY, TEXTS, options={"score_mode": "hybrid", "score_weights": [0, 1, 0]})
    np.testing.assert_allclose(alone, modes["sparse"])
    assert any(modes["sparse"])
    with pytest.raises(KeyError):
        asked.score(QUERY, TEXTS, options={"score_mode": "best"})


# --- late interaction -------------------------------------------------------------------------------------------------


def test_expansion_is_not_attended_but_scored() -> None:
    """The real tokens' rows are those without expansion; the padded query has `query_max_length` rows."""
    name = "colbert_root_linear"
    expanded = rows_of(oracle(name), "salt", is_query=True)
    options = references.ColbertOptions(
        token_dim=24,
        query_length=32,
        query_prefix="[unused0]",
        query_expansion=False,
        skip_special_tokens=False,
    )
    plain = references.colbert(made(name).folder, "salt", is_query=True, options=options)
    assert (len(expanded), len(plain)) == (32, 4)
    np.testing.assert_allclose(expanded[:4], plain, atol=1e-5)


def test_jina_colbert_attends_to_its_expansion() -> None:
    short, long = (
        only(oracle("jina_colbert").encode(["salt"], is_query=True, options={"query_max_length": length})).multivector
        for length in (8, 32)
    )
    assert short is not None and long is not None
    assert (len(short), len(long)) == (8, 32)
    assert not np.allclose(short, long[:8], atol=1e-3)


def test_the_marker_stands_second_and_tells_queries_from_documents() -> None:
    folder = made("colbert_named_linear").folder
    ids, _ = tokenize(folder, "salt", max_length=None)
    ids[1:1] = [token for token in [references.tokenizer(folder).token_to_id("[unused0]")] if token is not None]
    assert len(ids) == 4
    states = references.project(folder, load_body(folder)(ids, None), 24)
    found = rows_of(oracle("colbert_named_linear"), "salt", is_query=True)
    np.testing.assert_allclose(found, references.unit(states).numpy(), atol=1e-6)
    assert not np.allclose(found, rows_of(oracle("colbert_named_linear"), "salt", is_query=False), atol=1e-3)


def test_punctuation_is_dropped_from_documents_only() -> None:
    for name in ("colbert_root_linear", "colbert_modernbert"):
        plain, marked = (rows_of(oracle(name), text, is_query=False) for text in ("sea", "sea!"))
        assert len(plain) == len(marked)
        assert not np.allclose(plain, marked, atol=1e-3)
    plain, marked = (rows_of(oracle("colbert_modernbert"), text, is_query=True) for text in ("sea", "sea!"))
    assert len(marked) == len(plain) + 1


def test_special_tokens_are_dropped_where_asked() -> None:
    ids, _ = tokenize(made("colbert_truncated").folder, "sea salt", max_length=None)
    assert len(rows_of(oracle("colbert_truncated"), "sea salt", is_query=False)) == len(ids) - 2 + 1


def test_lengths_of_a_request_stay_below_the_ceiling() -> None:
    asked = oracle("colbert_root_linear")
    for length, rows in ((8, 8), (1000, 48)):
        found = only(asked.encode([LONG_TEXT], is_query=True, options={"query_max_length": length})).multivector
        assert found is not None and len(found) == rows


def test_maxsim_by_hand() -> None:
    query = np.array([[1, 0], [0, 1]], dtype=np.float32)
    document = np.array([[0.6, 0.8], [1, 0], [-1, 0]], dtype=np.float32)
    assert maxsim(query, document) == pytest.approx(1.8)
    assert maxsim(query, document[:0]) == -math.inf


# --- rerankers --------------------------------------------------------------------------------------------------------


def test_activation_rule() -> None:
    rule = references.configured_sigmoid
    assert rule({}, labels=1)
    assert not rule({}, labels=3)
    assert not rule({"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, labels=1)
    assert rule({"sbert_ce_default_activation_function": "torch.nn.modules.activation.Sigmoid"}, labels=1)
    assert not rule({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, labels=1)


def test_sigmoid_of_the_logit() -> None:
    folder = made("cross_encoder_xlm_roberta").folder
    logit = references.cross_encoder(folder, QUERY, TEXTS[0], max_length=80, sigmoid=False)
    (score,) = oracle("cross_encoder_xlm_roberta").score(QUERY, TEXTS[:1])
    assert score == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-6)


def test_an_instruction_goes_before_the_query() -> None:
    asked = oracle("cross_encoder_bert_identity")
    assert asked.score(QUERY, TEXTS, instruction="find") == asked.score(f"find {QUERY}", TEXTS)


def test_pairs_are_cut_longest_first() -> None:
    folder = made("cross_encoder_bert_identity").folder
    ids, types = tokenize(folder, QUERY, LONG_TEXT, max_length=80)
    query, _ = tokenize(folder, QUERY, max_length=None)
    assert len(ids) == 80
    assert ids[: len(query)] == query
    assert types == [0] * len(query) + [1] * (80 - len(query))


def test_only_the_document_of_a_causal_prompt_is_cut() -> None:
    asked = oracle("causal_qwen3")
    long = asked.score(QUERY, [LONG_TEXT + " one", LONG_TEXT + " two"])
    assert long[0] == long[1]
    with pytest.raises(TooLongError):
        asked.score(LONG_TEXT, ["short"])
    for query, document in ((" ", "text"), ("text", "\n")):
        with pytest.raises(ValueError, match="blank"):
            asked.score(query, [document])


def test_pieces_of_a_causal_prompt_are_tokenized_apart() -> None:
    """`: ` and what follows would merge to other tokens if the prompt were one text."""
    folder = made("causal_qwen3").folder
    apart = [token for text in ("a:", " sea") for token in tokenize(folder, text, max_length=None, specials=False)[0]]
    assert tokenize(folder, "a: sea", max_length=None, specials=False)[0] == apart
    apart = [token for text in ("a: ", "sea") for token in tokenize(folder, text, max_length=None, specials=False)[0]]
    assert tokenize(folder, "a: sea", max_length=None, specials=False)[0] != apart


def test_probability_and_difference_agree() -> None:
    folder = made("causal_qwen3").folder
    difference, probability = (
        references.causal_reranker(
            folder, QUERY, TEXTS[0], prompt="qwen3", tokens=("yes", "no"), probability=probability, max_length=640
        )
        for probability in (False, True)
    )
    assert probability == pytest.approx(1 / (1 + math.exp(-difference)), abs=1e-6)


def test_zerank_reads_the_token_of_its_modules_and_refuses_long_pairs() -> None:
    folder = made("zerank").folder
    assert read_json(folder / "1_LogitScore" / "config.json")["true_token_id"] == references.ZERANK_TOKEN
    assert references.tokenizer(folder).token_to_id("Yes") == references.ZERANK_TOKEN
    with pytest.raises(TooLongError, match="640 are allowed"):
        oracle("zerank").score(QUERY, [LONG_TEXT])


def test_weights_depend_on_the_slug(tmp_path: Path) -> None:
    """A checkpoint made elsewhere gives the same answers."""
    elsewhere = Oracle(make("sentence_bert", tmp_path).bundle_path)
    np.testing.assert_array_equal(dense_of(elsewhere, QUERY), dense_of(oracle("sentence_bert"), QUERY))
