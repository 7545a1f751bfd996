"""Base models and the adapters (PEFT, LoRA) that change them, each from where it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

from sie_triton.checkpoint.files import (
    ADAPTER,
    ADAPTER_WEIGHTS,
    INDEX,
    SINGLE,
    TOKENIZER,
    extra_file,
    parts_of,
    weight_files,
)
from sie_triton.checkpoint.found import Checkpoint
from sie_triton.checkpoint.lora_settings import not_merged, read_lora_settings
from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where

FindsCheckpoint: TypeAlias = "Callable[[str, str | None], Checkpoint]"
"""An id and a revision to the repository as it was published. Raises `DiagnosticError`."""

_OWN = (ADAPTER, ADAPTER_WEIGHTS)


def with_adapter(found: Checkpoint, find: FindsCheckpoint, extra_files: Sequence[str] = ()) -> Checkpoint:
    """What a repository is: itself, or a base model with the adapter that it holds.

    Weights beside an adapter are its base's, as transformers reads a folder; else the base is the model that
    `adapter_config.json` names. `extra_files` are names that one of the two must have. Raises `DiagnosticError` for an
    adapter that is not merged, and for a file that neither has.
    """
    parts = parts_of(found.origin)
    own = tuple(f"{parts.home}{name}" for name in _OWN)
    if own[0] not in found.files:
        return found
    home = found.origin / parts.home
    settings = read_lora_settings(home)
    if weight_files(found.files, parts):
        adapter = replace(found, origin=home, files=_OWN)
        return replace(found, files=tuple(name for name in found.files if name not in own), adapter=adapter)
    if settings.base is None:
        raise not_merged(home / ADAPTER, "`base_model_name_or_path` names no base model, and no weights lie beside it")
    base = find(settings.base, settings.base_revision)
    parts = parts_of(base.origin)
    if f"{parts.home}{ADAPTER}" in base.files:
        raise not_merged(home / ADAPTER, f"its base `{settings.base}` is an adapter itself")
    # The base lends its weights; all else is the adapter's own, as far as there is any.
    lent = {"config.json", SINGLE, INDEX, *(name.removeprefix(parts.home) for name in weight_files(base.files, parts))}
    if not TOKENIZER & set(found.files):
        lent |= TOKENIZER
    for extra in extra_files:
        if extra_file(extra, set(found.files)) is None:
            lent.add(_extra(extra, base, found))
    files = tuple(name for name in base.files if name.removeprefix(parts.home) in lent or name.endswith(".model"))
    return replace(base, files=files, adapter=found)


def _extra(name: str, base: Checkpoint, adapter: Checkpoint) -> str:
    """The base model's file of a name. Raises `DiagnosticError` (`SIE309`) where it has none either."""
    found = extra_file(name, set(base.files))
    if found is None:
        message = f"neither the adapter nor its base has `{name}`, which this adapter of SIE cannot do without"
        hint = "pick the checkpoint that the adapter was written for"
        raise DiagnosticError([Diagnostic("SIE309", message, Where(adapter.origin), hint)])
    return found


def with_lora(base: Checkpoint, adapter: Checkpoint, name: str) -> Checkpoint:
    """The base model with the weights of an adapter that its bundle names, and nothing else of it."""
    if base.adapter is not None:
        raise not_merged(
            base.adapter.origin / ADAPTER, f"`{name}` would be merged into a model that is one with another"
        )
    if ADAPTER not in adapter.files:
        raise not_merged(adapter.origin, f"`{name}` has no `{ADAPTER}`", "name the repository of a LoRA adapter")
    read_lora_settings(adapter.origin)
    return replace(base, adapter=replace(adapter, files=_OWN))
