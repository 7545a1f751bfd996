"""Drafts of late interaction: how sentence-transformers, PyLate and ColBERT's own code read queries and documents."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sie_triton.derive.draft import Draft, Said
from sie_triton.derive.kinds import STANFORD, refuse
from sie_triton.derive.outputs import adapter, length_limit
from sie_triton.facts import CheckpointFacts, token_chain
from sie_triton.facts.chains import last_width
from sie_triton.facts.checkpoint import SETTINGS_NAME, STANFORD_NAME
from sie_triton.planning.families.late_interaction import PROJECTION_NAMES

# ColBERT's own, where a file does not say.
_LENGTH = 32
_MARKERS = ("[unused0]", "[unused1]")


@dataclass(frozen=True, slots=True)
class _Rules:
    """How queries and documents are read. `expansion` is the length that queries are padded to, None for none;
    `attends`, whether the model sees that padding."""

    source: str
    width: Said
    markers: tuple[str, str]
    query_length: int | None
    document_length: int | None
    expansion: int | None
    attends: bool
    skips_punctuation: bool
    normalizes: bool


def late_draft(facts: CheckpointFacts) -> Draft:
    """One vector per token. Raises `DiagnosticError` (`SIE222`) for a setting that no adapter has."""
    stanford = not facts.pipeline.listed
    rules = _stanford(facts) if stanford else _saved(facts)
    name = _adapter_name(facts, rules, stanford=stanford)
    limit = length_limit(facts)
    source, query = rules.source, rules.expansion or rules.query_length
    loadtime = {
        "token_dim": rules.width,
        "normalize": Said(rules.normalizes, "" if rules.normalizes else "modules.json ends without Normalize"),
        "query_max_length": Said(min(query or limit.value, limit.value), source if query else limit.source),
        # What is dropped in any case is padding: sentence-transformers scores [CLS] and [SEP].
        "skip_special_tokens": Said(False),
        "query_prefix": Said(rules.markers[0], source),
        "doc_prefix": Said(rules.markers[1], source),
        "doc_punctuation_skiplist": Said(rules.skips_punctuation, source),
    }
    if name != "ColBERTModernBERTFlashAdapter":
        loadtime["query_expansion"] = Said(rules.expansion is not None, source)
    if rules.document_length:
        loadtime["doc_max_length"] = Said(min(rules.document_length, limit.value), source)
        if name != "ColBERTAdapter":
            # The other adapters read documents as far as any text.
            longest = max(min(rules.document_length, limit.value), loadtime["query_max_length"].value)
            limit = Said(longest, source)
    why = "linear.weight beside the weights" if stanford else "the modules of modules.json"
    return Draft(
        adapter=adapter(name, f"{facts.model_type} with {why}"),
        dims={"multivector": rules.width},
        max_length=limit,
        score=True,
        loadtime={key: said for key, said in loadtime.items() if said.value != ""},
    )


def _adapter_name(facts: CheckpointFacts, rules: _Rules, *, stanford: bool) -> str:
    if stanford and facts.model_type == "jina_embeddings_v3":
        return "ColBERTRotaryFlashAdapter"
    if rules.expansion and rules.attends:
        refuse(
            facts,
            "the padding of queries is attended to, which only adapters of rotary checkpoints do",
            "write a bundle that chooses another adapter; its vectors of queries will be others",
            code="SIE222",
            file=SETTINGS_NAME,
        )
    return "ColBERTModernBERTFlashAdapter" if facts.model_type == "modernbert" and not rules.expansion else _PLAIN


_PLAIN = "ColBERTAdapter"


def _saved(facts: CheckpointFacts) -> _Rules:
    """By sentence-transformers or PyLate, whose settings hold the flat keys of its first releases."""
    settings, late = facts.settings, facts.late
    chain = token_chain(facts.followed("MultiVectorEncoder", "ColBERT", "SentenceTransformer"), facts.folder)
    width = last_width(chain.layers) or facts.hidden_size
    native = settings.model_type == "MultiVectorEncoder"
    prompts = settings.prompts
    skiplist = list(chain.skiplist or late.get("skiplist_words") or ())
    if not native and "skiplist_words" not in late:
        skiplist = list(string.punctuation)
    expansion, attends = _expansion(facts, late, native=native)
    return _Rules(
        source=SETTINGS_NAME,
        width=Said(width, "out_features of its last Dense" if chain.layers else "hidden_size of config.json"),
        markers=(
            str(late.get("query_prefix") or prompts.get("query", "")),
            str(late.get("document_prefix") or prompts.get("document", "")),
        ),
        query_length=_length(late.get("query_length")),
        document_length=_length(late.get("document_length")),
        expansion=expansion,
        attends=attends,
        skips_punctuation=_skips_punctuation(facts, skiplist),
        # What is no native save gets a Normalize when it is loaded.
        normalizes=chain.normalizes or not native,
    )


def _expansion(facts: CheckpointFacts, late: Mapping[str, Any], *, native: bool) -> tuple[int | None, bool]:
    """The length that queries are padded to, and whether the model attends to the padding."""
    named = late.get("query_expansion")
    if isinstance(named, Mapping):
        if named.get("strategy") != "fixed" or named.get("token") is not None:
            refuse(
                facts,
                f"queries are expanded by {dict(named)!r}, and adapters pad with the mask token to a fixed length",
                "write a bundle with `query_expansion: false`; its vectors of queries will be others",
                code="SIE222",
                file="sentence_bert_config.json",
            )
        return _length(named.get("length")) or _LENGTH, bool(named.get("attend"))
    if native or late.get("do_query_expansion") is False:
        return None, False
    return _length(late.get("query_length")) or _LENGTH, bool(late.get("attend_to_expansion_tokens"))


def _stanford(facts: CheckpointFacts) -> _Rules:
    """By ColBERT's own code: `artifact.metadata`, and the projection among the model's tensors."""
    rows = [
        facts.weight_shapes[f"{name}.weight"][0]
        for name in PROJECTION_NAMES
        if len(facts.weight_shapes.get(f"{name}.weight", ())) == 2
    ]
    if not rows:
        refuse(
            facts,
            f"it is a `{STANFORD}` without a projection (`linear.weight`), so that nothing says its width",
            "use the checkpoint that has it, or write a bundle with `token_dim`",
            code="SIE222",
        )
    said = facts.stanford
    if not said and STANFORD not in facts.architectures:
        refuse(
            facts,
            f"it has ColBERT's projection, and no `{STANFORD_NAME}` says how queries and documents are marked",
            f"add `{STANFORD_NAME}`, or write a bundle with `query_prefix` and `doc_prefix`",
            code="SIE222",
            file=STANFORD_NAME,
        )
    dim = _length(said.get("dim"))
    return _Rules(
        source=STANFORD_NAME if said else f"ColBERT's default, without {STANFORD_NAME}",
        width=Said(min(dim or rows[0], rows[0]), f"dim of {STANFORD_NAME}" if dim else "the rows of the projection"),
        markers=(
            str(said.get("query_token_id") or _MARKERS[0]),
            str(said.get("doc_token_id") or _MARKERS[1]),
        ),
        query_length=None,
        document_length=_length(said.get("doc_maxlen")),
        expansion=_length(said.get("query_maxlen")) or _LENGTH,
        attends=bool(said.get("attend_to_mask_tokens")),
        skips_punctuation=said.get("mask_punctuation", True) is not False,
        normalizes=True,
    )


def _skips_punctuation(facts: CheckpointFacts, words: list[str]) -> bool:
    """Whether documents lose their punctuation; any other list of words is one that no adapter has."""
    if words and set(words) != set(string.punctuation):
        refuse(
            facts,
            f"documents lose the vectors of {len(words)} words of its own, and adapters know punctuation or nothing",
            "write a bundle with `doc_punctuation_skiplist`; its vectors of documents will be more or fewer",
            code="SIE222",
            file=SETTINGS_NAME,
        )
    return bool(words)


def _length(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
