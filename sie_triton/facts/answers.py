"""Rerankers that are language models: `LogitScore` and its prompt, as the facts of one score."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sie_triton.diagnostics import DiagnosticError

from .chat_prompt import Parts, prompt_parts, template_of
from .checkpoint import SETTINGS_NAME, CheckpointFacts, activation
from .files import read_object, unreadable, unsupported
from .pipeline import AnswerStep

DEFAULT_ANSWERS = ("yes", "no")
"""The tokens that sentence-transformers takes for answers where no file names any."""
# What tells sentence-transformers that a template wants a message's content as a list of parts.
_STRUCTURED = ("content[0]", ".type", "'type'", '"type"', "item.type", "message.content[")
ScoreMode = Literal["difference", "probability", "logit"]


@dataclass(frozen=True, slots=True)
class PairAnswer:
    """The prompt around a pair, and the tokens whose logits behind it are the score.

    `prompt_file` has the template, `answer_file` the tokens' ids, `function` follows the logit.
    """

    parts: Parts
    yes: str
    no: str | None
    mode: ScoreMode
    prompt_file: str
    answer_file: str
    function: str


def answers(facts: CheckpointFacts) -> bool:
    """Whether the checkpoint is a language model with a prompt, whose answer sentence-transformers scores."""
    steps = facts.pipeline.steps
    found = any(isinstance(step, AnswerStep) for step in steps) or (not facts.pipeline.listed and _is_causal(facts))
    return found and not facts.problems and template_of(facts.folder)[0] is not None


def read_answer(facts: CheckpointFacts) -> PairAnswer:
    """What the files say. Raises `DiagnosticError` for what is not compiled.

    Without `modules.json`, sentence-transformers scores the answers `yes` and `no`: that counts where the prompt itself
    asks for them.
    """
    if not facts.pipeline.listed and _is_causal(facts):
        return _unlisted(facts)
    pipeline, folder = facts.followed("CrossEncoder"), facts.folder
    step = pipeline.steps[0] if pipeline.steps else None
    if not isinstance(step, AnswerStep) or len(pipeline.steps) != 1 or pipeline.task != "text-generation":
        what = f"the modules {pipeline} behind `{pipeline.task}`; a score needs one LogitScore behind `text-generation`"
        raise DiagnosticError([unsupported(folder / "modules.json", what)])
    if pipeline.message_format is None:
        what = "a language model that reads pairs as plain text, without its chat template"
        raise DiagnosticError([unsupported(folder / "sentence_bert_config.json", what)])
    function = activation(facts)
    mode = _mode(step.false_id, function)
    if mode is None:
        what = f"the activation `{function}` behind {'one logit' if step.false_id is None else 'two logits'}"
        raise DiagnosticError([unsupported(folder / SETTINGS_NAME, what)])
    spelled = _spellings(folder)
    yes, *no = (_spelled(token, spelled, folder, step) for token in (step.true_id, step.false_id) if token is not None)
    parts = prompt_parts(
        folder,
        system=facts.settings.default_prompt,
        structured=pipeline.message_format == "structured",
        arguments={"add_generation_prompt": pipeline.generation_prompt},
    )
    return PairAnswer(
        parts, yes, no[0] if no else None, mode, template_of(folder)[1], f"{step.folder}/config.json", function
    )


def _is_causal(facts: CheckpointFacts) -> bool:
    return next(iter(facts.architectures), "").endswith("ForCausalLM")


def _unlisted(facts: CheckpointFacts) -> PairAnswer:
    folder = facts.folder
    template, file = template_of(folder)
    structured = any(pattern in (template or "") for pattern in _STRUCTURED)
    parts = prompt_parts(folder, system=None, structured=structured, arguments={"add_generation_prompt": False})
    asked = {word.lower() for word in re.findall(r"\w+", " ".join(parts))}
    known = set(_spellings(folder).values())
    odd = None
    if not asked >= set(DEFAULT_ANSWERS):
        odd = "a chat template for pairs that does not ask for `yes` or `no`, and no `modules.json` that names answers"
    elif not known >= set(DEFAULT_ANSWERS):
        odd = "a chat template that asks for `yes` or `no`, which are no tokens of `tokenizer.json`"
    function = activation(facts)
    mode = _mode(0, function)
    if mode is None:
        odd = f"the activation `{function}` behind two logits"
    if odd or mode is None:
        raise DiagnosticError([unsupported(folder / file, str(odd))])
    yes, no = DEFAULT_ANSWERS
    return PairAnswer(parts, yes, no, mode, file, f"the words of {file}", function)


def _mode(false_id: int | None, function: str) -> ScoreMode | None:
    """The difference of two logits behind a sigmoid is the share of the first."""
    if false_id is None:
        return "logit" if function == "Identity" else None
    known: Mapping[str, ScoreMode] = {"Identity": "difference", "Sigmoid": "probability"}
    return known.get(function)


def _spellings(folder: Path) -> dict[int, str]:
    """The vocabulary by id, added tokens last: theirs are the ids that a text gets. Raises `DiagnosticError`."""
    path = folder / "tokenizer.json"
    try:
        return _read_spellings(folder, path)
    except (AttributeError, IndexError, KeyError, OSError, RecursionError, TypeError, ValueError) as error:
        raise unreadable(path, f"its tokens and those of `tokenizer_config.json` have no ids ({error})") from None


def _read_spellings(folder: Path, path: Path) -> dict[int, str]:
    document: Any = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    model = document.get("model") or {}
    vocabulary = model.get("vocab")
    words = vocabulary.items() if isinstance(vocabulary, dict) else _listed(vocabulary)
    found = {int(number): str(word) for word, number in words}
    beside = read_object(folder / "tokenizer_config.json").get("added_tokens_decoder") or {}
    found |= {int(number): str(token["content"]) for number, token in beside.items()}
    return found | {int(token["id"]): str(token["content"]) for token in document.get("added_tokens") or ()}


def _listed(vocabulary: Any) -> list[tuple[str, int]]:
    """Of a Unigram model: a list of words and their scores."""
    return [(entry[0], number) for number, entry in enumerate(vocabulary or ())]


def _spelled(token_id: int, spellings: Mapping[int, str], folder: Path, step: AnswerStep) -> str:
    if token_id not in spellings:
        what = f"an answer with the id {token_id}, which no token of `tokenizer.json` has"
        raise DiagnosticError([unsupported(folder / step.folder / "config.json", what)])
    return spellings[token_id]
