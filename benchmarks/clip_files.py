"""A CLIP of the size of ViT-B/32 with random weights, in every form that a side of `benchmarks.images` reads.

It needs `PYTHONPATH=tests`: the checkpoint is written as the tests write theirs, only larger.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

MODEL = "benchmark/clip-vit-b-32"
DIM = 512
_TEXT = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8}
_VISION = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_CONFIG: dict[str, Any] = {
    "projection_dim": DIM,
    "text_config": {**_TEXT, "max_position_embeddings": 77},
    "vision_config": {**_VISION, "image_size": 224, "patch_size": 32},
}


def write_files(cache: Path) -> Path:
    """`checkpoint`, `onnx` and `repository` in a folder of the cache, made where they are missing."""
    folder = cache / "clip"
    if not (folder / "complete").exists():
        _write(folder)
    return folder


def write_bfloat16(folder: Path) -> Path:
    """A repository of the same checkpoint in bfloat16, by OpenVINO, in the folder that `write_files` made."""
    repository = folder / "repository-bfloat16"
    if not repository.exists():
        # Random weights give vectors that all lie close together: which of them are nearest means nothing.
        _build(folder, repository, "--engine", "openvino", "--precision", "bfloat16", "--accept", "nearest=0")
    return repository


def _write(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    from image_text.checkpoints import PREPROCESSOR, write_clip
    from image_text.test_image_text_graphs import bundle_text

    checkpoint = folder / "checkpoint"
    sizes = {"crop_size": {"height": 224, "width": 224}, "size": {"shortest_edge": 224}}
    model = write_clip(checkpoint, preprocessor={**PREPROCESSOR, **sizes}, config=_CONFIG, spread=1.0)
    _export(model, folder / "onnx")
    shutil.copy(checkpoint / "preprocessor_config.json", folder / "onnx")
    bundles = folder / "bundles"
    bundles.mkdir()
    (bundles / "clip.yaml").write_text(bundle_text(checkpoint, DIM).replace("acme/clip", MODEL), encoding="utf-8")
    _build(folder, folder / "repository")
    (folder / "complete").touch()


def _build(folder: Path, repository: Path, *more: str) -> None:
    command = [sys.executable, "-m", "sie_triton.cli", "build", "--bundles", str(folder / "bundles"), "-m", MODEL]
    command += ["--device", "cpu", "-r", str(repository), *more]
    subprocess.run(command, check=True, stdout=sys.stderr)


def _export(model: Any, folder: Path) -> None:
    """The tower that sees, as exporters of Fastembed's kind have it: normalised floats in, a vector out."""
    import torch

    class Seeing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.model.get_image_features(pixel_values=pixel_values).pooler_output
            return found

    folder.mkdir()
    batch = torch.export.Dim("batch", min=1, max=1024)
    torch.onnx.export(
        Seeing().eval(),
        (torch.zeros(2, 3, 224, 224),),
        folder / "model.onnx",
        input_names=["pixel_values"],
        output_names=["image_embeds"],
        dynamic_shapes={"pixel_values": {0: batch}},
        dynamo=True,
        external_data=False,
    )
