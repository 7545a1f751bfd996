"""Models that are not shipped on purpose: why not, said at once, before anybody asks a hub for them."""

from __future__ import annotations

from collections.abc import Mapping

from sie_triton.bundle import Bundle, LeftOut, find_model, left_out
from sie_triton.cli.models import Wanted
from sie_triton.diagnostics import Diagnostic, DiagnosticError


def check_left_out(wanted: Wanted, bundles: Mapping[str, Bundle], *, trust_remote_code: bool) -> None:
    """Raise `DiagnosticError` (`SIE116`) with every wanted id that is left out, unless a bundle or a folder is for it.

    With `trust_remote_code`, what lacks nothing but that is not left out.
    """
    problems = []
    for model_id in wanted.ids:
        row = left_out(model_id)
        if row is None or wanted.default_weights or model_id in wanted.weights or (trust_remote_code and row.flag):
            continue
        if isinstance(find_model(bundles, model_id), Diagnostic):
            problems.append(_diagnostic(model_id, row))
    if problems:
        raise DiagnosticError(problems)


def _diagnostic(model_id: str, row: LeftOut) -> Diagnostic:
    ways = "docs/models.md has the models that are"
    if ":" not in model_id:
        ways = f"{ways}; `--weights FOLDER` tries a checkpoint of yours all the same"
    return Diagnostic(
        "SIE116",
        f"`{model_id}` is not served: {row.why}",
        None,
        f"`build` and `up` try it with `{row.flag}`; {ways}" if row.flag else ways,
    )
