"""A `Pipeline` as the chain that one kind of output needs; raises `DiagnosticError` where it is another kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sie_triton.diagnostics import DiagnosticError

from .files import unsupported
from .pipeline import (
    DenseLayer,
    Layer,
    LayerNormLayer,
    LayerStep,
    MaskStep,
    NormalizeLayer,
    Pipeline,
    Pooling,
    PoolingStep,
    SpladeStep,
)


@dataclass(frozen=True, slots=True)
class DenseChain:
    """Layers on every token, a pooling, layers on the pooled vector."""

    pooling: Pooling
    include_prompt: bool
    token_layers: tuple[Layer, ...]
    layers: tuple[Layer, ...]

    @property
    def normalizes(self) -> bool:
        """Whether the vector has unit length when it leaves the chain."""
        return bool(self.layers) and isinstance(self.layers[-1], NormalizeLayer)

    @property
    def before_normalizing(self) -> tuple[Layer, ...]:
        """The layers on the pooled vector without the Normalize modules at their end."""
        kept = list(self.layers)
        while kept and isinstance(kept[-1], NormalizeLayer):
            kept.pop()
        return tuple(kept)

    def width(self, hidden: int | None) -> int | None:
        """The length of a vector, if it is known."""
        for layer in reversed(self.layers):
            if isinstance(layer, DenseLayer):
                return layer.out_features
        before = last_width(self.token_layers) or hidden
        return before * (self.pooling.count("+") + 1) if before else None


@dataclass(frozen=True, slots=True)
class TokenChain:
    """Layers on every token; `skiplist` are the words whose vectors the checkpoint would drop."""

    layers: tuple[Layer, ...]
    normalizes: bool
    skiplist: tuple[str, ...]


def last_width(layers: Sequence[Layer]) -> int | None:
    """The width behind a chain of layers, or None if the chain does not change it."""
    for layer in reversed(layers):
        if isinstance(layer, DenseLayer):
            return layer.out_features
    return None


def dense_chain(pipeline: Pipeline, folder: Path) -> DenseChain:
    """A pipeline that ends in one vector per text."""
    _check_task(pipeline, folder, "feature-extraction")
    poolings = [index for index, step in enumerate(pipeline.steps) if isinstance(step, PoolingStep)]
    if len(poolings) != 1:
        raise _unsupported(folder, f"{len(poolings)} Pooling modules; a dense vector needs one")
    cut = poolings[0]
    pooling = pipeline.steps[cut]
    assert isinstance(pooling, PoolingStep)
    # What is done to the tokens behind the pooling no longer reaches the vector, nor does what is done to a vector
    # that is not there yet.
    before = _layers(pipeline, folder, range(cut))
    after = _layers(pipeline, folder, range(cut + 1, len(pipeline.steps)))
    early = [step.layer for step in before if step.level == "sentence" and not isinstance(step.layer, NormalizeLayer)]
    if early:
        raise _unsupported(folder, f"a `{type(early[0]).__name__}` on the pooled vector in front of its Pooling")
    return DenseChain(
        pooling=pooling.mode,
        include_prompt=pooling.include_prompt,
        token_layers=tuple(step.layer for step in before if step.level == "token"),
        layers=tuple(step.layer for step in after if step.level == "sentence"),
    )


def sparse_chain(pipeline: Pipeline, folder: Path) -> SpladeStep:
    """A pipeline that ends in weights over the vocabulary."""
    _check_task(pipeline, folder, "fill-mask")
    first = pipeline.steps[0] if pipeline.steps else None
    if not isinstance(first, SpladeStep) or len(pipeline.steps) != 1:
        raise _unsupported(folder, f"the modules {pipeline}; a sparse vector needs one SpladePooling and no more")
    return first


def token_chain(pipeline: Pipeline, folder: Path) -> TokenChain:
    """A pipeline that ends in one vector per token."""
    _check_task(pipeline, folder, "feature-extraction")
    layers: list[Layer] = []
    skiplist: tuple[str, ...] = ()
    for step in pipeline.steps:
        if isinstance(step, MaskStep):
            skiplist = step.skiplist
        elif isinstance(step, LayerStep) and not isinstance(step.layer, LayerNormLayer):
            # Checkpoints of single vectors keep their projection as a layer on the pooled vector; late-interaction
            # readers apply it to every token.
            layers.append(step.layer)
        elif not isinstance(step, PoolingStep):
            raise _unsupported(folder, f"the modules {pipeline}; token vectors need Dense layers and a mask")
    # SIE normalises each token behind the chain itself.
    normalizes = bool(layers) and isinstance(layers[-1], NormalizeLayer)
    kept = layers[:-1] if normalizes else layers
    return TokenChain(tuple(kept), normalizes, skiplist)


def _layers(pipeline: Pipeline, folder: Path, places: range) -> list[LayerStep]:
    found = []
    for place in places:
        step = pipeline.steps[place]
        if not isinstance(step, LayerStep):
            raise _unsupported(folder, f"the modules {pipeline}; this adapter serves one dense vector per text")
        found.append(step)
    return found


def _check_task(pipeline: Pipeline, folder: Path, task: str) -> None:
    if pipeline.task != task:
        raise _unsupported(folder, f"a transformer for `{pipeline.task}`, where this adapter needs `{task}`")


def _unsupported(folder: Path, what: str) -> DiagnosticError:
    return DiagnosticError([unsupported(folder / "modules.json", what)])
