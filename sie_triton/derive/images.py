"""Drafts of models for images and texts: plain checkpoints, those of sentence-transformers, and those of open_clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sie_triton.derive.draft import Draft, Said
from sie_triton.derive.kinds import refuse
from sie_triton.derive.outputs import adapter
from sie_triton.facts import CheckpointFacts, TowerSizes, read_towers
from sie_triton.facts.checkpoint import TOKENIZER_SETTINGS_NAME
from sie_triton.facts.images import SEEING, read_seeing_modules

_ADAPTERS = {"clip": "CLIPAdapter", "siglip": "SiglipAdapter"}
_SOURCES = {"clip": "the projections in the weights", "siglip": "the width of the towers' last layers"}
_INNER = (
    "to serve them with length 1, pass the plain checkpoint, without `modules.json`: `-m` takes the folder that holds "
    "its `config.json`"
)


def image_text_draft(facts: CheckpointFacts) -> Draft:
    """CLIP's or SigLIP's adapter, as the kind of model says. Raises `DiagnosticError` for modules behind it."""
    notes = _checked_modules(facts)
    towers = read_towers(facts, *SEEING)
    source = "unit vectors of texts and images; normalize changes nothing"
    return Draft(
        adapter=adapter(_ADAPTERS[facts.model_type], source),
        dims={"dense": Said(towers.width, _SOURCES[facts.model_type])},
        max_length=_limit(facts, towers),
        inputs=("text", "image"),
        notes=notes,
    )


def open_clip_draft(facts: CheckpointFacts, hf_id: str | None) -> Draft:
    """SigLIP's adapter on a checkpoint in open_clip's layout."""
    draft = replace(image_text_draft(facts), max_length=_limit(facts, read_towers(facts, *SEEING), "text_cfg"))
    named = {"open_clip_model_id": Said(f"hf-hub:{hf_id}")} if hf_id else {}
    backend = Said("open_clip", "open_clip_config.json, and nothing that transformers reads by itself")
    return replace(draft, loadtime={"backend": backend, **named, "dense_dim": draft.dims["dense"]})


def _limit(facts: CheckpointFacts, towers: TowerSizes, said_by: str = "") -> Said:
    if said_by:
        return Said(towers.positions, f"context_length of {said_by} in open_clip_config.json")
    setting = Said(facts.tokenizer_max_length, f"model_max_length of {TOKENIZER_SETTINGS_NAME}")
    positions = Said(towers.positions, "max_position_embeddings of text_config in config.json")
    return setting if setting.value and setting.value <= towers.positions else positions


def _checked_modules(facts: CheckpointFacts) -> tuple[str, ...]:
    """What sentence-transformers does behind the towers must be what the adapter does: unit length, and no more."""
    modules = read_seeing_modules(facts)
    if modules is None:
        return ()
    if modules[0] not in ("CLIPModel", "Transformer"):
        refuse(facts, f"`modules.json` begins with `{modules[0]}`", "pick another", file="modules.json")
    if modules[1:] != ["Normalize"]:
        reason, hint = _behind(modules[1:])
        refuse(facts, reason, hint, code="SIE222", file="modules.json")
    return ("modules.json normalises the vectors of both towers, as the adapter does.",)


def _behind(modules: Sequence[str]) -> tuple[str, str]:
    """Why a model with these modules behind its towers has other vectors here, and what helps."""
    if not modules:
        return (
            "sentence-transformers leaves the vectors of texts and images as long as they come, and they leave here "
            "with length 1 (the directions are the same)",
            _INNER,
        )
    listed = ", ".join(f"`{name}`" for name in modules)
    return (
        f"`modules.json` has {listed} behind a model for images and texts, which no adapter computes",
        "remove them from a copy of the checkpoint, if that is meant",
    )
