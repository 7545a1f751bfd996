"""A TorchScript file read as what it is, a zip archive with source text, without torch and without unpickling.

torch reads such archives without comparing checksums, so a file with flipped bits loads and computes with them.
"""

from __future__ import annotations

import ast
import pickletools
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from sie_triton.backends.pytorch.signature import Argument

# What torch writes in the source for a type -> what it calls the kind of such a type.
_KINDS = {
    "Tensor": "TensorType",
    "Dict": "DictType",
    "Optional": "OptionalType",
    "List": "ListType",
    "Tuple": "TupleType",
    "int": "IntType",
    "float": "FloatType",
    "bool": "BoolType",
    "str": "StringType",
}


class TorchArchiveError(Exception):
    """The file is no TorchScript archive, or a damaged one."""


@dataclass(frozen=True, slots=True)
class TorchArchive:
    """What `forward` takes (without `self`), and how many results it gives; None for what the source does not tell."""

    arguments: tuple[Argument, ...] | None
    results: int | None

    @classmethod
    def read(cls, path: Path) -> TorchArchive:
        """Check every byte of the archive at `path` against its checksums, and read the signature of `forward`.

        Raises:
            TorchArchiveError: the file is unreadable, damaged, or something else than TorchScript.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                if damaged := archive.testzip():
                    raise TorchArchiveError(f"the file is damaged: the checksum of `{damaged}` is wrong")
                return cls(*_signature(_sources(archive)))
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise TorchArchiveError(f"the file is no TorchScript archive, or is cut short: {error}") from error
        except OSError as error:
            raise TorchArchiveError(f"the file cannot be read: {error}") from error


def _sources(archive: zipfile.ZipFile) -> str:
    """The source text of the module's class; "" where it is not found."""
    names = {name.partition("/")[2]: name for name in archive.namelist()}
    missing = [name for name in ("data.pkl", "constants.pkl") if name not in names]
    if missing or not any(name.startswith("code/") for name in names):
        what = f"lacks `{missing[0]}`" if missing else "has no code"
        raise TorchArchiveError(
            f"the file is no TorchScript archive: it {what} (`torch.save` writes weights, `torch.jit.save` a program)"
        )
    try:
        operations = pickletools.genops(archive.read(names["data.pkl"]))
        root = next(str(argument) for code, argument, _ in operations if code.name == "GLOBAL")
    except (ValueError, StopIteration):
        return ""
    module, _, name = root.partition(" ")
    source = names.get(f"code/{module.replace('.', '/')}.py")
    text = archive.read(source).decode(errors="replace") if source else ""
    found = re.search(rf"^class {re.escape(name)}\(.*?(?=^class |\Z)", text, re.MULTILINE | re.DOTALL)
    return found[0] if found else ""


def _signature(text: str) -> tuple[tuple[Argument, ...] | None, int | None]:
    """Arguments and number of results of the method `forward` in a class's source."""
    head = re.search(r"def forward\(self.*?\) -> (?:.|\n)*?:\n", text, re.DOTALL)
    if head is None:
        return None, None
    try:
        method = ast.parse(head[0].strip() + " ...").body[0]
    except SyntaxError:
        return None, None
    if not isinstance(method, ast.FunctionDef):
        return None, None
    arguments = tuple(Argument(a.arg, _kind(a.annotation)) for a in method.args.args[1:])
    return arguments, _results(method.returns)


def _kind(annotation: ast.expr | None) -> str:
    base = annotation.value if isinstance(annotation, ast.Subscript) else annotation
    return _KINDS.get(base.id, "ClassType") if isinstance(base, ast.Name) else "ClassType"


def _results(annotation: ast.expr | None) -> int | None:
    if isinstance(annotation, ast.Subscript) and _kind(annotation) == "TupleType":
        return len(annotation.slice.elts) if isinstance(annotation.slice, ast.Tuple) else 1
    return 1 if _kind(annotation) == "TensorType" else None
