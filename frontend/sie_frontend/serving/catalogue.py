"""What is served at one moment: ids, and what answers for each. Never changed, only replaced by another.

A request holds the catalogue that it began with until it is answered. So it never sees two versions of a model, however
many parts it is computed in, and the Triton models of an older catalogue are needed as long as it has users.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from sie_frontend.manifest import Manifest
from sie_frontend.serving.lora import weights_of
from sie_frontend.serving.served import ServedInput, ServedModel, Shared


class Catalogue:
    """The models of a manifest by id, and the queues of its public Triton models by name.

    `manifest` may be exchanged for one that says more of the same models.

    `unit_of` names what is loaded and unloaded for an id, where models are loaded on demand.
    """

    def __init__(
        self, manifest: Manifest, models: Mapping[str, ServedModel], inputs: Mapping[str, ServedInput]
    ) -> None:
        self.manifest = manifest
        self.models = models
        self.inputs = inputs
        self.unit_of: Mapping[str, str] = {}
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()

    def served(self, model_id: str, options: Mapping[str, Any]) -> ServedModel:
        """The model of an id and the options of a call. Raises `WireError` (400) for weights that are not built in."""
        return self.models[weights_of(model_id, self.manifest.models, options)]

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """A request is answered out of it."""
        self._users += 1
        self._unused.clear()
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._unused.set()

    @property
    def busy(self) -> bool:
        """Whether anything is answered out of it."""
        return self._users > 0

    async def unused(self) -> None:
        """Return when nothing is answered out of it any more."""
        await self._unused.wait()


# The catalogue of the present request.
_HELD: ContextVar[Catalogue | None] = ContextVar("sie_frontend_catalogue", default=None)


@contextlib.contextmanager
def held(present: Catalogue) -> Iterator[Catalogue]:
    """The catalogue of this request: the one that it began with, or from now on the `present` one."""
    found = _HELD.get()
    if found is not None:
        yield found
        return
    token = _HELD.set(present)
    try:
        with present.used():
            yield present
    finally:
        _HELD.reset(token)


def make_catalogue(
    manifest: Manifest,
    repository: Path,
    shared: Shared,
    old: Catalogue | None = None,
) -> Catalogue:
    """The catalogue of a manifest, whose files lie in `repository`. What did not change is taken over from the `old`.

    It reads tokenizers and tables: call it in a thread where requests are answered. Raises `OSError`, `ValueError` and
    whatever the files' own libraries raise where a file cannot be read.
    """
    kept = unchanged(old.manifest, manifest) if old else frozenset()
    models, inputs = {}, {}
    for model_id, model in manifest.models.items():
        if old and model_id in kept:
            models[model_id] = old.models[model_id]
        else:
            models[model_id] = ServedModel(model_id, model, repository, shared.settings)
        # Ids that differ in how items are prepared share a Triton model: its runs bear the first one, the bundle's own.
        for name, entry in model.inputs.items():
            if entry.triton_model in inputs:
                continue
            if old and model_id in kept:
                inputs[entry.triton_model] = old.inputs[entry.triton_model]
            else:
                reader = models[model_id].readers[name]
                inputs[entry.triton_model] = ServedInput(model_id, entry, reader, shared)
    return Catalogue(manifest, models, inputs)


def unchanged(old: Manifest, new: Manifest) -> frozenset[str]:
    """The ids that are the same in both, and so are all that share a Triton model with them."""
    alike = {
        model_id
        for model_id, model in new.models.items()
        if model == old.models.get(model_id)
        and all(new.triton_models.get(name) == old.triton_models.get(name) for name in new.parts(model))
    }
    while True:
        touched = {name for i, model in new.models.items() if i not in alike for name in model.triton_models}
        still = {i for i in alike if not touched.intersection(new.models[i].triton_models)}
        if still == alike:
            return frozenset(alike)
        alike = still
