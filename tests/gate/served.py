"""A frontend process in front of a Triton that needs no graphs, with a model that encodes and one that scores."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
from compiler import tiny
from contract.test_openapi_over_http import SCORER
from frontend.fake_triton import FakeTriton
from frontend.process import FrontendProcess
from frontend.repository import write_repository
from sie_frontend.manifest import dump_manifest, read_manifest

SCORER_ID = "acme/scorer"


def write_both(folder: Path) -> Path:
    """A repository with `acme/tiny`, which encodes, and `acme/scorer`, which scores."""
    repository = write_repository(folder / "repository")
    scores = SCORER.replace(tiny.MODEL_ID, SCORER_ID)
    other = write_repository(folder / "scorer" / "repository", scores, num_labels=1)
    for model in other.glob("acme__*"):
        model.rename(repository / model.name)
    whole = read_manifest(repository)
    whole = msgspec.structs.replace(whole, models={**whole.models, **read_manifest(other).models})
    (repository / "manifest.json").write_bytes(dump_manifest(whole))
    return repository


@contextlib.contextmanager
def frontend_process(folder: Path, *arguments: str | Path, **environment: str) -> Iterator[FrontendProcess]:
    """The program as a container runs it, once it is ready."""
    with FakeTriton() as triton:
        given = ("--repository", write_both(folder), "--triton-url", triton.url, *arguments)
        with FrontendProcess(folder / "frontend.log", *given, **environment) as frontend:
            frontend.wait_ready()
            yield frontend
