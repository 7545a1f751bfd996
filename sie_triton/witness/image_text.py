"""Texts and images in one space as transformers' own model and processors compute them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sie_frontend.rows import Array, Row
from sie_frontend.text.tokenization import TextRow
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where
from sie_triton.verify.reference import Case
from sie_triton.verify.testimony import Testimony

from .base import Witness, asking
from .dense import unit
from .subject import Outputs, Subject


def _open_model(folder: Path) -> Any:
    return AutoModel.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, use_safetensors=True, trust_remote_code=False
    ).eval()


def implementation_of(*names: str) -> str:
    """Classes of transformers with the versions that decide what they compute."""
    with_torch = f"torch {torch.__version__.split('+')[0]}, float32"
    return f"transformers {version('transformers')} {' and '.join(names)}, {with_torch}"


def _features(found: Any) -> Array:
    """The one vector `[dim]` of a call, whichever way transformers hands it out."""
    vectors: torch.Tensor = getattr(found, "pooler_output", found)
    (vector,) = vectors.float().numpy()
    made: Array = vector
    return made


class ImageTextWitness(Witness):
    """The tower of texts: `get_text_features` behind the checkpoint's tokenizer."""

    compared = ("text to tokens", "transformer", "projection", "vectors")

    def __init__(self, subject: Subject) -> None:
        self._names = subject.names
        self._towers = _open_model(subject.folder)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(
            subject.folder, local_files_only=True, trust_remote_code=False
        )
        self.implementation = implementation_of(type(self._towers).__name__)
        self._padded = self._towers.config.model_type == "siglip"
        self._limit: int = min(self._tokenizer.model_max_length, self._positions)

    @property
    def model(self) -> Any:
        """The tower of texts."""
        return self._towers.text_model

    @property
    def _positions(self) -> int:
        found: int = self._towers.config.text_config.max_position_embeddings
        return found

    @property
    def positions(self) -> int:
        """How many positions a text may have."""
        return self._positions

    @property
    def limit(self) -> int:
        """The tokenizer's own, as far as there are positions."""
        return self._limit

    def narrow(self, limit: int) -> None:
        """Read no more than `limit` tokens."""
        self._limit = limit

    def read_with(self, tokenizer: Any) -> None:
        """Tokenise with the checkpoint's own file, and pad as before."""
        for setting in ("pad_token", "padding_side", "model_input_names"):
            setattr(tokenizer, setting, getattr(self._tokenizer, setting))
        self._tokenizer = tokenizer

    def token_ids(self, case: Case) -> list[int]:
        """The ids of a text."""
        ids: list[int] = self._encoded(case)["input_ids"][0].tolist()
        return ids

    def text(self, case: Case) -> str:
        """The text as it is: nothing is put around it."""
        return (case.query if case.document is None else case.document) or ""

    def outputs(self, case: Case, row: TextRow) -> Outputs:
        """The text's vector at unit length."""
        (name,) = self._names
        return {name: unit(_features(self._towers.get_text_features(**self._encoded(case))))}

    def _encoded(self, case: Case) -> Any:
        """As SIE calls the processors: SigLIP's texts padded to the limit. A mask goes along where there is one."""
        found = self._tokenizer(
            self.text(case),
            padding="max_length" if self._padded else False,
            truncation=True,
            max_length=self._limit,
            return_tensors="pt",
        )
        return {key: found[key] for key in ("input_ids", "attention_mask") if key in found}


def testify_images(folder: Path, names: Sequence[str], cases: Sequence[Case], rows: Sequence[Row]) -> Testimony:
    """What transformers makes of pictures, whose rows are ours.

    The processor is the one on Pillow, as SIE runs it: transformers' default is another, and its pixels are others.
    Raises `DiagnosticError` where it prepares a picture otherwise than we do.
    """
    (name,) = names
    with asking(folder, "load the checkpoint", "transformers"):
        model = _open_model(folder)
        processor: Any = AutoImageProcessor.from_pretrained(
            folder, backend="pil", local_files_only=True, trust_remote_code=False
        )
        if processor.backend != "pil":
            raise TypeError(f"`{type(processor).__name__}` has no implementation on Pillow")
    implementation = implementation_of(type(processor).__name__, type(model).__name__)
    vectors = []
    with asking(folder, "run the checkpoint", "transformers"):
        for case, row in zip(cases, rows, strict=True):
            picture = picture_of(case)
            agree_on_pixels(folder, implementation, processor, picture, row)
            found = model.get_image_features(pixel_values=processor(picture, return_tensors="pt")["pixel_values"])
            vectors.append(unit(_features(found)))
    if not all(np.isfinite(vector).all() for vector in vectors):
        message = f"the checkpoint itself gives numbers that are not finite, says {implementation}"
        hint = "its weights are damaged, or were never trained; fetch the checkpoint again"
        raise DiagnosticError([Diagnostic("SIE507", message, Where(folder), hint)])
    return Testimony(
        implementation=implementation,
        outputs={name: tuple(vectors)},
        compared=("pictures to pixels", "levels to numbers", "transformer", "projection", "vectors"),
    )


def picture_of(case: Case) -> Any:
    """The picture of a case in RGB, as SIE's server hands it on."""
    from PIL import Image

    return Image.open(io.BytesIO(base64.b64decode(case.document))).convert("RGB")


def agree_on_pixels(folder: Path, implementation: str, processor: Any, picture: Any, row: Row) -> None:
    """Both must scale and cut a picture to the same levels."""
    steps = {"do_rescale": False, "do_normalize": False}
    theirs = np.asarray(processor(picture, return_tensors="np", **steps)["pixel_values"][0]).transpose(1, 2, 0)
    (ours,) = row.arrays.values()
    if ours.shape == theirs.shape and np.array_equal(ours, theirs):
        return
    off = "another size" if ours.shape != theirs.shape else f"{_worst(ours, theirs)} levels off"
    raise prepared_otherwise(folder, implementation, picture, off)


def prepared_otherwise(folder: Path, implementation: str, picture: Any, off: str) -> DiagnosticError:
    """Our pixels of a picture are others; `off` says how."""
    size = f"{picture.width} x {picture.height}"
    message = f"a picture of {size} pixels is prepared otherwise than {implementation} does it: {off}"
    hint = "another version of Pillow scales differently; install that of `constraints.txt`, or report the checkpoint"
    return DiagnosticError([Diagnostic("SIE540", message, Where(folder), hint)])


def _worst(ours: Array, theirs: Array) -> int:
    return int(np.abs(ours.astype(np.int64) - theirs.astype(np.int64)).max())
