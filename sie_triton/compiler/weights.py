"""The checkpoint of a target: where it lies, what identifies it, what its files say, whether its code may run."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

from sie_triton.bundle import Bundle
from sie_triton.checkpoint import Checkpoint, resolve_checkpoint, weight_paths
from sie_triton.checkpoint.tensors import read_header
from sie_triton.compiler.options import BuildOptions, Target
from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where
from sie_triton.facts import CheckpointFacts, read_facts


@dataclass(frozen=True, slots=True)
class Weights:
    """A checkpoint at hand, with what planning needs of it."""

    checkpoint: Checkpoint
    facts: CheckpointFacts

    @property
    def numbers(self) -> int:
        """How many numbers its tensors have."""
        headers = (read_header(path) for path in weight_paths(self.checkpoint.folder))
        return sum(prod(entry["shape"]) for header in headers for entry in header.tensors.values())

    @property
    def bytes(self) -> int:
        """The size of its tensors on disk."""
        return sum(path.stat().st_size for path in weight_paths(self.checkpoint.folder))


def find_checkpoint(target: Target, options: BuildOptions, *, allow_hub: bool = True) -> Checkpoint:
    """Where the weights are. Raises `DiagnosticError` with every place that was looked at."""
    bundle = target.bundle
    return resolve_checkpoint(
        bundle.hf_id,
        bundle.hf_revision,
        weights=named_folder(bundle, options),
        bundle_weights_path=bundle.weights_path,
        allow_hub=allow_hub,
        trust_remote_code=options.trust_remote_code,
        progress=options.progress,
        extra_files=tuple(dict.fromkeys(file for _, recipe in target.profiles for file in recipe.extra_files)),
        optional_files=tuple(dict.fromkeys(file for _, recipe in target.profiles for file in recipe.optional_files)),
        announce=options.announce,
        lora=target.lora,
        folders=options.weights,
    )


def read_weights(checkpoint: Checkpoint) -> Weights:
    """What the checkpoint's files say. Raises `DiagnosticError` for what cannot be read or built from."""
    return Weights(checkpoint, read_facts(checkpoint.folder, weight_paths(checkpoint.folder)))


def named_folder(bundle: Bundle, options: BuildOptions) -> Path | None:
    """The folder that the command line names for a bundle."""
    return options.weights.get(bundle.sie_id, options.default_weights)


def pinned_identity(target: Target, options: BuildOptions) -> str | None:
    """What the checkpoint will be called without looking for it: a pinned revision never changes.

    None where that cannot be told: an adapter may have changed.
    """
    bundle = target.bundle
    if target.lora or named_folder(bundle, options) or bundle.weights_path or not bundle.hf_id:
        return None
    revision = bundle.hf_revision or ""
    pinned = len(revision) == 40 and all(c in "0123456789abcdef" for c in revision)
    return f"hf:{bundle.hf_id}@{revision}" if pinned else None


def check_remote_code(target: Target, checkpoint: Checkpoint, options: BuildOptions) -> None:
    """The checkpoint's own Python runs only if its bundle and the user both say so. Raises `DiagnosticError`."""
    if not checkpoint.needs_remote_code:
        return
    allowed = all(recipe.needs_remote_code for _, recipe in target.profiles)
    if options.trust_remote_code and allowed:
        return
    if allowed or target.derived:
        hint = "read the code, then pass `--trust-remote-code`"
    elif all(recipe.loads_remote_code for _, recipe in target.profiles):
        hint = "its bundle does not set `trust_remote_code: true`; add it there if you have read the code"
    else:
        hint = "this adapter never runs a checkpoint's code: pick another checkpoint"
    message = f"the architecture of `{target.bundle.sie_id}` lives only in the checkpoint's own code: "
    raise DiagnosticError(
        [Diagnostic("SIE407", message + str(checkpoint.remote_code_reason), Where(checkpoint.origin), hint)]
    )
