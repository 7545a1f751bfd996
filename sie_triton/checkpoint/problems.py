"""What keeps a folder or a repository from being a whole checkpoint."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from sie_triton.checkpoint.files import (
    ADAPTER,
    ADAPTER_WEIGHTS,
    INDEX,
    MODULE_FOLDER,
    MODULES,
    OPEN_CLIP_CONFIG,
    OPEN_CLIP_WEIGHTS,
    PICKLE_SUFFIXES,
    PREPROCESSOR,
    SINGLE,
    Parts,
    extra_file,
    module_class,
    names_in,
    parts_of,
    read_json,
    weight_files,
)
from sie_triton.checkpoint.lora_settings import MERGE_HINT
from sie_triton.checkpoint.request import SEEING, Request
from sie_triton.checkpoint.single_file import CONVERTED_HINT
from sie_triton.checkpoint.tensors import PICKLE_REASON, damaged, read_header
from sie_triton.diagnostics import Diagnostic, Where

_PICKLED_WEIGHTS = re.compile(r"(?:pytorch_model|model)\b.*\.(?:bin|pt|pth|ckpt)")
_OPEN_CLIP_PICKLE = re.compile(r"open_clip_\w+\.(?:bin|pt|pth)")
_T5 = frozenset({"longt5", "mt5", "switch_transformers", "t5", "umt5"})
_ENCODERS = "pick a checkpoint with an encoder of the BERT, RoBERTa, ModernBERT, GTE or Qwen kind"
# The kinds that see and are compiled, by the adapter that a bundle names.
_SEEING = {
    **SEEING,
    "colpali": "ColPaliAdapter",
    "idefics3": "ColSmolAdapter",
    "qwen2_5_vl": "ColQwen2Adapter",
    "qwen3_vl": "Qwen3VLEmbeddingAdapter",
}
_OTHER_WEIGHTS = {".gguf": "GGUF", ".onnx": "ONNX"}
_AGAIN = "copy or download the checkpoint again"


def find_problems(folder: Path, request: Request) -> list[Diagnostic]:
    """Everything that keeps a folder from being a whole checkpoint; empty when it is one."""
    names, parts = names_in(folder), parts_of(folder)
    where = Where(folder)
    wanted = request.wanted(names, parts)
    found = {name: reason for name in wanted if (reason := damage(folder / name)) is not None}
    problems = gaps(names, request.extra_files, "the folder", where, parts)
    problems += [damaged(folder / name, reason) for name, reason in found.items()]
    if request.open_clip:
        return problems
    config = read_json(folder / f"{parts.home}config.json")
    if isinstance(config, dict):
        problems += uncompiled(config, Where(folder / f"{parts.home}config.json"), sees=request.sees_kind(config))
    required = parts.shards or frozenset()
    if MODULES in wanted and MODULES not in found:
        required |= _module_files(read_json(folder / MODULES))
    if request.trust_remote_code and isinstance(config, dict):
        required |= _code_files(config)
    for name in sorted(required - names):
        message = f"`{name}` is missing, and the checkpoint's own files ask for it"
        problems.append(Diagnostic("SIE307", message, where=where, hint=_AGAIN))
    return problems


def uncompiled(config: Mapping[str, Any], where: Where | None, *, sees: bool = False) -> list[Diagnostic]:
    """Architectures that load but that no recipe compiles. `sees`: the recipe reads pictures too."""
    kind = str(config.get("model_type", ""))
    if kind in _T5:
        message = f"`model_type` is `{kind}`: T5 encoders are not compiled, no recipe covers their relative positions"
        return [Diagnostic("SIE324", message, where, _ENCODERS)]
    others = ("audio",) if sees else ("vision", "audio")
    sense = next((sense for sense in others if f"{sense}_config" in config), None)
    if sense:
        message = f"`model_type` is `{kind}` with a `{sense}_config`: only encoders of text alone are compiled"
        if (adapter := _SEEING.get(kind)) is not None:
            message = f"`model_type` is `{kind}` with a `{sense}_config`: its bundle must name an adapter that sees"
        hint = f"write a bundle with `{adapter}` (docs/add-a-bundle.md)" if adapter else _ENCODERS
        return [Diagnostic("SIE326", message, where, hint)]
    return []


def _module_files(modules: object) -> frozenset[str]:
    """What `modules.json` needs beside the transformer: `Normalize` has no file at all, `Dense` has weights too."""
    required = set()
    for module in modules if isinstance(modules, list) else ():
        if not isinstance(module, dict):
            continue  # for the pipeline's reader to refuse
        path, kind = str(module.get("path", "")).rstrip("/"), module_class(module)
        if path and kind in {"Pooling", "Dense", "WeightedLayerPooling", "LayerNorm"}:
            required.add(f"{path}/config.json")
            if kind == "Dense":
                required.add(f"{path}/{SINGLE}")
    return frozenset(required)


def _code_files(config: Mapping[str, Any]) -> frozenset[str]:
    """The checkpoint's own modules that `auto_map` names; `REPO--module.Class` lives in another repository."""
    auto_map = config.get("auto_map")
    classes = [value for value in auto_map.values() if isinstance(value, str)] if isinstance(auto_map, dict) else []
    return frozenset(f"{name.partition('.')[0]}.py" for name in classes if "--" not in name)


def gaps(
    names: Iterable[str], extra_files: Sequence[str], place: str, where: Where | None, parts: Parts
) -> list[Diagnostic]:
    """What is missing, judged by names and small files, so that a repository is refused before its gigabytes are
    fetched."""
    held = set(names)
    if OPEN_CLIP_CONFIG in extra_files:
        return _open_clip_gaps(held, extra_files, place, where)
    if f"{parts.home}{ADAPTER}" in held:
        if f"{parts.home}{ADAPTER_WEIGHTS}" not in held:
            return [_adapter(place, where, parts)]
        if not weight_files(held, parts):
            return []  # its base model has the rest
    other = _something_else(held, place, where, parts)
    return [other] if other is not None else _missing(held, extra_files, place, where, parts)


def _something_else(held: set[str], place: str, where: Where | None, parts: Parts) -> Diagnostic | None:
    """A repository that is complete in its own way, so that a list of missing files would mislead."""
    if (other := _other_weights(held, place, where)) is not None:
        return other
    if PREPROCESSOR in held and not _has_tokenizer(held, parts.home):
        message = f"{place} has a `preprocessor_config.json` and no tokenizer: it reads images or sound, and no text"
        return Diagnostic("SIE326", message, where, _ENCODERS)
    if f"{parts.home}config.json" in held:
        return None
    if parts.first == "Router" or (parts.first is None and "router_config.json" in held):
        what = "a sentence-transformers `Router`, which sends queries and documents through different modules"
    elif parts.starts_elsewhere:
        what = f"a pipeline that begins with a `{parts.first}` and not with a transformer"
    else:
        return None
    hint = (
        "pick a checkpoint whose `modules.json` begins with a `Transformer`, or whose `Router` looks queries up in a "
        "`SparseStaticEmbedding`"
    )
    return Diagnostic("SIE323", f"{place} holds {what}, and only transformers are compiled", where, hint)


def _other_weights(held: set[str], place: str, where: Where | None) -> Diagnostic | None:
    """Weights converted from a checkpoint, without the checkpoint itself."""
    if any(name.endswith((".safetensors", *PICKLE_SUFFIXES, ".pt", f"{INDEX}")) for name in held):
        return None
    found = sorted(name for name in held if PurePosixPath(name).suffix in _OTHER_WEIGHTS)
    if not found:
        return None
    form = _OTHER_WEIGHTS[PurePosixPath(found[0]).suffix]
    message = f"{place} has its weights as {form} only, `{found[0]}`; graphs are compiled from safetensors"
    return Diagnostic("SIE327", message, where, CONVERTED_HINT)


def _adapter(place: str, where: Where | None, parts: Parts) -> Diagnostic:
    """An adapter (PEFT, LoRA) whose weights are pickled or not there: without them vectors differ."""
    message = f"{place} holds an adapter (`{parts.home}{ADAPTER}`) and no `{ADAPTER_WEIGHTS}` that could be merged"
    return Diagnostic("SIE322", message, where, f"{MERGE_HINT}; if `{ADAPTER}` is a leftover, delete it")


def _missing(
    held: set[str], extra_files: Sequence[str], place: str, where: Where | None, parts: Parts
) -> list[Diagnostic]:
    found = []
    if f"{parts.home}config.json" not in held:
        hint = "copy it from the checkpoint: it says what the model is"
        found.append(Diagnostic("SIE303", f"{place} has no `{parts.home}config.json`", where, hint))
    found += _weight_gaps(held, place, where, parts)
    if not _has_tokenizer(held, parts.home):
        found.append(_no_tokenizer(place, where, parts.home))
    for name in sorted(held):
        folder, _, file = name.rpartition("/")
        is_module = MODULE_FOLDER.fullmatch(folder) and f"{folder}/" != parts.home
        if file == "pytorch_model.bin" and is_module and f"{folder}/{SINGLE}" not in held:
            found.append(_pickled(place, [name], where))
    shown = held | {name.removeprefix(parts.home) for name in held if name.startswith(parts.home)}
    return found + [gap for extra in extra_files if (gap := _extra_gap(extra, shown, place, where)) is not None]


def _open_clip_gaps(held: set[str], extra_files: Sequence[str], place: str, where: Where | None) -> list[Diagnostic]:
    """What is missing of a checkpoint in open_clip's layout."""
    found = [] if _has_tokenizer(held, "") else [_no_tokenizer(place, where, "")]
    pickles = sorted(name for name in held if _OPEN_CLIP_PICKLE.fullmatch(name))
    for name in extra_files:
        if name == OPEN_CLIP_WEIGHTS and name not in held and pickles:
            found.append(_pickled(place, pickles, where))
        elif (gap := _extra_gap(name, held, place, where)) is not None:
            found.append(gap)
    return found


def _extra_gap(extra: str, held: set[str], place: str, where: Where | None) -> Diagnostic | None:
    if extra_file(extra, held) is not None:
        return None
    if extra in held:
        return _pickled(place, [extra], where)
    message = f"{place} has no `{extra}`, which this adapter cannot do without"
    return Diagnostic("SIE309", message, where, "pick the checkpoint that the adapter was written for")


def _weight_gaps(held: set[str], place: str, where: Where | None, parts: Parts) -> list[Diagnostic]:
    home = parts.home
    files = weight_files(held, parts)
    if files == (f"{home}{SINGLE}",):
        return []
    shards = [name for name in files if name != f"{home}{INDEX}"]
    if parts.shards is not None:
        # What the index names and is not here is said by name, where the folder is known.
        return [] if shards else [_no_shards(place, where, home)]
    if shards:
        total = int(shards[0].rpartition(".")[0].rpartition("-")[2])
        if len(shards) == total:
            return []
        message = f"{place} has {len(shards)} of the {total} weight files that `{home}{INDEX}` lists"
        return [Diagnostic("SIE307", message, where, _AGAIN)]
    pickles = sorted(n for n in held if n.startswith(home) and _PICKLED_WEIGHTS.fullmatch(n.removeprefix(home)))
    if pickles:
        return [_pickled(place, pickles, where)]
    hint = f"pick a revision with `{SINGLE}`, or save the model with `save_pretrained` and pass `--weights FOLDER`"
    inside = f" in `{home}`" if home else ""
    return [Diagnostic("SIE304", f"{place} has no safetensors weights{inside}", where, hint)]


def _no_shards(place: str, where: Where | None, home: str) -> Diagnostic:
    return Diagnostic("SIE307", f"{place} has none of the weight files that `{home}{INDEX}` names", where, _AGAIN)


def _no_tokenizer(place: str, where: Where | None, home: str) -> Diagnostic:
    kinds = "`tokenizer.json`, `vocab.txt`, `vocab.json` with `merges.txt` or a `*.model`"
    inside = f" in `{home}`" if home else ""
    hint = "save it beside the weights with `tokenizer.save_pretrained`"
    return Diagnostic("SIE306", f"{place} has no tokenizer{inside}: none of {kinds}", where, hint)


def _has_tokenizer(held: set[str], home: str) -> bool:
    own = {name.removeprefix(home) for name in held if name.startswith(home)}
    if {"tokenizer.json", "vocab.txt"} & own or {"vocab.json", "merges.txt"} <= own:
        return True
    return any(name.endswith(".model") and "/" not in name for name in own)


def _pickled(place: str, names: Sequence[str], where: Where | None) -> Diagnostic:
    shown = ", ".join(f"`{name}`" for name in names[:3]) + (" and others" if len(names) > 3 else "")
    hint = (
        "pick a revision with safetensors, or convert once where you trust the file "
        "(`save_pretrained` writes safetensors) and pass `--weights FOLDER`"
    )
    return Diagnostic("SIE305", f"{place} has only pickled weights, {shown}, refused: {PICKLE_REASON}", where, hint)


def damage(path: Path) -> str | None:
    """Why a file cannot be what its name says, from its size and structure; None when it can."""
    try:
        if path.suffix == ".json":
            content = json.loads(path.read_text(encoding="utf-8"))
            return _wrong_json(path.name, content)
        if path.suffix == ".safetensors":
            header, size = read_header(path), path.stat().st_size
            return None if size == header.file_size else f"it has {size} bytes and its header says {header.file_size}"
    except (OSError, ValueError, RecursionError) as error:
        return f"it cannot be read: {error}"
    return None


def _wrong_json(name: str, content: object) -> str | None:
    if name in ("config.json", INDEX) and not isinstance(content, dict):
        return "it holds no JSON object"
    named = content.get("architectures") if name == "config.json" and isinstance(content, dict) else None
    if named is not None and not (isinstance(named, list) and all(isinstance(entry, str) for entry in named)):
        return "its `architectures` is no list of names"
    weight_map = content.get("weight_map") if name == INDEX and isinstance(content, dict) else {}
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        return "its `weight_map` does not name a file for each tensor"
    return None
