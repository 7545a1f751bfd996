"""`docs/models.md`: how every public bundle is compiled, or why it is not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from sie_triton.bundle import Bundle
from sie_triton.checkpoint import DECLARE_CODE, FAMILIES
from sie_triton.pages.markdown import code, listed, table
from sie_triton.pages.public_bundles import TABLE, public_bundles
from sie_triton.planning.catalogue import CatalogueRow, catalogue_table

_HEAD = """\
# Models

Generated from the catalogue by `python -m sie_triton.pages`; do not edit.

These are {bundles} bundles of SIE's public catalogue, with {profiles} profiles: {compile} bundles compile with at
least one profile, {refused} are refused. `sie-triton catalog --bundles DIR` judges a folder of your own the same way.

"Compiles" means that the adapter has a recipe and that the options are ones that the recipe honours. Each recipe is
built and compared with another implementation on small checkpoints of its architectures in the tests. Of the
checkpoints below, only `sentence-transformers/all-MiniLM-L6-v2` was built from its real weights; every build is
compared with another implementation before it is published, so a checkpoint that would differ is refused then. What
checkpoints with code of their own need is [below](#checkpoints-that-name-code-of-their-own).

A client addresses the profile `default` by the model's name, every other as `model:profile`.
"""

_LAYOUTS = """
## Checkpoints that name code of their own

Their `config.json` has an `auto_map`. Where transformers has the architecture, none of that code is needed: keys and
tensor names are translated while the checkpoint is read, into a temporary folder that every loader sees, and nothing is
written to the checkpoint. A key, a value or a tensor that transformers' class would not obey ends the build with its
name (`SIE407`). What transformers lacks needs `--trust-remote-code` and an adapter that loads the architecture through
the hub (`trust_remote_code: true` in the bundle); that is not tested.

The models are examples: those of SIE's catalogue and integrations. The layouts are known from the public code of their
authors and are tested with small checkpoints that the tests write in them; the authors' code itself was never run.
"""


def render(source: Path = TABLE) -> str:
    """The page, of a table of facts or a folder of bundles. Raises `DiagnosticError` if a bundle is not valid."""
    ordered = sorted(public_bundles(source).values(), key=lambda bundle: bundle.sie_id.casefold())
    good = [bundle for bundle in ordered if any(row.verdict != "refused" for row in catalogue_table([bundle]))]
    refused = [bundle for bundle in ordered if bundle not in good]
    profiles = len(catalogue_table(ordered))
    head = _HEAD.format(bundles=len(ordered), profiles=profiles, compile=len(good), refused=len(refused))
    return "\n".join(
        [
            head,
            "## What compiles\n",
            table(("Model", "Profiles", "Adapter", "Outputs", "Recipe, or why not"), _rows(good, mixed=True)),
            "\n## What is refused\n",
            table(("Model", "Profiles", "Adapter", "Outputs", "Why"), _rows(refused)),
            _LAYOUTS,
            table(("Layout", "For example", "Compiled as transformers'", "What differs from it"), _layouts()),
            "",
        ]
    )


def _layouts() -> list[Sequence[str]]:
    translated = [(family.name, family.models, family.native or "", family.differs) for family in FAMILIES]
    return [
        (name, listed(models), listed(native.split(", ")) if native else "not compiled", differs)
        for name, models, native, differs in (*translated, *DECLARE_CODE)
    ]


def _rows(bundles: Iterable[Bundle], *, mixed: bool = False) -> list[Sequence[str]]:
    """One line for the profiles of a bundle that share everything which is shown; `mixed` marks the refused ones."""
    lines: list[Sequence[str]] = []
    for bundle in bundles:
        groups: dict[tuple[object, ...], list[CatalogueRow]] = {}
        for row in catalogue_table([bundle]):
            groups.setdefault((row.adapter, row.outputs, row.verdict, row.reason), []).append(row)
        for rows in groups.values():
            first = rows[0]
            verdict = first.reason if first.verdict == "refused" else code(first.verdict)
            if first.verdict == "refused" and mixed:
                verdict = f"refused: {verdict}"
            lines.append(
                (
                    code(bundle.sie_id),
                    listed(row.profile for row in rows),
                    code(first.adapter),
                    ", ".join(first.outputs),
                    verdict,
                )
            )
    return lines
