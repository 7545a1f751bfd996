"""From a profile's runtime options and a request's wishes to one decided call; no I/O, no defaults left afterwards.

merged       = the profile's runtime, overlaid key by key with the request's options (null overrides too)
output_types = merged, else params, else ["dense"]        options beat params; a request's null is an error
output_dtype = params, else merged, else "float32"        params beat options
instruction  = params, else merged                        params beat options
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from sie_frontend.contract.dtypes import OUTPUT_DTYPES, OutputDtype
from sie_frontend.contract.errors import invalid_input
from sie_frontend.contract.requests import EncodeParams, ScoreRequest
from sie_frontend.outputs.table import ENCODED_TYPES, EncodedType

OVERFLOW_POLICIES: Final = ("default", "error", "truncate_text")
DEFAULT_PROFILE: Final = "default"

_NO_PARAMS: Final = EncodeParams()


@dataclass(frozen=True, slots=True)
class ResolvedCall:
    """An encode call with nothing left to decide.

    `output_types` is what the answer holds and `adapter_outputs` what the model must produce for it, both without
    repeats and in the order of the wire. They differ where `muvera` makes dense, or `smve` makes sparse, out of
    the multivector. `options` is the merged map, for the options that only some adapters read.
    """

    output_types: tuple[EncodedType, ...]
    adapter_outputs: tuple[EncodedType, ...]
    output_dtype: OutputDtype
    instruction: str | None
    is_query: bool
    muvera: bool
    smve: bool
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ResolvedScore:
    """A score call with nothing left to decide; `options` as in `ResolvedCall`."""

    instruction: str | None
    options: Mapping[str, Any]


def resolve_encode(
    params: EncodeParams | None,
    *,
    profiles: Mapping[str, Mapping[str, Any]],
    declared_outputs: Sequence[str],
    model_id: str,
) -> ResolvedCall:
    """Decide an encode call.

    `profiles` maps the names of the addressed id's profiles to their runtime options, in the bundle's order, and
    has `default`. A profile lends its runtime options only: the weights stay those of the addressed id.
    `declared_outputs` are the output types of the bundle's encode task. Raises `WireError` (400).
    """
    params = params or _NO_PARAMS
    profile, merged = _merge(profiles, params.options or {})
    output_types = _output_types(merged, params, profile, declared_outputs, model_id)
    muvera = merged.get("muvera") is not None and "dense" in output_types
    smve = merged.get("smve") is not None and "sparse" in output_types
    return ResolvedCall(
        output_types=output_types,
        adapter_outputs=_adapter_outputs(output_types, muvera=muvera, smve=smve),
        output_dtype=_output_dtype(params.output_dtype or merged.get("output_dtype") or "float32"),
        instruction=_instruction(params.instruction, merged, "$.params.options.instruction"),
        is_query=bool(merged.get("is_query")),
        muvera=muvera,
        smve=smve,
        options=merged,
    )


def resolve_score(request: ScoreRequest, *, profiles: Mapping[str, Mapping[str, Any]]) -> ResolvedScore:
    """Decide a score call; `profiles` as for `resolve_encode`. Raises `WireError` (400)."""
    _, merged = _merge(profiles, request.options or {})
    return ResolvedScore(_instruction(request.instruction, merged, "$.options.instruction"), merged)


def _merge(
    profiles: Mapping[str, Mapping[str, Any]], options: Mapping[str, Any]
) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """The chosen profile's runtime options, and the same under the request's."""
    profile = profiles[_profile_name(profiles, options.get("profile"))]
    merged = {**profile, **options}
    merged.pop("profile", None)
    policy = merged.get("overflow_policy")
    if policy is not None and policy not in OVERFLOW_POLICIES:
        raise invalid_input(f"Invalid overflow_policy: {policy!r}. Must be one of {list(OVERFLOW_POLICIES)}.")
    return profile, merged


def _profile_name(profiles: Mapping[str, Mapping[str, Any]], wanted: object) -> str:
    if wanted is None:
        return DEFAULT_PROFILE
    if not isinstance(wanted, str) or not wanted.strip():
        raise invalid_input("'options.profile' must be a non-empty string or null")
    if wanted not in profiles:
        raise invalid_input(f"Profile '{wanted}' not found. Available: {list(profiles)}")
    return wanted


def _output_types(
    merged: Mapping[str, Any],
    params: EncodeParams,
    profile: Mapping[str, Any],
    declared_outputs: Sequence[str],
    model_id: str,
) -> tuple[EncodedType, ...]:
    wanted: object = merged.get("output_types")
    # A null among a request's options is said, and no array; in a profile, and in `params`, it is silence.
    if wanted is None and "output_types" not in (params.options or {}):
        wanted = ["dense"] if params.output_types is None else params.output_types
    if not isinstance(wanted, list | tuple) or not wanted:
        raise invalid_input("'output_types' must be a non-empty array")
    if any(entry not in ENCODED_TYPES for entry in wanted):
        raise invalid_input(f"'output_types' entries must be one of {sorted(ENCODED_TYPES)}")
    supported = profile.get("output_types") or declared_outputs
    if lacking := [entry for entry in wanted if entry not in supported]:
        raise invalid_input(
            f"Model '{model_id}' does not support output types: {_braced(lacking)}. Supported: {_braced(supported)}"
        )
    return tuple(entry for entry in ENCODED_TYPES if entry in wanted)


def _adapter_outputs(output_types: tuple[EncodedType, ...], *, muvera: bool, smve: bool) -> tuple[EncodedType, ...]:
    derived = {"dense"} if muvera else set()
    if smve:
        derived.add("sparse")
    needed = {entry for entry in output_types if entry not in derived}
    if derived:
        needed.add("multivector")
    return tuple(entry for entry in ENCODED_TYPES if entry in needed)


def _output_dtype(wanted: object) -> OutputDtype:
    if not _is_output_dtype(wanted):
        raise invalid_input(f"Unsupported output_dtype: {wanted}")
    return wanted


def _is_output_dtype(wanted: object) -> TypeGuard[OutputDtype]:
    return isinstance(wanted, str) and wanted in OUTPUT_DTYPES


def _instruction(explicit: str | None, merged: Mapping[str, Any], path: str) -> str | None:
    if explicit is not None:
        return explicit
    value = merged.get("instruction")
    if value is not None and not isinstance(value, str):
        raise invalid_input(f"Expected `str | null`, got `{_wire_type(value)}` - at `{path}`")
    return value


def _wire_type(value: object) -> str:
    """The wire's name of a decoded value's type, as the body's own type errors spell it."""
    if isinstance(value, dict):
        return "object"
    return "array" if isinstance(value, list) else type(value).__name__


def _braced(names: Sequence[str]) -> str:
    """`names` as a Python set prints, with the order pinned."""
    return "{" + ", ".join(repr(name) for name in sorted(set(names))) + "}"
