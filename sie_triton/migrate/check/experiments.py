"""Other ways to have embedded a text: what a request may choose, prompts that models ask for, and changed texts."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sie_triton.migrate.check.measure import cosines
from sie_triton.migrate.check.report import Tried
from sie_triton.migrate.check.server import EncodingServer, Vectors
from sie_triton.migrate.stores import Stored

Change = Callable[[Stored], str]
RAW: Mapping[str, Any] = {"doc_template": "{text}"}
"""Options under which the server puts nothing in front of a text."""
# As the cards of widespread models write them.
PROMPTS = (
    "query: ",
    "passage: ",
    "search_query: ",
    "search_document: ",
    "clustering: ",
    "classification: ",
    "Represent this sentence for searching relevant passages: ",
    "Represent this sentence: ",
    "Represent the document for retrieval: ",
    "title: none | text: ",
    "task: search result | query: ",
    "document: ",
    "Query: ",
    "Passage: ",
    "Document: ",
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:",
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: ",
    "为这个句子生成表示以用于检索相关文章：",
)
_JOINTS = ("\n", "\n\n", " ", ": ", ". ", " - ")
_UNCHANGED = 1e-6


@dataclass(frozen=True)
class Experiment:
    """One other way. `cause` is the kind of cause that it would prove; `cure` says what mends it."""

    cause: str
    what: str
    cure: str
    options: Mapping[str, Any] = field(default_factory=dict)
    change: Change | None = None
    same_by_options: Mapping[str, Any] = field(default_factory=dict)
    """Options that should do what `change` does, where a model honours them."""
    base: Experiment | None = None
    """Another way that this one comes on top of."""

    @property
    def steps(self) -> tuple[Experiment, ...]:
        """This and what it is built on, the first first."""
        return (*(self.base.steps if self.base else ()), self)

    @property
    def request(self) -> dict[str, Any]:
        """The options of all steps."""
        return {key: value for step in self.steps for key, value in step.options.items()}

    @property
    def changes_texts(self) -> bool:
        """Whether any step sends other texts than those that are stored."""
        return any(step.change for step in self.steps)

    def texts(self, entries: Sequence[Stored]) -> list[str]:
        """What is sent for the stored texts."""
        sent = self.base.texts(entries) if self.base else [entry.text for entry in entries]
        if self.change is None:
            return sent
        return [self.change(replace(entry, text=text)) for entry, text in zip(entries, sent, strict=True)]


def experiments(entries: Sequence[Stored]) -> Iterator[Experiment]:
    """Everything that is tried, the cheapest explanations first."""
    yield from _of_requests()
    yield from _of_prompts()
    yield from _of_fields(entries)
    yield from _of_texts()


def run(server: EncodingServer, experiment: Experiment, entries: Sequence[Stored]) -> Vectors:
    """The vectors of the entries in this way."""
    return server.encode(experiment.texts(entries), **experiment.request)


def best(
    server: EncodingServer, entries: Sequence[Stored], tried: list[Tried], on_top_of: Experiment | None = None
) -> tuple[Experiment, float] | None:
    """The experiment that comes closest to the stored vectors, with its median cosine; None if none has an effect.

    What was tried is added to `tried`. `on_top_of` is an experiment that all of them build on.
    """
    stored = np.stack([entry.vector for entry in entries])
    before = run(server, on_top_of, entries) if on_top_of else server.encode([entry.text for entry in entries])
    found: tuple[Experiment, float] | None = None
    for single in experiments(entries):
        experiment = replace(single, base=on_top_of)
        if not single.options and experiment.texts(entries) == (on_top_of or _AS_THEY_ARE).texts(entries):
            continue  # nothing in these texts to change
        after = run(server, experiment, entries)
        without_effect = bool(np.abs(after - before).max() < _UNCHANGED)
        median = None if without_effect else float(np.median(cosines(stored, after)))
        tried.append(Tried(", and ".join(step.what for step in experiment.steps), median))
        if median is not None and (found is None or median > found[1] + _UNCHANGED):
            found = experiment, median
    return found


def _of_requests() -> Iterator[Experiment]:
    yield Experiment(
        "prompt",
        "without the server's own prompt",
        'send `doc_template: "{text}"`, or use a bundle without it',
        RAW,
    )
    yield Experiment("prompt", "as queries (`is_query`)", "send `is_query: true`", {"is_query": True})
    for pooling in ("cls", "mean", "last_token", "last"):
        yield Experiment(
            "pooling",
            f"with `{pooling}` pooling",
            f"send `pooling: {pooling}`, or use a bundle that says so (docs/add-a-bundle.md)",
            {"pooling": pooling},
        )


def _of_prompts() -> Iterator[Experiment]:
    for prompt in PROMPTS:
        yield Experiment(
            "prompt",
            f"with `{prompt}` in front",
            f"put `{prompt}` in front of texts as before, or use a bundle whose `doc_template` does",
            RAW,
            lambda entry, prompt=prompt: prompt + entry.text,  # type: ignore[misc]
            {"doc_template": prompt.replace("{", "{{").replace("}", "}}") + "{text}"},
        )


def _of_fields(entries: Sequence[Stored]) -> Iterator[Experiment]:
    """Titles and the like from beside the text, in front of it."""
    names = {name for entry in entries for name, value in entry.fields.items() if value and value != entry.text}
    for name in sorted(names):
        for joint in _JOINTS:
            yield Experiment(
                "text",
                f"with the field `{name}` and {joint!r} in front",
                f"embed `{name}` and the text together, as before",
                change=lambda entry, name=name, joint=joint: (  # type: ignore[misc]
                    f"{entry.fields[name]}{joint}{entry.text}" if entry.fields.get(name) else entry.text
                ),
            )
        yield Experiment(
            "text",
            f"the field `{name}` in place of the text",
            f"name it with `--text-field {name}`",
            change=lambda entry, name=name: entry.fields.get(name) or entry.text,  # type: ignore[misc]
        )


def _of_texts() -> Iterator[Experiment]:
    changes: tuple[tuple[str, Callable[[str], str]], ...] = (
        ("in small letters", str.lower),
        ("in capital letters", str.upper),
        ("stripped of blanks at both ends", str.strip),
        ("with every run of blanks as one", lambda text: " ".join(text.split())),
        ("without line breaks", lambda text: text.replace("\n", " ")),
        ("without HTML tags", lambda text: re.sub(r"<[^>]+>", " ", text)),
        ("with HTML entities resolved", html.unescape),
        ("without accents", _without_accents),
        ("in Unicode's form NFKC", lambda text: unicodedata.normalize("NFKC", text)),
        ("without punctuation", lambda text: re.sub(r"[^\w\s]", "", text)),
        ("without its first line", lambda text: text.partition("\n")[2] or text),
        ("its first 100 characters only", lambda text: text[:100]),
        ("its first 256 characters only", lambda text: text[:256]),
        ("its first 500 characters only", lambda text: text[:500]),
        ("its first 512 characters only", lambda text: text[:512]),
        ("its first 1000 characters only", lambda text: text[:1000]),
    )
    for what, change in changes:
        yield Experiment(
            "text",
            f"the text {what}",
            "change texts in the same way before they are sent",
            change=lambda entry, change=change: change(entry.text),  # type: ignore[misc]
        )


def _without_accents(text: str) -> str:
    return "".join(char for char in unicodedata.normalize("NFD", text) if not unicodedata.combining(char))


_AS_THEY_ARE = Experiment("", "as they are", "")
