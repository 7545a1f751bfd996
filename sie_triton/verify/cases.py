"""The cases of a text model: pairs for rerankers, documents and, where they are read differently, queries."""

from __future__ import annotations

from collections.abc import Sequence

from sie_frontend.contract.errors import WireError
from sie_frontend.reference import Case
from sie_frontend.text.reader import TextReader

from sie_triton.verify.public_model import PublicModel
from sie_triton.verify.reference_texts import QUERIES, added_token_texts, reference_pairs, reference_texts


def text_cases(model: PublicModel, reader: TextReader, added_tokens: Sequence[str], *, pairs: bool) -> tuple[Case, ...]:
    """What a text model is compared on; `added_tokens` are the checkpoint's own, as transformers reads them.

    Cases that the model refuses (a pair too long for a reranker that never truncates) are left out.
    """
    spec = reader.spec
    # Where padding counts, a text of nothing is as long as any.
    specials = reader.tokenizer.special_count() if spec.pads else len(reader.tokenizer.encode([""])[0])
    texts = (*reference_texts(specials, spec.max_length, spec.buckets), *added_token_texts(added_tokens))
    if pairs:
        cases = tuple(Case(document, query) for query, document in reference_pairs(texts))
    else:
        queries = QUERIES if _reads_sides(model, reader) else ()
        cases = (*(Case(text) for text in texts), *(Case(None, query) for query in queries))
    return tuple(case for case in cases if _accepted(model, case))


def _accepted(model: PublicModel, case: Case) -> bool:
    try:
        model.rows([case])
    except WireError:
        return False
    return True


def _reads_sides(model: PublicModel, reader: TextReader) -> bool:
    """Whether the model reads queries, and differently from documents."""
    prompting = reader.entry.prompting
    if prompting.bare_queries:
        return False
    named = (model.options.get(key) for key in ("query_template", "doc_template", "default_instruction"))
    own = (prompting.sides, prompting.query_template, prompting.doc_template, prompting.prompts)
    return any(own) or any(named)
