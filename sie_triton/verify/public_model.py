"""A public Triton model as it is verified and tuned: what makes its rows, and what of its outputs is compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sie_frontend.contract.requests import Limits
from sie_frontend.images.options import IMAGE_OPTIONS
from sie_frontend.manifest import Manifest, Model, ModelInput
from sie_frontend.modalities import MODALITIES
from sie_frontend.outputs.heads import Heads
from sie_frontend.outputs.kind import Comparable
from sie_frontend.outputs.table import Head, OutputType
from sie_frontend.reference import Case
from sie_frontend.rows import Reader, Row
from sie_frontend.settings import SettingsError

from sie_triton.diagnostics import Diagnostic, DiagnosticError


@dataclass(frozen=True, slots=True)
class CaseCall:
    """How cases are read: with the default profile's options."""

    options: Mapping[str, Any]
    instruction: str | None = None


@dataclass(frozen=True, slots=True)
class OpenHead:
    """A head of an id that is served, and what reading it needs."""

    entry: Head
    heads: Heads


@dataclass(frozen=True, slots=True)
class PublicModel:
    """One public Triton model. `options` are the default profile's runtime options of an id that it serves.

    `heads` are those of all ids that it serves, `modality` is that of its items, and `run_cost` what the rows of one
    run may cost on a CPU: what one row does, where nobody says.
    """

    name: str
    reader: Reader
    options: Mapping[str, Any]
    comparables: tuple[Comparable, ...]
    heads: tuple[OpenHead, ...] = ()
    modality: str = "text"
    run_cost: int = 1

    @property
    def call(self) -> CaseCall:
        """How cases are asked for. How pictures are seen is no matter of the checkpoint's."""
        return CaseCall({name: value for name, value in self.options.items() if name not in IMAGE_OPTIONS})

    def rows(self, cases: Sequence[Case]) -> list[Row]:
        """The row of each case, as the frontend makes it."""
        call = self.call
        rows: list[Row] = []
        for case in cases:
            if case.document is not None and case.query is not None:
                rows += self.reader.pairs(case.query, [case.document], call)
            elif case.document is not None:
                rows += self.reader.rows([case.document], call, is_query=False)
            else:
                rows += self.reader.rows([case.query], call, is_query=True)
        return rows


def open_reader(modality: str, reads: Any, repository: Path, profiles: Mapping[str, Mapping[str, Any]]) -> Reader:
    """The reader of one input, as the frontend opens it. Raises `DiagnosticError` where that needs another package."""
    try:
        return MODALITIES[modality].open(reads, repository, profiles=profiles, limits=Limits())
    except SettingsError as error:
        raise DiagnosticError([Diagnostic("SIE401", str(error))]) from None


def comparables_of(heads: Iterable[Head]) -> tuple[Comparable, ...]:
    """What some heads are compared on, each thing once."""
    return tuple(dict.fromkeys(comparable for head in heads for comparable in head.comparables))


def open_heads(
    entries: Mapping[OutputType, Head], repository: Path, reads: Any, loadtime: Mapping[str, Any]
) -> tuple[OpenHead, ...]:
    """The heads of one id, opened; `reads` is the entry of its input."""
    heads = Heads(entries, repository, [reads], loadtime)
    return tuple(OpenHead(entry, heads) for entry in entries.values())


def served_by(manifest: Manifest, triton_model: str) -> dict[str, Model]:
    """The models that a public Triton model serves, by id, or served: they share its tokenizer and graphs."""
    known = (*manifest.previous.items(), *manifest.models.items())
    return {i: model for i, model in known if triton_model in model.triton_models}


def input_of(model: Model, triton_model: str) -> tuple[str, ModelInput]:
    """The modality and the input that a public Triton model is of a model that it serves."""
    return next((name, entry) for name, entry in model.inputs.items() if entry.triton_model == triton_model)


def public_model(repository: Path, manifest: Manifest, triton_model: str) -> PublicModel:
    """A public model of a built repository."""
    models = list(served_by(manifest, triton_model).values())
    modality, entry = input_of(models[0], triton_model)
    return PublicModel(
        triton_model,
        open_reader(modality, entry.reads, repository, models[0].profiles),
        models[0].profiles["default"],
        comparables_of(head for model in models for head in model.heads.values()),
        tuple(
            head
            for model in models
            for head in open_heads(model.heads, repository, input_of(model, triton_model)[1].reads, model.loadtime)
        ),
        modality,
        entry.batching.get("cpu", next(iter(entry.batching.values()))).run_tokens,
    )
