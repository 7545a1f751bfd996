"""A model of Triton's Python backend whose loading and running can be slow, large or broken, as a file beside it says.

It runs in tritonserver's own process for it. What it computes depends on every token, and on its name.
"""

import json
import math
import time
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

DIM = 32


class TritonPythonModel:
    """One instance."""

    def initialize(self, args):  # type: ignore[no-untyped-def]
        """Take as long and as much as `world.json` says, and fail where it says so."""
        world = json.loads((Path(args["model_repository"]) / "world.json").read_text())
        self.run_s, self.number, self.finalize_s = world["run_s"], world["number"], world["finalize_s"]
        self.ballast = np.ones(int(world["megabytes"] * 2**20), np.uint8)
        time.sleep(world["load_s"])
        if world["fails"]:
            raise RuntimeError("the weights are cut short")

    def execute(self, requests):  # type: ignore[no-untyped-def]
        """Each row's sum over waves of its tokens, the same for every output."""
        responses = []
        for request in requests:
            ids = np.from_dlpack(pb_utils.get_input_tensor_by_name(request, "input_ids"))
            mask = np.from_dlpack(pb_utils.get_input_tensor_by_name(request, "attention_mask"))
            columns = np.arange(1, DIM + 1)
            waves = np.sin(ids[..., None] * columns * 0.37 + self.number * math.e) * mask[..., None]
            rows = np.ascontiguousarray(waves.sum(axis=1).astype(np.float32))
            names = request.requested_output_names()
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack(name, rows) for name in names]))
        time.sleep(self.run_s)
        return responses

    def finalize(self):  # type: ignore[no-untyped-def]
        """Hold the memory for a while longer."""
        time.sleep(self.finalize_s)
