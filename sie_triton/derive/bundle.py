"""The bundle of a checkpoint that no YAML names: its text, and the same text read as any bundle is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sie_triton.bundle import Bundle, parse_bundle
from sie_triton.derive.draft import Draft, Said, yaml_text
from sie_triton.derive.images import image_text_draft, open_clip_draft
from sie_triton.derive.kinds import Kind, kind_of
from sie_triton.derive.late import late_draft
from sie_triton.derive.outputs import adapter, bge_m3_draft, dense_draft, score_draft, sparse_draft
from sie_triton.diagnostics import DiagnosticError
from sie_triton.facts import PREPROCESSOR_NAME, CheckpointFacts

# As in the bundles that are shipped: how many tokens CUDA computes in one run.
MAX_BATCH_TOKENS = 16384
OPTIONAL_FILES = (PREPROCESSOR_NAME, "README.md", "artifact.metadata", "sparse_linear.pt", "colbert_linear.pt")
"""Files of a checkpoint that decide nothing in a build, and tell what the checkpoint is."""
# Adapters that run a checkpoint's own code where they are allowed to, by the kind of model.
_WITH_CODE: Mapping[Kind, str] = {"score": "CrossEncoderAdapter", "multivector": "ColBERTAdapter"}

_DRAFTS: Mapping[Kind, Callable[[CheckpointFacts], Draft]] = {
    "dense": dense_draft,
    "sparse": sparse_draft,
    "multivector": late_draft,
    "score": score_draft,
    "bge_m3": bge_m3_draft,
    "image_text": image_text_draft,
}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the weights are: the hub's `hf_id` at `revision`, or a `folder` of the user's."""

    hf_id: str | None = None
    revision: str | None = None
    folder: Path | None = None

    def keys(self) -> dict[str, Said]:
        """The keys of the bundle that say so."""
        if self.folder is not None:
            return {"weights_path": Said(str(self.folder), "the folder that was named")}
        keys = {"hf_id": Said(self.hf_id)}
        return {**keys, "hf_revision": Said(self.revision, "the snapshot's commit")} if self.revision else keys


@dataclass(frozen=True, slots=True)
class Derived:
    """A bundle, and the YAML that it was read from, with where each value came from."""

    bundle: Bundle
    text: str

    @property
    def file_name(self) -> str:
        """What a folder of bundles calls it."""
        return f"{self.bundle.sie_id.replace('/', '__').replace(':', '__')}.yaml"


def derive_bundle(
    sie_id: str, facts: CheckpointFacts, source: Origin, *, trust_remote_code: bool = False, open_clip: bool = False
) -> Derived:
    """The bundle that serves a checkpoint as sentence-transformers runs it, or, in its own layout, as `open_clip` does.

    `trust_remote_code` says that the user trusts this checkpoint's code, if it has any: then the bundle does too.
    Raises `DiagnosticError` with the file, the key and the reason of what cannot be derived.
    """
    kind = kind_of(facts)
    draft = open_clip_draft(facts, source.hf_id) if open_clip else _DRAFTS[kind](facts)
    if trust_remote_code and not open_clip and facts.config.get("auto_map"):
        trusted = Said(True, "--trust-remote-code")
        chosen = adapter(_WITH_CODE[kind], "may run code of its own") if kind in _WITH_CODE else draft.adapter
        draft = replace(draft, adapter=chosen, loadtime={"trust_remote_code": trusted, **draft.loadtime})
    text = yaml_text(sie_id, source.keys(), draft, MAX_BATCH_TOKENS)
    bundle, mistakes = parse_bundle(text, source.folder or facts.folder)
    if bundle is None:
        raise DiagnosticError(mistakes)
    return Derived(bundle, text)
