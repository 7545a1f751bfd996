"""A model of Triton's Python backend that computes `y = x + x`, and what else a test wants of it.

x = -1 computes until somebody ends the process, under the limit that our own backends have; x = -2 takes half a
second; x = -3 is never answered and computes nothing, x = -4 computes for five seconds. A
file `broken` beside the model lets its load fail with what the
file says; a file `slow` lets it end slowly, `slow_load` lets it load slowly, and a load that finds `hang` never ends
and removes it, so that the next one does.
"""

import time
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

from sie_triton.embedded.run_limit import RunLimit, limit_from_environment


class TritonPythonModel:
    """One instance."""

    def initialize(self, args):  # type: ignore[no-untyped-def]
        """Load, or fail."""
        broken = Path(args["model_repository"]) / "broken"
        if broken.exists():
            raise RuntimeError(broken.read_text())
        if (hang := broken.with_name("hang")).exists():
            hang.unlink()
            time.sleep(1000)
        self.slow = broken.with_name("slow").exists()
        time.sleep(1.5 if broken.with_name("slow_load").exists() else 0)
        self.limit = RunLimit(args["model_name"], limit_from_environment())

    def execute(self, requests):  # type: ignore[no-untyped-def]
        """Twice each number."""
        answers = []
        arrays = [np.from_dlpack(pb_utils.get_input_tensor_by_name(request, "x")) for request in requests]
        time.sleep(1000 if any(x.min() == -3 for x in arrays) else 0)
        until = time.monotonic() + (5 if any(x.min() == -4 for x in arrays) else 0)
        while time.monotonic() < until:
            pass
        with self.limit.run():
            for x in arrays:
                if x.min() == -1:
                    time.sleep(1000)
                time.sleep(0.5 if x.min() == -2 else 0)
                y = pb_utils.Tensor.from_dlpack("y", np.ascontiguousarray(x * 2))
                answers.append(pb_utils.InferenceResponse([y]))
        return answers

    def finalize(self):  # type: ignore[no-untyped-def]
        """Take longer than anybody waits, where a file says so."""
        time.sleep(30 if self.slow else 0)
