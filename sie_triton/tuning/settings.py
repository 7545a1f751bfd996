"""How the runs of a model may be cut and computed on a CPU, and which way is chosen of those that were measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sie_frontend.mixed.reader import MixedReader
from sie_frontend.rows import Reader
from sie_frontend.text.reader import TextReader

from sie_triton.repository.config import INSTANCE_WEIGHT_BYTES, MAX_INSTANCES

BUDGETS = (128, 256, 512, 1024, 2048)
# What rows of one shape cost does not tell how long they take: pictures are counted.
ROW_BUDGETS = (1, 2, 4, 8, 16)
# Settings closer than this count as equal; the one with the shortest runs lets queries through soonest.
RESOLUTION = 0.03


@dataclass(frozen=True, slots=True)
class RunSetting:
    """A candidate: the limit of a run in tokens or pictures, the number of parallel runs, and the threads of each."""

    run_tokens: int
    streams: int
    threads: int


def budgets_of(reader: Reader) -> tuple[Sequence[int], str]:
    """What a run may cost, and in what that is told: as many pictures, each of which may take many positions."""
    if isinstance(reader, TextReader | MixedReader):
        return BUDGETS, "tokens"
    widest = reader.widths(exact=False)[-1]
    return [rows * widest for rows in ROW_BUDGETS], "rows" if widest == 1 else "tokens"


def candidates(cores: int, weight_bytes: int, budgets: Sequence[int] = BUDGETS) -> Iterator[RunSetting]:
    """Every budget with every way to use all cores that does not copy large weights."""
    affordable = min(cores, MAX_INSTANCES, max(1, INSTANCE_WEIGHT_BYTES // max(1, weight_bytes)))
    shapes = sorted({(streams, cores // streams) for streams in {1, 2, affordable} if streams <= affordable})
    for run_tokens in budgets:
        for streams, threads in shapes:
            yield RunSetting(run_tokens, streams, threads)


def choose(speeds: Mapping[RunSetting, float]) -> RunSetting:
    """The setting with the shortest runs, then the most streams, among those as fast as the fastest."""
    best = max(speeds.values())
    good = [setting for setting, speed in speeds.items() if speed >= best * (1 - RESOLUTION)]
    return min(good, key=lambda setting: (setting.run_tokens, -setting.streams))
