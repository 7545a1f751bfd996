"""A tiny CLIP as it is built and served, and what transformers makes of the same pictures and texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sie_frontend.rows import Array
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

from .builds import build
from .checkpoints import write_clip
from .test_image_text_graphs import unit


def build_clip(folder: Path) -> None:
    """`checkpoint`, `bundles` and `repository` in a folder."""
    write_clip(folder / "checkpoint")
    done = build(folder, "--device", "cpu")
    assert done.code == 0, done.stderr


class Reference:
    """transformers on Pillow, on the checkpoint itself."""

    def __init__(self, checkpoint: Path) -> None:
        self._model: CLIPModel = CLIPModel.from_pretrained(checkpoint).eval()
        self._processor = CLIPImageProcessorPil.from_pretrained(checkpoint)
        self._tokenizer = AutoTokenizer.from_pretrained(checkpoint)

    def seen(self, pictures: Sequence[Image.Image]) -> Array:
        """The vectors of pictures, `[pictures, width]`."""
        with torch.inference_mode():
            return unit(self._model.get_image_features(**self._processor(list(pictures), return_tensors="pt")))

    def read(self, texts: Sequence[str]) -> Array:
        """The vectors of texts, each alone, `[texts, width]`."""
        given = [self._tokenizer([text], return_tensors="pt") for text in texts]
        with torch.inference_mode():
            return np.concatenate([unit(self._model.get_text_features(**dict(one))) for one in given])
