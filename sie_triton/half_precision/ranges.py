"""How large the numbers inside a graph become, and how large its precision lets them be.

A number beyond a type's largest is infinite, and what follows is NaN, or, behind a bounded function, a wrong number
that looks right. So every tensor in half precision is watched, not the outputs alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from sie_triton.formats import Precision

LARGEST: Mapping[Precision, float] = {"float32": 3.4028234663852886e38, "float16": 65504.0, "bfloat16": 3.39e38}
# float16 keeps a factor of two: other texts than the compared ones reach further, and kernels on a GPU sum in another
# order. A masked score, which is a score beside half of the type's minimum, is finite only if the score stays below it.
# bfloat16 reaches as far as float32, where nobody asks for room either.
HEADROOM: Mapping[Precision, float] = {"float32": 1.0, "float16": 0.5, "bfloat16": 1.0}


@dataclass(slots=True)
class Peak:
    """The largest magnitude of one tensor so far, infinite for NaN, in which run, and the limit that holds for it.

    `masking` numbers come from a mask, which is meant to be far out: they need to be finite and no more.
    """

    graph: str
    tensor: str
    made_by: str
    magnitude: float = 0.0
    run: int = -1
    masking: bool = False

    def limit(self, precision: Precision) -> float:
        """The largest accepted magnitude."""
        return LARGEST[precision] * (1.0 if self.masking else HEADROOM[precision])

    def fits(self, precision: Precision) -> bool:
        """Whether all values were within the limit."""
        return self.magnitude <= self.limit(precision)


@dataclass(slots=True)
class Ranges:
    """The peaks of all watched tensors, in the order in which they are first computed, over numbered runs."""

    precision: Precision
    run: int = -1
    peaks: dict[tuple[str, str], Peak] = field(default_factory=dict)

    def watch(self, graph: str, tensor: str, made_by: str) -> Peak:
        """The peak of a tensor, which begins at nothing."""
        return self.peaks.setdefault((graph, tensor), Peak(graph, tensor, made_by))

    def note(self, peak: Peak, magnitude: float) -> None:
        """One more observation, of the current run."""
        magnitude = math.inf if math.isnan(magnitude) else magnitude
        if magnitude > peak.magnitude or peak.run < 0:
            peak.magnitude, peak.run = magnitude, self.run

    def far_out(self, magnitude: float) -> bool:
        """Whether a number takes up all room, so that, coming from a mask, it is what the mask hides with."""
        return not magnitude < LARGEST[self.precision] * HEADROOM[self.precision]

    def beyond(self) -> list[Peak]:
        """The tensors that went beyond their limits: those that overflow before those without room, the first one
        computed in front, since it spoils the rest."""
        found = [peak for peak in self.peaks.values() if not peak.fits(self.precision)]
        return sorted(found, key=lambda peak: peak.magnitude <= LARGEST[self.precision])
