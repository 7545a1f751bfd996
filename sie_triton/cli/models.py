"""Which models a command is about: ids, checkpoint folders, lists of both, and the folders of their weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

# A folder says that it is one: `models/name` is an id at the hub. The last form is a drive's.
_PATH = re.compile(r"\.{1,2}$|\.{0,2}[/\\]|~|[A-Za-z]:[/\\]")
_MODEL, _WEIGHTS = "--model", "--weights"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The ids of a command line, each once and in order. `weights` are folders by id without profile,
    `default_weights` that of the only model; `folders` are the ids that a folder was given for instead of an id.
    """

    ids: tuple[str, ...]
    weights: Mapping[str, Path]
    default_weights: Path | None = None
    folders: frozenset[str] = frozenset()


def wanted_models(models: Sequence[str], weights: Sequence[str]) -> Wanted:
    """Read `-m` and `--weights`. Raises `typer.BadParameter` for a list that cannot be read, for two folders of one
    name, and where it is not clear which folder belongs to which model.
    """
    folders: dict[str, Path] = {}
    ids = [_id(entry, folders) for entry in _entries(models)]
    if not ids:
        raise typer.BadParameter("the lists name no model", param_hint=_MODEL)
    bare = {bare_id(model) for model in ids}
    by_id, default = _weights(weights)
    if default is not None and len(bare) > 1:
        raise typer.BadParameter("several models: say which the folder is for, `ID=FOLDER`", param_hint=_WEIGHTS)
    if folders and (default is not None or set(by_id) & set(folders)):
        raise typer.BadParameter("the model is a folder, which holds its own weights", param_hint=_WEIGHTS)
    return Wanted(tuple(dict.fromkeys(ids)), {**by_id, **folders}, default, frozenset(folders))


def check_all_used(wanted: Wanted, adapters: Iterable[str], named: Iterable[Path]) -> None:
    """Every folder must be a model's, one of the `adapters` that profiles name, or the base model of one.

    `named` are the folders that bundles name, which may hold adapters.

    Raises `typer.BadParameter` for one that would be left unread.
    """
    known = {bare_id(model) for model in wanted.ids} | set(adapters)
    default = [] if wanted.default_weights is None else [wanted.default_weights]
    # The base model of an adapter stands in the adapter's own file.
    known |= {base for folder in (*wanted.weights.values(), *default, *named) if (base := base_of(folder))}
    if unused := set(wanted.weights) - known:
        raise typer.BadParameter(f"not among the models to build: {', '.join(sorted(unused))}", param_hint=_WEIGHTS)


def bare_id(model_id: str) -> str:
    """The id without its profile."""
    return model_id.partition(":")[0]


def _entries(models: Iterable[str]) -> Iterator[str]:
    """What `-m` names, with each `@FILE` replaced by its lines; `#` begins a comment."""
    for entry in models:
        if not entry.startswith("@"):
            yield entry
            continue
        try:
            lines = Path(entry[1:]).expanduser().read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise typer.BadParameter(f"the list `{entry[1:]}` cannot be read: {reason}", param_hint=_MODEL) from None
        yield from (named for line in lines if (named := re.sub(r"(^|\s)#.*", "", line).strip()))


def _id(entry: str, folders: dict[str, Path]) -> str:
    """The id that an entry stands for: its own text, or the name of the folder that it is."""
    if not _PATH.match(entry):
        return entry
    folder = Path(entry).expanduser().resolve()
    if not folder.name or ":" in folder.name:
        raise typer.BadParameter(
            f"`{entry}` has no name that an id can be made of; write `-m ID --weights ID=FOLDER`", param_hint=_MODEL
        )
    if folders.setdefault(folder.name, folder) != folder:
        raise typer.BadParameter(
            f"two folders are called `{folder.name}`; write `-m ID --weights ID=FOLDER` for one", param_hint=_MODEL
        )
    return folder.name


def _weights(entries: Sequence[str]) -> tuple[dict[str, Path], Path | None]:
    by_id: dict[str, Path] = {}
    default = None
    for entry in entries:
        model_id, separator, folder = entry.partition("=")
        if separator and not Path(entry).exists():
            by_id[bare_id(model_id)] = Path(folder)
        elif default is not None:
            raise typer.BadParameter("two folders without an id; write `ID=FOLDER` for each", param_hint=_WEIGHTS)
        else:
            default = Path(entry)
    return by_id, default


def base_of(folder: Path) -> str | None:
    """The base model that a folder names which holds an adapter."""
    from sie_triton.checkpoint.files import ADAPTER, read_json

    document = read_json(folder.expanduser() / ADAPTER)
    return document.get("base_model_name_or_path") if isinstance(document, dict) else None
