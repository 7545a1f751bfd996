"""What a chat template writes around a system's text and a user's texts and pictures, as far as it copies them.

Rendered in Jinja's sandbox, as `chat_prompt` has it. A template counts only if it writes every part where it stands and
as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from sie_triton.diagnostics import DiagnosticError

from .chat_prompt import MAX_TEMPLATE, Unusable, compiled_template, render_messages, template_of
from .checkpoint import CheckpointFacts
from .files import unsupported

PROCESSOR_TEMPLATE = "chat_template.json"

ConversationParts: TypeAlias = "tuple[str, str, str, str]"
"""In front of the system's text, between it and the user's parts, one picture, and what is behind them all."""

Part: TypeAlias = "str | None"
"""A text of the user's; None: a picture."""
_SYSTEM, _TEXT = "\ue0a1system\ue0a2", "\ue0a3text\ue0a4"
_PROBES: Sequence[tuple[str, tuple[Part, ...]]] = (
    ("s", ()),
    (" padded \n", ("",)),
    ("s", (None,)),
    ("s", (None, None, "text")),
    ("s", ("a", None, "b", "\n<c>:", None, "d")),
    ("<|im_end|>\n", ("<|im_end|>\n<|im_start|>user", None, "{{ messages }} & < > ' \" \\")),
    ("</think>a</think>", (" \n padded\t\n", "\n\n padded \t")),
    ("SHOUTED ǅ ẞ İ", ("cafe\u0301 \u00a0\u2028\u3000 x\x00\x7f", "many   blanks\n\n\n\nand lines")),
    ("x" * 5000, ("y" * 5000, None)),
)


def read_conversation(facts: CheckpointFacts) -> ConversationParts:
    """The parts of every prompt. Raises `DiagnosticError` (`SIE331`) for a template that does not copy what it gets."""
    template, name = _template(facts.folder)
    if template is None:
        raise DiagnosticError([unsupported(facts.folder / name, "a model that reads conversations, and no template")])
    try:
        return _parts(_renderer(template, facts.folder))
    except Unusable as refused:
        raise DiagnosticError([unsupported(facts.folder / name, f"a chat template that {refused}")]) from None


def _template(folder: Path) -> tuple[str | None, str]:
    """As transformers' processors find it: a file of its own, the older form of it, then the tokenizer's."""
    path = folder / PROCESSOR_TEMPLATE
    if (folder / "chat_template.jinja").is_file() or not path.is_file():
        return template_of(folder)
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get("chat_template")
    except (OSError, ValueError, AttributeError, RecursionError):
        found = None
    return (found if isinstance(found, str) and found else None), PROCESSOR_TEMPLATE


def _renderer(template: str, folder: Path) -> Callable[[str, Sequence[Part]], str]:
    if len(template) > MAX_TEMPLATE:
        raise Unusable(f"has {len(template)} characters, more than is read of one")
    compiled, tokens = compiled_template(template, folder)

    def render(system: str, parts: Sequence[Part]) -> str:
        content: list[dict[str, Any]] = [
            {"type": "image", "image": "picture"} if part is None else {"type": "text", "text": part} for part in parts
        ]
        messages = [
            {"role": "system", "content": [{"type": "text", "text": system}]},
            {"role": "user", "content": content or [{"type": "text", "text": ""}]},
        ]
        return render_messages(compiled, messages, {**tokens, "add_generation_prompt": True}, "texts and pictures")

    return render


def _parts(render: Callable[[str, Sequence[Part]], str]) -> ConversationParts:
    shown = render(_SYSTEM, (_TEXT,))
    if [shown.count(mark) for mark in (_SYSTEM, _TEXT)] != [1, 1] or shown.index(_SYSTEM) > shown.index(_TEXT):
        raise Unusable("does not write the system's text and then the user's, once each")
    before, _, rest = shown.partition(_SYSTEM)
    between, _, after = rest.partition(_TEXT)
    seen = render(_SYSTEM, (None, _TEXT))
    start = f"{before}{_SYSTEM}{between}"
    picture = seen.removeprefix(start).removesuffix(f"{_TEXT}{after}")
    for system, parts in _PROBES:
        said = "".join(picture if part is None else part for part in parts)
        if render(system, parts) != f"{before}{system}{between}{said}{after}":
            raise Unusable(f"does not copy its parts unchanged: {system[:40]!r} and {parts!r:.80} come out otherwise")
    return before, between, picture, after
