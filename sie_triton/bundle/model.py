"""The bundle as values: as written, and as resolved."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sie_triton.diagnostics import Where
from sie_triton.formats import Precision

DEFAULT_PROFILE = "default"


@dataclass(frozen=True, slots=True)
class ProfileSpec:
    """One profile as written. None means not given; a parent named by `extends` gives it then."""

    name: str
    extends: str | None
    max_batch_tokens: int | None
    compute_precision: Precision | None
    adapter_path: str | None
    loadtime: Mapping[str, Any]
    runtime: Mapping[str, Any]
    adaptive_batching: Mapping[str, float | bool]


@dataclass(frozen=True, slots=True)
class ResolvedProfile:
    """A profile after `extends`: what one routable id is made of.

    `compute_precision` None is a value: the engine's own default (float16 on CUDA, float32 elsewhere).
    `max_sequence_length` is what the id advertises, in tokens (None: the bundle names no limit);
    `token_limit` is what the adapter is constructed with.
    """

    sie_id: str
    profile: str
    adapter_path: str
    max_batch_tokens: int
    compute_precision: Precision | None
    loadtime: Mapping[str, Any]
    runtime: Mapping[str, Any]
    adaptive_batching: Mapping[str, float | bool]
    max_sequence_length: int | None

    @property
    def model_id(self) -> str:
        """The id that clients address: bare for `default`, `id:profile` for every other."""
        return self.sie_id if self.profile == DEFAULT_PROFILE else f"{self.sie_id}:{self.profile}"

    @property
    def adapter_class(self) -> str:
        """The class named by `adapter_path`; empty when the path names none."""
        return self.adapter_path.partition(":")[2]

    @property
    def token_limit(self) -> int | None:
        """`loadtime.max_seq_length` where it is a positive number, else the bundle's `max_sequence_length`."""
        return _load_time_limit(self.loadtime) or self.max_sequence_length

    @property
    def lora(self) -> str | None:
        """The id of the LoRA adapter whose weights are merged into the checkpoint's, if it names one."""
        named = self.runtime.get("lora_id")
        return named if isinstance(named, str) and named else None

    def to_json(self) -> dict[str, Any]:
        """Plain data for a digest or a manifest."""
        return {
            "adapter_path": self.adapter_path,
            "adaptive_batching": dict(self.adaptive_batching),
            "compute_precision": self.compute_precision,
            "loadtime": copy.deepcopy(dict(self.loadtime)),
            "max_batch_tokens": self.max_batch_tokens,
            "max_sequence_length": self.max_sequence_length,
            "model_id": self.model_id,
            "profile": self.profile,
            "runtime": copy.deepcopy(dict(self.runtime)),
            "sie_id": self.sie_id,
        }

    def canonical_json(self) -> str:
        """`to_json` as text that is equal for equal profiles: keys sorted at every level, no spaces, ASCII."""
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True, slots=True)
class Bundle:
    """One model's YAML. `positions` maps dotted paths (`profiles.default.adapter_path`) to where they are written."""

    sie_id: str
    hf_id: str | None
    hf_revision: str | None
    hf_tokenizer_dependencies: Mapping[str, str]
    weights_path: Path | None
    package_backed: bool
    remote_backed: bool
    pool: str | None
    inputs: tuple[str, ...]
    tasks: tuple[str, ...]
    outputs: tuple[str, ...]
    """Dense, sparse, multivector, score, json (extract), tokens (generate): those declared, in this order."""
    dims: Mapping[str, int]
    """Declared dim of each declared encode output."""
    max_sequence_length: int | None
    profiles: Mapping[str, ProfileSpec]
    path: Path
    positions: Mapping[str, Where] = field(compare=False, repr=False)

    def resolve(self, profile: str) -> ResolvedProfile:
        """Apply `extends`: one level, and never from `default` unless named.

        Single values and single `adaptive_batching` fields of the child win when given; a non-empty `loadtime` or
        `runtime` of the child replaces the parent's whole map. Raises KeyError for a profile the bundle lacks.
        """
        child = self.profiles[profile]
        parent = self.profiles[child.extends] if child.extends is not None else child
        adapter_path = parent.adapter_path if child.adapter_path is None else child.adapter_path
        max_batch_tokens = parent.max_batch_tokens if child.max_batch_tokens is None else child.max_batch_tokens
        if adapter_path is None or max_batch_tokens is None:
            raise ValueError(f"profile `{profile}` of `{self.sie_id}` was never validated")
        loadtime = copy.deepcopy(dict(child.loadtime or parent.loadtime))
        limit = None if profile == DEFAULT_PROFILE else _load_time_limit(loadtime)
        return ResolvedProfile(
            sie_id=self.sie_id,
            profile=profile,
            adapter_path=adapter_path,
            max_batch_tokens=max_batch_tokens,
            compute_precision=child.compute_precision or parent.compute_precision,
            loadtime=loadtime,
            runtime=copy.deepcopy(dict(child.runtime or parent.runtime)),
            adaptive_batching={**parent.adaptive_batching, **child.adaptive_batching},
            max_sequence_length=limit or self.max_sequence_length,
        )


def expand(bundle: Bundle) -> list[ResolvedProfile]:
    """The routable ids of one bundle: the bare id only if `default` exists, then `id:profile` in the file's order."""
    names = sorted(bundle.profiles, key=lambda name: name != DEFAULT_PROFILE)
    return [bundle.resolve(name) for name in names]


def _load_time_limit(loadtime: Mapping[str, Any]) -> int | None:
    limit = loadtime.get("max_seq_length")
    return limit if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0 else None
