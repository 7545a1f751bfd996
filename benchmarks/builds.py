"""What a build costs: graphs written from the checkpoint's tensors against graphs that torch traces.

    python -m benchmarks.builds
    python -m benchmarks.builds -m BAAI/bge-small-en-v1.5 --rounds 5

Prints a Markdown table of CPU seconds and seconds on the clock of `sie-triton build`, each a process of its own, the
median of alternating rounds; the weights must be on this machine. `one device` is a CPU in float32; `both` adds CUDA in
float16 with the check of every number.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

_KINDS = {
    "written, one device": ("--device", "cpu"),
    "traced, one device": ("--device", "cpu", "--trace"),
    "written, both": (),
    "traced, both": ("--trace",),
}


def cost(model: str, options: tuple[str, ...]) -> tuple[float, float]:
    """CPU seconds and seconds of one build."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "sie_triton.cli", "build", "-m", model, "-r", str(Path(folder) / "repository")]
        before, begun = os.times(), time.monotonic()
        subprocess.run([*command, *options], check=True, capture_output=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        after = os.times()
        spent = after.children_user + after.children_system - before.children_user - before.children_system
        return spent, time.monotonic() - begun


def main() -> None:
    """Build, and print."""
    parser = argparse.ArgumentParser(description="what a build costs")
    parser.add_argument("-m", "--model", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in _KINDS}
    for _ in range(options.rounds):
        for kind, arguments in _KINDS.items():
            found[kind].append(cost(options.model, arguments))
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "onnxruntime"))
    print(f"{options.model}, {os.cpu_count()} cores, {packages}\n")
    print("| build | CPU seconds | seconds |\n|---|---|---|")
    for kind, times in found.items():
        cpu, clock = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"| {kind} | {cpu:.0f} | {clock:.0f} |")


if __name__ == "__main__":
    main()
