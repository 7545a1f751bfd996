"""A LoRA's tensors over those of its base: W + (alpha / r) B A, in float32.

Every tensor of the adapter must find its place, and every place that the adapter's settings name must have its tensors:
an adapter that is left out in silence would be another model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sie_triton.checkpoint.lora_settings import LoraSettings, not_merged

Array: TypeAlias = "NDArray[Any]"

_ROOT = "base_model.model."
_PART = re.compile(r"(?P<module>.+)\.(?P<kind>lora_(?:embedding_)?[AB]|lora_magnitude_vector)(?:\.(?P<part>\w+))?")
# What wraps a module while it is trained.
_WRAPPERS = re.compile(r"\.(?:base_layer|modules_to_save|original_module|default)(?=\.)")
_NUMBERS = re.compile(r"(?<=\.)\d+(?=\.)")
# Models of several parts were renamed by releases of transformers, adapters on one side and base models on the other.
_RENAMED = (
    (("language_model.", "model."), ("", "")),
    (("model.language_model.", "model."), ("model.visual.", "visual."), ("", "")),
    (("model.", "language_model."), ("", "")),
    (("model.", "model.language_model."), ("visual.", "model.visual."), ("", "")),
)
# Architectures of GPT-2's kind keep linear layers as [in, out]; PEFT lays them down as [out, in] everywhere else.
_TRANSPOSED = frozenset({"gpt2", "gpt_bigcode", "imagegpt", "openai-gpt"})


@dataclass(slots=True)
class _Pair:
    """What belongs to one adapted module: A `[rank, in]`, B `[out, rank]`, and what stands beside them."""

    parts: dict[str, Array] = field(default_factory=dict)

    @property
    def embeds(self) -> bool:
        """Whether it is one of an embedding."""
        return "lora_embedding_A" in self.parts


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one tensor of the base. Without `added` it is `replaced` as a whole."""

    replaced: Array | None = None
    added: Callable[[], Array] | None = None
    """Makes what is added: of a large model, all of it at once would be as much as the model."""
    length: Array | None = None
    """The length that each row has afterwards (DoRA)."""

    def of(self, tensor: Array) -> Array:
        """The tensor as it is served, float32."""
        if self.replaced is not None:
            return self.replaced.astype(np.float32)
        assert self.added is not None
        changed: Array = tensor.astype(np.float32) + self.added()
        if self.length is None:
            return changed
        lengths = np.sqrt(np.square(changed, dtype=np.float64).sum(1, keepdims=True)).astype(np.float32)
        scaled: Array = changed * (self.length.reshape(-1, 1) / lengths)
        return scaled


def changes(
    path: Path,
    tensors: Mapping[str, Array],
    settings: LoraSettings,
    shapes: Mapping[str, Sequence[int]],
    model_type: str = "",
) -> dict[str, Change]:
    """What the adapter `path` with these `tensors` changes, by the names of the base, whose `shapes` are given.

    Raises `DiagnosticError` (`SIE322`) for a tensor without a place, a place without tensors, or other sizes.
    """
    pairs, whole = _sorted(path, tensors)
    if not pairs and not whole:
        raise not_merged(path, "it has no tensors")
    place = _BaseNames.of(path, [*(f"{module}.weight" for module in pairs), *whole], shapes)
    _check_targets(path, pairs, settings, place, shapes)
    found = {
        place.base(name): Change(replaced=_whole(path, name, tensor, settings, pairs, shapes[place.base(name)]))
        for name, tensor in whole.items()
    }
    for module, pair in pairs.items():
        name = place.base(f"{module}.weight")
        transposed = settings.transposed and model_type in _TRANSPOSED
        found[name] = _added(path, module, pair, settings, tuple(shapes[name]), transposed=transposed)
        if (bias := pair.parts.get("lora_B.bias")) is not None:
            beside = place.base(f"{module}.bias")
            if beside not in shapes or beside in found or tuple(shapes[beside]) != bias.shape:
                raise not_merged(path, f"`{module}` has a bias for its update, and none beside it that takes it")
            shift = _finite(path, module, bias) * np.float32(settings.scaling(module))
            found[beside] = Change(added=partial(np.asarray, shift))
    return found


def _sorted(path: Path, tensors: Mapping[str, Array]) -> tuple[dict[str, _Pair], dict[str, Array]]:
    """Pairs by module, and tensors that stand for themselves by their names."""
    pairs: dict[str, _Pair] = {}
    whole: dict[str, Array] = {}
    for name, tensor in tensors.items():
        if not name.startswith(_ROOT):
            raise not_merged(path, f"`{name}` does not begin with `{_ROOT}`")
        own = name.removeprefix(_ROOT)
        if (match := _PART.fullmatch(own)) is None:
            whole[_WRAPPERS.sub("", own)] = tensor
            continue
        bias = ".bias" if match["part"] == "bias" else ""
        if match["part"] not in (None, "weight", "bias"):
            raise not_merged(path, f"`{name}` is a part whose effect is not known")
        pairs.setdefault(_WRAPPERS.sub("", match["module"]), _Pair()).parts[match["kind"] + bias] = tensor
    return pairs, whole


@dataclass(frozen=True, slots=True)
class _BaseNames:
    """Where the names of the model that was trained are in the base: of some prefixes each goes, and another comes."""

    ways: tuple[tuple[str, str], ...]
    held: frozenset[str]

    @classmethod
    def of(cls, path: Path, names: Sequence[str], base: Iterable[str]) -> _BaseNames:
        """The one way in which all names are names of the base."""
        held = frozenset(base)
        first = names[0]
        ways = {("", name.removesuffix(first)) for name in held if f".{name}".endswith(f".{first}")}
        ways |= {(first.removesuffix(name), "") for name in held if first.endswith(f".{name}")}
        fit = [found for way in sorted(ways) if (found := cls((way,), held)).knows(names)]
        if not fit:
            fit = [found for renamed in _RENAMED if (found := cls(renamed, held)).knows(names)][:1]
        if len(fit) == 1:
            return fit[0]
        if len(fit) > 1:
            raise not_merged(path, f"`{first}` may be several tensors of the base model")
        tried = [cls((way,), held) for way in ways]
        lost = next((name for name in names if not any(way.knows([name]) for way in tried)), first)
        raise not_merged(path, f"the base model has no `{lost}`, which the adapter changes: it is another model's")

    def knows(self, names: Iterable[str]) -> bool:
        """Whether the base has all of them."""
        return all(self.base(name) in self.held for name in names)

    def base(self, name: str) -> str:
        """The name in the base."""
        found = [come + name.removeprefix(gone) for gone, come in self.ways if name.startswith(gone)]
        return next((one for one in found if one in self.held), found[0] if found else name)

    def own(self, base: str) -> str | None:
        """The name in the model that was trained; None for what was no part of it."""
        for gone, come in self.ways:
            own = gone + base.removeprefix(come)
            if base.startswith(come) and self.base(own) == base:
                return own
        return None


def _check_targets(
    path: Path,
    pairs: Mapping[str, _Pair],
    settings: LoraSettings,
    place: _BaseNames,
    shapes: Mapping[str, Sequence[int]],
) -> None:
    """Every pair must be meant, and what is meant in one layer must be there in every other one."""
    for module in pairs:
        if not settings.is_target(module):
            raise not_merged(path, f"`{module}` is adapted, and `target_modules` does not name it")
    kinds = {_NUMBERS.sub("#", f".{module}.") for module in pairs}
    for base, shape in shapes.items():
        own = place.own(base)
        if own is None or len(shape) != 2 or not own.endswith(".weight"):
            continue
        module = own.removesuffix(".weight")
        if module not in pairs and settings.is_target(module) and _NUMBERS.sub("#", f".{module}.") in kinds:
            raise not_merged(path, f"`{module}` is to be adapted, and the adapter has no tensors for it")
    for name in settings.targets if isinstance(settings.targets, tuple) else ():
        if not any(f".{module}".endswith(f".{name}") for module in pairs):
            raise not_merged(path, f"`target_modules` names `{name}`, and the adapter has no tensors for it")


def _whole(
    path: Path,
    name: str,
    tensor: Array,
    settings: LoraSettings,
    pairs: Mapping[str, _Pair],
    shape: Sequence[int],
) -> Array:
    """A tensor that takes the place of the base's: of a module that was trained whole, or a bias that was trained."""
    module, _, part = name.rpartition(".")
    trained = part == "bias" and (settings.bias == "all" or (settings.bias == "lora_only" and module in pairs))
    if not trained and not settings.is_saved(module):
        raise not_merged(path, f"`{name}` would be replaced, and neither `modules_to_save` nor `bias` says so")
    if tuple(shape) != tensor.shape:
        raise not_merged(path, f"`{name}` is {list(tensor.shape)} and {list(shape)} in the base model")
    return _finite(path, name, tensor)


def _added(
    path: Path, module: str, pair: _Pair, settings: LoraSettings, shape: tuple[int, ...], *, transposed: bool
) -> Change:
    """What is added to one weight."""
    kind = "lora_embedding_" if pair.embeds else "lora_"
    known = {f"{kind}A", f"{kind}B"}
    known |= {"lora_magnitude_vector"} if settings.dora else set()
    known |= {"lora_B.bias"} if settings.lora_bias else set()
    if odd := sorted(pair.parts.keys() ^ known):
        word = "lacks" if odd[0] in known else "has"
        raise not_merged(path, f"`{module}` {word} `{odd[0]}`, which `adapter_config.json` says otherwise")
    if settings.dora and pair.embeds:
        raise not_merged(path, f"`{module}` is an embedding with a learned length (DoRA)")
    first, second = (_finite(path, module, pair.parts[f"{kind}{part}"]) for part in "AB")
    rank = settings.rank_of(module)
    if first.ndim != 2 or second.ndim != 2 or first.shape[0] != rank or second.shape[1] != rank:
        sizes = f"{list(first.shape)} and {list(second.shape)}"
        raise not_merged(path, f"`{module}` has matrices {sizes}, and `adapter_config.json` says a rank of {rank}")
    turned = pair.embeds or transposed
    adds = (first.shape[1], second.shape[0]) if turned else (second.shape[0], first.shape[1])
    if adds != shape:
        raise not_merged(path, f"`{module}` adds {list(adds)} to weights {list(shape)}")
    added = partial(_product, first, second, np.float32(settings.scaling(module)), turned)
    length = pair.parts.get("lora_magnitude_vector")
    if length is not None and length.size != shape[0]:
        raise not_merged(path, f"`{module}` has {length.size} lengths for {shape[0]} rows")
    return Change(added=added, length=None if length is None else _finite(path, module, length))


def _product(first: Array, second: Array, scaling: np.float32, turned: bool) -> Array:
    added: Array = (second @ first) * scaling
    return added.T if turned else added


def _finite(path: Path, name: str, tensor: Array) -> Array:
    found: Array = tensor.astype(np.float32)
    if not np.isfinite(found).all():
        raise not_merged(path, f"`{name}` has numbers that are not finite", "get the adapter again")
    return found
