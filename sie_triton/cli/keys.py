"""`keys`: make an API key, and look at the file that the frontend reads them from."""

from __future__ import annotations

import os
import stat
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from sie_triton.cli.printing import out, say

if TYPE_CHECKING:
    from sie_frontend.access.keyfile import ApiKey

    from sie_triton.diagnostics import DiagnosticError

app = typer.Typer(name="keys", no_args_is_help=True, help="Make API keys, and check the file that holds their hashes.")


def new(
    name: Annotated[str, typer.Argument(help="Whose key it is, as logs will say it.")],
    verb: Annotated[
        list[str],
        typer.Option(
            help="`encode`, `score`, `embeddings`, `rerank`, `models`, `metrics` or `admin`. Repeatable. "
            "Default: all but `metrics` and `admin`."
        ),
    ] = [],  # noqa: B006 - typer copies the default
    model: Annotated[
        list[str],
        typer.Option(
            "--model", "-m", help="Model id it is for, where `*` stands for anything. Repeatable. Default: all."
        ),
    ] = [],  # noqa: B006 - typer copies the default
    requests_per_minute: Annotated[int | None, typer.Option(help="Requests that it may make a minute.", min=1)] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(help="Tokens that it may use a minute.", min=1)] = None,
    at_once: Annotated[int | None, typer.Option(help="Requests that it may make at the same time.", min=1)] = None,
    file: Annotated[
        Path | None, typer.Option(help="File of keys to add the line to. Default: the line is printed below the key.")
    ] = None,
) -> None:
    """Make a key: print it, and the line with its hash for the file of keys. It is shown once and kept nowhere."""
    from sie_frontend.access.keyfile import KeysError, digest_of, make_key, new_secret

    secret = new_secret()
    options = {
        "verbs": ",".join(verb),
        "models": ",".join(model),
        "requests-per-minute": str(requests_per_minute or ""),
        "tokens-per-minute": str(tokens_per_minute or ""),
        "at-once": str(at_once or ""),
    }
    try:
        made = make_key(
            name,
            f"sha256:{digest_of(secret.encode()).hex()}",
            {option: value for option, value in options.items() if value},
        )
    except KeysError as error:
        raise _unusable(str(error)) from None
    if file is not None:
        _add(made, file)
        say(f"its line is in `{file}`; the key is shown this once:")
        _warn(file)
    else:
        say("the key, shown this once, and its line for the file of keys:")
    if _may_be_read(sys.stdout):
        say("warning: the file that the key is written to may be read by others: `chmod 600` it")
    out.print(secret, markup=False)
    if file is None:
        out.print(made.line, markup=False)


def check(file: Annotated[Path, typer.Argument(help="A file of keys.")]) -> None:
    """Say what a file of keys allows, key by key, or in which line it is wrong."""
    for key in _keys_of(file):
        out.print(f"{key.name}: {', '.join(_allowed(key))}", markup=False)
    _warn(file)


def _allowed(key: ApiKey) -> list[str]:
    from sie_frontend.access.keyfile import VERBS

    limits = {
        "requests a minute": key.requests_per_minute,
        "tokens a minute": key.tokens_per_minute,
        "requests at once": key.at_once,
    }
    verbs = " ".join(verb for verb in VERBS if verb in key.verbs)
    return [
        verbs,
        f"models {' '.join(key.models)}" if key.models else "every model",
        *(f"{limit} {what}" for what, limit in limits.items() if limit is not None),
    ]


def _keys_of(file: Path) -> list[ApiKey]:
    from sie_frontend.access.following import KeyFile
    from sie_frontend.access.keyfile import KeysError

    try:
        return KeyFile(file).read()
    except KeysError as error:
        raise _unusable(f"`{file}`: {error}") from None


def _add(key: ApiKey, file: Path) -> None:
    """Append the line, in place: a container that has the file mounted keeps seeing it."""
    known = _keys_of(file) if file.exists() else []
    if any(other.name == key.name for other in known):
        raise _unusable(f"`{file}` has a key with the name `{key.name}` already")
    try:
        glued = file.exists() and (content := file.read_bytes()) and not content.endswith(b"\n")
        # What is made here is its owner's alone; what is there keeps its mode.
        with open(file, "a", encoding="utf-8", opener=partial(os.open, mode=0o600)) as appended:
            appended.write(("\n" if glued else "") + key.line + "\n")
    except OSError as error:
        raise _unusable(f"`{file}` cannot be written: {(error.strerror or str(error)).lower()}") from None


def _warn(file: Path) -> None:
    from sie_frontend.access.following import KeyFile

    if found := KeyFile(file).exposed():
        say(f"warning: `{file}`: {found}")


def _may_be_read(stream: TextIO) -> bool:
    """Whether what is written goes to a file that other users may read."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(found.st_mode) and bool(found.st_mode & 0o044)


def _unusable(message: str) -> DiagnosticError:
    from sie_triton.diagnostics import Diagnostic, DiagnosticError

    return DiagnosticError([Diagnostic("SIE716", message, hint="docs/keys.md has the form of a line")])


for _command in (new, check):
    app.command()(_command)
