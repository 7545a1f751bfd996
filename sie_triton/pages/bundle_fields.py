"""The chapter on bundles: every key of the schema, with what it decides here; a key that is new to us is an error."""

from __future__ import annotations

from collections.abc import Mapping

from sie_triton.bundle import schema
from sie_triton.pages.markdown import code, listed, table

_ONLY_SIE = "Read and checked for SIE's sake; decides nothing here."

TOP: Mapping[str, str] = {
    "sie_id": "The id that clients address. Exact and case-sensitive.",
    "hf_id": "The checkpoint on the hub. Not needed with `weights_path`.",
    "hf_revision": "Its commit, branch or tag. A commit of 40 digits is never looked up again.",
    "hf_tokenizer_dependencies": _ONLY_SIE,
    "weights_path": "A checkpoint folder on this machine; `--weights` comes before it.",
    "package_backed": "The weights come inside a Python package. Refused.",
    "remote_backed": "Another server computes. Refused.",
    "routing": _ONLY_SIE,
    "pool": _ONLY_SIE,
    "inputs": "What an item may hold. Without `text` the bundle is refused.",
    "tasks": "What the model does: `encode` with `dense`, `sparse`, `multivector` and the `dim` of each, and `score`. "
    "A `dim` that the checkpoint does not have is an error. `extract` and `generate` are not served.",
    "max_sequence_length": "Tokens after which text is cut, the special ones included. The checkpoint's own limit "
    "holds where it is smaller.",
    "profiles": "Named sets of options. `default` is addressed by the bare id, every other as `id:profile`.",
}
PROFILE: Mapping[str, str] = {
    "extends": "The profile whose values hold where this one names none; one level.",
    "max_batch_tokens": "Tokens of one run on CUDA, padding included. On a CPU a run has 512, or this if it is lower; "
    "a text that is longer is a run of its own. Divided by the longest bucket it gives the rows of a batch "
    "(`max_batch_size`), for TensorRT their only limit. Profiles that differ in it are Triton models of their own. "
    "`sie-triton tune` replaces the CPU's numbers.",
    "compute_precision": "What CUDA computes in: `float32`, `float16` or `bfloat16`; null: float16. "
    "[formats.md](formats.md#precision) has the rest.",
    "adapter_path": "SIE's class, `module:Class`. It chooses the recipe and is never executed.",
    "adapter_options": "`loadtime` and `runtime`, below.",
    "adaptive_batching": _ONLY_SIE,
    "kv_budget_tokens": _ONLY_SIE,
    "admission_enabled": _ONLY_SIE,
    "max_output_tokens": _ONLY_SIE,
    "chat_template_kwargs": _ONLY_SIE,
    "grammar_profile": _ONLY_SIE,
}
LOADTIME: Mapping[str, str] = {
    "trust_remote_code": "The checkpoint's own Python may run; `--trust-remote-code` must say so too.",
    "max_seq_length": "Comes before `max_sequence_length`.",
    "normalize, pooling, query_template, doc_template": "Defaults of the runtime options of these names.",
    "token_dim": "Width of a token's vector behind the projection (late interaction).",
    "query_max_length, doc_max_length": "Tokens of a query, of a document (late interaction).",
    "query_expansion, skip_special_tokens, doc_punctuation_skiplist": "Which tokens' vectors are kept "
    "(late interaction).",
    "muvera_config, smve_config": "Parameters of MUVERA and SMVE; `runtime` switches them on.",
    "input_format, score_mode, yes_token, no_token, default_instruction": "Prompt and arithmetic of a reranker that is "
    "a language model.",
    "causal": "Causal attention for Qwen encoders.",
    "append_eos": "The end token is appended to the text.",
    "dense_projection_path": "A linear layer behind the pooling.",
    "forward_kwargs": "Only GritLM's `is_causal: false` is known.",
    "lora_paths": "Refused: a graph has one set of weights. `lora_id` merges one.",
    "use_model_encode": "Refused: vectors come from a method, not from a graph.",
    "backend": "`open_clip`: the checkpoint is in open_clip's layout; read by `SiglipAdapter`, refused elsewhere.",
}
RUNTIME: Mapping[str, str] = {
    "pooling": "`cls`, `mean`, `last` or `last_token`, as the adapter understands them.",
    "normalize": "Whether vectors have length 1.",
    "matryoshka_dims": "Widths that `dimensions` of `/v1/embeddings` may ask for; by default the checkpoint's. No "
    "option of a request.",
    "query_template, doc_template": "How text is wrapped: `{text}`, `{instruction}`.",
    "image_orientation": "`stored` (as SIE has it) or `exif`: pictures are turned the way that their EXIF says.",
    "image_alpha": "`drop` (as SIE has it) or `white`: pictures with alpha are put on white.",
    "patch_positions": "`trained` or `shifted`: where ColSmol places the patches of a tile, of which SIE on a GPU and "
    "SIE on a CPU have one each ([pages.md](pages.md#sie-on-a-gpu-and-sie-on-a-cpu)). No option of a request.",
    "default_instruction": "The instruction of queries that bring none.",
    "instruction": "The instruction of every item that brings none.",
    "output_types, output_dtype": "What the profile answers with unless the request says otherwise.",
    "muvera, smve": "Anything but null makes a dense, or a sparse, vector out of the token vectors.",
    "lora_id": "A LoRA adapter at the hub, merged into the weights of the profile "
    "([checkpoints.md](checkpoints.md#lora-adapters)).",
}


def chapter() -> str:
    """The tables of the keys. Raises `ValueError` if the schema has a key that no table explains."""
    for name, keys, explained in (("top", schema.TOP_KEYS, TOP), ("profile", schema.PROFILE_KEYS, PROFILE)):
        if set(keys) != set(explained):
            raise ValueError(f"the {name} keys that differ from the schema's: {sorted(set(keys) ^ set(explained))}")
    parts = [
        "Unknown keys are errors, with the place and the nearest known key. Options that are not listed are read "
        "and have no effect.",
        _table("Top level", TOP),
        _table("A profile", PROFILE),
        _table("`adapter_options.loadtime`", LOADTIME),
        _table("`adapter_options.runtime`, which a request's `options` override", RUNTIME),
    ]
    return "\n\n".join(parts)


def _table(title: str, meanings: Mapping[str, str]) -> str:
    rows = [(listed(names.split(", ")) if ", " in names else code(names), text) for names, text in meanings.items()]
    return f"### {title}\n\n{table(('Key', 'Means'), rows)}"
