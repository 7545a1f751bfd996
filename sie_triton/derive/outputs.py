"""Drafts of dense vectors, sparse vectors and scores: adapters, widths, limits and options."""

from __future__ import annotations

from collections.abc import Mapping

from sie_triton.derive.draft import Draft, Said
from sie_triton.derive.kinds import QUERY_TABLES, refuse
from sie_triton.facts import CheckpointFacts, DenseChain, Layer, answers, dense_chain, read_answer
from sie_triton.facts.checkpoint import SETTINGS_NAME, TOKENIZER_SETTINGS_NAME, activation
from sie_triton.facts.routes import ROUTER_NAME
from sie_triton.planning.families.sparse import followed_sparse

_BUILT_IN = "sie_server.adapters."
ADAPTERS: Mapping[str, str] = {
    name: f"{_BUILT_IN}{module}:{name}"
    for module, name in (
        ("sentence_transformer", "SentenceTransformerDenseAdapter"),
        ("sentence_transformer", "SentenceTransformerSparseAdapter"),
        ("splade_flash", "SPLADEFlashAdapter"),
        ("gte_sparse_flash", "GTESparseFlashAdapter"),
        ("bge_m3_flash", "BGEM3FlashAdapter"),
        ("cross_encoder", "CrossEncoderAdapter"),
        ("bert_flash_cross_encoder", "BertFlashCrossEncoderAdapter"),
        ("native_causal_cross_encoder", "NativeCausalCrossEncoderAdapter"),
        ("modernbert_flash_cross_encoder", "ModernBertFlashCrossEncoderAdapter"),
        ("colbert", "ColBERTAdapter"),
        ("colbert_modernbert_flash", "ColBERTModernBERTFlashAdapter"),
        ("colbert_rotary_flash", "ColBERTRotaryFlashAdapter"),
        ("clip.adapter", "CLIPAdapter"),
        ("siglip.adapter", "SiglipAdapter"),
    )
}
"""SIE's adapters that a derived bundle may name, as `adapter_path` has them."""


def adapter(name: str, why: str) -> Said:
    """The adapter's path, and why it is this one."""
    return Said(ADAPTERS[name], why)


def length_limit(facts: CheckpointFacts) -> Said:
    """Tokens of the longest text, as sentence-transformers reads it: its own setting, else the tokenizer's, and never
    more than the model has positions for. Raises `DiagnosticError` where nothing says any.
    """
    setting = Said(facts.pipeline.limit, "max_seq_length of sentence_bert_config.json")
    if setting.value is None:
        setting = Said(facts.tokenizer_max_length, f"model_max_length of {TOKENIZER_SETTINGS_NAME}")
    positions = Said(facts.max_positions, "max_position_embeddings of config.json")
    said = [limit for limit in (setting, positions) if limit.value]
    if not said:
        refuse(
            facts,
            "nothing says how many tokens it takes",
            f"add `model_max_length` to `{TOKENIZER_SETTINGS_NAME}`, or write a bundle with `max_sequence_length`",
            file=TOKENIZER_SETTINGS_NAME,
        )
    return min(said, key=lambda limit: int(limit.value))


def dense_draft(facts: CheckpointFacts) -> Draft:
    """The adapter that runs the checkpoint's own modules; without any, sentence-transformers' default."""
    notes = []
    if facts.pipeline.listed:
        chain = dense_chain(facts.followed("SentenceTransformer"), facts.folder)
        pooled = f"{_pooled(chain)} of modules.json"
    else:
        chain = DenseChain("mean", include_prompt=True, token_layers=(), layers=())
        pooled = "mean pooling, without modules.json"
        notes.append(
            "There is no modules.json: the tokens' mean is taken and not normalised, as sentence-transformers does "
            "with such a checkpoint. If its authors pool otherwise, write so in the bundle (docs/add-a-bundle.md)."
        )
        notes += _other_readings(facts)
    width, native = _dense_width(facts, chain)
    # What is cut behind its Normalize has no unit length any more, and sentence-transformers leaves it so.
    unit = chain.normalizes and width.value == native
    runtime = {"normalize": Said(unit, _normalize_source(chain, width) if facts.pipeline.listed else "")}
    if widths := _cut_widths(facts, int(width.value)):
        runtime["matryoshka_dims"] = widths
    return Draft(
        adapter=adapter("SentenceTransformerDenseAdapter", f"runs {pooled}"),
        dims={"dense": width},
        max_length=length_limit(facts),
        runtime=runtime,
        notes=(*notes, *_prompt_notes(facts)),
    )


def _pooled(chain: DenseChain) -> str:
    return " and ".join([f"{chain.pooling} pooling", *map(_named, chain.before_normalizing)])


def _named(layer: Layer) -> str:
    """What modules.json calls it."""
    return type(layer).__name__.removesuffix("Layer")


def _normalize_source(chain: DenseChain, width: Said) -> str:
    if not chain.normalizes:
        return "modules.json ends without Normalize"
    return f"{width.source}, behind Normalize" if "truncate_dim" in width.source else "Normalize of modules.json"


def _dense_width(facts: CheckpointFacts, chain: DenseChain) -> tuple[Said, int]:
    """The width of a vector, and what it was before `truncate_dim`."""
    width = chain.width(facts.hidden_size)
    if width is None:
        refuse(facts, "nothing says how wide its vectors are", "add `hidden_size` to `config.json`")
    if (keep := facts.settings.truncate_dim) and keep < width:
        return Said(keep, f"truncate_dim of {SETTINGS_NAME}"), width
    layers = [layer for layer in (*chain.token_layers, *chain.layers) if hasattr(layer, "out_features")]
    return Said(width, "out_features of its last Dense" if layers else "hidden_size of config.json"), width


def _cut_widths(facts: CheckpointFacts, width: int) -> Said | None:
    """Widths that vectors may be cut to, as the files say; those that cut nothing are none."""
    said = facts.matryoshka
    widths = [cut for cut in said.widths if cut < width]
    return Said(widths, f"{said.key} of {said.file}") if widths else None


def _prompt_notes(facts: CheckpointFacts) -> list[str]:
    """What the checkpoint's own prompts do, which the adapter puts in front of texts by itself."""
    prompts, source = facts.settings.prompts, f"prompts of {SETTINGS_NAME}"
    notes = [
        f"{side} get {prompts[name]!r} in front ({source})."
        for side, name in (("Queries", "query"), ("Documents", "document"))
        if name in prompts
    ]
    if facts.settings.default_prompt and not {"query", "document"} & prompts.keys():
        notes.append(f"{facts.settings.default_prompt!r} goes in front of what a template makes ({source}).")
    if others := sorted(prompts.keys() - {"query", "document", facts.settings.default_prompt_name}):
        named = ", ".join(f"`{name}`" for name in others)
        notes.append(f"Nobody asks for the prompts {named} ({source}): a template of the bundle or of a call may.")
    return notes


def _other_readings(facts: CheckpointFacts) -> list[str]:
    first = next(iter(facts.architectures), "")
    if not first.endswith("ForMaskedLM"):
        return []
    return [
        f"Its class, {first}, is that of SPLADE models too: for sparse vectors write a bundle with SPLADEFlashAdapter."
    ]


def sparse_draft(facts: CheckpointFacts) -> Draft:
    """Weights over the vocabulary: by the checkpoint's modules, else by the maximum of its logits."""
    size = facts.config.get("vocab_size")
    if not isinstance(size, int):
        refuse(facts, "nothing says how many words its vocabulary has", "add `vocab_size` to `config.json`")
    table = next((name for name in QUERY_TABLES if name in facts.files and not facts.pipeline.listed), None)
    notes = [f"Queries are weighed by {table}, without the model."] if table else []
    if facts.pipeline.listed:
        chosen, more = _listed_sparse(facts)
        notes += more
    elif facts.model_type in ("gte", "new"):
        chosen = adapter("GTESparseFlashAdapter", f"model_type {facts.model_type} of config.json")
    else:
        chosen = adapter("SPLADEFlashAdapter", table or "the tags of README.md")
    return Draft(
        adapter=chosen,
        dims={"sparse": Said(size, "vocab_size of config.json")},
        max_length=length_limit(facts),
        notes=(*notes, *_prompt_notes(facts)),
    )


def _listed_sparse(facts: CheckpointFacts) -> tuple[Said, list[str]]:
    """The adapter that runs the modules, and what they do with queries."""
    followed_sparse(facts)
    routed, list_name = facts.pipeline.query_table, "modules.json"
    notes = []
    if routed is not None:
        list_name = f"the route `document` of {ROUTER_NAME}"
        cut = f", and cut at {routed.max_length} tokens of their own" if routed.max_length else ""
        notes.append(
            f"Queries are weighed by {routed.file}, without the model and without special tokens{cut} (the route "
            f"`query` of {ROUTER_NAME})."
        )
    return adapter("SentenceTransformerSparseAdapter", f"runs SpladePooling of {list_name}"), notes


def bge_m3_draft(facts: CheckpointFacts) -> Draft:
    """Dense vectors, token weights and token vectors out of one encoder."""
    hidden = facts.hidden_size
    if hidden is None:
        refuse(facts, "nothing says how wide its vectors are", "add `hidden_size` to `config.json`")
    width = Said(hidden, "hidden_size of config.json")
    return Draft(
        adapter=adapter("BGEM3FlashAdapter", "sparse_linear and colbert_linear beside the weights"),
        dims={
            "dense": width,
            "sparse": Said(facts.config.get("vocab_size"), "vocab_size of config.json"),
            "multivector": width,
        },
        max_length=length_limit(facts),
        score=True,
        runtime={"pooling": Said("cls"), "normalize": Said(True)},
    )


def answer_draft(facts: CheckpointFacts) -> Draft:
    """A language model's answer to the prompt that the checkpoint's own chat template writes."""
    said = read_answer(facts)
    less = f" less that of `{said.no}`" if said.no is not None else ""
    before, between, after = said.parts
    run = "LogitScore of modules.json" if facts.pipeline.listed else "a CrossEncoder's default, without modules.json"
    system = facts.settings.default_prompt
    told = f", with the prompt {system!r} of {SETTINGS_NAME} as its system message" if system else ""
    return Draft(
        adapter=adapter("NativeCausalCrossEncoderAdapter", f"runs {run}"),
        dims={},
        max_length=length_limit(facts),
        score=True,
        notes=(
            f"A score is the logit of `{said.yes}`{less} ({said.answer_file}) behind {said.function}.",
            f"It answers {before!r}, the query, {between!r}, the document, {after!r} ({said.prompt_file}{told}).",
            "A pair that is too long is refused, and a request has no instruction: SIE's adapter has it so.",
        ),
    )


_CROSS_ENCODERS = {"bert": "BertFlashCrossEncoderAdapter", "xlm-roberta": "BertFlashCrossEncoderAdapter"}


def score_draft(facts: CheckpointFacts) -> Draft:
    """A sequence-classification head on pairs, by sentence-transformers' rules."""
    if facts.pipeline.task == "text-generation" or answers(facts):
        return answer_draft(facts)
    function = activation(facts)
    name = _CROSS_ENCODERS.get(facts.model_type, "CrossEncoderAdapter")
    if facts.model_type == "modernbert" and function == "Sigmoid":
        name = "ModernBertFlashCrossEncoderAdapter"
    first = next(iter(facts.architectures), "its class")
    return Draft(
        adapter=adapter(name, f"{first} of config.json"),
        dims={},
        max_length=length_limit(facts),
        score=True,
        notes=(f"A score is the logit behind {function}.",),
    )
