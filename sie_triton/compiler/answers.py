"""What is asked of a precision beyond the reference: whether what is found with it is what float32 finds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from sie_frontend.manifest import Nearest, Reranked
from sie_frontend.outputs.kind import Shape
from sie_frontend.reference import Case

from sie_triton.answers.corpus import documentation
from sie_triton.answers.index import Corpus, indexed, measure_nearest
from sie_triton.answers.items import ITEMS
from sie_triton.answers.reranking import Lists, measure_reranked, scored
from sie_triton.answers.similarity import MaxSimIndex
from sie_triton.formats import Precision
from sie_triton.verify.model_runner import ModelRunner
from sie_triton.verify.parity import EIGHT_BIT_COSINES, TOLERANCES
from sie_triton.verify.public_model import PublicModel

# Of float32's ten nearest, or its ten first of a list, this share must stay.
KEPT_NEAREST = 0.98
# And of all pairs of a list, at most a hundredth may change places: tau is one minus twice that.
KEPT_TAU = 0.98
# The vectors of a text's tokens, all at once, to float32's: what is asked of a dense vector.
CLOSE_TEXT = 0.998

CALLED: Mapping[Shape, str] = {Shape.WEIGHTS: "sparse vectors", Shape.VECTORS: "single tokens"}


def required(precision: Precision, accepted: Mapping[str, float]) -> Iterator[str]:
    """What is asked of a precision, in words. `accepted`: what less is asked of, by name."""
    asked = TOLERANCES[precision]
    nearest, tau = accepted.get("nearest", KEPT_NEAREST), accepted.get("tau", KEPT_TAU)
    cosine = accepted.get("cosine", asked.min_cosine)
    less = ", ".join(f"{least} of {CALLED[shape]}" for shape, least in EIGHT_BIT_COSINES.items())
    yield f"a cosine of {cosine}{f' ({less})' if precision == 'int8' and 'cosine' not in accepted else ''} is required"
    yield f"{nearest:.0%} of the ten nearest, or of the ten first and Kendall's tau of {tau} where pairs are scored"
    yield (
        "and a text alone ten times closer to itself in a batch"
        if precision == "int8"
        else "and that it knows nothing of its batch"
    )


def calibration(model: PublicModel) -> list[Case]:
    """What the sizes of states are taken over: items, as documents; with one another where pairs are scored.

    Queries of late interaction are mostly padding that is read, so that they come in too.
    """
    items = ITEMS[model.modality]
    given = tuple(items.made(items.sizing))
    if any(output.index is MaxSimIndex for output in indexed(model)):
        return [*(Case(item) for item in given), *(Case(None, item) for item in given[::4])]
    if not scored(model):
        return [Case(item) for item in given]
    return [Case(item, other) for item, other in zip(given, (*given[1:], given[0]), strict=True)]


@dataclass(frozen=True, slots=True)
class Answers:
    """What a precision does to answers, by output: `nearest` those of an index, `reranked` the order of lists."""

    nearest: Mapping[str, Nearest] = field(default_factory=dict)
    reranked: Mapping[str, Reranked] = field(default_factory=dict)

    def close(self, accepted: Mapping[str, float]) -> bool:
        """Whether enough of float32's answers stay. `accepted`: what less is asked of, by name."""
        least, tau = accepted.get("nearest", KEPT_NEAREST), accepted.get("tau", KEPT_TAU)
        cosine = accepted.get("cosine", CLOSE_TEXT)
        indexes = all(
            min(found.alike, found.mixed) >= least and (found.comparison != "MaxSim" or found.min_cosine >= cosine)
            for found in self.nearest.values()
        )
        return indexes and all(found.kept >= least and found.tau >= tau for found in self.reranked.values())

    def told(self) -> Iterator[str]:
        """The figures in words."""
        for name, near in self.nearest.items():
            yield (
                f"`{name}` keeps {near.alike:.1%} of the ten nearest by {near.comparison} of "
                f"{near.texts} {near.corpus}, {near.mixed:.1%} on a float32 index, lowest cosine of one "
                f"{near.min_cosine:.5f}"
            )
        for name, order in self.reranked.items():
            yield (
                f"`{name}` keeps {order.kept:.1%} of the ten first of {order.candidates} candidates for "
                f"{order.queries} queries, Kendall's tau {order.tau:.4f}, largest difference {order.max_abs:.1e}"
            )


@dataclass(frozen=True, slots=True)
class Float32Answers:
    """What a model answers in float32: to an index, and to lists of pairs where it scores those."""

    corpus: Corpus | None
    lists: Lists | None

    @classmethod
    def of(cls, model: PublicModel, runner: ModelRunner, count: int) -> Float32Answers:
        """Ask `runner`, which computes float32, about `count` items, and about as many pairs."""
        corpus = Corpus.of(model, runner, count) if indexed(model) else None
        lists = Lists.of(model, runner, documentation(ITEMS["text"].most), count) if scored(model) else None
        return cls(corpus, lists)

    def against(self, runner: ModelRunner) -> Answers:
        """What the graphs of `runner` make of the same."""
        return Answers(
            measure_nearest(self.corpus, runner) if self.corpus else {},
            measure_reranked(self.lists, runner) if self.lists else {},
        )
