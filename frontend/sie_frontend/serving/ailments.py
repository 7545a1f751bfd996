"""What whoever supervises Triton on this machine knows of models whose processes ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sie_frontend.contract import errors
from sie_frontend.manifest import Manifest, Model
from sie_frontend.residency.state import LoadFailure
from sie_frontend.triton.client import Late

ERROR_CLASS = "ModelProcessEnded"


@dataclass(frozen=True, slots=True)
class Ailment:
    """Why a Triton model went down, how often in a row, and whether it is `down` now; `failing` after many deaths.

    `number` counts the deaths of all models: a later one has a larger number.
    """

    cause: str
    times: int
    down: bool
    failing: bool
    number: int = 0


class Ailments:
    """The ailments by Triton model; those that are well, and have been for a while, are not among them.

    Any thread may ask, by calling it, and say that something has `changed`; whoever follows is told in that thread.
    The other way round, `suspect` tells whoever supervises of a Triton model that does not answer, and for how many
    seconds; it returns at once.
    """

    def __init__(self, ask: Callable[[], Mapping[str, Ailment]] = dict, suspect: Late = lambda *_: None) -> None:
        self._ask = ask
        self.suspect = suspect
        self._followers: list[Callable[[], None]] = []

    def __call__(self) -> Mapping[str, Ailment]:
        """What is known now."""
        return self._ask()

    def follow(self, follower: Callable[[], None]) -> None:
        """Call `follower`, which must return soon, after each change."""
        self._followers.append(follower)

    def unfollow(self, follower: Callable[[], None]) -> None:
        """Call it no longer."""
        self._followers.remove(follower)

    def changed(self) -> None:
        """Something went down, or is down for another reason than before."""
        for follower in tuple(self._followers):
            follower()


def ailment_of(model: Model, manifest: Manifest, ailments: Mapping[str, Ailment]) -> Ailment | None:
    """The worst of a model's ailments and of what it is composed of; None if it is well."""
    if not ailments:
        return None
    names = {part for name in model.triton_models for part in parts_of(name, manifest)}
    found = [ailments[name] for name in names if name in ailments]
    return max(found, key=lambda one: (one.failing, one.down, one.times), default=None)


def parts_of(triton_model: str, manifest: Manifest) -> tuple[str, ...]:
    """A Triton model and what it is composed of."""
    entry = manifest.triton_models.get(triton_model)
    return (triton_model, *(entry.depends_on if entry else ()))


def is_down(triton_model: str, manifest: Manifest, ailments: Ailments) -> bool:
    """Whether it, or a part of it, is known not to run now."""
    found = ailments()
    return any(found[part].down for part in parts_of(triton_model, manifest) if part in found)


def as_failure(ailment: Ailment) -> LoadFailure:
    """As `/v1/models` tells it."""
    return LoadFailure(ailment.cause, ERROR_CLASS, ailment.times, permanent=False)


def refusal(model_id: str, ailment: Ailment | None) -> errors.WireError:
    """What a request gets whose model is not ready: that it is being loaded, or why that goes on failing."""
    if ailment is None or not (ailment.failing and ailment.down):
        return errors.model_loading(model_id)
    return errors.model_load_failed(
        model_id, ailment.cause, error_class=ERROR_CLASS, attempts=ailment.times, permanent=False
    )
