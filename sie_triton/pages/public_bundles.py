"""SIE's public bundles, out of a table of facts about them: what each YAML says, without its comments and nulls.

A row is one bundle by its `sie_id`, in the words of the YAML with four exceptions: `inputs` lists what is taken, an
output is its dim alone, a profile's `adapter_options` are spread over `loadtime` and `runtime`, and what is null or
false by default is left out.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from sie_triton.bundle import Bundle, load_bundles
from sie_triton.diagnostics import DiagnosticError

Facts: TypeAlias = Mapping[str, Any]

TABLE = Path("tests/contract/bundles.json")
"""The table of this repository, from its root."""

BESIDE: frozenset[str] = frozenset({"Marqo/marqo-fashionSigLIP", "vidore/colSmol-256M", "vidore/colpali-v1.3-hf"})
"""Models that SIE 0.10.1 has and the table has not."""


def public_bundles(source: Path) -> dict[str, Bundle]:
    """The bundles of a table, or of a folder with one YAML each. Raises `DiagnosticError` if one is not valid."""
    if source.is_dir():
        bundles, mistakes = load_bundles(source)
    else:
        with tempfile.TemporaryDirectory() as folder:
            bundles, mistakes = load_bundles(write_bundles(source, Path(folder)))
    if mistakes:
        raise DiagnosticError(mistakes)
    return bundles


def write_bundles(table: Path, folder: Path) -> Path:
    """Write the YAML of every bundle of a table into `folder`, under SIE's name for the file."""
    for sie_id, facts in json.loads(table.read_text(encoding="utf-8")).items():
        text = yaml.safe_dump(document_of(sie_id, facts), sort_keys=False, allow_unicode=True)
        (folder / file_name(sie_id)).write_text(text, encoding="utf-8")
    return folder


def file_name(sie_id: str) -> str:
    """SIE's name for the file of a bundle."""
    return f"{sie_id.replace('/', '__').replace(':', '__')}.yaml"


def document_of(sie_id: str, facts: Facts) -> dict[str, Any]:
    """The YAML's mapping, of the bundle's facts."""
    document = {"sie_id": sie_id, **facts}
    document["inputs"] = {"text": "text" in facts["inputs"], **dict.fromkeys(facts["inputs"], True)}
    document["tasks"] = dict(facts["tasks"])
    if "encode" in facts["tasks"]:
        document["tasks"]["encode"] = {output: {"dim": dim} for output, dim in facts["tasks"]["encode"].items()}
    document["profiles"] = {name: _profile_of(profile) for name, profile in facts["profiles"].items()}
    return document


def facts_of(document: Facts) -> dict[str, Any]:
    """The facts of the bundle whose YAML holds `document`, without its `sie_id`."""
    facts = _said({key: value for key, value in document.items() if key != "sie_id"})
    facts["inputs"] = [name for name, taken in document["inputs"].items() if taken]
    facts["tasks"] = _said(document["tasks"])
    if encode := facts["tasks"].get("encode"):
        facts["tasks"]["encode"] = {output: spec["dim"] for output, spec in _said(encode).items()}
    facts["profiles"] = {name: _profile_facts(profile) for name, profile in document["profiles"].items()}
    return facts


def _profile_of(facts: Facts) -> dict[str, Any]:
    profile = {key: value for key, value in facts.items() if key not in ("loadtime", "runtime")}
    if options := {side: facts[side] for side in ("loadtime", "runtime") if side in facts}:
        profile["adapter_options"] = options
    return profile


def _profile_facts(profile: Facts) -> dict[str, Any]:
    facts = _said({key: value for key, value in profile.items() if key != "adapter_options"})
    return {**facts, **profile.get("adapter_options", {})}


def _said(values: Facts) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
