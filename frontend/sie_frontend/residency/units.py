"""What is loaded and unloaded as one, and what that costs in memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sie_frontend.manifest import Manifest

# What a graph's copy takes beside its weights, and how much larger than their file weights are in memory: the rules by
# which `deploy` sizes containers.
PROCESS_BYTES: Final = 64 << 20
WEIGHTS: Final = 1.25
# Among the files of a model that the embedded server computes in one process.
EMBEDDED_CONFIG: Final = "configs/embedded.pbtxt"
_GRAPHS: Final = (".onnx", ".pt", ".pt2", ".plan")


@dataclass(frozen=True, slots=True)
class Unit:
    """The Triton models of one or several ids, which come and go together.

    `parts` are in the order in which they are loaded: what an ensemble is composed of stands before it. `public` are
    those of them that requests are sent to. People are told of it as `label`: of two versions of a model, which have
    names of their own, both bear the model's id.
    """

    name: str
    parts: tuple[str, ...]
    public: tuple[str, ...]
    pinned: bool = False
    label: str = ""

    def __post_init__(self) -> None:
        if not self.label:
            object.__setattr__(self, "label", self.name)


def units_of(
    manifest: Manifest, pinned: frozenset[str], known: Collection[Unit] = ()
) -> tuple[dict[str, Unit], dict[str, str]]:
    """The units by name, and the name of each id's unit. Ids that need the same Triton models share one.

    A unit bears the first of its ids, and is pinned if any of them is in `pinned`. One of the same parts as a `known`
    one is that one; no other bears a known one's name.
    """
    owners: dict[frozenset[str], str] = {}
    unit_of = {
        model_id: owners.setdefault(frozenset(manifest.parts(model)), model_id)
        for model_id, model in manifest.models.items()
    }
    kept = {unit_of[model_id] for model_id in pinned}
    names, taken = {}, {unit.name for unit in known}
    for parts, owner in owners.items():
        same = next((unit.name for unit in known if parts == frozenset(unit.parts)), None)
        names[owner] = same or (owner if owner not in taken else f"{owner} {manifest.models[owner].triton_models[0]}")
    units = {}
    for owner, name in names.items():
        model = manifest.models[owner]
        units[name] = Unit(name, manifest.parts(model), model.triton_models, owner in kept, owner)
    return units, {model_id: names[owner] for model_id, owner in unit_of.items()}


def expected_bytes(manifest: Manifest, repository: Path, device: str, *, embedded: bool = False) -> dict[str, int]:
    """What each Triton model should take in memory, before anybody has seen it loaded.

    For each instance a process, and its graph's file with what weights take more in memory than on disk. Of graphs in
    several precisions the largest counts. An ensemble takes nothing: it wires others. The `embedded` server has one
    process for all instances of a model whose build has a configuration for it.
    """
    copies: dict[str, int] = {}
    for model in manifest.models.values():
        for entry in model.inputs.values():
            batching = entry.batching.get(device) or next(iter(entry.batching.values()))
            known = manifest.triton_models.get(entry.triton_model)
            for name in (entry.triton_model, *(known.depends_on if known else ())):
                copies[name] = max(copies.get(name, 1), batching.streams + batching.express)
    found = {}
    for name, count in copies.items():
        known = manifest.triton_models.get(name)
        sizes = (known.sizes if known else None) or _sizes_on_disk(repository / name)
        processes = 1 if embedded and EMBEDDED_CONFIG in sizes else count
        alone = known is None or not known.depends_on
        found[name] = processes * (PROCESS_BYTES + int(WEIGHTS * graph_bytes(sizes))) if alone else 0
    return found


def graph_bytes(sizes: Mapping[str, int]) -> int:
    """The largest graph among a Triton model's files, with the weights that lie beside it as `FILE.data`."""
    graphs = [path for path in sizes if path.endswith(_GRAPHS)]
    return max((sizes[path] + sizes.get(f"{path}.data", 0) for path in graphs), default=0)


def _sizes_on_disk(folder: Path) -> dict[str, int]:
    """Of a repository that was built before sizes were written down; nothing where its graphs lie elsewhere."""
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
