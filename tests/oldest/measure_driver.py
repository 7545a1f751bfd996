"""Measures a repository with the ONNX Runtime of whatever interpreter runs this, and prints the outcome as JSON.

    python -m oldest.measure_driver REPOSITORY

Every graph is opened, and every public model is run over its stored reference as `sie-triton verify` does.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import onnxruntime
from sie_frontend.manifest import read_manifest

from sie_triton.verify.parity import check_parity, measure
from sie_triton.verify.public_model import public_model


def main(repository: Path) -> dict[str, object]:
    """The runtime's version, what each graph's opening said ("" if nothing), and each public model's problems."""
    manifest = read_manifest(repository)
    outcomes: dict[str, list[str]] = {}
    distances: dict[str, dict[str, float | None]] = {}
    for name in manifest.built:
        model = public_model(repository, manifest, name)
        measured = measure(repository, model)
        outcomes[name] = [problem.message for problem in check_parity(repository, model, measured)]
        for tensor, distance in measured.items():
            distances[f"{name} {tensor}"] = {"min_cosine": distance.min_cosine, "max_abs": distance.max_abs}
    graphs = {path.relative_to(repository).as_posix(): _opening(path) for path in sorted(repository.rglob("*.onnx"))}
    return {"version": onnxruntime.__version__, "graphs": graphs, "models": outcomes, "distances": distances}


def _opening(path: Path) -> str:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        return str(error)
    return ""


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
