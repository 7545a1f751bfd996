"""Keys of published configurations that decide no output: data for `published`."""

from __future__ import annotations

from collections.abc import Mapping

HARMLESS: Mapping[str, str] = {
    "_name_or_path": "where it was saved from",
    "architectures": "replaced by the native class",
    "auto_map": "the authors' code, which is not run",
    "model_type": "replaced by the native one",
    "torch_dtype": "the type that the weights are stored in",
    "dtype": "the type that the weights are stored in",
    "transformers_version": "who wrote the file",
    "attention_probs_dropout_prob": "dropout does nothing outside of training",
    "hidden_dropout_prob": "dropout does nothing outside of training",
    "classifier_dropout": "dropout does nothing outside of training",
    "attn_pdrop": "dropout does nothing outside of training",
    "embd_pdrop": "dropout does nothing outside of training",
    "resid_pdrop": "dropout does nothing outside of training",
    "initializer_range": "only for training from scratch",
    "bos_token_id": "the tokenizer adds special tokens",
    "eos_token_id": "the tokenizer adds special tokens",
    "pad_token_id": "a mask says what is padding",
    "id2label": "carried over",
    "label2id": "carried over",
    "num_labels": "carried over",
    "problem_type": "only for a loss",
    "tie_word_embeddings": "carried over",
    "sentence_transformers": "carried over",
    "sbert_ce_default_activation_function": "carried over",
    "use_cache": "an encoder has no cache",
    "output_past": "an encoder has no cache",
    "is_decoder": "checked to be false",
    "add_cross_attention": "checked to be false",
    "use_flash_attn": "how attention is computed, not what",
    "use_memory_efficient_attention": "how attention is computed, not what",
    "unpad_inputs": "how padding is skipped, not what is computed",
    "fused_dropout_add_ln": "how it is computed, not what",
    "fused_bias_fc": "how it is computed, not what",
    "reorder_and_upcast_attn": "how it is computed, not what",
    "dense_seq_output": "only for a loss",
    "use_xentropy": "only for a loss",
    "emb_pooler": "only for the `encode` method of the authors' class",
    "matryoshka_dimensions": "a list of dimensions that vectors may be cut to",
    "load_trained_adapters": "without adapters there is nothing to load",
    "lora_alpha": "without adapters it scales nothing",
    "lora_dropout_p": "dropout does nothing outside of training",
    "lora_main_params_trainable": "only for training",
    "lora_rank": "without adapters it sizes nothing",
    "task_instructions": "only for the `encode` method of the authors' class",
    "max_trained_positions": "read where frequencies are scaled",
    "model_max_length": "the tokenizer's limit stands in its own file",
    "n_ctx": "another name of the number of positions",
    "summary_activation": "of GPT-2's summary head, which is not there",
    "summary_first_dropout": "of GPT-2's summary head, which is not there",
    "summary_proj_to_labels": "of GPT-2's summary head, which is not there",
    "summary_type": "of GPT-2's summary head, which is not there",
    "summary_use_proj": "of GPT-2's summary head, which is not there",
    "logn_attention_clip1": "without `logn_attention_scale` it clips nothing",
}
"""Keys of a published configuration that decide no output, with the reason. Others are read, or refused by name."""

CARRIED = frozenset(
    {
        *("bos_token_id", "classifier_dropout", "eos_token_id", "id2label", "initializer_range", "label2id"),
        *(
            "matryoshka_dimensions",
            "num_labels",
            "pad_token_id",
            "problem_type",
            "sbert_ce_default_activation_function",
        ),
        *("sentence_transformers", "tie_word_embeddings", "torch_dtype", "dtype"),
    }
)
"""Of those, the ones that the native configuration keeps."""

DECLARE_CODE: tuple[tuple[str, tuple[str, ...], str, str], ...] = (
    (
        "GTE (`model_type: gte`)",
        ("Snowflake/snowflake-arctic-embed-m-v2.0",),
        "Gte",
        "nothing: keys and names are transformers' own",
    ),
    (
        "Qwen2 without its causal mask",
        ("Alibaba-NLP/gte-Qwen2-7B-instruct", "NovaSearch/stella_en_1.5B_v5"),
        "Qwen2",
        "nothing: transformers obeys `is_causal: false`, and `Qwen2FlashAdapter` attends to both sides by itself",
    ),
    (
        "Mistral without its causal mask",
        ("GritLM/GritLM-7B",),
        "Mistral",
        "nothing: the bundle's `forward_kwargs` lift the mask",
    ),
)
"""Layouts that name code of their own and that transformers reads as they are: name, models, class, what differs."""
