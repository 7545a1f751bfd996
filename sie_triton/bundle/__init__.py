"""The bundle: SIE's YAML for one model, read strictly; after `extends` a profile has nothing optional.

Imports the standard library, PyYAML and `sie_triton.diagnostics` only.
"""

from __future__ import annotations

from .folder import find_model, load_bundle, load_bundles, parse_bundle, routable
from .left_out import LeftOut, left_out
from .model import Bundle, ProfileSpec, ResolvedProfile, expand
from .suggest import did_you_mean

__all__ = [
    "Bundle",
    "LeftOut",
    "ProfileSpec",
    "ResolvedProfile",
    "did_you_mean",
    "expand",
    "find_model",
    "left_out",
    "load_bundle",
    "load_bundles",
    "parse_bundle",
    "routable",
]
