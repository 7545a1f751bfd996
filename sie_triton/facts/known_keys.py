"""What is done with each key of the files by which sentence-transformers and transformers describe a checkpoint.

Data, with the reason: the reader refuses a key that is not here, and `docs/checkpoints.md` is made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sie_triton.diagnostics import Diagnostic, Where

Outcome = Literal["honoured", "harmless", "refused"]

# A value that says nothing: a key with one of these is as good as absent.
NOTHING: tuple[object, ...] = (None, False, "", [], {})


@dataclass(frozen=True, slots=True)
class Key:
    """One key: what is done with it, and why. A `refused` key is refused only if its value is meaningful."""

    outcome: Outcome
    why: str


def honoured(why: str) -> Key:
    """Read, and used by the compiler or the server."""
    return Key("honoured", why)


def harmless(why: str) -> Key:
    """Ignored, because it cannot change a vector or a score."""
    return Key("harmless", why)


def refused(why: str) -> Key:
    """Refused, because it would change outputs in a way that the compiler does not support."""
    return Key("refused", why)


_RECORD = harmless("a record of how the checkpoint was made")
_FLASH = harmless("how FlashAttention lays rows out on a GPU; the outputs are the same")
_LOADER = harmless("where and how a library finds the files")
_PADDING = harmless("padding is masked out, on whichever side it is")
_DECODING = harmless("only for turning ids back into text")
_TRAINING = harmless("only for training")
_ROLE = honoured("a special token and its role")
_LATE = honoured(
    "late-interaction adapters of SIE take it from the bundle; where the two differ the certificate says so"
)
_NORMALIZER = honoured("the tokenizer's normaliser is set to it")
_IN_FILE = honoured("`tokenizer.json` holds its effect, which decides")

MODULE_ENTRY: Mapping[str, Key] = {
    "idx": harmless("sentence-transformers runs the modules in the order of the list"),
    "name": harmless("the module's name inside the pipeline"),
    "path": honoured("the module's folder"),
    "type": honoured("the module's class"),
    "kwargs": refused("arguments of the call that the module passes on"),
}

TRANSFORMER: Mapping[str, Key] = {
    "max_seq_length": honoured("the length limit in tokens, where the bundle names none"),
    "do_lower_case": honoured("text is lowercased before it is tokenised, where the tokenizer does not do it itself"),
    "transformer_task": honoured("which of the checkpoint's models is loaded; it must be the one the adapter needs"),
    "modality_config": honoured("which output is taken; the plain text path of the task and nothing else"),
    "module_output_name": honoured("what the output is called for the modules behind it"),
    "processing_kwargs": honoured("`add_generation_prompt` of a chat template; any other argument is refused"),
    "unpad_inputs": _FLASH,
    "query_length": _LATE,
    "document_length": _LATE,
    "query_expansion": _LATE,
    "model_args": refused("arguments with which the model is built"),
    "model_kwargs": refused("arguments with which the model is built"),
    "tokenizer_args": refused("arguments with which the tokenizer is built"),
    "processor_kwargs": refused("arguments with which the tokenizer is built"),
    "config_args": refused("arguments that change the configuration"),
    "config_kwargs": refused("arguments that change the configuration"),
    "tokenizer_name_or_path": refused("the tokenizer of another checkpoint"),
    "cache_dir": _LOADER,
    "backend": _LOADER,
}

POOLING: Mapping[str, Key] = {
    "word_embedding_dimension": harmless("the width of the token embeddings, which the weights tell"),
    "embedding_dimension": harmless("the width of the token embeddings, which the weights tell"),
    "pooling_mode": honoured(
        "one of cls, max, mean, mean_sqrt_len_tokens, weightedmean, lasttoken, or several of them"
    ),
    **{
        f"pooling_mode_{mode}": honoured("the older spelling of `pooling_mode`")
        for mode in (
            "cls_token",
            "max_tokens",
            "mean_tokens",
            "mean_sqrt_len_tokens",
            "weightedmean_tokens",
            "lasttoken",
        )
    },
    "include_prompt": honoured("false: the prompt's tokens are read but not pooled"),
}

DENSE: Mapping[str, Key] = {
    "in_features": honoured("width of the input"),
    "out_features": honoured("width of the output"),
    "bias": honoured("whether the layer has a bias"),
    "activation_function": honoured("the activation of torch behind the layer; Tanh where none is named"),
    "use_residual": honoured("whether the input is added to the output"),
    "module_input_name": honoured("token or sentence embeddings"),
    "module_output_name": honoured("the same as the input, or refused"),
}

NORMALIZE: Mapping[str, Key] = {
    "module_input_name": honoured("token or sentence embeddings"),
    "module_output_name": honoured("the same as the input, or refused"),
}

LAYER_NORM: Mapping[str, Key] = {"dimension": honoured("width of the vectors")}

DROPOUT: Mapping[str, Key] = {"dropout": _TRAINING}

SPLADE_POOLING: Mapping[str, Key] = {
    "pooling_strategy": honoured("max or sum over the tokens"),
    "activation_function": honoured("relu, or log1p_relu, which takes the logarithm twice"),
    "embedding_dimension": harmless("the size of the vocabulary, which the weights tell"),
    "word_embedding_dimension": harmless("the size of the vocabulary, which the weights tell"),
    "chunk_size": harmless("how many tokens are pooled at a time; the result is the same"),
}

LOGIT_SCORE: Mapping[str, Key] = {
    "true_token_id": honoured("the token whose logit behind the prompt is the score"),
    "false_token_id": honoured("the token whose logit is taken off it"),
    "module_input_name": honoured("the logits of the language model"),
}

ROUTER: Mapping[str, Key] = {
    "types": honoured("the class of each module, by its folder"),
    "structure": honoured("the folders of each route; `query` and `document`, and nothing else"),
    "parameters": honoured("what the router is constructed with"),
}

ROUTER_PARAMETERS: Mapping[str, Key] = {
    "default_route": harmless("SIE always says whether a text is a query or a document"),
    "allow_empty_key": harmless("SIE always says whether a text is a query or a document"),
    "route_mappings": refused("routes by another name or modality"),
}

SPARSE_STATIC_EMBEDDING: Mapping[str, Key] = {
    "frozen": _TRAINING,
    "path": refused("a table of weights that lies elsewhere"),
}

MULTI_VECTOR_MASK: Mapping[str, Key] = {
    "skiplist_words": _LATE,
    "skiplist_tasks": _LATE,
    "keep_only_token_ids": refused("only some ids of documents keep their vectors"),
}

SETTINGS: Mapping[str, Key] = {
    "__version__": _RECORD,
    "requirements": _RECORD,
    "model_type": honoured("the kind of model; it must be the one that the adapter serves"),
    "prompts": honoured("the text in front of queries and documents"),
    "default_prompt_name": honoured("the prompt that stays in front of a template"),
    "similarity_fn_name": harmless("how vectors are compared, which is the caller's business"),
    "truncate_dim": honoured("how many of a dense vector's numbers are kept"),
    "max_active_dims": honoured("how many of a sparse vector's weights are kept"),
    "activation_fn": honoured("what follows a reranker's logit"),
    "keep_in_fp32_modules": harmless("every precision is verified as a whole"),
    "query_prefix": _LATE,
    "document_prefix": _LATE,
    "query_length": _LATE,
    "document_length": _LATE,
    "attend_to_expansion_tokens": _LATE,
    "do_query_expansion": _LATE,
    "skiplist_words": _LATE,
}

TOKENIZER: Mapping[str, Key] = {
    "model_max_length": honoured("the length limit in tokens, as far as nothing else sets one"),
    "max_len": honoured("the older spelling of `model_max_length`"),
    "truncation_side": honoured("the end at which a text that is too long loses tokens"),
    "added_tokens_decoder": honoured("tokens that `tokenizer.json` lacks are added"),
    "additional_special_tokens": _ROLE,
    "extra_special_tokens": _ROLE,
    **{
        f"{role}_token": _ROLE for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask", "image", "audio", "video")
    },
    **{f"{role}_token_id": _ROLE for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")},
    "do_lower_case": _NORMALIZER,
    "strip_accents": _NORMALIZER,
    "tokenize_chinese_chars": _NORMALIZER,
    "do_basic_tokenize": _IN_FILE,
    "never_split": _IN_FILE,
    "keep_accents": _IN_FILE,
    "remove_space": _IN_FILE,
    "add_prefix_space": _IN_FILE,
    "trim_offsets": _IN_FILE,
    "add_bos_token": _IN_FILE,
    "add_eos_token": _IN_FILE,
    "legacy": _IN_FILE,
    "legacy_behaviour": _IN_FILE,
    "sp_model_kwargs": _IN_FILE,
    "vocab_type": _IN_FILE,
    "vocab_file": _IN_FILE,
    "spm_file": _IN_FILE,
    "merges_file": _IN_FILE,
    "unk_id": _IN_FILE,
    "split_by_punct": _IN_FILE,
    "fix_mistral_regex": refused("another rule by which text is split before it is tokenised"),
    "split_special_tokens": refused("special tokens in a text are split like any word"),
    "auto_map": harmless("`tokenizer.json` decides; without it the checkpoint's own code needs the bundle and a flag"),
    "padding": _PADDING,
    "padding_side": _PADDING,
    "pad_to_multiple_of": _PADDING,
    "pad_token_type_id": _PADDING,
    "max_length": harmless("a default of the call, which every adapter overrides"),
    "stride": harmless("a default of the call; nothing asks for overlapping windows"),
    "truncation": harmless("a default of the call, which every adapter overrides"),
    "truncation_strategy": harmless("pairs are truncated longest first, as sentence-transformers asks"),
    "clean_up_tokenization_spaces": _DECODING,
    "spaces_between_special_tokens": _DECODING,
    "errors": _DECODING,
    "use_default_system_prompt": harmless("only for chat templates"),
    "chat_template": honoured("the prompt of a reranker that is a language model; of no effect on others"),
    "response_schema": harmless("only for chats"),
    "model_input_names": harmless("the graph says which inputs it reads"),
    "tokenizer_class": honoured("`tokenizer.json` decides where there is one; else transformers' class"),
    "tokenizer_file": _LOADER,
    "tokenizer_type": _LOADER,
    "processor_class": _LOADER,
    "special_tokens_map_file": _LOADER,
    "name_or_path": _LOADER,
    "backend": _LOADER,
    "use_fast": _LOADER,
    "from_slow": _LOADER,
    "is_local": _LOADER,
    "local_files_only": _LOADER,
    "cache_dir": _LOADER,
    "device_map": _LOADER,
    "trust_remote_code": harmless("remote code needs the bundle and a flag, whatever a checkpoint says"),
    "model_specific_special_tokens": _ROLE,
    "model_type": _RECORD,
    "init_inputs": _RECORD,
    "transformers_version": _RECORD,
    "_commit_hash": _RECORD,
    "return_token_type_ids": harmless("the graph says which inputs it reads"),
    "full_tokenizer_file": _LOADER,
    "vocab_size": harmless("the vocabulary tells"),
    "lang": _RECORD,
    "src_lang": harmless("only for translation"),
    "tgt_lang": harmless("only for translation"),
    "language": _RECORD,
}

_CHANNELS = harmless("how arrays are laid out on the way into the model, which the graph decides")

PREPROCESSOR: Mapping[str, Key] = {
    "image_processor_type": honoured("the class whose defaults hold; CLIP's, SigLIP's and Idefics3's are known"),
    "feature_extractor_type": honoured("the older spelling of `image_processor_type`"),
    "do_resize": honoured("pictures are scaled; false is refused"),
    "size": honoured("what pictures are scaled to: their shortest edge, or both"),
    "resample": honoured("Pillow's filter"),
    "do_center_crop": honoured("whether the middle is cut out"),
    "crop_size": honoured("the square that is cut out, which must have the size that pictures are scaled to"),
    "do_rescale": honoured("levels of 0 to 255 are scaled; false is refused"),
    "rescale_factor": honoured("what levels are multiplied by"),
    "do_normalize": honoured("the mean is taken off and the rest divided; false is refused"),
    "image_mean": honoured("the mean of red, green and blue"),
    "image_std": honoured("what red, green and blue are divided by"),
    "image_seq_length": honoured("how many positions a picture takes in its prompt: those of the tower"),
    "do_convert_rgb": harmless("every picture becomes RGB before it is prepared, as SIE does it"),
    "do_pad": honoured("a margin around the picture, which tiles never need; for other processors it is refused"),
    "do_image_splitting": honoured("pictures are cut into tiles; false is refused"),
    "max_image_size": honoured("the edge of a tile"),
    "return_row_col_info": harmless("the layout of tiles is always told"),
    "pad_size": refused("a margin around the picture"),
    "auto_map": refused("preparing images by the checkpoint's own code"),
    "processor_class": _LOADER,
    "use_fast": _LOADER,
    "device": _LOADER,
    "disable_grouping": _LOADER,
    "return_tensors": _CHANNELS,
    "data_format": _CHANNELS,
    "input_data_format": _CHANNELS,
    "_valid_processor_keys": _RECORD,
    "transformers_version": _RECORD,
}

_BOUNDS = harmless("SIE's adapters have bounds of their own for the pixels of a picture")
_SHARED = ("do_convert_rgb", "do_normalize", "do_rescale", "do_resize", "do_pad", "image_mean", "image_std", "pad_size")
PATCHES: Mapping[str, Key] = {
    "image_processor_type": honoured("the class whose defaults hold; Qwen2-VL's is known"),
    "patch_size": honoured("the edge of a patch in pixels"),
    "merge_size": honoured("the edge of the square of patches that is one token"),
    "temporal_patch_size": honoured("how many frames are one patch; a picture is repeated for them"),
    "size": _BOUNDS,
    "min_pixels": _BOUNDS,
    "max_pixels": _BOUNDS,
    "default_to_square": harmless("both edges are computed"),
    "crop_size": refused("a square that is cut out"),
    "do_center_crop": refused("a square that is cut out"),
    "auto_map": refused("preparing images by the checkpoint's own code"),
    **{key: PREPROCESSOR[key] for key in (*_SHARED, "resample", "rescale_factor")},
    **{key: value for key, value in PREPROCESSOR.items() if value in (_LOADER, _CHANNELS, _RECORD)},
}

PROCESSOR: Mapping[str, Key] = {
    "query_prefix": honoured("what stands in front of every query of a page model"),
    "visual_prompt_prefix": honoured("what stands behind every picture of a page model"),
    "image_seq_length": honoured("how many positions a picture takes in its prompt: those of the tower"),
    "image_seq_len": honoured("how many positions a tile takes in its prompt: those of the tower"),
    "image_processor": honoured("how pictures are prepared; where it is missing, `preprocessor_config.json` says it"),
    "chat_template": harmless("only for chats"),
    "auto_map": refused("preparing items by the checkpoint's own code"),
    "processor_class": _LOADER,
}

# By the name under which messages and the page speak of it.
FILES: Mapping[str, Mapping[str, Key]] = {
    "modules.json": MODULE_ENTRY,
    "sentence_bert_config.json": TRANSFORMER,
    "Pooling/config.json": POOLING,
    "Dense/config.json": DENSE,
    "Normalize/config.json": NORMALIZE,
    "LayerNorm/config.json": LAYER_NORM,
    "Dropout/config.json": DROPOUT,
    "SpladePooling/config.json": SPLADE_POOLING,
    "MultiVectorMask/config.json": MULTI_VECTOR_MASK,
    "LogitScore/config.json": LOGIT_SCORE,
    "router_config.json": ROUTER,
    "router_config.json: parameters": ROUTER_PARAMETERS,
    "SparseStaticEmbedding/config.json": SPARSE_STATIC_EMBEDDING,
    "config_sentence_transformers.json": SETTINGS,
    "tokenizer_config.json": TOKENIZER,
    "preprocessor_config.json": PREPROCESSOR,
    "preprocessor_config.json: patches": PATCHES,
    "processor_config.json": PROCESSOR,
}

# Modules of sentence-transformers' pipelines; the reason for those that are not compiled.
MODULES: Mapping[str, Key] = {
    "Transformer": honoured("the transformer's body"),
    "MLMTransformer": honoured("a masked language model, its older name"),
    "Pooling": honoured("token embeddings to one vector"),
    "Dense": honoured("a linear layer with an activation, anywhere"),
    "Normalize": honoured("unit length, anywhere"),
    "LayerNorm": honoured("a layer normalisation, anywhere behind the pooling"),
    "Dropout": harmless("does nothing outside of training"),
    "SpladePooling": honoured("logits to one weight for each word of the vocabulary"),
    "MultiVectorMask": honoured("which token vectors leave; SIE's late-interaction adapters decide it by the bundle"),
    "BoW": refused("counts words instead of running a transformer"),
    "CNN": refused("convolutions over tokens are not compiled"),
    "LSTM": refused("recurrent layers are not compiled"),
    "WordWeights": refused("weights by a word list are not compiled"),
    "WordEmbeddings": refused("word vectors without a transformer are not compiled"),
    "StaticEmbedding": refused("a table of token vectors without a transformer is not compiled"),
    "SparseStaticEmbedding": honoured("a weight for each token of queries, as the `query` route of a `Router`"),
    "SparseAutoEncoder": refused("sparse autoencoders are not compiled"),
    "WeightedLayerPooling": refused("a mean over the transformer's layers is not compiled"),
    "HierarchicalTokenPooling": refused("token vectors merged with each other are not compiled"),
    "LambdaTokenPooling": refused("token vectors merged with each other are not compiled"),
    "CLIPModel": refused(
        "texts and images by one module, of which adapters for texts know nothing; with a `Normalize` behind it "
        "`CLIPAdapter` serves it, and its bundle is derived"
    ),
    "Router": honoured(
        "documents by a transformer, queries by a `SparseStaticEmbedding`; any other modules for queries than for "
        "documents are refused"
    ),
    "Asym": refused("other modules for queries than for documents are not compiled"),
    "LogitScore": honoured("a language model's answer to a prompt as a score"),
}


def check_keys(document: Mapping[str, Any], keys: Mapping[str, Key], path: Path, file: str) -> list[Diagnostic]:
    """One diagnostic for each key of `document` that is unknown, or that is refused and has a meaningful value."""
    problems = []
    for name, value in document.items():
        key = keys.get(name)
        if key is None:
            text = f"`{file}` has the key `{name}`, which is not known here and might change the vectors"
            hint = "take it out of a copy of the checkpoint if it has no effect, or report it"
            problems.append(Diagnostic("SIE334", text, Where(path), hint))
        elif key.outcome == "refused" and value not in NOTHING:
            text = f"`{file}` sets `{name}`: {key.why}, which is not compiled"
            hint = "use a checkpoint without it; without effect, take it out of a copy"
            problems.append(Diagnostic("SIE337", text, Where(path), hint))
    return problems
