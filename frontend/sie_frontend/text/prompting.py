"""An item's text -> the text that is tokenised: templates, instructions and prompts, as each adapter does it.

What surrounds a text is measured before it is put there: a template may repeat its text, and an instruction stands in
front of every text, so that a small request can mean a large one.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sie_frontend.contract.errors import invalid_input
from sie_frontend.contract.requests import MAX_BODY_BYTES, MAX_ITEM_TEXT_BYTES, utf8_size
from sie_frontend.text.cleaning import canonical, check_cleanable
from sie_frontend.text.entry import Prompting

_FIELDS = ("text", "instruction")
# Longer templates are not kept in the cache, and not shown whole.
_SHORT = 1000


@dataclass(frozen=True, slots=True)
class SizeLimits:
    """UTF-8 bytes that texts may have once everything is around them: each for itself, and a request's together."""

    item: int = MAX_ITEM_TEXT_BYTES
    request: int = MAX_BODY_BYTES


@dataclass(frozen=True, slots=True)
class Wrapping:
    """What surrounds a text: `before`, then the template's rendering or the text as it is, then `after`."""

    template: str | None = None
    instruction: str = ""
    before: str = ""
    after: str = ""

    def apply(self, text: str) -> str:
        """The text with everything around it."""
        inner = text if self.template is None else self.template.format(text=text, instruction=self.instruction)
        return f"{self.before}{inner}{self.after}"

    def shape(self) -> tuple[int, int]:
        """How often the text stands in it, and the UTF-8 bytes of the rest. Raises `WireError` (400): bad template."""
        texts, instructions, literal = (1, 0, 0) if self.template is None else _template_shape(self.template)
        rest = literal + instructions * utf8_size(self.instruction) + utf8_size(self.before) + utf8_size(self.after)
        return texts, rest


def prepare_texts(
    texts: Sequence[str],
    prompting: Prompting,
    *,
    options: Mapping[str, Any],
    instruction: str | None,
    is_query: bool,
    places: Sequence[str] = (),
    limits: SizeLimits | None = None,
) -> list[str]:
    """The texts to tokenise, from the merged options of the call.

    Raises `WireError` (400) for a bad template, and for texts that exceed `limits` with what surrounds them; `places`
    names them for the message (by default `items[0]` and so on).
    """
    wrapping = _wrapping(prompting, options=options, instruction=instruction, is_query=is_query)
    repeats, rest = wrapping.shape()
    if prompting.clean:
        check_cleanable(texts, places)
        texts = [canonical(text) for text in texts]
    check_sizes([repeats * utf8_size(text) + rest for text in texts], places, limits or SizeLimits())
    return [wrapping.apply(text) for text in texts]


def check_sizes(sizes: Sequence[int], places: Sequence[str], limits: SizeLimits) -> None:
    """Refuse texts of these sizes if one exceeds its limit, or all together theirs. Raises `WireError` (400)."""
    for index, size in enumerate(sizes):
        if size > limits.item:
            place = places[index] if places else f"items[{index}]"
            raise invalid_input(
                f"Field '{place}' must hold at most {limits.item} bytes of UTF-8 text; "
                f"with its template, instruction or prompt it holds {size}"
            )
    if (total := sum(sizes)) > limits.request:
        raise invalid_input(
            f"The texts of one request must hold at most {limits.request} bytes of UTF-8 text; with their templates, "
            f"instructions or prompts they hold {total}; split the request or shorten what stands around each text"
        )


def _wrapping(prompting: Prompting, *, options: Mapping[str, Any], instruction: str | None, is_query: bool) -> Wrapping:
    """What an adapter of this kind puts around each text of a call. Raises `WireError` (400) for a wrong option."""
    if prompting.style == "plain":
        return Wrapping(before=prompting.default_prompt or "", after=prompting.suffix)
    name = "query_template" if is_query else "doc_template"
    own = prompting.query_template if is_query else prompting.doc_template
    # A null is said, and means none; only silence leaves the adapter's own template.
    template = _text_option(options, name) if name in options else own
    default = _text_option(options, "default_instruction")
    if prompting.style == "sentence_transformer":
        return _sentence_transformer(prompting, template, instruction, default, is_query)
    if prompting.style == "sentence_transformer_sparse":
        prompt = prompting.prompts.get("query" if is_query else "document", "")
        return Wrapping(before=prompt if instruction is None else instruction, after=prompting.suffix)
    if prompting.style == "pytorch_embedding":
        instruction = instruction or default  # an explicit "" falls through as well
    elif instruction is None and is_query:
        instruction = default
    if template and prompting.style not in ("instruction_prefix", "colbert"):
        return Wrapping(template, instruction or "", after=prompting.suffix)
    return Wrapping(before=f"{instruction} " if instruction else "", after=prompting.suffix)


def _sentence_transformer(
    prompting: Prompting, template: str | None, instruction: str | None, default: str | None, is_query: bool
) -> Wrapping:
    """`SentenceTransformer.encode`: a template takes the place of the named prompt, but not of the default prompt.

    Without a template the prompt is the repository's own for queries or documents, and an instruction has no effect.
    White space stays as it is: sentence-transformers does not strip it since 5.4.1.
    """
    if template:
        given = instruction if instruction is not None else default or ""
        return Wrapping(template, given, before=prompting.default_prompt or "", after=prompting.suffix)
    return Wrapping(before=prompting.prompts.get("query" if is_query else "document", ""), after=prompting.suffix)


def _text_option(options: Mapping[str, Any], name: str) -> str | None:
    value = options.get(name)
    if value is not None and not isinstance(value, str):
        raise invalid_input(f"'options.{name}' must be a string or null, got `{type(value).__name__}`")
    return value


def _template_shape(template: str) -> tuple[int, int, int]:
    """How often a template has its text and its instruction, and its literal UTF-8 bytes."""
    if len(template) > MAX_ITEM_TEXT_BYTES:
        raise invalid_input(
            f"a template must hold at most {MAX_ITEM_TEXT_BYTES} bytes of UTF-8 text, and this one holds more"
        )
    return _short_shape(template) if len(template) <= _SHORT else _parse(template)


@lru_cache(maxsize=256)
def _short_shape(template: str) -> tuple[int, int, int]:
    return _parse(template)


def _parse(template: str) -> tuple[int, int, int]:
    """A request may bring its own template: plain fields only.

    A width like `{text:>1000000000}` would allocate a gigabyte, and an attribute would print our internals.
    """
    shown = repr(template if len(template) <= _SHORT else template[:_SHORT] + "...")
    counts, literal_bytes = dict.fromkeys(_FIELDS, 0), 0
    try:
        for literal, name, spec, conversion in string.Formatter().parse(template):
            literal_bytes += utf8_size(literal)
            if name is None:
                continue
            if name not in counts or spec or conversion:
                field = name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
                raise invalid_input(
                    f"template {shown} has the placeholder `{{{field[:_SHORT]}}}`; "
                    "only `{text}` and `{instruction}` are known, and literal braces are written twice"
                )
            counts[name] += 1
    except ValueError as error:
        raise invalid_input(f"template {shown} is malformed: {error}; write literal braces twice") from None
    return counts["text"], counts["instruction"], literal_bytes
