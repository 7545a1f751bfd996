"""Everything that `verify` asks of a repository: digests, structure, Triton's rules, numeric parity.

The reference outputs are stored in the repository, so that it can be checked again without torch, hub or network.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from sie_frontend.manifest import (
    MANIFEST_NAME,
    Built,
    Manifest,
)

from sie_triton.backends.releases import OLDEST
from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where
from sie_triton.formats import Precision
from sie_triton.lint import lint_repository
from sie_triton.repository.publish import MANIFEST_DIGEST_NAME, file_digest, manifest_digest_line
from sie_triton.verify.model_runner import read_model_config
from sie_triton.verify.parity import check_parity, measure
from sie_triton.verify.public_model import public_model


def verify_repository(repository: Path, manifest: Manifest) -> list[Diagnostic]:
    """Every check, cheap ones first; parity only if all files are what the manifest says."""
    problems = [*check_files(repository, manifest), *check_structure(repository, manifest)]
    if problems:
        return problems
    for name, built in manifest.built.items():
        model = public_model(repository, manifest, name)
        for precision, config_name in configs_by_precision(built).items():
            try:
                measured = measure(repository, model, config_name)
            except DiagnosticError as error:
                problems += error.diagnostics
                continue
            problems += check_parity(repository, model, measured, precision, built.accepted)
            for tensor, distance in measured.items():
                recorded = built.parity.get(precision, {}).get(tensor)
                if recorded is None or recorded.cases != distance.cases:
                    problems.append(
                        Diagnostic(
                            "SIE505",
                            f"the manifest records no parity for `{tensor}` of `{name}` in {precision}",
                            Where(repository),
                        )
                    )
    return problems


def configs_by_precision(built: Built) -> dict[Precision, str]:
    """Each precision that a public model computes in, with the name of a configuration that does."""
    found: dict[Any, str] = {}
    for device, precision in built.precisions.items():
        found.setdefault(precision, built.configs[device])
    return found


def check_files(repository: Path, manifest: Manifest) -> Iterator[Diagnostic]:
    """Digest by digest, the manifest's own first, and nothing more than the manifest names."""
    yield from _check_manifest_digest(repository)
    expected = {
        f"{name}/{file}": digest
        for name, model in manifest.triton_models.items()
        for file, digest in model.files.items()
    }
    for relative, digest in sorted(expected.items()):
        path = repository / relative
        if not path.is_file():
            yield _damaged("SIE510", f"`{relative}` is missing", path)
        elif file_digest(path) != digest:
            yield _damaged("SIE511", f"`{relative}` is not what was built: its digest differs", path)
    present = {p.relative_to(repository).as_posix() for p in repository.rglob("*") if p.is_file() or p.is_symlink()}
    for relative in sorted(present - set(expected) - {MANIFEST_NAME, MANIFEST_DIGEST_NAME}):
        text = f"`{relative}` is not named in the manifest"
        yield Diagnostic("SIE512", text, Where(repository / relative), "remove it")


def _check_manifest_digest(repository: Path) -> Iterator[Diagnostic]:
    """The manifest names every file's digest but its own, which lies beside it."""
    path = repository / MANIFEST_DIGEST_NAME
    if not path.is_file():
        yield _damaged("SIE510", f"`{MANIFEST_DIGEST_NAME}` is missing", path)
    elif path.read_bytes() != manifest_digest_line((repository / MANIFEST_NAME).read_bytes()):
        text = f"`{MANIFEST_NAME}` is not what was built: `{MANIFEST_DIGEST_NAME}` holds another digest"
        yield _damaged("SIE511", text, repository / MANIFEST_NAME)


def _damaged(code: str, message: str, path: Path) -> Diagnostic:
    return Diagnostic(code, message, Where(path), "rebuild with `sie-triton build --force -m ID`")


def _oldest_release(manifest: Manifest) -> str:
    """The oldest release of Triton that can serve the repository: ONNX Runtime computes 8-bit weights since 25.06."""
    coarse = any("int8" in built.precisions.values() for built in manifest.built.values())
    return "25.06" if coarse else str(OLDEST)


def check_structure(repository: Path, manifest: Manifest) -> Iterator[Diagnostic]:
    """Every configuration states what the manifest says, and breaks none of Triton's rules that the linter knows."""
    for name, model in manifest.triton_models.items():
        directory = repository / name
        for path in (*directory.glob("config.pbtxt"), *directory.glob("configs/*.pbtxt")):
            try:
                config = read_model_config(path)
            except text_format.ParseError as error:
                yield Diagnostic("SIE520", f"Triton's schema refuses the configuration: {error}", Where(path))
                continue
            for field, specs in (("input", model.inputs), ("output", model.outputs)):
                written = [(t.name, tuple(t.dims)) for t in getattr(config, field)]
                if written != [(t.name, t.dims) for t in specs]:
                    yield _damaged("SIE521", f"the {field}s of `{name}` are not those of the manifest", path)
    for finding in lint_repository(repository, triton=_oldest_release(manifest)):
        if finding.severity == "error":
            where = Where(finding.path, finding.line or 0)
            yield Diagnostic("SIE522", f"{finding.rule_id}: {finding.message}", where, finding.hint)
