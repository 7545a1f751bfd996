"""Two manifests -> what is to be done between them. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum

import msgspec

from sie_frontend.manifest import Manifest


class ChangeKind(Enum):
    """What happens to an id. `CHANGED`: the same Triton models answer, read or prepared for in another way."""

    ADDED = "added"
    REMOVED = "removed"
    REPLACED = "replaced"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class ChangeStep:
    """Ids that change together, since they share Triton models.

    `load` are the Triton models that they need and that are not served yet, what an ensemble is composed of in front;
    `public` are those of them that requests go to. `in_place` are Triton models that are served, and whose files
    became others under the same name: these cannot be loaded beside what answers.
    """

    kinds: Mapping[str, ChangeKind]
    load: tuple[str, ...] = ()
    public: tuple[str, ...] = ()
    in_place: tuple[str, ...] = ()

    @property
    def ids(self) -> frozenset[str]:
        """The ids that change."""
        return frozenset(self.kinds)


def difference(old: Manifest, new: Manifest) -> list[ChangeStep]:
    """The steps from one manifest to another, each of which may succeed or fail by itself; what goes comes last."""
    kinds = {model_id: kind for model_id in {**old.models, **new.models} if (kind := _kind(old, new, model_id))}
    served = {part for model in old.models.values() for part in old.parts(model)}
    steps = []
    for ids in _together(new, kinds):
        parts = dict.fromkeys(
            part for model_id in ids if model_id in new.models for part in new.parts(new.models[model_id])
        )
        public = {name for model_id in ids if model_id in new.models for name in new.models[model_id].triton_models}
        load = tuple(part for part in parts if part not in served)
        steps.append(
            ChangeStep(
                {model_id: kinds[model_id] for model_id in ids},
                load,
                tuple(part for part in load if part in public),
                tuple(part for part in parts if part in served and not _same_files(old, new, part)),
            )
        )
    return sorted(steps, key=lambda step: set(step.kinds.values()) == {ChangeKind.REMOVED})


def _kind(old: Manifest, new: Manifest, model_id: str) -> ChangeKind | None:
    was, now = old.models.get(model_id), new.models.get(model_id)
    if now is None:
        return ChangeKind.REMOVED
    if was is None:
        return ChangeKind.ADDED
    if old.parts(was) != new.parts(now):
        return ChangeKind.REPLACED
    same = was == now and all(_same_files(old, new, part) for part in new.parts(now))
    return None if same else ChangeKind.CHANGED


def _same_files(old: Manifest, new: Manifest, part: str) -> bool:
    was, now = old.triton_models.get(part), new.triton_models.get(part)
    return was is None or now is None or was.files == now.files


def _together(manifest: Manifest, ids: Collection[str]) -> list[list[str]]:
    """The ids in groups that share no Triton model; an id that is gone is a group of its own."""
    groups: list[tuple[set[str], list[str]]] = []
    for model_id in ids:
        model = manifest.models.get(model_id)
        parts, members = set(manifest.parts(model)) if model else set(), [model_id]
        for group in [group for group in groups if group[0] & parts]:
            groups.remove(group)
            parts, members = parts | group[0], [*group[1], *members]
        groups.append((parts, members))
    return [members for _, members in groups]


def composed(old: Manifest, new: Manifest, refused: Collection[str]) -> Manifest:
    """The new manifest in which the `refused` ids are what they were, or are not there if they were not."""
    if not refused:
        return new
    kept = {model_id: model for model_id, model in old.models.items() if model_id in refused}
    models = {model_id: model for model_id, model in new.models.items() if model_id not in refused}
    return msgspec.structs.replace(
        new,
        models=dict(sorted({**models, **kept}.items())),
        triton_models={**new.triton_models, **{p: old.triton_models[p] for p in _needs(old, kept)}},
        built={**new.built, **{p: old.built[p] for p in _needs(old, kept) if p in old.built}},
    )


def gone(old: Manifest, new: Manifest) -> tuple[str, ...]:
    """The Triton models that the old manifest's ids need and the new one's do not, ensembles in front."""
    needed = _needs(new, new.models)
    return tuple(part for part in reversed(_needs(old, old.models)) if part not in set(needed))


def _needs(manifest: Manifest, ids: Collection[str]) -> tuple[str, ...]:
    parts = (part for model_id in ids for part in manifest.parts(manifest.models[model_id]))
    known = dict.fromkeys(part for part in parts if part in manifest.triton_models)
    return tuple(known)
