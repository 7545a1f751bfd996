"""An item's text -> the text that is tokenised: templates, instructions and prompts, as each adapter does it."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from sie_frontend.errors import invalid_input
from sie_frontend.manifest import Prompting

_FIELDS = ("text", "instruction")


def prepare_texts(
    texts: Sequence[str],
    prompting: Prompting,
    *,
    options: Mapping[str, Any],
    instruction: str | None,
    is_query: bool,
) -> list[str]:
    """The texts to tokenise, from the merged options of the call. Raises `WireError` (400) for a bad template."""
    template = _text_option(options, "query_template" if is_query else "doc_template")
    if template is None:
        template = prompting.query_template if is_query else prompting.doc_template
    default = _text_option(options, "default_instruction")
    if prompting.style == "sentence_transformer":
        return _sentence_transformer(texts, prompting, template, instruction, default, is_query)
    if prompting.style == "sentence_transformer_sparse":
        prompt = prompting.prompts.get("query" if is_query else "document", "") if instruction is None else instruction
        return [prompt + text for text in texts]
    if prompting.style in ("instruction_prefix", "colbert"):
        return [f"{instruction} {text}" for text in texts] if instruction else list(texts)
    if prompting.style == "pytorch_embedding":
        instruction = instruction or default  # an explicit "" falls through as well
    elif instruction is None and is_query:
        instruction = default
    if template:
        return [_render(template, text, instruction or "") for text in texts]
    return [f"{instruction} {text}" for text in texts] if instruction else list(texts)


def _sentence_transformer(
    texts: Sequence[str],
    prompting: Prompting,
    template: str | None,
    instruction: str | None,
    default: str | None,
    is_query: bool,
) -> list[str]:
    """`SentenceTransformer.encode`: a template takes the place of the named prompt, but not of the default prompt.

    Without a template the prompt is the repository's own for queries or documents, and an instruction has no effect.
    """
    if template:
        given = instruction if instruction is not None else default or ""
        prompt = prompting.default_prompt or ""
        prepared = [prompt + _render(template, text, given) for text in texts]
    else:
        prompt = prompting.prompts.get("query" if is_query else "document", "")
        prepared = [prompt + text for text in texts]
    return prepared


def _text_option(options: Mapping[str, Any], name: str) -> str | None:
    value = options.get(name)
    if value is not None and not isinstance(value, str):
        raise invalid_input(f"'options.{name}' must be a string or null, got `{type(value).__name__}`")
    return value


def _render(template: str, text: str, instruction: str) -> str:
    _check_template(template)
    return template.format(text=text, instruction=instruction)


@lru_cache(maxsize=256)
def _check_template(template: str) -> None:
    """A request may bring its own template: plain fields only.

    A width like `{text:>1000000000}` would allocate a gigabyte, and an attribute would print our internals.
    """
    try:
        fields = list(string.Formatter().parse(template))
    except ValueError as error:
        raise invalid_input(f"template {template!r} is malformed: {error}; write literal braces twice") from None
    for _, name, spec, conversion in fields:
        if name is not None and (name not in _FIELDS or spec or conversion):
            shown = name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            raise invalid_input(
                f"template {template!r} has the placeholder `{{{shown}}}`; "
                "only `{text}` and `{instruction}` are known, and literal braces are written twice"
            )
