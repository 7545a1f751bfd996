from __future__ import annotations

import re
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sie_frontend.contract.errors import WireError
from sie_frontend.text.entry import Prompting
from sie_frontend.text.prompting import prepare_texts

QUERY, DOC = "Q: {text}", "D: {text}"
TASK = "I[{instruction}] {text}"


def prepare(
    prompting: Prompting, *, options: dict[str, Any] | None = None, instruction: str | None = None, query: bool = False
) -> str:
    (text,) = prepare_texts(["t"], prompting, options=options or {}, instruction=instruction, is_query=query)
    return text


def refusal(template: object, *, query: bool = False) -> str:
    name = "query_template" if query else "doc_template"
    with pytest.raises(WireError) as caught:
        prepare(Prompting("template"), options={name: template}, query=query)
    assert (caught.value.status, caught.value.code) == (400, "INVALID_INPUT")
    return caught.value.message


# Section 3.4: templates, else the instruction as a prefix


@pytest.mark.parametrize(
    ("prompting", "options", "instruction", "query", "expected"),
    [
        # Neither template nor instruction.
        ({}, {}, None, False, "t"),
        ({}, {}, None, True, "t"),
        # An instruction without a template prefixes documents too; an empty one is given, but does nothing.
        ({}, {}, "find", True, "find t"),
        ({}, {}, "find", False, "find t"),
        ({}, {}, "", True, "t"),
        # The default instruction is for queries only, and an explicit "" keeps it away.
        ({}, {"default_instruction": "do"}, None, True, "do t"),
        ({}, {"default_instruction": "do"}, None, False, "t"),
        ({}, {"default_instruction": "do"}, "", True, "t"),
        ({}, {"default_instruction": "do"}, "find", True, "find t"),
        # Each side has its template.
        ({"query_template": QUERY, "doc_template": DOC}, {}, None, True, "Q: t"),
        ({"query_template": QUERY, "doc_template": DOC}, {}, None, False, "D: t"),
        ({"query_template": QUERY}, {}, None, False, "t"),
        # A template without the placeholder drops the instruction in silence.
        ({"query_template": QUERY}, {}, "find", True, "Q: t"),
        ({"query_template": QUERY}, {}, "find", False, "find t"),
        ({"query_template": TASK}, {}, "find", True, "I[find] t"),
        ({"query_template": TASK}, {}, None, True, "I[] t"),
        ({"query_template": TASK}, {"default_instruction": "do"}, None, True, "I[do] t"),
        ({"query_template": TASK}, {"default_instruction": "do"}, "", True, "I[] t"),
        ({"doc_template": TASK}, {"default_instruction": "do"}, None, False, "I[] t"),
        # What the options say beats the adapter's own template; null says that there is none.
        ({"query_template": QUERY}, {"query_template": "mine {text}"}, None, True, "mine t"),
        ({"query_template": QUERY}, {"query_template": None}, None, True, "t"),
        ({"doc_template": QUERY}, {"doc_template": None}, "find", False, "find t"),
        ({"query_template": QUERY}, {"doc_template": "mine {text}"}, None, True, "Q: t"),
        ({"query_template": QUERY}, {"query_template": ""}, None, True, "t"),
        # Literal braces are doubled.
        ({"doc_template": "{{{text}}} {{}}"}, {}, None, False, "{t} {}"),
    ],
)
def test_templates_and_instructions(
    prompting: dict[str, str], options: dict[str, Any], instruction: str | None, query: bool, expected: str
) -> None:
    made = prepare(Prompting("template", **prompting), options=options, instruction=instruction, query=query)  # type: ignore[arg-type]
    assert made == expected


def test_a_text_with_braces_is_only_text() -> None:
    texts = ["{instruction}", "{0}", "{{", "%s", "{text.__class__}"]
    prepared = prepare_texts(
        texts, Prompting("template", doc_template=DOC), options={}, instruction="x", is_query=False
    )
    assert prepared == [f"D: {text}" for text in texts]


# Section 7.2: the adapters that differ

ST = {"prompts": {"query": "search: ", "document": "doc: "}}


@pytest.mark.parametrize(
    ("prompting", "options", "instruction", "query", "expected"),
    [
        # Without a template the repository's prompt holds, and an instruction has no effect.
        ({}, {}, "find", True, "t"),
        (ST, {}, None, True, "search: t"),
        (ST, {}, "find", True, "search: t"),
        (ST, {}, "find", False, "doc: t"),
        (ST, {"default_instruction": "do"}, None, True, "search: t"),
        # A template takes the named prompt's place, for documents with the default instruction as well.
        ({**ST, "query_template": TASK}, {}, None, True, "I[] t"),
        ({**ST, "doc_template": TASK}, {"default_instruction": "do"}, None, False, "I[do] t"),
        ({**ST, "doc_template": TASK}, {"default_instruction": "do"}, "", False, "I[] t"),
        # The default prompt stays in front of a template.
        ({**ST, "query_template": QUERY, "default_prompt": "search: "}, {}, None, True, "search: Q: t"),
        ({**ST, "default_prompt": "search: "}, {}, None, False, "doc: t"),
    ],
)
def test_sentence_transformer(
    prompting: dict[str, Any], options: dict[str, Any], instruction: str | None, query: bool, expected: str
) -> None:
    made = prepare(
        Prompting("sentence_transformer", **prompting), options=options, instruction=instruction, query=query
    )
    assert made == expected


@pytest.mark.parametrize("style", ["sentence_transformer", "sentence_transformer_sparse"])
def test_white_space_stays_as_it_is(style: Any) -> None:
    prompting = Prompting(style, prompts={"query": "search: "})
    prepared = prepare_texts([" t\n", ""], prompting, options={}, instruction=None, is_query=True)
    assert prepared == ["search:  t\n", "search: "]


@pytest.mark.export
@pytest.mark.parametrize("text", ["the cell", "the cell\n", "  the cell", "\tthe\u00a0cell \r\n", "\u3000", "", " "])
def test_sentence_transformers_itself_strips_nothing(text: str, tmp_path: Path) -> None:
    """The independent side: what sentence-transformers hands to a tokenizer that keeps white space."""
    from sentence_transformers.base.modules.transformer import Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    letters = {letter: number for number, letter in enumerate(["[PAD]", *pre_tokenizers.ByteLevel.alphabet()])}
    tokenizer = Tokenizer(models.BPE(letters, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", model_max_length=64).save_pretrained(
        tmp_path
    )
    config = BertConfig(vocab_size=257, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    BertModel(config).save_pretrained(tmp_path)
    theirs = Transformer(str(tmp_path)).preprocess([text, "a longer companion"])
    kept = theirs["input_ids"][0][theirs["attention_mask"][0].bool()].tolist()
    (prepared,) = prepare_texts([text], Prompting("sentence_transformer"), options={}, instruction=None, is_query=False)
    assert tokenizer.encode(prepared).ids == kept


# What a small request may mean


MEBIBYTE = 1 << 20


@pytest.mark.parametrize(
    ("options", "instruction", "text", "rendered"),
    [
        ({"doc_template": "{text}" * 30}, None, "x" * 100_000, 3_000_000),
        ({"doc_template": "{text}" * 30}, None, "\u00fc" * 50_000, 3_000_000),
        ({"doc_template": "{text}{instruction}" * 300}, "y" * 5_000, "x" * 5_000, 3_000_000),
        ({"doc_template": "{text}" + "z" * (2 * MEBIBYTE - 10)}, None, "x" * 100, 2 * MEBIBYTE + 90),
        ({}, "y" * MEBIBYTE, "x" * MEBIBYTE, 2 * MEBIBYTE + 1),
    ],
)
def test_a_text_that_grows_beyond_an_items_limit_is_refused(
    options: dict[str, Any], instruction: str | None, text: str, rendered: int
) -> None:
    with pytest.raises(WireError) as caught:
        prepare_texts(
            ["small", text],
            Prompting("template"),
            options=options,
            instruction=instruction,
            is_query=False,
            places=["items[0]", "items[7]"],
        )
    assert caught.value.status == 400
    assert caught.value.message.startswith("Field 'items[7]' must hold at most 2097152 bytes of UTF-8 text")
    assert caught.value.message.endswith(f"it holds {rendered}")


@pytest.mark.parametrize("style", ["template", "instruction_prefix", "colbert", "sentence_transformer_sparse"])
def test_what_every_text_gets_may_not_exceed_a_requests_limit(style: Any) -> None:
    """An instruction of 100 kB in front of 512 short texts would be 51 MB."""
    with pytest.raises(WireError, match=r"at most 35651584 bytes.* they hold 5\d{7}"):
        prepare_texts(["x"] * 512, Prompting(style), options={}, instruction="y" * 100_000, is_query=False)


@pytest.mark.parametrize("template", ["{text}", "{", "{nothing}", "\u00fc"])
def test_a_hostile_template_costs_no_more_than_its_size(template: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(WireError) as caught:
            prepare(Prompting("template"), options={"doc_template": template * (20 * MEBIBYTE // len(template))})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert caught.value.status == 400
    assert len(caught.value.message) < 3000
    assert peak < 64 * MEBIBYTE


@pytest.mark.parametrize(
    ("style", "instruction", "options", "expected"),
    [
        ("pytorch_embedding", "", {"default_instruction": "do"}, "I[do] t"),
        ("pytorch_embedding", None, {"default_instruction": "do"}, "I[do] t"),
        ("pytorch_embedding", "find", {"default_instruction": "do"}, "I[find] t"),
        ("pytorch_embedding", None, {}, "I[] t"),
        ("instruction_prefix", "find", {}, "find t"),
        ("instruction_prefix", "", {"default_instruction": "do"}, "t"),
    ],
)
def test_the_other_styles(style: Any, instruction: str | None, options: dict[str, Any], expected: str) -> None:
    prompting = Prompting(style, query_template=TASK, doc_template=TASK)
    assert prepare(prompting, options=options, instruction=instruction) == expected


# Hostile templates


@pytest.mark.parametrize(
    "template",
    [
        "{text.__class__.__mro__}",
        "{text[0]}",
        "{text!r}",
        "{text:>1000000000}",
        "{instruction:{text}}",
        "{0}",
        "{}",
        "{ text }",
        "{instruction.__globals__}",
        "{doc}",
    ],
)
@pytest.mark.parametrize("query", [True, False])
def test_a_template_may_only_name_its_two_fields(template: str, query: bool) -> None:
    message = refusal(template, query=query)
    assert "only `{text}` and `{instruction}` are known" in message
    assert repr(template) in message


@pytest.mark.parametrize("template", ["{", "}", "{text", "text}", "{text!}", "{{text}"])
def test_a_malformed_template_is_the_callers_mistake(template: str) -> None:
    assert "template" in refusal(template)


@pytest.mark.parametrize("template", [1, ["{text}"], {"a": 1}, True])
def test_a_template_is_a_string(template: object) -> None:
    assert "'options.doc_template' must be a string or null" in refusal(template)


@given(template=st.text(st.sampled_from("{}text!:.[]0instruction "), max_size=24))
def test_no_template_does_anything_but_substitute_or_refuse(template: str) -> None:
    try:
        prepared = prepare(Prompting("template"), options={"doc_template": template}, instruction="i")
    except WireError as error:
        assert error.status == 400
    else:
        meanings = {"{{": "{", "}}": "}", "{text}": "t", "{instruction}": "i"}
        plain = re.sub(r"\{\{|\}\}|\{text\}|\{instruction\}", lambda match: meanings[match[0]], template)
        assert prepared == (plain if template else "i t")
