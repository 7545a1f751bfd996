"""What becomes of each call: whether its model can move, what would differ, and what to change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from sie_triton.migrate.scan.fastembed_models import FastembedModel, fastembed_model
from sie_triton.migrate.scan.find import EmbedderCall
from sie_triton.migrate.scan.shelf import NotServed, Served, Shelf

# Names of models whose weights only OpenAI has.
_OPENAI_ONLY = ("text-embedding-", "text-similarity-", "text-search-", "code-search-")
_DROP_IN = frozenset(
    {"TextEmbedding", "SparseTextEmbedding", "LateInteractionTextEmbedding", "TextCrossEncoder", "ImageEmbedding"}
)
CAN_MOVE = frozenset({"same", "differs"})
"""The statuses of calls that can move."""


@dataclass(frozen=True, slots=True)
class Move:
    """One call with its judgement.

    `status`: same (the same vectors), differs (it can move, and `differences` say what changes), missing (no bundle),
    refused (it is not compiled), unknown (the model cannot be told), other (a model that nobody else can run).
    `serves` is the id that clients ask for. `change` says what to write instead.
    """

    call: EmbedderCall
    status: str
    reason: str = ""
    serves: str | None = None
    differences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    change: str = ""


def judge_calls(calls: Iterable[EmbedderCall], shelf: Shelf) -> list[Move]:
    """Every call with what becomes of it, in the same order."""
    return [_judge(call, shelf) for call in calls]


def _judge(call: EmbedderCall, shelf: Shelf) -> Move:
    if call.task == "image" and call.model is None:
        return Move(call, "refused", "of models for images, CLIP and SigLIP are served", change="keep it in process")
    if call.model is None:
        return Move(call, "unknown", call.note, change=_ask(call))
    if call.library == "OpenAI" and call.model.rpartition("/")[2].startswith(_OPENAI_ONLY):
        if call.server:
            note = f"a server of its own is asked, which may call any model `{call.model}`"
            return Move(call, "unknown", note, change=_ask(call))
        return Move(
            call,
            "other",
            "only OpenAI has its weights",
            change="choose another model and embed everything again; docs/models.md lists what is served",
        )
    row = fastembed_model(call.task, call.model) if call.library == "fastembed" else None
    found = shelf.find(call.model, call.task, row)
    if isinstance(found, NotServed):
        return Move(call, found.status, found.reason, change=found.hint)
    differences = tuple(_differences(call, row, found))
    return Move(
        call,
        "differs" if differences else "same",
        serves=found.profile.model_id,
        differences=differences,
        notes=tuple(_notes(call, row, found)),
        change=_change(call, found),
    )


def _ask(call: EmbedderCall) -> str:
    match call.library:
        case "TEI":
            return "ask the server: `GET /info` names its `model_id`"
        case "infinity":
            return "ask the server: `GET /models` names them"
        case _:
            return "find out which model runs, and look it up with `sie-triton catalog`"


def _differences(call: EmbedderCall, row: FastembedModel | None, served: Served) -> Iterator[str]:
    dense = "dense" in served.recipe.outputs and call.task in ("dense", "any")
    if row is not None and dense:
        yield from _against_fastembed(row, served)
    if row is not None and row.tokens and served.limit and row.tokens != served.limit:
        yield (
            f"truncation: {row.tokens} tokens by Fastembed's description, {served.limit} here; longer texts than the "
            f"smaller get another vector"
        )
    before = served.template("doc").partition("{text}")[0]
    if dense and served.template("doc") != "{text}":
        own = "Fastembed adds no prefix" if call.library == "fastembed" else "whoever calls adds it now"
        yield (
            f"prompt: the server puts `{before}` before every passage, and {own}; take it out of the program if it is "
            'there, else send `doc_template: "{text}"`'
        )


def _against_fastembed(row: FastembedModel, served: Served) -> Iterator[str]:
    if row.pooling != "own" and served.pooling is not None and served.pooling != row.pooling:
        yield f"pooling: Fastembed takes `{row.pooling}`, here `{served.pooling}`: embed everything again"
    if row.unit is False and served.unit:
        yield (
            "length: Fastembed's vectors are not normalised, here they have length 1; the same for cosine, and for dot "
            "or Euclid send `normalize: false`"
        )
    if row.unit and not served.unit:
        yield "length: Fastembed's vectors have length 1, here they are not normalised; send `normalize: true`"
    if row.dims and served.bundle.dims.get("dense") not in (None, row.dims):
        yield f"dims: {row.dims} from Fastembed, {served.bundle.dims['dense']} here"


def _notes(call: EmbedderCall, row: FastembedModel | None, served: Served) -> Iterator[str]:
    if call.note:
        yield call.note
    if row is not None and row.optimized:
        yield "precision: Fastembed's file was optimized, mostly into float16: cosines of 0.999 and more, other bits"
    if row is not None and row.pooling == "own":
        yield "pooling and length: Fastembed leaves both to its file, so only `sie-triton migrate check` tells"
    if row is not None and row.task == "dense":
        yield "truncation: Fastembed cuts where the tokenizer_config.json of its file says, which may be earlier"
    if call.library in ("sentence-transformers", "TEI", "infinity") and served.limit and call.task != "score":
        yield f"truncation: at {served.limit} tokens here; compare with what `max_seq_length` or the server says now"
    query = served.template("query")
    if call.task in ("dense", "any") and query not in ("{text}", served.template("doc")):
        yield f"queries: `is_query` puts them into `{query}`; without it they are embedded as they are"
    if call.library == "sentence-transformers" and call.task == "dense":
        yield "prompts: a `prompt_name` or `prompt` of the program becomes `is_query` or the parameter `instruction`"
    if call.task == "score":
        yield "scores: the order is the same; the numbers may be raw or behind a sigmoid, as the checkpoint says"


def _change(call: EmbedderCall, served: Served) -> str:
    model = served.profile.model_id
    if call.library == "fastembed" and call.api in _DROP_IN:
        return f"from sie_triton_fastembed import {call.api}"
    if call.library == "OpenAI":
        return f'base_url="http://localhost:8080/v1", model="{model}"'
    if call.task == "score":
        return f'SIEClient("http://localhost:8080").score("{model}", query, items)'
    if call.server or call.library in ("TEI", "infinity"):
        return f'POST http://localhost:8080/v1/embeddings with "model": "{model}", or any client of OpenAI\'s'
    return f'SIEClient("http://localhost:8080").encode("{model}", Item(text=…))'


def grouped(moves: Iterable[Move]) -> list[tuple[Move, list[str]]]:
    """Moves that are told alike, each once, with the places of all of them."""
    places: dict[Move, list[str]] = {}
    for move in moves:
        places.setdefault(replace(move, call=replace(move.call, place="")), []).append(move.call.place)
    return list(places.items())
