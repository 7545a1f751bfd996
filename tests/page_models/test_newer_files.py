"""Page models and models that see, as transformers 5 saves them: one `processor_config.json` for everything."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sighted.checkpoints import write_qwen3_vl
from sighted.test_qwen3_vl_graphs import plan_of
from transformers import (
    AutoTokenizer,
    ColPaliProcessor,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    Qwen2VLImageProcessorPil,
    SiglipImageProcessorPil,
)

from sie_triton.diagnostics import DiagnosticError

from .checkpoints import write_colpali
from .idefics3 import WIDTH, write_colsmol
from .test_colpali_graphs import plans

pytestmark = pytest.mark.export


def colpali(folder: Path) -> Any:
    return ColPaliProcessor(SiglipImageProcessorPil.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))


def colsmol(folder: Path) -> Any:
    images = Idefics3ImageProcessorPil.from_pretrained(folder)
    return Idefics3Processor(images, AutoTokenizer.from_pretrained(folder), image_seq_len=4)


class Seer:
    """Qwen3-VL's own processor wants torchvision; this is what it writes of pictures."""

    def __init__(self, folder: Path) -> None:
        self._images = Qwen2VLImageProcessorPil.from_pretrained(folder)

    def save_pretrained(self, folder: Path) -> None:
        told = {"image_processor": self._images.to_dict(), "processor_class": "Qwen3VLProcessor"}
        (folder / "processor_config.json").write_text(json.dumps(told), encoding="utf-8")


@pytest.mark.parametrize(
    ("write", "processor", "read"),
    [
        (write_colpali, colpali, plans),
        (write_colsmol, colsmol, lambda folder: plans(folder, WIDTH, "ColSmolAdapter")),
        (write_qwen3_vl, Seer, plan_of),
    ],
    ids=["colpali", "colsmol", "seer"],
)
def test_one_file_says_all(
    write: Callable[[Path], Any], processor: Callable[[Path], Any], read: Callable[[Path], Any], tmp_path: Path
) -> None:
    """The plans have pixels, prompts, tiles and bounds: they are the same. Without either file nothing is guessed."""
    write(tmp_path)
    before = read(tmp_path)
    processor(tmp_path).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    assert read(tmp_path) == before
    (tmp_path / "processor_config.json").unlink()
    with pytest.raises(DiagnosticError, match="SIE309"):
        read(tmp_path)
