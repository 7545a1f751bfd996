"""The instance groups of a configuration."""

from __future__ import annotations

from dataclasses import dataclass

from sie_triton.lint.config import enum_name, model_config_pb2
from sie_triton.lint.rule import LintSubject


@dataclass(frozen=True, slots=True)
class GroupEntry:
    """An instance group as it is written: 0 for a `count` that is not.

    `index` is None for the group that Triton makes where none is written.
    """

    index: int | None
    kind: str
    count: int
    gpus: tuple[int, ...]

    def line(self, s: LintSubject, *field: str) -> int | None:
        """Line of a field of the group, else of the group."""
        return None if self.index is None else s.line("instance_group", self.index, *field)


def groups(s: LintSubject) -> list[GroupEntry]:
    """The instance groups of a model; an ensemble has none."""
    if s.config.is_ensemble:
        return []
    kinds = model_config_pb2().ModelInstanceGroup.Kind
    return [
        GroupEntry(i, enum_name(kinds, g.kind), int(g.count), tuple(int(n) for n in g.gpus))
        for i, g in enumerate(s.config.message.instance_group)
    ] or [GroupEntry(None, "KIND_AUTO", 0, ())]
