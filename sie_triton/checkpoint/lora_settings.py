"""`adapter_config.json` of a LoRA (Hu et al., 2021), as PEFT writes it: what is added to which weights."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from sie_triton.checkpoint.files import ADAPTER, read_json
from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where

Modules: TypeAlias = "str | tuple[str, ...]"
"""A regular expression over whole paths, or paths and the ends of paths."""

# They say how training went, where it ran, or who may load the adapter.
_HARMLESS = frozenset(
    {
        "auto_mapping",
        "eva_config",
        "inference_mode",
        "lora_dropout",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "runtime_config",
        "task_type",
    }
)
# What changes the result in ways that are not merged, where it is set at all.
_REFUSED = frozenset(
    {
        "alora_invocation_tokens",
        "arrow_config",
        "corda_config",
        "ensure_weight_tying",
        "layer_replication",
        "loftq_config",
        "lora_ga_config",
        "megatron_config",
        "target_parameters",
        "trainable_token_indices",
        "use_bdlora",
        "use_qalora",
    }
)
_HONOURED = frozenset(
    {
        "alpha_pattern",
        "base_model_name_or_path",
        "bias",
        "exclude_modules",
        "fan_in_fan_out",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "lora_alpha",
        "lora_bias",
        "modules_to_save",
        "peft_type",
        "r",
        "rank_pattern",
        "revision",
        "target_modules",
        "use_dora",
        "use_rslora",
    }
)
# Other ways of starting change the base's weights too, so that the adapter alone does not tell what was trained.
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
_ALL_LINEAR = "all-linear"

MERGE_HINT = (
    "load it with `peft`, call `merge_and_unload()` and `save_pretrained(FOLDER)`, copy the tokenizer and the modules "
    "there and pass `--weights FOLDER`"
)


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """A LoRA of `rank`, weighted by `alpha`; the patterns give some modules other numbers.

    `stabilized`: weighted by the root of the rank (Kalajdzievski, 2023). `dora`: weights keep a learned length (Liu et
    al., 2024). `saved` are modules that were trained whole. `base` and `base_revision` name what it was trained on.
    """

    rank: int
    alpha: float
    targets: Modules = ()
    excluded: Modules = ()
    layers: tuple[int, ...] = ()
    layers_pattern: tuple[str, ...] = ()
    rank_pattern: Mapping[str, float] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    stabilized: bool = False
    dora: bool = False
    transposed: bool = False
    lora_bias: bool = False
    bias: Literal["none", "all", "lora_only"] = "none"
    saved: tuple[str, ...] = ()
    base: str | None = None
    base_revision: str | None = None

    def rank_of(self, module: str) -> int:
        """The rank at a module, by its path in the model that was trained."""
        return int(_by_pattern(self.rank_pattern, module, self.rank))

    def scaling(self, module: str) -> float:
        """What the product of the two matrices is multiplied by."""
        rank = self.rank_of(module)
        return _by_pattern(self.alpha_pattern, module, self.alpha) / (math.sqrt(rank) if self.stabilized else rank)

    def is_target(self, module: str) -> bool:
        """Whether a linear layer of this path was to be adapted."""
        if _named(self.excluded, module) or self.is_saved(module):
            return False
        if isinstance(self.targets, str):
            return self.targets == _ALL_LINEAR or re.fullmatch(self.targets, module) is not None
        return _named(self.targets, module) and (not self.layers or self._layer(module) in self.layers)

    def is_saved(self, module: str) -> bool:
        """Whether a module was trained whole, by itself or as part of one that was."""
        return any(f".{name}." in f".{module}." for name in self.saved)

    def _layer(self, module: str) -> int | None:
        for pattern in self.layers_pattern or (r"[^.]*",):
            if found := re.match(rf".*\.{pattern}\.(\d+)\.", f".{module}"):
                return int(found[1])
        return None


def _by_pattern(patterns: Mapping[str, float], module: str, default: float) -> float:
    """PEFT's rule: the first key that is a regular expression for the end of the path."""
    return next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module)), default)


def _named(modules: Modules, path: str) -> bool:
    if isinstance(modules, str):
        return re.fullmatch(modules, path) is not None
    return any(path == name or path.endswith(f".{name}") for name in modules)


def read_lora_settings(folder: Path) -> LoraSettings:
    """What the adapter's file says. Raises `DiagnosticError` (`SIE322`) for whatever is not merged as PEFT does it."""
    path = folder / ADAPTER
    document = read_json(path)
    if not isinstance(document, dict):
        raise not_merged(path, "it is no JSON object")
    kind = document.get("peft_type")
    if kind != "LORA":
        raise not_merged(path, f"`peft_type` is {kind!r}, and only LORA is merged")
    for key, value in document.items():
        if key in _REFUSED and value not in (None, False, {}, [], ""):
            raise not_merged(path, f"`{key}` is {value!r}, whose effect is not merged")
        if key not in _HARMLESS | _REFUSED | _HONOURED:
            raise not_merged(path, f"`{key}` is a key whose effect is not known")
    if (start := document.get("init_lora_weights", True)) not in _PLAIN_STARTS:
        raise not_merged(path, f"`init_lora_weights` is {start!r}: training began from other base weights")
    return _settings(_SettingsReader(document, path))


class _SettingsReader:
    """Values of a document by their kinds. Raises `DiagnosticError` for other ones."""

    def __init__(self, document: Mapping[str, Any], path: Path) -> None:
        self._document = document
        self.path = path

    def number(self, key: str) -> float:
        """A positive number."""
        return self._positive(key, self._document.get(key))

    def _positive(self, key: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise not_merged(self.path, f"`{key}` is {value!r}, not a positive number")
        return float(value)

    def switch(self, key: str) -> bool:
        """true or false; false where it is absent."""
        value = self._document.get(key)
        if value not in (None, True, False):
            raise not_merged(self.path, f"`{key}` is {value!r}, neither true nor false")
        return value is True

    def words(self, key: str) -> tuple[str, ...]:
        """A list of strings."""
        value = self._document.get(key) or []
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list) or not all(isinstance(word, str) and word for word in value):
            raise not_merged(self.path, f"`{key}` is {value!r}, no list of names")
        return tuple(value)

    def modules(self, key: str) -> Modules:
        """A regular expression, or a list of strings."""
        value = self._document.get(key)
        if isinstance(value, str):
            return self._expression(key, value)
        return self.words(key)

    def numbers(self, key: str) -> dict[str, float]:
        """Regular expressions with numbers."""
        value = self._document.get(key) or {}
        if not isinstance(value, dict):
            raise not_merged(self.path, f"`{key}` is {value!r}, no object")
        return {self._expression(key, str(name)): self._positive(key, number) for name, number in value.items()}

    def layers(self) -> tuple[int, ...]:
        """The numbers of the layers that are adapted; none: all."""
        value = self._document.get("layers_to_transform")
        numbers = [] if value is None else value if isinstance(value, list) else [value]
        if any(isinstance(number, bool) or not isinstance(number, int) for number in numbers):
            raise not_merged(self.path, f"`layers_to_transform` is {value!r}, no list of numbers")
        return tuple(numbers)

    def text(self, key: str) -> str | None:
        """A string, or nothing."""
        value = self._document.get(key)
        return value if isinstance(value, str) and value else None

    def _expression(self, key: str, text: str) -> str:
        try:
            re.compile(text)
        except re.error as error:
            raise not_merged(self.path, f"`{key}` has {text!r}, which is no regular expression: {error}") from None
        return text


def _settings(read: _SettingsReader) -> LoraSettings:
    rank, bias = read.number("r"), read.text("bias") or "none"
    if rank != int(rank):
        raise not_merged(read.path, f"`r` is {rank!r}, no whole number")
    if bias not in ("none", "all", "lora_only"):
        raise not_merged(read.path, f"`bias` is {bias!r}, none of `none`, `all` and `lora_only`")
    return LoraSettings(
        rank=int(rank),
        alpha=read.number("lora_alpha"),
        targets=read.modules("target_modules"),
        excluded=read.modules("exclude_modules"),
        layers=read.layers(),
        layers_pattern=read.words("layers_pattern"),
        rank_pattern=read.numbers("rank_pattern"),
        alpha_pattern=read.numbers("alpha_pattern"),
        stabilized=read.switch("use_rslora"),
        dora=read.switch("use_dora"),
        transposed=read.switch("fan_in_fan_out"),
        lora_bias=read.switch("lora_bias"),
        bias="all" if bias == "all" else "lora_only" if bias == "lora_only" else "none",
        saved=read.words("modules_to_save"),
        base=read.text("base_model_name_or_path"),
        base_revision=read.text("revision"),
    )


def not_merged(path: Path, reason: str, hint: str = MERGE_HINT) -> DiagnosticError:
    """An adapter that is not merged: leaving it out would serve other vectors."""
    return DiagnosticError([Diagnostic("SIE322", f"the adapter is not merged: {reason}", Where(path), hint)])
