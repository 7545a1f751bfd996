"""What whoever supervises Triton on this machine knows of models whose processes ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sie_frontend.contract import errors
from sie_frontend.manifest import Manifest, Model
from sie_frontend.residency.state import LoadFailure

ERROR_CLASS = "ModelProcessEnded"


@dataclass(frozen=True, slots=True)
class Ailment:
    """Why a Triton model went down, how often in a row, and whether it is `failing`: down after many deaths."""

    cause: str
    times: int
    failing: bool


# By Triton model; those that are well, and have been for a while, are not in it.
Ailments = Callable[[], Mapping[str, Ailment]]


def ailment_of(model: Model, manifest: Manifest, ailments: Mapping[str, Ailment]) -> Ailment | None:
    """The worst of a model's ailments and of what it is composed of; None if it is well."""
    if not ailments:
        return None
    parts = [(name, manifest.triton_models.get(name)) for name in model.triton_models]
    names = {part for name, entry in parts for part in (name, *(entry.depends_on if entry else ()))}
    found = [ailments[name] for name in names if name in ailments]
    return max(found, key=lambda one: (one.failing, one.times), default=None)


def as_failure(ailment: Ailment) -> LoadFailure:
    """As `/v1/models` tells it."""
    return LoadFailure(ailment.cause, ERROR_CLASS, ailment.times, permanent=False)


def refusal(model_id: str, ailment: Ailment | None) -> errors.WireError:
    """What a request gets whose model is not ready: that it is being loaded, or why that goes on failing."""
    if ailment is None or not ailment.failing:
        return errors.model_loading(model_id)
    return errors.model_load_failed(
        model_id, ailment.cause, error_class=ERROR_CLASS, attempts=ailment.times, permanent=False
    )
