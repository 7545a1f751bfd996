"""`catalog`: the verdict on every profile of every bundle."""

from __future__ import annotations

import json
from dataclasses import asdict

from sie_triton.cli.options import AsJson, Bundles
from sie_triton.cli.printing import out, say
from sie_triton.cli.targets import read_bundles
from sie_triton.diagnostics import DiagnosticError


def catalog(bundles: Bundles = None, as_json: AsJson = False) -> None:
    """Say of every profile of every bundle how it is compiled, or why it is not."""
    from sie_triton.planning.catalogue import catalogue_table

    found, mistakes = read_bundles(bundles)
    if not found:
        raise DiagnosticError(mistakes)
    rows = catalogue_table(sorted(found.values(), key=lambda bundle: bundle.sie_id.casefold()))
    if as_json:
        out.print_json(json.dumps([asdict(row) for row in rows]))
    else:
        for row in rows:
            what = row.reason if row.verdict == "refused" else f"{row.verdict} -> {', '.join(row.outputs)}"
            mark = "refused" if row.verdict == "refused" else "compiles"
            out.print(f"{mark:8}  {row.id}  ({row.adapter}): {what}", markup=False)
        refused = sum(row.verdict == "refused" for row in rows)
        say(f"{len(rows)} profiles of {len(found)} bundles: {len(rows) - refused} compile, {refused} are refused")
    if mistakes:
        raise DiagnosticError(mistakes)
