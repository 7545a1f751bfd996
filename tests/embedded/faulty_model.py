"""A model in streams whose every step can fail: `y = 2 x` and `z = 3 x`, by what our backends have in common.

x = -1 fails while inputs are read, -2 while it computes for want of memory, -3 while outputs are written, -4 in a way
that no `except Exception` sees; -5 takes half a second. A file `unbegun` beside the model lets its second stream fail
to begin.
"""

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sie_triton.embedded.backends.onnxruntime.model import TritonPythonModel as OnnxModel
from sie_triton.embedded.batching import Array, Arrays
from sie_triton.embedded.python_model import BatchedModel, DlpackInput

READING, COMPUTING, WRITING, LEAVING, SLEEPING = range(-1, -6, -1)


class TritonPythonModel(BatchedModel):
    """One instance with streams."""

    default_filename = "model.py"

    def load(self, path: Path) -> list[str]:
        """Nothing is loaded."""
        self._unbegun = (path.parent.parent / "unbegun").exists()
        self._numbers = itertools.count(1)
        return []

    def begin_stream(self) -> None:
        """Fail in the second thread where a file says so."""
        if self._unbegun and next(self._numbers) == 2:
            raise RuntimeError("this thread cannot begin")

    def decode(self, tensor: DlpackInput) -> Array:
        """A view."""
        array = np.from_dlpack(tensor)
        if READING in array:
            raise RuntimeError("the input cannot be read")
        return array

    def concatenate(self, parts: Sequence[Array]) -> Array:
        """Join along the first axis."""
        return np.concatenate(parts)

    def run(self, feed: Arrays, outputs: Sequence[str]) -> Arrays:
        """Twice and three times each number."""
        x = feed["x"]
        if COMPUTING in x:
            np.empty(1 << 60, np.float32)
        if LEAVING in x:
            raise SystemExit("it wants to end")
        if SLEEPING in x:
            time.sleep(0.5)
        found = {"y": x * 2, "z": x * 3}
        return {name: found[name] for name in outputs}

    def encode(self, array: Array) -> Any:
        """A capsule."""
        if WRITING * 3 in array:
            raise RuntimeError("the output cannot be written")
        return OnnxModel.encode(self, array)  # type: ignore[arg-type]
