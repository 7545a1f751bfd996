"""The chapter on the command line: every command with its options, from the functions that typer calls."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import get_args

from typer.models import ArgumentInfo, OptionInfo

from sie_triton.cli import app
from sie_triton.pages.markdown import code, listed, table


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument or option: how it is written, its type without `None` and `list`, its default and its help.

    `variable` is the one of the environment that counts where the option is not given; "" if there is none.
    """

    spellings: tuple[str, ...]
    kind: type
    default: object
    required: bool
    repeatable: bool
    help: str
    variable: str = ""


def chapter() -> str:
    """All commands, in the order of `--help`."""
    return "\n\n".join(_section(name, command) for name, command in commands().items())


def commands() -> Mapping[str, Callable[..., None]]:
    """The function of every command; one of a group has both names, as `migrate scan`."""
    found = {}
    groups = [group.typer_instance for group in app.registered_groups if group.typer_instance is not None]
    for prefix, part in [("", app), *((f"{group.info.name} ", group) for group in groups)]:
        for command in part.registered_commands:
            assert command.callback is not None
            found[prefix + (command.name or command.callback.__name__)] = command.callback
    return found


def command_of(words: Sequence[str]) -> tuple[str, Sequence[str]] | None:
    """The command that the words behind `sie-triton` begin with, and the rest of them; None if there is no such."""
    for count in (2, 1):
        name = " ".join(words[:count])
        if len(words) >= count and name in commands():
            return name, words[count:]
    return None


def parameters(command: Callable[..., None]) -> Iterator[Parameter]:
    """The parameters of a command, in its order."""
    # Not `get_type_hints`: before Python 3.11 it makes what is optional of what has None as its default.
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        annotation, info = get_args(parameter.annotation)
        assert isinstance(info, OptionInfo | ArgumentInfo)
        kinds = [kind for kind in get_args(annotation) if kind is not NoneType] or [annotation]
        yield Parameter(
            spellings=_spellings(name, info),
            kind=kinds[0],
            default=None if parameter.default is inspect.Parameter.empty else parameter.default,
            required=parameter.default is inspect.Parameter.empty,
            repeatable=getattr(annotation, "__origin__", None) is list,
            help=info.help or "",
            variable=info.envvar if isinstance(info.envvar, str) else "",
        )


def _spellings(name: str, info: OptionInfo | ArgumentInfo) -> tuple[str, ...]:
    if isinstance(info, ArgumentInfo):
        return (name.upper(),)
    # Within `Annotated`, typer's first positional argument is a spelling and not the default that it is named.
    first = (info.default,) if isinstance(info.default, str) else ()
    written = (*first, *(info.param_decls or ())) or (f"--{name.replace('_', '-')}",)
    # A switch and its opposite are declared as one.
    return tuple(spelling for declared in written for spelling in declared.split("/"))


def _section(name: str, command: Callable[..., None]) -> str:
    rows = [
        (listed(p.spellings), _values(p.kind), "required" if p.required else _default(p), _help(p))
        for p in parameters(command)
    ]
    options = table(("Option", "Value", "Default", "Means"), rows)
    return f"### `sie-triton {name}`\n\n{inspect.getdoc(command)}\n\n{options}"


def _help(parameter: Parameter) -> str:
    said = "epeatable" in parameter.help or not parameter.repeatable
    repeatable = "" if said else " Repeatable."
    variable = f" Variable: {code(parameter.variable)}." if parameter.variable else ""
    return f"{parameter.help}{repeatable}{variable}"


def _values(kind: type) -> str:
    if issubclass(kind, Enum):
        return " ".join(code(member.value) for member in kind)
    return {bool: "", int: "number", float: "number", Path: "path"}.get(kind, "text")


def _default(parameter: Parameter) -> str:
    default = parameter.spellings[0] if parameter.default is True else parameter.default
    values = default if isinstance(default, list | tuple) else [] if default is None or default is False else [default]
    return " ".join(code(value.value if isinstance(value, Enum) else value) for value in values)
