"""Models that are not shipped on purpose: why not, said at once, before anybody asks a hub for them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from sie_triton.bundle import Bundle, find_model
from sie_triton.cli.models import Wanted
from sie_triton.diagnostics import Diagnostic, DiagnosticError

TABLE = Path(__file__).with_name("left_out.txt")
"""`id | why` for each, written with docs/models.md; a third column names the flag with which it is tried."""


def check_left_out(wanted: Wanted, bundles: Mapping[str, Bundle], *, trust_remote_code: bool) -> None:
    """Raise `DiagnosticError` (`SIE116`) with every wanted id that is left out, unless a bundle or a folder is for it.

    With `trust_remote_code`, what lacks nothing but that is not left out.
    """
    problems = []
    for model_id in wanted.ids:
        row = _table().get(model_id.casefold())
        if row is None or wanted.default_weights or model_id in wanted.weights or (trust_remote_code and len(row) > 2):
            continue
        if isinstance(find_model(bundles, model_id), Diagnostic):
            problems.append(_diagnostic(model_id, *row[1:]))
    if problems:
        raise DiagnosticError(problems)


def _diagnostic(model_id: str, why: str, flag: str = "") -> Diagnostic:
    ways = "docs/models.md has the models that are"
    if ":" not in model_id:
        ways = f"{ways}; `--weights FOLDER` tries a checkpoint of yours all the same"
    return Diagnostic(
        "SIE116",
        f"`{model_id}` is not served: {why}",
        None,
        f"`build` and `up` try it with `{flag}`; {ways}" if flag else ways,
    )


@cache
def _table() -> Mapping[str, tuple[str, ...]]:
    """The rows by their ids, whatever the case."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    rows = (tuple(line.split(" | ")) for line in lines if not line.startswith("#"))
    return {row[0].casefold(): row for row in rows}
