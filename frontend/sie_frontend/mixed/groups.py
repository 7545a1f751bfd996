"""Which patches look at each other, laid out side by side: what is computed then grows with a group, not with an item.

A tower's attention is computed for groups of one size each. Several small pictures share a group as long as they fit
beside each other into as many places as the largest picture has, so that the groups have few places without a patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sie_frontend.mixed.patches import Grid, window_numbers
from sie_frontend.rows import Array


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """`members` `[groups, places]`: the patch that lies at each place, -1 for none; `places` `[patches]`: where each
    patch lies, counted through all groups.
    """

    members: Array
    places: Array


def _laid_out(groups: Sequence[Array]) -> Groups:
    """Groups of patches as rows, with nothing behind those that are shorter than the longest."""
    members = np.full((len(groups), max(map(len, groups))), -1, np.int64)
    for row, group in zip(members, groups, strict=True):
        row[: len(group)] = group
    flat = members.reshape(-1)
    places = np.empty(sum(map(len, groups)), np.int64)
    taken = np.flatnonzero(flat >= 0)
    places[flat[taken]] = taken
    return Groups(members, places)


@lru_cache(maxsize=64)
def picture_groups(grids: tuple[Grid, ...]) -> Groups:
    """Whole pictures, the largest first, each in the first group that has room for it."""
    counts = [high * wide for high, wide in grids]
    starts = np.cumsum([0, *counts])
    room: list[int] = []
    groups: list[Array] = []
    for number in sorted(range(len(counts)), key=lambda one: -counts[one]):
        patches = np.arange(starts[number], starts[number + 1])
        found = next((place for place, left in enumerate(room) if left >= counts[number]), len(room))
        if found == len(room):
            room.append(max(counts))
            groups.append(patches)
        else:
            groups[found] = np.concatenate([groups[found], patches])
        room[found] -= counts[number]
    return _laid_out(groups)


@lru_cache(maxsize=64)
def window_groups(grids: tuple[Grid, ...], merge: int, window: int) -> Groups:
    """The windows of all pictures, each a group; those at an edge may have fewer patches."""
    numbers = window_numbers(grids, merge, window)
    order = np.argsort(numbers, kind="stable")
    ends = np.flatnonzero(np.diff(numbers[order])) + 1
    return _laid_out(np.split(order, ends))


def group_cost(grids: Sequence[Grid]) -> int:
    """How many pairs of patches the attention over some pictures holds at once."""
    groups, places = picture_groups(tuple(grids)).members.shape
    return int(groups * places**2)
