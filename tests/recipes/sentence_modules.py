"""The files by which sentence-transformers, PyLate and their readers know what follows the transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from .weights import gaussian, linear, write_json, write_tensors

Activation = Literal["Identity", "Tanh"]

_PACKAGE = "sentence_transformers.models"
_ACTIVATIONS = {"Identity": "torch.nn.modules.linear.Identity", "Tanh": "torch.nn.modules.activation.Tanh"}


@dataclass(frozen=True)
class DenseSpec:
    """One `Dense` module: `activation(x W^T + b)`, plus the (projected) input where `residual` is set."""

    inputs: int
    outputs: int
    activation: Activation = "Identity"
    bias: bool = True
    residual: bool = False


def write_dense(folder: Path, spec: DenseSpec, *, seed: str, package: str = _PACKAGE) -> None:
    """`config.json` and `model.safetensors` of one `Dense` module."""
    config: dict[str, Any] = {
        "in_features": spec.inputs,
        "out_features": spec.outputs,
        "bias": spec.bias,
        "activation_function": _ACTIVATIONS[spec.activation],
    }
    tensors: dict[str, Tensor] = {"linear.weight": linear(spec.outputs, spec.inputs, f"{seed}:weight")}
    if spec.bias:
        tensors["linear.bias"] = gaussian((spec.outputs,), f"{seed}:bias") * 0.1
    if package != _PACKAGE:
        config["use_residual"] = spec.residual
    if spec.residual and spec.inputs != spec.outputs:
        tensors["residual.weight"] = linear(spec.outputs, spec.inputs, f"{seed}:residual")
    write_json(folder / "config.json", config)
    write_tensors(folder / "model.safetensors", tensors)


def write_sentence_modules(
    folder: Path,
    *,
    width: int,
    pooling: Literal["cls", "mean", "lasttoken"],
    dense: Sequence[DenseSpec] = (),
    normalize: bool = True,
    max_length: int | None = None,
    prompts: Mapping[str, str] | None = None,
    default_prompt: str | None = None,
) -> None:
    """`modules.json` and its folders: Transformer, Pooling, each of `dense`, Normalize."""
    modules: list[tuple[str, str]] = [("", f"{_PACKAGE}.Transformer"), ("1_Pooling", f"{_PACKAGE}.Pooling")]
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    chosen = {"cls": "cls_token", "mean": "mean_tokens", "lasttoken": "lasttoken"}[pooling]
    write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": width, **{f"pooling_mode_{mode}": mode == chosen for mode in modes}},
    )
    for spec in dense:
        name = f"{len(modules)}_Dense"
        write_dense(folder / name, spec, seed=f"{folder.name}:{name}")
        modules.append((name, f"{_PACKAGE}.Dense"))
    if normalize:
        modules.append((f"{len(modules)}_Normalize", f"{_PACKAGE}.Normalize"))
    _write_modules(folder, modules)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    settings: dict[str, Any] = {"prompts": dict(prompts or {}), "default_prompt_name": default_prompt}
    write_json(folder / "config_sentence_transformers.json", {**settings, "similarity_fn_name": "cosine"})


def write_splade_modules(folder: Path, *, max_length: int) -> None:
    """The modules of a sentence-transformers sparse encoder: MLMTransformer and SpladePooling (max)."""
    package = "sentence_transformers.sparse_encoder.models"
    _write_modules(folder, [("", f"{package}.MLMTransformer"), ("1_SpladePooling", f"{package}.SpladePooling")])
    write_json(
        folder / "1_SpladePooling" / "config.json",
        {"pooling_strategy": "max", "activation_function": "relu", "word_embedding_dimension": None},
    )
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    settings = {"model_type": "SparseEncoder", "prompts": {"query": "", "document": ""}, "default_prompt_name": None}
    write_json(folder / "config_sentence_transformers.json", {**settings, "similarity_fn_name": "dot"})


def write_pylate_modules(folder: Path, dense: Sequence[DenseSpec], *, settings: Mapping[str, Any]) -> None:
    """PyLate's: Transformer, then `Dense` modules over every token; `settings` hold prefixes, lengths, expansion."""
    modules = [("", f"{_PACKAGE}.Transformer")]
    for index, spec in enumerate(dense, 1):
        write_dense(folder / f"{index}_Dense", spec, seed=f"{folder.name}:{index}", package="pylate.models")
        modules.append((f"{index}_Dense", "pylate.models.Dense.Dense"))
    _write_modules(folder, modules)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": None, "do_lower_case": False})
    write_json(folder / "config_sentence_transformers.json", {**settings, "similarity_fn_name": "MaxSim"})


def _write_modules(folder: Path, modules: Sequence[tuple[str, str]]) -> None:
    entries = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(modules)]
    write_json(folder / "modules.json", entries)
