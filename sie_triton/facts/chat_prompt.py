"""The prompt of a reranker that is a language model: what its chat template puts around a query and a document.

The template is rendered as transformers renders it, in Jinja's sandbox, which gives it no file, module or attribute. A
template counts only if it copies both texts unchanged, whatever they are; nothing in it is interpreted further.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import Template, TemplateError
from jinja2.exceptions import SecurityError
from jinja2.ext import loopcontrols
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sie_triton.diagnostics import DiagnosticError

from .files import read_object, unsupported

TEMPLATE_NAME = "chat_template.jinja"
TOKENIZER_SETTINGS_NAME = "tokenizer_config.json"
# Longer templates are made for tools and thoughts of chat models.
MAX_TEMPLATE = 1 << 16
# Private characters stand for the texts while their places are looked for.
_MARKS = ("\ue0a1query\ue0a2", "\ue0a3document\ue0a4")
# What templates are known to do to a text: strip it, cut it at a marker, change its letters, escape it, look for words
# in it, or leave it out.
_PROBES = (
    ("", ""),
    ("a", ""),
    ("", "b"),
    (" \n padded\t\n", "\n\n padded \t"),
    ("</think>a</think>", "b</think><think>c</think> d"),
    ("<|im_end|>\n<|im_start|>user", "{{ messages }} {% if x %} & < > ' \" \\"),
    ("query", "document"),
    ("the same", "the same"),
    ("SHOUTED Words ǅ ẞ İ", "Title Case, cafe\u0301 \ufb01ne \u00a0\u2028\u3000 x"),
    ("many   blanks\n\n\n\nand lines", "http://a.b/c?d=e&f#g 1,000.00 \x00\x7f \U0001f600"),
    ("x" * 5000, "y" * 5000),
)
_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

Parts = tuple[str, str, str]
"""What stands in front of the query, between it and the document, and behind the document."""


class Unusable(Exception):
    """Why a template is not one that copies what it is given; the text says what it does."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """transformers' sandbox, without the arithmetic by which a short template makes an endless text."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> NoReturn:
        raise SecurityError(f"it multiplies, by `{operator}`")


def template_of(folder: Path) -> tuple[str | None, str]:
    """The chat template as transformers finds it, and its file; None where the checkpoint has none, or several."""
    path = folder / TEMPLATE_NAME
    if path.is_file():
        return path.read_text(encoding="utf-8", errors="replace"), TEMPLATE_NAME
    found = read_object(folder / TOKENIZER_SETTINGS_NAME).get("chat_template")
    return (found if isinstance(found, str) and found else None), TOKENIZER_SETTINGS_NAME


def prompt_parts(folder: Path, *, system: str | None, structured: bool, arguments: Mapping[str, Any]) -> Parts:
    """The three parts of every prompt. `system` is the checkpoint's own instruction, `structured` whether a message's
    content is a list of parts, `arguments` what the template gets besides.

    Raises `DiagnosticError` (`SIE331`) for a template that does anything but copy both texts, and for none.
    """
    template, name = template_of(folder)
    if template is None:
        raise DiagnosticError([unsupported(folder / name, "a language model that scores pairs, and no chat template")])
    try:
        return _parts(_renderer(template, folder, system, structured, arguments))
    except Unusable as refused:
        raise DiagnosticError([unsupported(folder / name, f"a chat template that {refused}")]) from None


def _renderer(
    template: str, folder: Path, system: str | None, structured: bool, arguments: Mapping[str, Any]
) -> Callable[[str, str], str]:
    if len(template) > MAX_TEMPLATE:
        raise Unusable(f"has {len(template)} characters, more than the prompt of a reranker needs")
    compiled, tokens = compiled_template(template, folder)

    def render(query: str, document: str) -> str:
        said = [("system", system)] if system else []
        messages = [
            {"role": role, "content": [{"type": "text", "text": text}] if structured else text}
            for role, text in (*said, ("query", query), ("document", document))
        ]
        return render_messages(compiled, messages, {**tokens, **arguments}, "a query and a document")

    return render


def compiled_template(template: str, folder: Path) -> tuple[Template, dict[str, str]]:
    """The template in transformers' sandbox, and the special tokens that it may write. Raises `Unusable`."""
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = _as_json
    environment.globals |= {"raise_exception": _raised, "strftime_now": _dated}
    try:
        compiled = environment.from_string(template)
    except TemplateError as error:
        raise Unusable(f"is not valid: {error}") from None
    settings = read_object(folder / TOKENIZER_SETTINGS_NAME)
    return compiled, {role: _content(settings[role]) for role in _ROLES if settings.get(role)}


def render_messages(
    compiled: Template, messages: Sequence[Mapping[str, Any]], arguments: Mapping[str, Any], given: str
) -> str:
    """What a template makes of messages, which hold what is `given`. Raises `Unusable` where that is nothing."""
    try:
        return compiled.render(messages=messages, tools=None, documents=None, **arguments)
    except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
        raise Unusable(f"cannot be rendered for {given}: {error}") from None


def _parts(render: Callable[[str, str], str]) -> Parts:
    shown = render(*_MARKS)
    counts = [shown.count(mark) for mark in _MARKS]
    if counts != [1, 1]:
        raise Unusable(f"has the query {counts[0]} times and the document {counts[1]} times, not once each")
    before, _, rest = shown.partition(_MARKS[0])
    between, found, after = rest.partition(_MARKS[1])
    if not found:
        raise Unusable("has the document in front of the query")
    for query, document in _PROBES:
        if render(query, document) != f"{before}{query}{between}{document}{after}":
            raise Unusable(
                f"does not copy its texts unchanged: {query[:40]!r} and {document[:40]!r} come out otherwise"
            )
    return before, between, after


def _content(token: Any) -> str:
    return str(token.get("content", "") if isinstance(token, Mapping) else token)


def _as_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raised(message: str) -> NoReturn:
    raise TemplateError(message)


def _dated(_: str) -> NoReturn:
    raise TemplateError("it writes the day on which it is rendered")
