"""What is said where packages of a larger installation are missing."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from sie_triton.compiler.options import Target
from sie_triton.diagnostics import Diagnostic, DiagnosticError
from sie_triton.planning.modules import WitnessName
from sie_triton.verify.carried import carried_files

NOTHING_TO_COMPARE = "there is nothing to compare the build with"
_WITNESS: tuple[str, ...] = ("sentence_transformers", "torch")
# What other witnesses than those of sentence-transformers are made of.
_WITNESSES: Mapping[WitnessName, tuple[str, ...]] = {
    "image_text_model": ("transformers", "torch"),
    "page_model": ("transformers", "torch"),
    "open_clip": ("open_clip", "timm", "torch"),
}
_INSTALLS: Mapping[WitnessName, str] = {
    "image_text_model": "`pip install torch transformers`; `sie-triton[cpu]` has both, and so has `[gpu]`",
    "open_clip": "`pip install open_clip_torch` beside `sie-triton[cpu]`, or `[gpu]`",
}
_INSTALL = "`pip install 'sie-triton[cpu]'`, or `[gpu]`"
_CARRY = "or build it where that is installed with `--save-references FOLDER`, and put the file beside its bundle"


def missing_package(error: ModuleNotFoundError, need: str) -> DiagnosticError:
    """`need` says what the package is for."""
    return _missing(need, str(error.name), _INSTALL)


def check_witness(witness: WitnessName) -> None:
    """Whether what a witness is made of is installed. Raises `DiagnosticError` (`SIE401`) where it is not."""
    if (missing := _missing_of(witness)) is not None:
        raise _missing(NOTHING_TO_COMPARE, missing, _install(witness))


def check_comparable(target: Target, *, carried: bool) -> None:
    """Before weights are fetched: whether there can be anything to compare the graphs of a model with.

    Raises `DiagnosticError` (`SIE401`) where neither the implementation is installed nor a reference carried, or
    that one is not wanted.
    """
    if carried and not target.derived and any(carried_files(target.bundle)):
        return
    for _, recipe in target.profiles:
        if "text" in recipe.modalities and (missing := _missing_of(recipe.witness)) is not None:
            need = f"`{target.bundle.sie_id}`: {NOTHING_TO_COMPARE}"
            raise _missing(need, missing, f"{_install(recipe.witness)}; {_CARRY}")


def _missing_of(witness: WitnessName) -> str | None:
    return next((name for name in _WITNESSES.get(witness, _WITNESS) if find_spec(name) is None), None)


def _install(witness: WitnessName) -> str:
    return _INSTALLS.get(witness, _INSTALL)


def _missing(need: str, package: str, hint: str) -> DiagnosticError:
    return DiagnosticError([Diagnostic("SIE401", f"{need}; {package} is not installed", hint=hint)])
