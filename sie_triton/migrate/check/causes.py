"""What explains the differences of a sample, found by experiments in the order of how much they would explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sie_triton.migrate.check.experiments import Experiment, best, run
from sie_triton.migrate.check.measure import (
    GRIDS,
    SAME,
    Numbers,
    all_pairs,
    common_part,
    cosines,
    grid_bits,
    likeness,
    positive_share,
    rank_correlation,
)
from sie_triton.migrate.check.report import Cause, Tried
from sie_triton.migrate.check.server import EncodingServer, Vectors
from sie_triton.migrate.check.truncation import Cut, count_tokens, find_cut
from sie_triton.migrate.stores import Stored

_MOST_TRIED = 8
_PROVED = 0.995
_GAIN = 0.01
_WORTH_A_SECOND = 0.5
_EQUAL = 0.999999
# Measured on all-MiniLM-L6-v2 (tests/migrate/test_causes_e2e.py): int8 weights and disturbed weights have a common
# part of 0.65 to 0.8 and differ more in longer texts (a rank correlation of -0.9), prompts have 0.77 to 0.82 and differ
# less in longer texts (0.8), noise in the vectors has a common part of 0.15.
_NOISE = 0.4
_FADES = 0.4
_SLIGHT = 0.85
_RELATED = 0.5
_ALIKE = 0.8
_MOSTLY_POSITIVE = 0.7
_LEAST_TO_TELL = 3

Same = npt.NDArray[np.bool_]


@dataclass
class Comparison:
    """The entries of a sample that can be compared, with the server's vectors, and what was found so far."""

    server: EncodingServer
    entries: Sequence[Stored]
    stored: Vectors
    served: Vectors
    causes: list[Cause] = field(default_factory=list)
    tried: list[Tried] = field(default_factory=list)
    experiment: Experiment | None = None
    """What reproduces the stored vectors as far as is known."""

    @property
    def cosine(self) -> Numbers:
        """Of each entry, against what the server gives now."""
        return cosines(self.stored, self.served)

    def share(self, rows: Same) -> float:
        """The part of the sample that some rows are."""
        return float(rows.mean())


def explain(case: Comparison) -> None:
    """Add the causes of every difference of direction to the case."""
    if (case.cosine >= SAME).all():
        return
    if _other_vector(case) or _mixed_up(case):
        return
    tokens = count_tokens(case.server, case.entries)
    if _truncation(case, tokens):
        return
    _by_experiments(case, tokens)
    # Rounding alone makes a difference too, and more of it in some texts than in others.
    if (case.cosine < SAME).any() and (_rounded(case) or not _truncation(case, tokens, guess=True)):
        _by_statistics(case, tokens)


def _rounded(case: Comparison) -> bool:
    wrong = case.cosine < SAME
    return grid_bits(case.stored) is not None and float(np.median(case.cosine[wrong])) >= _SLIGHT


def _other_vector(case: Comparison) -> bool:
    for name in sorted({name for entry in case.entries for name in entry.others}):
        rows = [place for place, entry in enumerate(case.entries) if name in entry.others]
        other = np.stack([case.entries[place].others[name] for place in rows])
        median = float(np.median(cosines(other, case.served[rows])))
        case.tried.append(Tried(f"the vector `{name}` of the same points", median))
        if median >= SAME:
            message = f"the vector `{name}` of the same points is this model's"
            case.causes.append(Cause("vector_name", message, True, 1.0, f"name it with `--vector {name}`", keeps=True))
            return True
    return False


def _mixed_up(case: Comparison) -> bool:
    """Whether the vectors are those of other texts of the sample."""
    wrong = case.cosine < SAME
    pairs = all_pairs(case.stored, case.served)
    elsewhere = wrong & (pairs.max(axis=1) >= SAME)
    if elsewhere.sum() < max(2, wrong.sum() / 2):
        return False
    if len(set(pairs.argmax(axis=1)[elsewhere])) <= elsewhere.sum() / 2:
        message = "several texts have the vector that belongs to one of them"
        case.causes.append(Cause("broken", message, True, case.share(elsewhere), "embed those texts again"))
        return True
    message = "vectors belong to other texts of the sample: texts and vectors were put together in another order"
    case.causes.append(
        Cause("order", message, True, case.share(elsewhere), "write texts and vectors anew, in one order")
    )
    return True


def _truncation(case: Comparison, tokens: npt.NDArray[np.int64], *, guess: bool = False) -> bool:
    """Whether length tells which texts differ. Without proof that may be chance, so it is the last guess but one."""
    same = case.cosine >= SAME
    # What is proved by cutting must not be hidden by another difference that an experiment mends.
    plain = case.experiment is None
    found = find_cut(case.server, case.entries, same, tokens) if plain else _cut_under(case, same, tokens)
    if found is None or not (found.proved or guess or not found.earlier):
        return False
    at = f"{found.limit} tokens" if found.limit is not None else "some length"
    if found.earlier:
        message = f"only long texts differ: the index cut them at {at}, and the server cuts later"
        cure = "embed those texts again, or build with a bundle whose `max_sequence_length` is the old limit"
    else:
        message = f"only texts that the server cuts at {at} differ: the index holds more of them"
        cure = "embed those texts again, or build with a bundle whose `max_sequence_length` is higher"
    case.causes.append(Cause("truncation", message, found.proved, case.share(~same), cure))
    return True


def _cut_under(case: Comparison, same: Same, tokens: npt.NDArray[np.int64]) -> Cut | None:
    """The cut, with texts and options as the experiment has them."""
    experiment = case.experiment
    assert experiment is not None
    entries = [
        Stored(entry.key, text, entry.vector, entry.fields)
        for entry, text in zip(case.entries, experiment.texts(case.entries), strict=True)
    ]
    server = case.server
    before = server.options
    server.options = {**before, **experiment.options}
    try:
        return find_cut(server, entries, same, tokens)
    finally:
        server.options = before


def _by_experiments(case: Comparison, tokens: npt.NDArray[np.int64]) -> None:
    """Look for another way of embedding that comes closer, or two of them together; the case goes on with it."""
    wrong = np.flatnonzero(case.cosine < SAME)
    # Short texts: what is tried costs little, and no truncation can hide it.
    chosen = wrong[np.argsort(tokens[wrong], kind="stable")][:_MOST_TRIED]
    entries = [case.entries[place] for place in chosen]
    baseline = float(np.median(case.cosine[chosen]))
    first = best(case.server, entries, case.tried)
    if first is None or first[1] < baseline + min(_GAIN, (1 - baseline) / 2):
        return
    found = first
    if _WORTH_A_SECOND <= first[1] < SAME:
        second = best(case.server, entries, case.tried, on_top_of=first[0])
        found = second if second is not None and second[1] >= SAME else first
    if found[1] >= _PROVED:
        _go_on_with(case, found[0])


def _go_on_with(case: Comparison, experiment: Experiment) -> None:
    before = case.cosine < SAME
    case.served = run(case.server, experiment, case.entries)
    case.experiment = experiment
    share = case.share(before & (case.cosine >= SAME))
    options = _as_options(case, experiment)
    for step in experiment.steps:
        message = f"the stored vectors come out {step.what}"
        case.causes.append(Cause(step.cause, message, True, share, step.cure, keeps=True, options=options))


def _as_options(case: Comparison, experiment: Experiment) -> Mapping[str, Any]:
    """Options of a request that do the same as the experiment; none if the texts themselves must be changed."""
    if not experiment.changes_texts:
        return experiment.request
    if any(step.change and not step.same_by_options for step in experiment.steps):
        return {}
    options: dict[str, Any] = {}
    for step in experiment.steps:
        options |= step.same_by_options or step.options
    rows = slice(_MOST_TRIED)
    other = case.server.encode([entry.text for entry in case.entries[rows]], **options)
    return options if (cosines(other, case.served[rows]) > _EQUAL).all() else {}


def _by_statistics(case: Comparison, tokens: npt.NDArray[np.int64]) -> None:
    """What no experiment reproduced: told by how the vectors differ."""
    wrong = case.cosine < SAME
    cause, message, cure = _told(case, case.stored[wrong], case.served[wrong], tokens[wrong])
    case.causes.append(Cause(cause, message, False, case.share(wrong), cure))


def _told(case: Comparison, stored: Vectors, served: Vectors, tokens: npt.NDArray[np.int64]) -> tuple[str, str, str]:
    """The kind of a likely cause, what it is, and its cure."""
    cosine = cosines(stored, served)
    if (told := _by_numbers(stored, served, cosine)) is not None:
        return told
    if float(np.median(cosine)) >= _SLIGHT:
        return _slight(stored, served, cosine, tokens)
    again = "embed those texts again"
    if len(stored) < _LEAST_TO_TELL:
        return (
            "few",
            "too few texts differ to tell why, and no request gives their vectors",
            f"look at them, or {again}",
        )
    alike = likeness(stored, served)
    if float(np.median(cosine)) >= _RELATED and alike >= _ALIKE:
        message = (
            "the vectors are related, and no request gives them: another revision, a prompt of your own, texts that "
            "were changed, or a pooling that this model lets no request choose"
        )
        return "related", message, f"name what was done by `--options`, or {again}"
    if alike >= _ALIKE:
        message = (
            "the directions are others, and the texts lie to each other as before: another pooling, or a model of the "
            "same family"
        )
        return "related", message, f"serve a bundle with another `pooling` and check again, or {again}"
    message = f"another model of the same size ({stored.shape[1]}): even which texts are alike differs"
    return "model", message, f"find its name and check with `-m`, or {again}"


def _by_numbers(stored: Vectors, served: Vectors, cosine: Numbers) -> tuple[str, str, str] | None:
    """What the stored numbers tell alone, whatever the texts are."""
    again = "embed those texts again"
    if len(stored) > 1 and (cosines(stored[:1].repeat(len(stored), axis=0), stored) > _EQUAL).all():
        return "broken", "these texts all have one and the same vector", again
    if positive_share(stored) > _MOSTLY_POSITIVE > positive_share(served):
        message = "most stored numbers are positive: the maximum over tokens, a pooling that is not served"
        return "pooling", message, again
    if (bits := grid_bits(stored)) == 1 and float(np.median(cosine)) >= _RELATED:
        return "precision", f"the stored numbers {GRIDS[bits]}", again
    return None


def _slight(stored: Vectors, served: Vectors, cosine: Numbers, tokens: npt.NDArray[np.int64]) -> tuple[str, str, str]:
    again = "embed those texts again"
    if (bits := grid_bits(stored)) is not None:
        return "precision", f"the stored numbers {GRIDS[bits]}", again
    if common_part(stored, served) < _NOISE:
        message = "all differ a little, each in a direction of its own: the stored vectors were rounded or compressed"
        return "precision", message, again
    if rank_correlation(cosine, tokens) >= _FADES:
        message = "short texts differ most: something stood around every text, such as a prompt of your own"
        return "prompt", message, 'try it with `--options \'{"doc_template": "… {text}"}\'`'
    message = (
        "all differ a little, long texts not less: other weights, quantised to int8 (as Fastembed's `-Q` models are), "
        "or of a revision that is close"
    )
    return "precision", message, again
