"""Tokens of texts apart from computing them: counted for a request that is computed in parts, and cut.

A key that may use so many tokens a minute is told once whether a request has room, and how long to wait where it has
none: what is told part by part is true of that part alone. The texts are read twice for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from sie_frontend.contract.errors import invalid_input
from sie_frontend.contract.requests import Item
from sie_frontend.mixed.reader import MixedReader
from sie_frontend.outputs.options import ResolvedCall, ResolvedScore
from sie_frontend.serving.reading import ReadingThreads
from sie_frontend.serving.served import MIXED, ServedModel
from sie_frontend.text.reader import TextReader


async def cut_texts(threads: ReadingThreads, served: ServedModel, texts: Sequence[str], tokens: int) -> Sequence[str]:
    """The texts, none with more than `tokens` tokens of the model's; as they are if it reads fewer anyway.

    Raises `WireError` (400) for a model that reads no text.
    """
    reader = served.readers.get("text") or served.readers.get(MIXED)
    if not isinstance(reader, TextReader | MixedReader):
        raise invalid_input(f"Model '{served.model_id}' reads no text, so that nothing of it can be cut")
    if tokens >= reader.spec.max_length:
        return texts
    tokenizer = reader.tokenizer
    return await threads.run(sum(map(len, texts)), lambda: [tokenizer.cut_text(text, tokens) for text in texts])


async def encode_tokens(
    threads: ReadingThreads, served: ServedModel, items: Sequence[Item], call: ResolvedCall, *, part: int
) -> int:
    """What encoding items in parts of so many adds up to in `usage`. Raises what reading them raises."""
    return sum(
        [await _of_part(threads, served, items[start : start + part], call) for start in range(0, len(items), part)]
    )


async def _of_part(threads: ReadingThreads, served: ServedModel, items: Sequence[Item], call: ResolvedCall) -> int:
    total = 0
    for modality, numbers in served.by_modality(items, are_queries=call.is_query).items():
        reader = served.readers[modality]
        given = reader.given(served.as_asked([items[number] for number in numbers], are_queries=call.is_query))
        places = {one: f"items[{number}]" for one, number in zip(reversed(given), reversed(numbers), strict=True)}
        unique = list(places)
        named = list(places.values())
        rows = await threads.rows(reader, unique, call, is_query=call.is_query, places=named)
        work = reader.work(unique) if reader.recounts else 0
        billed = await threads.run(work, reader.billed, unique, rows, call, is_query=call.is_query)
        if billed is not None:
            tokens = dict(zip(unique, billed, strict=True))
            total += sum(tokens[one] for one in given)
    return total


async def score_tokens(
    threads: ReadingThreads,
    served: ServedModel,
    query: Item,
    items: Sequence[Item],
    call: ResolvedScore,
    *,
    part: int,
) -> int:
    """What scoring items in parts of so many adds up to in `usage`. Raises what reading them raises."""
    head = served.heads.scored()
    total = 0
    for start in range(0, len(items), part):
        some = items[start : start + part]
        reader = served.readers[served.one_modality([query, *some])]
        question, documents = reader.given([query])[0], reader.given(some)
        work = reader.work(documents) + reader.work([question]) * len(documents)
        rows = await threads.pairs(reader, work, head.rows, reader, question, documents, call)
        total += sum(row.cost for row in rows) + (0 if head.pairs else rows[0].cost * (len(some) - 1))
    return total
