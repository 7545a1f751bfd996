"""Triton releases by their container tag, and what each one's ONNX Runtime can read."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Release:
    """A Triton release such as `24.10`: the year and month of its container tag."""

    year: int
    month: int

    @classmethod
    def parse(cls, text: str) -> Release:
        """Read `24.10` (also `24.10-py3`).

        Raises:
            ValueError: not a tag, or older than the oldest release whose rules are known.
        """
        match = re.fullmatch(r"(\d\d)\.(\d\d)(-[\w-]+)?", text.strip())
        if match is None or not 1 <= int(match[2]) <= 12:
            raise ValueError(f"`{text}` is not a Triton release; write the container's tag, such as `24.10`")
        release = cls(int(match[1]), int(match[2]))
        if release < OLDEST:
            raise ValueError(f"Triton {release} is older than {OLDEST}, the oldest release whose rules are known here")
        return release

    def __str__(self) -> str:
        return f"{self.year:02}.{self.month:02}"


@dataclass(frozen=True, slots=True)
class OnnxRuntime:
    """The ONNX Runtime inside a release: its version, and the newest ONNX IR version and opset that it loads."""

    version: str
    max_ir_version: int
    max_opset: int

    @property
    def minor(self) -> tuple[int, int]:
        """`1.19.2` or `1.19` as (1, 19): operators come with these."""
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)


OLDEST = Release(24, 10)

# The limits were measured by loading one-node graphs in each ONNX Runtime release. A row holds until the next one;
# where a release changed in between and its month is not known, the older row stands, which is the careful side.
_ONNX_RUNTIMES: tuple[tuple[Release, OnnxRuntime], ...] = (
    (Release(24, 10), OnnxRuntime("1.19.2", 10, 21)),
    (Release(25, 1), OnnxRuntime("1.20.1", 10, 21)),
    (Release(25, 3), OnnxRuntime("1.21", 10, 22)),
    (Release(25, 6), OnnxRuntime("1.22", 10, 22)),
    (Release(25, 9), OnnxRuntime("1.23", 11, 23)),
    (Release(26, 3), OnnxRuntime("1.24.2", 13, 25)),
    (Release(26, 7), OnnxRuntime("1.27.0", 13, 26)),
    (Release(26, 8), OnnxRuntime("1.28.0", 13, 26)),
)


def onnx_runtime(release: Release) -> OnnxRuntime:
    """The ONNX Runtime of `release`; of the newest one known for releases after it."""
    return [runtime for start, runtime in _ONNX_RUNTIMES if start <= release][-1]
