"""Which calls of other embedders a code base makes, with the models that they name. Never executes what it reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sie_triton.bundle import Bundle
    from sie_triton.migrate.scan.moves import Move
    from sie_triton.migrate.scan.programs import Unread


@dataclass(frozen=True)
class Scan:
    """What a code base holds: its calls with what becomes of each, the files not read, and how many were."""

    moves: tuple[Move, ...]
    unread: tuple[Unread, ...]
    files: int

    @property
    def all_can_move(self) -> bool:
        """Whether every call can move, and nothing was left unread."""
        from sie_triton.migrate.scan.moves import CAN_MOVE

        return not self.unread and all(move.status in CAN_MOVE for move in self.moves)


def scan(root: Path, bundles: Mapping[str, Bundle]) -> Scan:
    """Read a file or a folder of programs, and judge what they call by the bundles that there are."""
    from sie_triton.migrate.scan.find import find_calls
    from sie_triton.migrate.scan.moves import judge_calls
    from sie_triton.migrate.scan.programs import Program, Unread, read_programs
    from sie_triton.migrate.scan.shelf import Shelf

    read = list(read_programs(root))
    programs = [entry for entry in read if isinstance(entry, Program)]
    unread = tuple(entry for entry in read if isinstance(entry, Unread))
    return Scan(tuple(judge_calls(find_calls(programs), Shelf(bundles))), unread, len(programs))
