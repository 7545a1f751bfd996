"""`docs/models.md`: the models that are shipped, where they come from, and why others are not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sie_triton.bundle import Bundle, expand, load_bundles
from sie_triton.bundle.model import DEFAULT_PROFILE
from sie_triton.checkpoint import DECLARE_CODE, FAMILIES
from sie_triton.cli import shipped_bundles
from sie_triton.diagnostics import DiagnosticError
from sie_triton.pages.fastembed_lists import bundle_of, listed_models
from sie_triton.pages.markdown import code, listed, table
from sie_triton.pages.public_bundles import BESIDE, TABLE, public_bundles
from sie_triton.planning.catalogue import CatalogueRow, catalogue_table

_HEAD = """\
# Models

Generated from the bundles and the catalogue by `python -m sie_triton.pages`; do not edit.

The bundles of {shipped} models are shipped: {from_sie} of SIE's public catalogue and {from_fastembed} of Fastembed's
lists, {from_both} of them of both. Of the catalogue's {bundles} bundles, {compile} have a profile that compiles.
`sie-triton catalog --bundles DIR` judges a folder of your own the same way, and [add-a-bundle.md](add-a-bundle.md)
shows how to write a bundle for any other checkpoint.

"Compiles" means that the adapter has a recipe and that the options are ones that the recipe honours. Each recipe is
built and compared with another implementation on small checkpoints of its architectures in the tests. Of the
checkpoints below, only `sentence-transformers/all-MiniLM-L6-v2` was built from its real weights; every build is
compared with another implementation before it is published, so a checkpoint that would differ is refused then. What
checkpoints with code of their own need is [below](#checkpoints-that-name-code-of-their-own).

## What is shipped

A client addresses the profile `default` by the model's name, every other as `model:profile`. Names are exact, upper
and lower case included. A bundle names the revision that SIE's catalogue names; where that has none, the newest commit
of the repository is built.
"""

_SIE = """
## What differs from SIE's files

- These have only a `candle` profile there, so that their bare ids are a 404; here the bare id gives the same vectors:
  {added}.
- Profiles whose weights are those of a LoRA adapter are left out, so that a build of the model fetches no weights of
  another author: {left_out}. A bundle of your own may have them ([checkpoints.md](checkpoints.md#lora-adapters)).
- Settings of SIE's own engine and options that an adapter does not read are left out, and so is
  `trust_remote_code: true`, which no shipped model needs.
"""

_LORA = "a LoRA adapter of another author; a bundle of your own may have the profile"

_FASTEMBED = """\
## What differs from Fastembed

Models that Fastembed's lists share with SIE's catalogue follow SIE. All others give what Fastembed's `embed`,
`query_embed` and `passage_embed` give; none of these puts a prefix in front of a text, and a request may ask for one by
its options `query_template` and `doc_template`. What is not in this table is the same by Fastembed's own code and
lists, apart from what [migrate-from-fastembed.md](migrate-from-fastembed.md#what-differs) says of all models. The
weights are those of the model's author, of which Fastembed's files are exports. Fastembed knows names whatever their
case; here `Snowflake/snowflake-arctic-embed-s` has SIE's spelling, and the others of its family have Fastembed's.
"""

_NOT_SHIPPED = """
## What is not shipped

These are the models, and the profiles of shipped models, of SIE's catalogue and of Fastembed's lists of text models.
Of its models for images, [migrate-from-fastembed.md](migrate-from-fastembed.md#images) says which are served.
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

_SIE_NAME, _FASTEMBED_NAME = "SIE", "Fastembed"


def render(source: Path = TABLE) -> str:
    """The page, of SIE's catalogue as a table of facts or a folder of bundles, and of the shipped bundles.

    Raises `DiagnosticError` if a bundle is not valid.
    """
    catalogue = public_bundles(source)
    found, mistakes = load_bundles(shipped_bundles())
    if mistakes:
        raise DiagnosticError(mistakes)
    shipped = _sorted(found.values())
    return "\n".join(
        [
            _HEAD.format(**_counts(shipped, catalogue)),
            table(("Model", "From", "Profiles", "Adapters", "Outputs", "Recipes"), _shipped_rows(shipped, catalogue)),
            _SIE.format(added=listed(_added(shipped, catalogue)), left_out=listed(_left_out(shipped, catalogue))),
            _FASTEMBED,
            table(("Model", "What differs"), _differences(shipped)),
            _NOT_SHIPPED,
            table(("Model or profile", "From", "Why"), _not_shipped(shipped, catalogue)),
            _LAYOUTS,
            table(("Layout", "For example", "Compiled as transformers'", "What differs from it"), _layouts()),
            "",
        ]
    )


def render_left_out(source: Path = TABLE) -> str:
    """The table that the command line reads: every model that is not served, and why. Raises as `render`."""
    found, mistakes = load_bundles(shipped_bundles())
    if mistakes:
        raise DiagnosticError(mistakes)
    tried = {model.name: model.tried for model in listed_models()}
    lines = ["# Models that are left out: id | why | flag. Generated by `python -m sie_triton.pages`; do not edit."]
    for name, _, why in _not_shipped(_sorted(found.values()), public_bundles(source)):
        known = name.strip("`")
        if tried.get(known) != "always":
            lines.append(
                " | ".join([known, why, *(["--trust-remote-code"] if tried.get(known) == "with code" else [])])
            )
    return "\n".join([*lines, ""])


def _sorted(bundles: Iterable[Bundle]) -> list[Bundle]:
    return sorted(bundles, key=lambda bundle: bundle.sie_id.casefold())


def _counts(shipped: Sequence[Bundle], catalogue: Mapping[str, Bundle]) -> dict[str, int]:
    origins = [_origins(bundle, catalogue) for bundle in shipped]
    return {
        "shipped": len(shipped),
        "from_sie": sum(_SIE_NAME in names for names in origins),
        "from_fastembed": sum(_FASTEMBED_NAME in names for names in origins),
        "from_both": sum(len(names) == 2 for names in origins),
        "bundles": len(catalogue),
        "compile": sum(bool(_compiling(bundle)) for bundle in catalogue.values()),
    }


def _compiling(bundle: Bundle) -> list[CatalogueRow]:
    return [row for row in catalogue_table([bundle]) if row.verdict != "refused"]


def _origins(bundle: Bundle, catalogue: Mapping[str, Bundle]) -> list[str]:
    """Whose lists name the model."""
    by_fastembed = any(bundle_of(model.name, [bundle]) for model in listed_models())
    names = ((_SIE_NAME, bundle.sie_id in catalogue or bundle.sie_id in BESIDE), (_FASTEMBED_NAME, by_fastembed))
    return [name for name, has in names if has]


def _shipped_rows(bundles: Iterable[Bundle], catalogue: Mapping[str, Bundle]) -> list[Sequence[str]]:
    return [_shipped_row(bundle, _origins(bundle, catalogue)) for bundle in bundles]


def _shipped_row(bundle: Bundle, origins: Iterable[str]) -> Sequence[str]:
    rows = catalogue_table([bundle])
    return (
        code(bundle.sie_id),
        ", ".join(origins),
        listed(row.profile for row in rows),
        listed(dict.fromkeys(row.adapter for row in rows)),
        ", ".join(bundle.outputs),
        listed(dict.fromkeys(row.verdict for row in rows)),
    )


def _added(shipped: Iterable[Bundle], catalogue: Mapping[str, Bundle]) -> list[str]:
    """The models whose bare id is served here and not by SIE."""
    return [
        bundle.sie_id
        for bundle in shipped
        if bundle.sie_id in catalogue and DEFAULT_PROFILE not in catalogue[bundle.sie_id].profiles
    ]


def _left_out(shipped: Iterable[Bundle], catalogue: Mapping[str, Bundle]) -> list[str]:
    """The ids of SIE's that are profiles of a shipped model, and not shipped."""
    return [
        profile.model_id
        for bundle in shipped
        if bundle.sie_id in catalogue
        for profile in expand(catalogue[bundle.sie_id])
        if profile.profile not in bundle.profiles
    ]


def _differences(shipped: Sequence[Bundle]) -> list[Sequence[str]]:
    rows = [
        (code(bundle.sie_id), " ".join(f"{difference.says}." for difference in model.differs))
        for model in listed_models()
        if model.differs and (bundle := bundle_of(model.name, shipped))
    ]
    return sorted(rows, key=lambda row: row[0].casefold())


def _not_shipped(shipped: Sequence[Bundle], catalogue: Mapping[str, Bundle]) -> list[Sequence[str]]:
    """Every model of either source that has no bundle, and every profile that was left out of one."""
    left_out = {model.name: model.left_out for model in listed_models() if model.left_out}
    reasons = {name: [reason] for name, reason in left_out.items()}
    kept = {bundle.sie_id for bundle in shipped}
    profiles = set(_left_out(shipped, catalogue))
    for bundle in catalogue.values():
        for row in catalogue_table([bundle]):
            name = row.id if bundle.sie_id in kept else bundle.sie_id
            reason = row.reason or (_LORA if row.id in profiles else "")
            if reason and (bundle.sie_id not in kept or row.id in profiles):
                reasons.setdefault(name, []).append(reason)
    rows: list[Sequence[str]] = []
    for name, why in sorted(reasons.items(), key=lambda item: item[0].casefold()):
        by_sie = name in catalogue or name in profiles
        origins = [*([_SIE_NAME] if by_sie else []), *([_FASTEMBED_NAME] if name in left_out else [])]
        rows.append((code(name), ", ".join(origins), "; ".join(dict.fromkeys(why))))
    return rows


def _layouts() -> list[Sequence[str]]:
    translated = [(family.name, family.models, family.native or "", family.differs) for family in FAMILIES]
    return [
        (name, listed(models), listed(native.split(", ")) if native else "not compiled", differs)
        for name, models, native, differs in (*translated, *DECLARE_CODE)
    ]
