"""What publishers' folders have that sentence-transformers 6 would not write: older layouts, files beside files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

_OLD_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_OLD_PACKAGE = "sentence_transformers.models"
_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")


def _edit(path: Path, **changes: Any) -> None:
    if path.is_file():
        _write(path, {**_read(path), **changes})


def v4_tokenizer(folder: Path) -> None:
    """`tokenizer_config.json` as transformers 4 wrote it: each added token by id, and `special_tokens_map.json`."""
    tokens = _read(folder / "tokenizer.json")["added_tokens"]
    decoder = {str(token["id"]): {k: v for k, v in token.items() if k != "id"} for token in tokens}
    config = _read(folder / "tokenizer_config.json")
    _write(
        folder / "tokenizer_config.json",
        {**config, "added_tokens_decoder": decoder, "clean_up_tokenization_spaces": True},
    )
    special_tokens_map(folder)


def special_tokens_map(folder: Path) -> None:
    """The special tokens once more, some of them as objects."""
    config = _read(folder / "tokenizer_config.json")
    named = {role: config[role] for role in _ROLES if config.get(role)}
    whole = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    _write(
        folder / "special_tokens_map.json",
        {role: {"content": str(token), **whole} if role == "mask_token" else token for role, token in named.items()},
    )


def added_tokens_json(folder: Path) -> None:
    """The tokens that were added last stand beside `tokenizer.json` alone: in the decoder and `added_tokens.json`."""
    path = folder / "tokenizer.json"
    content = _read(path)
    config = _read(folder / "tokenizer_config.json")
    roles = {str(config.get(role)) for role in _ROLES}
    vocabulary = content["model"]["vocab"]
    known = set(vocabulary) if isinstance(vocabulary, dict) else {entry[0] for entry in vocabulary}
    moved = [t for t in content["added_tokens"] if t["content"] not in roles and t["content"] not in known]
    if not moved and "[unused0]" in known:
        plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        moved = [{"id": vocabulary["[unused0]"], "content": "[unused0]", **plain}]
    content["added_tokens"] = [t for t in content["added_tokens"] if t not in moved]
    _write(path, content)
    decoder = {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in moved}
    older = config.get("added_tokens_decoder") or {}
    _write(folder / "tokenizer_config.json", {**config, "added_tokens_decoder": {**older, **decoder}})
    _write(folder / "added_tokens.json", {t["content"]: t["id"] for t in moved})


def sharded(folder: Path) -> None:
    """The weights in two files with an index."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    names = sorted(tensors)
    parts = (names[: len(names) // 2], names[len(names) // 2 :])
    places: dict[str, str] = {}
    for number, part in enumerate(parts, 1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(part, file)
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    _write(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": places})
    path.unlink()


def st5_pooling(folder: Path) -> None:
    """sentence-transformers 5 and older: booleans for the pooling modes."""
    for path in folder.glob("*_Pooling/config.json"):
        if path.parent.name.endswith("SpladePooling"):
            continue
        config = _read(path)
        modes = config["pooling_mode"] if isinstance(config["pooling_mode"], list) else [config["pooling_mode"]]
        old: dict[str, Any] = {"word_embedding_dimension": config["embedding_dimension"]}
        old |= {key: mode in modes for key, mode in _OLD_MODES.items()}
        _write(path, {**old, "include_prompt": config.get("include_prompt", True)})


def st5_types(folder: Path) -> None:
    """The module classes under the names that older releases had."""
    path = folder / "modules.json"
    if not path.is_file():
        return
    modules = _read(path)
    for module in modules:
        name = module["type"].rsplit(".", 1)[-1]
        if name in ("Transformer", "Pooling", "Dense", "Normalize", "LayerNorm", "Dropout"):
            module["type"] = f"{_OLD_PACKAGE}.{name}"
    _write(path, modules)


def st5_limit(folder: Path) -> None:
    """The limit in `sentence_bert_config.json`, beside what the tokenizer says."""
    _edit(folder / "sentence_bert_config.json", max_seq_length=18, do_lower_case=False)


def no_modules_json(folder: Path) -> None:
    """A plain transformer: nothing says what follows it."""
    (folder / "modules.json").unlink(missing_ok=True)


def peft_beside(folder: Path) -> None:
    """A LoRA adapter that changes the weights it lies beside."""
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["query"], "bias": "none"}
    _write(folder / "adapter_config.json", {**config, "base_model_name_or_path": None, "task_type": None})
    save_file({"base_model.model.x.lora_A.weight": torch.ones(2, 2)}, folder / "adapter_model.safetensors")


def unknown_module_key(folder: Path) -> None:
    """A key that no release of sentence-transformers knows, in the first module after the transformer."""
    for path in sorted(folder.glob("1_*/config.json")):
        _edit(path, temperature=0.5)


def no_model_max_length(folder: Path) -> None:
    """A tokenizer that names no limit."""
    path = folder / "tokenizer_config.json"
    config = _read(path)
    config.pop("model_max_length", None)
    _write(path, config)


def pickled_beside(folder: Path) -> None:
    """Other weights as a pickle beside the safetensors, which come first."""
    torch.save({"embeddings.word_embeddings.weight": torch.zeros(2, 2)}, folder / "pytorch_model.bin")


def text_max_length(folder: Path) -> None:
    """A limit in the keyword arguments that the tokenizer is called with."""
    _edit(folder / "sentence_bert_config.json", processing_kwargs={"text": {"max_length": 14}})


def left_truncation(folder: Path) -> None:
    """Long texts lose their beginning; transformers 5 reads the key and no longer writes it."""
    _edit(folder / "tokenizer_config.json", truncation_side="left")


EDITS: Mapping[str, Callable[[Path], None]] = {
    edit.__name__: edit
    for edit in (
        v4_tokenizer,
        added_tokens_json,
        sharded,
        st5_pooling,
        st5_types,
        st5_limit,
        no_modules_json,
        peft_beside,
        special_tokens_map,
        unknown_module_key,
        no_model_max_length,
        pickled_beside,
        text_max_length,
        left_truncation,
    )
}
"""By the names that recipes use."""
