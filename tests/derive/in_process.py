"""A folder without a bundle, built in this process and asked as the frontend asks: reader, graphs, heads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sie_frontend.manifest import read_manifest
from sie_frontend.outputs.heads import Heads

from derive.test_derived_families import derived
from sie_triton.bundle import expand
from sie_triton.compiler.build import compile_models
from sie_triton.compiler.options import BuildOptions, select
from sie_triton.planning.plan import GraphOptions
from sie_triton.verify.model_runner import ModelRunner
from sie_triton.verify.public_model import CaseCall, input_of, public_model


class Derived:
    """The repository of one checkpoint, whose bundle is derived. `said` is what the build announced."""

    def __init__(self, checkpoint: Path, repository: Path) -> None:
        made = derived(checkpoint)
        self.text = made.text
        self.said: list[str] = []
        options = BuildOptions(
            repository,
            default_weights=checkpoint,
            graphs=GraphOptions(devices=("cpu",)),
            announce=self.said.append,
        )
        compile_models([select(made.bundle, expand(made.bundle))], options)
        manifest = read_manifest(repository)
        [(_, self.model)] = manifest.models.items()
        [name] = self.model.triton_models
        self.reader: Any = public_model(repository, manifest, name).reader
        self.runner = ModelRunner(repository, name)
        self.built = manifest.built[name]
        self.call = CaseCall(self.model.profiles["default"])
        self.heads = Heads(self.model.heads, repository, [input_of(self.model, name)[1].reads], self.model.loadtime)

    def sparse(self, texts: Sequence[str], *, is_query: bool) -> list[tuple[list[int], np.ndarray]]:
        """Ids and weights of each text."""
        head: Any = self.model.heads["sparse"]
        rows = self.reader.rows(texts, self.call, is_query=is_query)
        found = [
            head.read(
                self._run(row, head.tensors(self.call, is_query=is_query)),
                row,
                self.call,
                self.heads,
                is_query=is_query,
            )
            for row in rows
        ]
        return [(vector.indices.tolist(), vector.values) for vector in found]

    def scores(self, query: str, documents: Sequence[str]) -> list[float]:
        """The score of each document."""
        head: Any = self.model.heads["score"]
        rows = self.reader.pairs(query, documents, self.call)
        return [float(self._run(row, [head.tensor])[head.tensor].item()) for row in rows]

    def _run(self, row: Any, names: Sequence[str]) -> dict[str, np.ndarray]:
        """One row alone; nothing is run where nothing is asked for."""
        if not names:
            return {}
        found = self.runner.run(self.reader.batch([row], row.cost), list(names))
        return {name: array[0] for name, array in found.items()}
