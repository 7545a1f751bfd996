"""Language models that read texts and pictures in one row (Qwen-VL's kind), out of their JSON files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where

from .checkpoint import CheckpointFacts
from .files import unreadable
from .images import PREPROCESSOR_NAME, Pixels, read_levels, refused_processor, said_of_pictures
from .known_keys import FILES, check_keys

# Processors that cut a picture of any size into patches, by their names without what tells implementations apart.
_PROCESSORS = ("Qwen2VLImageProcessor",)
KEYS_NAME = f"{PREPROCESSOR_NAME}: patches"


@dataclass(frozen=True, slots=True)
class Sighted:
    """Pictures of any size as patches, among the words of a language model.

    A picture becomes as large as `min_pixels` and `max_pixels` allow, in whole squares of `merge_size` by `merge_size`
    patches, which are `patch_size` pixels wide and high. What `pixels` says of a size does not count. `table_side` is
    the edge of the table of learned positions, `window` that of a window in squares; 0 where there is none.
    """

    pixels: Pixels
    patch_size: int
    merge_size: int
    min_pixels: int
    max_pixels: int
    table_side: int = 0
    window: int = 0


@dataclass(frozen=True, slots=True)
class SightedSizes:
    """The sizes of the model: `width` of a state, `positions` that it reads, `table_side` of learned positions.

    `picture_id` and `video_id` are the ids of the tokens that stand for what is seen. `window` is in squares; 0 where
    there is none, as with `table_side`.
    """

    width: int
    positions: int
    picture_id: int
    video_id: int
    table_side: int = 0
    window: int = 0


def read_sighted_sizes(facts: CheckpointFacts, model_type: str) -> SightedSizes:
    """The sizes in `config.json`, for an adapter that serves one type. Raises `DiagnosticError`."""
    path = facts.folder / "config.json"
    if facts.model_type != model_type:
        message = f"the checkpoint is a `{facts.model_type}`, this adapter serves `{model_type}`"
        hint = "name the adapter of its kind in `adapter_path`"
        raise DiagnosticError([Diagnostic("SIE335", message, Where(path), hint)])
    vision = _object(facts.config, "vision_config", path)
    # Before transformers 4.52 the language model's settings stood beside the tower's.
    text = _object(facts.config, "text_config", path) if "text_config" in facts.config else facts.config
    return SightedSizes(
        width=_whole(text, "hidden_size", 4096, path),
        positions=_whole(text, "max_position_embeddings", 128_000, path),
        picture_id=_whole(facts.config, "image_token_id", 151_655, path),
        video_id=_whole(facts.config, "video_token_id", 151_656, path),
        **_placing(vision, model_type, path),
    )


def _placing(vision: Mapping[str, Any], model_type: str, path: Path) -> dict[str, int]:
    """How the tower tells places apart: by a table of positions, or by windows whose edges are whole squares."""
    if model_type == "qwen2_5_vl":
        square = _whole(vision, "patch_size", 14, path) * _whole(vision, "spatial_merge_size", 2, path)
        window = _whole(vision, "window_size", 112, path)
        if window % square:
            raise unreadable(path, f"`window_size` is {window}, and a square of patches {square} pixels")
        return {"window": window // square}
    table = _whole(vision, "num_position_embeddings", 2304, path)
    side = round(table**0.5)
    if side * side != table:
        raise unreadable(path, f"`num_position_embeddings` is {table}, and the table of positions is no square")
    return {"table_side": side}


def read_sighted(facts: CheckpointFacts, sizes: SightedSizes, min_pixels: int, max_pixels: int) -> Sighted:
    """What `processor_config.json` or `preprocessor_config.json` does to a picture, within the adapter's own bounds.

    Raises `DiagnosticError` for what is not understood, and where neither says it.
    """
    path, document = said_of_pictures(facts.folder)
    if problems := check_keys(document, FILES[KEYS_NAME], path, KEYS_NAME):
        raise DiagnosticError(problems)
    named = str(document.get("image_processor_type") or "Qwen2VLImageProcessor")
    if named.removesuffix("Fast").removesuffix("Pil") not in _PROCESSORS:
        raise refused_processor(path, named, _PROCESSORS)
    return Sighted(
        pixels=read_levels(document, path),
        patch_size=_whole(document, "patch_size", 14, path),
        merge_size=_whole(document, "merge_size", 2, path),
        min_pixels=min_pixels,
        max_pixels=max_pixels,
        table_side=sizes.table_side,
        window=sizes.window,
    )


def _object(document: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
    value = document.get(key)
    if not isinstance(value, Mapping):
        raise unreadable(path, f"`{key}` is {value!r}, no object")
    return value


def _whole(document: Mapping[str, Any], key: str, default: int, path: Path) -> int:
    value = document.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise unreadable(path, f"`{key}` is {value!r}, not a positive whole number")
    return value
