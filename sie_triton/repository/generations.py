"""Several builds of one model in a repository: what the newer one is called, what stays, and how to go back.

Triton replaces a model of the same name while requests run in it. So a build whose graphs differ from what is there
gets Triton models of other names: the plain ones with a piece of the content's digest. What was replaced stays as the
id's `previous` entry, one generation long, and its files stay beside the new ones.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from sie_frontend.manifest import SCHEMA_VERSION, Built, Manifest, Model, TritonModel, dump_manifest, parse_manifest

from sie_triton.repository.publish import file_digest
from sie_triton.repository.record import Record, merge, remove

_CONFIG_SUFFIX = ".pbtxt"


def plain_name(name: str, built: Built) -> str:
    """What a Triton model of a build would be called in a new repository."""
    return name.removesuffix(built.suffix)


def enter(before: Manifest, manifest: Manifest, record: Record, bench: Path, staging: Path) -> tuple[Manifest, Record]:
    """Move a finished build from `bench` into `staging`, under names that no other content has.

    `before` is the repository's manifest as it was when the build began, whose files lie in `staging`; `manifest` has
    what the same build made already. Returns it with the build in place of earlier ones, and the build's record as it
    is called there.
    """
    family = {name: built for name, built in before.built.items() if plain_name(name, built) == record.name}
    content = content_digest(bench, record.built, record.triton_models)
    suffix = _suffix(content, family, before, staging)
    for name in record.built.triton_models:
        if suffix:
            _rename_configs(bench / name, record.built.triton_models, suffix)
        target = staging / f"{name}{suffix}"
        if target.exists():
            shutil.rmtree(target)
        (bench / name).rename(target)
    entered = _renamed(record, suffix, staging) if suffix else record
    for name in family:
        manifest = remove(manifest, name)
    return merge(manifest, entered), entered


def _suffix(content: str, family: Mapping[str, Built], before: Manifest, staging: Path) -> str:
    """The suffix of the build that has this content already, none where no build has the plain name, or a new one."""
    for built in family.values():
        if content_digest(staging, built, before.triton_models) == content:
            return built.suffix
    if not family:
        return ""
    taken = {built.suffix for built in family.values()}
    return next(suffix for end in range(8, 65) if (suffix := f"-{content[:end]}") not in taken)


def content_digest(folder: Path, built: Built, triton_models: Mapping[str, TritonModel]) -> str:
    """SHA-256 of all files of a build as they would be under the plain names.

    Configurations are read from `folder`; of other files the recorded digest counts.
    """
    digest = hashlib.sha256()
    for name in sorted(built.triton_models):
        for file, recorded in sorted(triton_models[name].files.items()):
            path = folder / name / file
            plain = _plain_digest(path, built) if file.endswith(_CONFIG_SUFFIX) and path.is_file() else recorded
            digest.update(f"{plain_name(name, built)}/{file} {plain}\n".encode())
    return digest.hexdigest()


def _plain_digest(path: Path, built: Built) -> str:
    """The digest of a configuration as it would be with the plain names."""
    text = path.read_text(encoding="utf-8")
    for name in built.triton_models:
        text = text.replace(f'"{name}"', f'"{plain_name(name, built)}"')
    return hashlib.sha256(text.encode()).hexdigest()


def _rename_configs(folder: Path, names: Iterable[str], suffix: str) -> None:
    """Write a Triton model's configurations with the new names of its build's models."""
    for path in folder.rglob(f"*{_CONFIG_SUFFIX}"):
        text = path.read_text(encoding="utf-8")
        for name in names:
            text = text.replace(f'"{name}"', f'"{name}{suffix}"')
        path.write_text(text, encoding="utf-8")


def _renamed(record: Record, suffix: str, staging: Path) -> Record:
    """The record of a build whose Triton models got a suffix and lie in `staging`; paths in its entries follow."""
    names = record.built.triton_models
    document = Manifest(SCHEMA_VERSION, record.models, record.triton_models, {record.name: record.built})
    renamed = _with_suffix(msgspec.json.decode(dump_manifest(document)), names, suffix)
    read = parse_manifest(msgspec.json.encode(renamed), "the build")
    triton_models = {name: _redigested(model, staging / name) for name, model in read.triton_models.items()}
    [(name, built)] = read.built.items()
    return Record(name, read.models, triton_models, msgspec.structs.replace(built, suffix=suffix))


def _with_suffix(value: Any, names: Iterable[str], suffix: str) -> Any:
    """A JSON value in which each string that is one of the names, or a path below one, is renamed; keys too."""
    if isinstance(value, str):
        head, slash, rest = value.partition("/")
        return f"{head}{suffix}{slash}{rest}" if head in names else value
    if isinstance(value, list):
        return [_with_suffix(one, names, suffix) for one in value]
    if isinstance(value, dict):
        return {_with_suffix(key, names, suffix): _with_suffix(one, names, suffix) for key, one in value.items()}
    return value


def _redigested(model: TritonModel, folder: Path) -> TritonModel:
    """A Triton model's entry after its configurations were written again."""
    configs = [file for file in model.files if file.endswith(_CONFIG_SUFFIX)]
    return msgspec.structs.replace(
        model,
        files={**model.files, **{file: file_digest(folder / file) for file in configs}},
        sizes={**model.sizes, **{file: (folder / file).stat().st_size for file in configs}},
    )


def with_previous(before: Manifest, after: Manifest) -> Manifest:
    """`after` with what it replaced or left out of `before`, as each id's `previous` entry, one generation long."""
    previous: dict[str, Model] = {}
    for model_id in sorted({*before.models, *before.previous}):
        then, now = before.models.get(model_id), after.models.get(model_id)
        if then is not None and (now is None or now.triton_models != then.triton_models):
            previous[model_id] = then
        elif model_id in before.previous:
            previous[model_id] = before.previous[model_id]
    return _assembled(after.models, previous, before, after)


def _assembled(models: Mapping[str, Model], previous: Mapping[str, Model], *sources: Manifest) -> Manifest:
    """A manifest of these entries with all that they need; later `sources` win."""
    triton_models = {name: model for source in sources for name, model in source.triton_models.items()}
    built = {name: entry for source in sources for name, entry in source.built.items()}
    public = {name for model in (*models.values(), *previous.values()) for name in model.triton_models}
    needed = {part for name in public for part in (built[name].triton_models if name in built else (name,))}
    return Manifest(
        SCHEMA_VERSION,
        dict(sorted(models.items())),
        {name: triton_models[name] for name in sorted(needed)},
        {name: built[name] for name in sorted(public) if name in built},
        dict(sorted(previous.items())),
    )


def rolled_back(manifest: Manifest, model_id: str) -> tuple[Manifest, list[str]]:
    """The manifest in which an id is what it was before, and the ids that go back with it.

    Ids that share a Triton model, now or then, go together. A second time undoes the first. Raises `KeyError` for an
    id that has no previous entry.
    """
    then, now = manifest.previous[model_id], manifest.models.get(model_id)
    public = {*then.triton_models, *(now.triton_models if now else ())}
    together = [
        other
        for other, was in manifest.previous.items()
        if other == model_id
        or public.intersection(was.triton_models)
        or (other in manifest.models and public.intersection(manifest.models[other].triton_models))
    ]
    models = {**manifest.models, **{other: manifest.previous[other] for other in together}}
    replaced = {other: manifest.models[other] for other in together if other in manifest.models}
    kept = {other: was for other, was in manifest.previous.items() if other not in together}
    return _assembled(models, {**kept, **replaced}, manifest), together


def ids_of(manifest: Manifest, model_id: str) -> list[str]:
    """The ids that `remove` takes: a bundle's own with its profiles, or one profile's alone; none if it is unknown."""
    known = {**manifest.models, **manifest.previous}
    return [other for other in known if other == model_id or other.partition(":")[0] == model_id]


def removed(manifest: Manifest, ids: Iterable[str], *, keep: bool) -> Manifest:
    """The manifest without some ids. With `keep` they stay as previous entries, so that they can come back."""
    gone = set(ids)
    after = _assembled({i: model for i, model in manifest.models.items() if i not in gone}, {}, manifest)
    if keep:
        return with_previous(manifest, after)
    previous = {i: model for i, model in manifest.previous.items() if i not in gone}
    return _assembled(after.models, previous, manifest)


def forgotten(manifest: Manifest, ids: Iterable[str]) -> Manifest:
    """The manifest in which some ids have nothing to go back to."""
    gone = set(ids)
    return _assembled(manifest.models, {i: was for i, was in manifest.previous.items() if i not in gone}, manifest)
