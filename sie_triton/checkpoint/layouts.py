"""In whose layout a repository of the hub has its model, where nobody has said it: asked before anything is fetched."""

from __future__ import annotations

from pathlib import Path

from sie_triton.checkpoint.asking import describe
from sie_triton.checkpoint.files import INDEX, OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS, SINGLE, read_json
from sie_triton.checkpoint.hub_failures import HubFailure
from sie_triton.checkpoint.open_clip import needs_open_clip, reads_as_open_clip
from sie_triton.checkpoint.packaged import Announce


def is_published_in_open_clip(hf_id: str, *, allow_hub: bool, announce: Announce) -> bool:
    """Whether the repository has a checkpoint of open_clip, and none that transformers reads without code of its own.

    The cache answers where it has the model. Whatever keeps the hub from answering is for whoever fetches to tell.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = {
            name: path
            for name in (OPEN_CLIP_CONFIG, SINGLE, INDEX)
            if isinstance(path := try_to_load_from_cache(hf_id, name), str)
        }
    except HFValidationError:
        return False
    if OPEN_CLIP_CONFIG in cached:
        return needs_open_clip(Path(cached[OPEN_CLIP_CONFIG]).parent)
    return not cached and allow_hub and _at_the_hub(hf_id, announce)


def _at_the_hub(hf_id: str, announce: Announce) -> bool:
    from httpx import HTTPError
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        info = describe(hf_id, None, announce)
        names = {entry.rfilename for entry in info.siblings or ()}
        if not {OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS} <= names:
            return False
        config = read_json(Path(hf_hub_download(hf_id, "config.json"))) if "config.json" in names else None
    except (HubFailure, HfHubHTTPError, HTTPError, OfflineModeIsEnabled, OSError, KeyError, TypeError, ValueError):
        return False
    return reads_as_open_clip(config, weights=bool({SINGLE, INDEX} & names))
