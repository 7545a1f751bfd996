"""What one modality adds to the compiler, as protocols and one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from sie_frontend.reference import Case
from sie_frontend.rows import Row

from sie_triton.compiler.options import Announce
from sie_triton.formats import Precision
from sie_triton.planning.plan import ServedPlan, TritonPlan
from sie_triton.verify.public_model import PublicModel
from sie_triton.verify.testimony import Testimony


class WrittenInput(Protocol):
    """The input of one plan, whose files are written: how items are read, and who else reads them."""

    def reads(self, served: ServedPlan, testimony: Testimony | None = None) -> Any:
        """The manifest's entry for one of the ids that the plan serves, with what the testimony adds to it."""

    def cases(self, model: PublicModel) -> Sequence[Case]:
        """What the build is compared on."""

    def testify(self, model: PublicModel, cases: Sequence[Case], rows: Sequence[Row]) -> Testimony:
        """What another implementation makes of the cases, whose rows are ours. Raises `DiagnosticError`."""

    def warnings(self, testimony: Testimony) -> tuple[str, ...]:
        """What is wanting in the checkpoint, and does no harm."""


class Workbench(Protocol):
    """One checkpoint, opened for the plans of one modality. Raises `DiagnosticError` for what cannot be written."""

    def write_input(self, plan: TritonPlan, home: Path) -> WrittenInput:
        """The files that reading items needs, into the version folder of the public model."""

    def write_graphs(self, plan: TritonPlan, staging: Path, precision: Precision) -> float | None:
        """Every graph of the plan in a precision. Returns what a padded position costs where graphs were packed."""


OpensWorkbench: TypeAlias = "Callable[[Path, Announce, bool], Workbench]"
"""The checkpoint's folder, where to tell what goes on, and whether its own code may run."""


def _text(folder: Path, announce: Announce, trust_remote_code: bool) -> Workbench:
    from sie_triton.compiler.text import TextWorkbench

    return TextWorkbench(folder, announce, trust_remote_code=trust_remote_code)


def _image(folder: Path, announce: Announce, trust_remote_code: bool) -> Workbench:
    from sie_triton.compiler.images import ImageWorkbench

    return ImageWorkbench(folder, announce, trust_remote_code=trust_remote_code)


def _mixed(folder: Path, announce: Announce, trust_remote_code: bool) -> Workbench:
    from sie_triton.compiler.mixed import MixedWorkbench

    return MixedWorkbench(folder, announce, trust_remote_code=trust_remote_code)


WORKBENCHES: dict[str, OpensWorkbench] = {"text": _text, "image": _image, "mixed": _mixed}
"""By modality. A process may add one of its own before it builds."""
