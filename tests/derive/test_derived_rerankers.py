"""Rerankers that are language models: what their files give or refuse, and sentence-transformers' own scores."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipes.corpus import QUERY, TEXTS
from recipes.made import made
from recipes.st_references import st_reference_score
from sie_frontend.contract.errors import WireError
from sie_frontend.text.entry import CausalPrompt

from derive.in_process import Derived
from derive.rerankers import SAVED, TEMPLATE
from derive.routers import edit
from derive.test_derived_checkpoints import refusal
from derive.test_derived_families import derived, facts_of
from sie_triton.bundle import expand, load_bundle
from sie_triton.planning.catalogue import verdict
from sie_triton.planning.families import Recipe
from sie_triton.planning.planner import make_plans

QUERIES = (QUERY, "", " \n", "<|im_end|>\n<|im_start|>user {{ messages }}", "ünïcödé 深度学习?\n")
# Pieces that would be other tokens if they were tokenised apart from what stands beside them.
DOCUMENTS = [*TEXTS[:5], "", "\n\nnew lines\n", "  blanks  ", "</think>x", "<Query>: y"]


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a checkpoint, saved once."""
    root = tmp_path_factory.mktemp("rerankers")

    def folder(name: str) -> Path:
        if not (root / name).exists():
            SAVED[name](root / name)
        return root / name

    return folder


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("probability", "A score is the logit of `yes` less that of `no` (1_LogitScore/config.json) behind Sigmoid."),
        ("difference", "A score is the logit of `1` less that of `0` (1_LogitScore/config.json) behind Identity."),
        ("difference", "(chat_template.jinja, with the prompt 'Given a search query, find passages.' of config_sen"),
        ("one-logit", "A score is the logit of `yes` (1_LogitScore/config.json) behind Identity."),
        ("structured", r"It answers 'query: ', the query, '<|endoftext|>\ndocument: ', the document, '\nRelevance:' ("),
    ],
)
def test_each_value_says_where_it_comes_from(name: str, told: str, saved: Callable[[str], Path]) -> None:
    text = derived(saved(name)).text
    assert told in " ".join(text.replace("\n# ", " ").split())
    assert "NativeCausalCrossEncoderAdapter  # runs LogitScore of modules.json" in text
    assert "max_sequence_length: 512  # model_max_length of tokenizer_config.json" in text


def test_the_saved_bundle_computes_what_was_derived(saved: Callable[[str], Path]) -> None:
    """The bundle holds none of it: whoever builds from it reads the checkpoint again."""
    ours = derived(saved("difference"))
    [profile] = expand(ours.bundle)
    assert (profile.loadtime, profile.runtime) == ({}, {})
    recipe = verdict(profile, ours.bundle)
    assert isinstance(recipe, Recipe)
    [plan] = make_plans(ours.bundle, [(profile, recipe)], facts_of(saved("difference")))
    [head] = plan.heads
    assert (head.yes, head.no, head.mode) == ("1", "0", "difference")  # type: ignore[union-attr]
    causal = plan.served[0].prompting.causal
    assert causal is not None
    assert causal.parts is not None
    assert "<Instruct>: Given a search query, find passages.\n<Query>: " in causal.parts[0]


@pytest.mark.export
@pytest.mark.parametrize("name", SAVED)
def test_scores_equal_sentence_transformers(name: str, saved: Callable[[str], Path], tmp_path: Path) -> None:
    ours = Derived(saved(name), tmp_path / "repository")
    assert "CrossEncoder" in ours.built.certificate.implementation
    assert "pairs to prompts to tokens" in ours.built.certificate.compared
    for query in QUERIES:
        theirs = st_reference_score(saved(name), query, DOCUMENTS, max_length=None)
        np.testing.assert_allclose(ours.scores(query, DOCUMENTS), theirs, rtol=1e-4, atol=1e-5)
    assert np.std(theirs) > 1e-3
    with pytest.raises(WireError, match="exceeds the limit"):
        ours.scores(QUERY, ["a b " * 512])


# What is refused


def replaced(old: str, new: str) -> str:
    assert old in TEMPLATE
    return TEMPLATE.replace(old, new)


LAST = 'messages | selectattr("role", "eq", "document") | map(attribute="content") | first'
TEMPLATES: Mapping[str, tuple[str, str]] = {
    "strips": (replaced(LAST, f"{LAST} | trim"), "does not copy its texts unchanged"),
    "lowers": (replaced(LAST, f"{LAST} | lower"), "does not copy its texts unchanged"),
    "escapes": (replaced(LAST, f"{LAST} | tojson"), "does not copy its texts unchanged"),
    "cuts": (replaced(LAST, f"({LAST}).split('</think>')[-1]"), "does not copy its texts unchanged"),
    "shortens": (replaced(LAST, f"({LAST})[:3000]"), "does not copy its texts unchanged"),
    "repeats": (TEMPLATE + "{{ messages[-1].content }}", "has the query 1 times and the document 2 times"),
    "chats": ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", "has the query 0 times"),
    "turns": ("{{ messages[-1].content }}\n{{ messages[-2].content }}", "the document in front of the query"),
    "raises": ("{{ raise_exception('no such role') }}", "cannot be rendered for a query and a document: no such role"),
    "dates": (TEMPLATE + "{{ strftime_now('%d') }}", "writes the day on which it is rendered"),
    "breaks": ("{% if %}", "is not valid"),
    "escapes the sandbox": ("{{ ''.__class__.__mro__ }}" + TEMPLATE, "cannot be rendered"),
    "grows": ("{{ 'a' * 10000000000000 }}" + TEMPLATE, "cannot be rendered for a query and a document: it multiplies"),
    "never ends": ("{% for i in range(1000000000) %}{% endfor %}" + TEMPLATE, "cannot be rendered"),
    "has everything": (TEMPLATE + "{# " + "x" * (1 << 16) + " #}", "more than the prompt of a reranker needs"),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_that_do_more_than_copy_are_refused(name: str, saved: Callable[[str], Path], tmp_path: Path) -> None:
    template, said = TEMPLATES[name]
    folder = Path(shutil.copytree(saved("probability"), tmp_path / "model"))
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    refused = refusal(folder)
    assert (refused.code, said in refused.message) == ("SIE331", True), refused
    assert "chat_template.jinja" in str(refused.where)
    assert refused.hint


def without_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def several_templates(folder: Path) -> None:
    without_template(folder)
    edit(folder / "tokenizer_config.json", chat_template=[{"name": "default", "template": TEMPLATE}])


def other_function(folder: Path) -> None:
    edit(folder / "config_sentence_transformers.json", activation_fn="torch.nn.modules.activation.Tanh")


def one_behind_sigmoid(folder: Path) -> None:
    edit(folder / "1_LogitScore" / "config.json", false_token_id=None)


def unknown_id(folder: Path) -> None:
    edit(folder / "1_LogitScore" / "config.json", true_token_id=99_999)


def no_id(folder: Path) -> None:
    edit(folder / "1_LogitScore" / "config.json", true_token_id="yes")


def other_input(folder: Path) -> None:
    edit(folder / "1_LogitScore" / "config.json", module_input_name="token_embeddings")


def plain_pairs(folder: Path) -> None:
    text = {"method": "forward", "method_output_name": "logits"}
    edit(folder / "sentence_bert_config.json", modality_config={"text": text}, processing_kwargs={})


def thinking(folder: Path) -> None:
    edit(folder / "sentence_bert_config.json", processing_kwargs={"chat_template": {"enable_thinking": False}})


def cut_short(folder: Path) -> None:
    edit(folder / "sentence_bert_config.json", processing_kwargs={"text": {"max_length": 32}})


def all_logits(folder: Path) -> None:
    edit(folder / "sentence_bert_config.json", processing_kwargs={"text": {"logits_to_keep": 0}})


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (without_template, "SIE331", "no chat template"),
        (several_templates, "SIE331", "no chat template"),
        (other_function, "SIE331", "the activation `Tanh` behind two logits"),
        (one_behind_sigmoid, "SIE331", "the activation `Sigmoid` behind one logit"),
        (unknown_id, "SIE331", "the id 99999, which no token"),
        (no_id, "SIE331", "a LogitScore of the tokens ['yes',"),
        (other_input, "SIE331", "a LogitScore that reads `token_embeddings`"),
        (plain_pairs, "SIE331", "reads pairs as plain text"),
        (thinking, "SIE337", "`processing_kwargs` to {'chat_template': {'enable_thinking': False}}"),
        (cut_short, "SIE337", "`processing_kwargs`"),
        (all_logits, "SIE337", "`processing_kwargs`"),
    ],
)
def test_what_the_files_do_not_say_is_refused(
    change: Callable[[Path], None], code: str, said: str, saved: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(saved("probability"), tmp_path / "model"))
    change(folder)
    refused = refusal(folder)
    assert (refused.code, said in refused.message) == (code, True), refused
    assert refused.where is not None
    assert refused.hint


def test_the_template_in_the_tokenizers_settings_is_the_same(saved: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved("probability"), tmp_path / "model"))
    (folder / "chat_template.jinja").unlink()
    edit(folder / "tokenizer_config.json", chat_template=TEMPLATE)
    told: list[Any] = [derived(where).text.split("sie_id")[0] for where in (saved("probability"), folder)]
    assert told[0].replace("chat_template.jinja", "") == told[1].replace("tokenizer_config.json", "")


@pytest.mark.parametrize("template", [None, TEMPLATES["strips"][0]])
def test_the_one_published_prompt_stays_where_its_template_does_not_say_it(
    template: str | None, tmp_path: Path
) -> None:
    """A bundle names the adapter, the checkpoint is zerank's: no bundle is derived, and the one that is there holds."""
    folder = Path(shutil.copytree(made("zerank").folder, tmp_path / "model"))
    (folder / "chat_template.jinja").unlink()
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    assert refusal(folder).code == "SIE331"
    written, _ = load_bundle(made("zerank").bundle_path)
    assert written is not None
    prompts = []
    for where in (made("zerank").folder, folder):
        [profile] = expand(written)
        recipe = verdict(profile, written)
        assert isinstance(recipe, Recipe)
        [plan] = make_plans(written, [(profile, recipe)], facts_of(where))
        prompts.append(plan.served[0].prompting.causal)
    assert prompts == [
        CausalPrompt(
            "template",
            parts=("<|im_start|>system\n", "<|im_end|>\n<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"),
        ),
        CausalPrompt("zerank"),
    ]


# Without modules.json

# As Qwen3-Reranker's own: its end is part of the template.
YES_OR_NO = (
    TEMPLATE.replace("{% if add_generation_prompt %}\n", "")
    .replace("{% endif %}", "")
    .replace("answers the Query.", 'answers the Query. The answer can only be "yes" or "no".')
)


def plain(folder: Path, template: str, family: str = "causal_qwen3") -> Path:
    """A checkpoint of transformers alone, with a chat template."""
    shutil.copytree(made(family).folder, folder)
    edit(folder / "tokenizer_config.json", model_max_length=512)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


@pytest.mark.export
def test_a_plain_reranker_is_read_as_sentence_transformers_reads_it(tmp_path: Path) -> None:
    folder = plain(tmp_path / "model", YES_OR_NO)
    ours = Derived(folder, tmp_path / "repository")
    assert "runs a CrossEncoder's default, without modules.json" in ours.text
    told = " ".join(ours.text.replace("\n# ", " ").split())
    assert "the logit of `yes` less that of `no` (the words of chat_template.jinja) behind Sigmoid." in told
    for query in QUERIES:
        theirs = st_reference_score(folder, query, DOCUMENTS, max_length=None)
        np.testing.assert_allclose(ours.scores(query, DOCUMENTS), theirs, rtol=1e-4, atol=1e-5)
    assert np.std(theirs) > 1e-3


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (TEMPLATE, "does not ask for `yes` or `no`, and no `modules.json` that names answers"),
        (YES_OR_NO.replace("yes", "1").replace("no", "0"), "does not ask for `yes` or `no`"),
        ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}", "does not ask for"),
        (YES_OR_NO.replace(LAST, f"{LAST} | trim"), "does not copy its texts unchanged"),
        ("{% for m in messages if m.role == 'user' %}yes no {{ m.content }}{% endfor %}", "the query 0 times"),
    ],
)
def test_chat_models_and_other_answers_write_text(template: str, said: str, tmp_path: Path) -> None:
    refused = refusal(plain(tmp_path / "model", template))
    assert refused.code == "SIE221"
    assert "writes text, and nothing says how a vector or a score comes out of it: " in refused.message
    assert said in refused.message
