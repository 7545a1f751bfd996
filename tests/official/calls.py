"""The calls that every client makes: `SIEClient` and `SIEAsyncClient`, the official ones and ours.

Standard library only: the official client's interpreter imports this file too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sie_sdk.types import Item, OutputType

BGE_M3 = "tiny/bge-m3"
DIMS = 32
CROSS_ENCODER = "tiny/cross-encoder-bert-identity"
CLIP = "acme/clip"
MISSPELT = "tiny/bge-m"
OUTPUT_TYPES: list[OutputType] = ["dense", "sparse", "multivector"]
OUTPUT_DTYPES = ("float32", "float16", "int8", "uint8", "binary", "ubinary")
QUERY = "Which part of the cell gives it energy?"
TEXTS = (
    "The mitochondrion is the powerhouse of the cell.",
    "salt",
    "Die Brücke über den Fluss, 検索 は 向量: naïve café!",
    "Rain falls on the hills; rivers carry it back to the sea (slowly, over 1000 km). " * 20,
)
INSTRUCTION = "Find the passage that answers: "

Call = Callable[[Any], Any]
"""Takes a client; returns the result, or an awaitable of it if the client is asynchronous."""


def items(*, ids: bool = False) -> list[Item]:
    """The texts in order, with the ids `text-0`, `text-1`, … if wanted."""
    return [{"id": f"text-{index}", "text": text} if ids else {"text": text} for index, text in enumerate(TEXTS)]


def _encode(given: object, **keywords: object) -> Call:
    return lambda client: client.encode(BGE_M3, given, **keywords)


def _score(model: str, given: object, *, query: Mapping[str, str] | None = None, **keywords: object) -> Call:
    return lambda client: client.score(model, query or {"text": QUERY}, given, **keywords)


def _encodings() -> dict[str, Call]:
    calls = {
        "single": _encode({"text": TEXTS[0]}),
        "single with an id": _encode({"id": "only", "text": TEXTS[0]}),
        "list of one": _encode([{"text": TEXTS[0]}]),
        "list": _encode(items()),
        "list with ids": _encode(items(ids=True)),
        "some with ids": _encode([{"text": "salt", "id": "first"}, {"text": "salt"}, {"text": "salt", "id": ""}]),
        "empty text": _encode({"text": ""}),
        "instruction": _encode({"text": QUERY}, instruction=INSTRUCTION),
        "instruction written out": _encode({"text": INSTRUCTION + QUERY}),
        "query": _encode({"text": QUERY}, is_query=True),
        "not a query": _encode({"text": QUERY}, is_query=False),
    }
    for count in (1, 2, 3):
        for wanted in combinations(OUTPUT_TYPES, count):
            calls[f"outputs {'+'.join(wanted)}"] = _encode(items(ids=True), output_types=list(wanted))
    for dtype in OUTPUT_DTYPES:
        calls[f"dtype {dtype}"] = _encode(items(), output_types=OUTPUT_TYPES, output_dtype=dtype)
    return calls


def _scorings() -> dict[str, Call]:
    calls = {}
    for model in (BGE_M3, CROSS_ENCODER):
        calls[f"score {model}"] = _score(model, items())
        calls[f"score {model} with ids"] = _score(model, items(ids=True), query={"id": "asked", "text": QUERY})
        calls[f"score {model} with ties"] = _score(model, [{"text": "salt"}, *items(), {"text": "salt", "id": "late"}])
    for mode in ("dense", "sparse", "colbert", "hybrid"):
        calls[f"score {mode}"] = _score(BGE_M3, items(ids=True), options={"score_mode": mode})
    return calls


def _models() -> dict[str, Call]:
    return {
        "list_models": lambda client: client.list_models(),
        "get_model": lambda client: client.get_model(BGE_M3),
        "get_model of a reranker": lambda client: client.get_model(CROSS_ENCODER),
    }


def _refusals() -> dict[str, Call]:
    given = {"text": "salt"}
    return {
        "unknown model": lambda client: client.encode(MISSPELT, given),
        "unknown model to score": lambda client: client.score(MISSPELT, given, [given]),
        "unknown model to get": lambda client: client.get_model(MISSPELT),
        "unlike any model": lambda client: client.encode("no/such-thing", given),
        "unknown output type": _encode(given, output_types=["dense", "colour"]),
        "unknown dtype": _encode(given, output_dtype="bfloat16"),
        "no items": _encode([]),
        "no text": _encode({"id": "empty"}),
        "nothing to score": _score(CROSS_ENCODER, []),
        "encode with a reranker": lambda client: client.encode(CROSS_ENCODER, given),
    }


CALLS: Mapping[str, Call] = {**_encodings(), **_scorings(), **_models(), **_refusals()}
