"""What is said where packages of a larger installation are missing."""

from __future__ import annotations

from importlib.util import find_spec

from sie_triton.compiler.options import Target
from sie_triton.diagnostics import Diagnostic, DiagnosticError
from sie_triton.verify.carried import carried_files

NOTHING_TO_COMPARE = "nothing is built that nothing was compared with"
_WITNESS = ("sentence_transformers", "torch")
_INSTALL = "`pip install 'sie-triton[cpu]'`, or `[gpu]`"
_CARRY = "or build it where that is installed with `--save-references FOLDER`, and put the file beside its bundle"


def missing_package(error: ModuleNotFoundError, need: str) -> DiagnosticError:
    """`need` says what the package is for."""
    return _missing(need, str(error.name), _INSTALL)


def check_comparable(target: Target, *, carried: bool) -> None:
    """Before weights are fetched: whether there can be anything to compare the graphs of a text model with.

    Raises `DiagnosticError` (`SIE401`) where neither the implementation is installed nor a reference carried, or
    that one is not wanted.
    """
    if not any("text" in recipe.modalities for _, recipe in target.profiles):
        return
    missing = next((name for name in _WITNESS if find_spec(name) is None), None)
    if missing is None or (carried and not target.derived and any(carried_files(target.bundle))):
        return
    raise _missing(f"`{target.bundle.sie_id}`: {NOTHING_TO_COMPARE}", missing, f"{_INSTALL}; {_CARRY}")


def _missing(need: str, package: str, hint: str) -> DiagnosticError:
    return DiagnosticError([Diagnostic("SIE401", f"{need}; {package} is not installed", hint=hint)])
