"""Texts and images in one space as transformers' own model and processors compute them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from sie_frontend.reference import Case
from sie_frontend.rows import Array, Row
from sie_frontend.text.tokenization import TextRow
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where
from sie_triton.planning.modules import WitnessName
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


class SeeingWitness(Protocol):
    """One implementation of a tower of pictures, with the checkpoint loaded."""

    implementation: str

    def levels(self, picture: Any) -> Array:
        """The levels that it scales and cuts a picture in RGB to, `[size, size, 3]`."""

    def vector(self, picture: Any) -> Array:
        """The picture's vector at unit length."""


class _ProcessorWitness:
    """transformers' model behind the processor on Pillow, as SIE runs it: the default is another, with other pixels."""

    def __init__(self, folder: Path) -> None:
        self._model = _open_model(folder)
        self._processor: Any = AutoImageProcessor.from_pretrained(
            folder, backend="pil", local_files_only=True, trust_remote_code=False
        )
        if self._processor.backend != "pil":
            raise TypeError(f"`{type(self._processor).__name__}` has no implementation on Pillow")
        self.implementation = implementation_of(type(self._processor).__name__, type(self._model).__name__)

    def levels(self, picture: Any) -> Array:
        return levels_of(self._processor, picture)

    def vector(self, picture: Any) -> Array:
        values = self._processor(picture, return_tensors="pt")["pixel_values"]
        return unit(_features(self._model.get_image_features(pixel_values=values)))


def testify_images(
    folder: Path, witness: WitnessName, names: Sequence[str], cases: Sequence[Case], rows: Sequence[Row]
) -> Testimony:
    """What a witness makes of pictures, whose rows are ours.

    Raises `DiagnosticError` where it prepares a picture otherwise than we do.
    """
    (name,) = names
    who = "open_clip" if witness == "open_clip" else "transformers"
    with asking(folder, "load the checkpoint", who):
        sight = _sight(folder, witness)
    vectors = []
    with asking(folder, "run the checkpoint", who):
        for case, row in zip(cases, rows, strict=True):
            picture = picture_of(case)
            agree_on_levels(folder, sight.implementation, sight.levels(picture), picture, row)
            vectors.append(sight.vector(picture))
    if not all(np.isfinite(vector).all() for vector in vectors):
        message = f"the checkpoint itself gives numbers that are not finite, says {sight.implementation}"
        hint = "its weights are damaged, or were never trained; fetch the checkpoint again"
        raise DiagnosticError([Diagnostic("SIE507", message, Where(folder), hint)])
    return Testimony(
        implementation=sight.implementation,
        outputs={name: tuple(vectors)},
        compared=("pictures to pixels", "levels to numbers", "transformer", "projection", "vectors"),
    )


def _sight(folder: Path, witness: WitnessName) -> SeeingWitness:
    if witness == "open_clip":
        from .open_clip import OpenClipImageWitness  # installed by those who build such checkpoints alone

        return OpenClipImageWitness(folder)
    return _ProcessorWitness(folder)


def picture_of(case: Case) -> Any:
    """The picture of a case in RGB, as SIE's server hands it on."""
    from PIL import Image

    return Image.open(io.BytesIO(base64.b64decode(case.document))).convert("RGB")


def levels_of(processor: Any, picture: Any) -> Array:
    """The levels that a processor of transformers scales and cuts a picture to, `[height, width, 3]`."""
    made = processor(picture, return_tensors="np", do_rescale=False, do_normalize=False)["pixel_values"][0]
    levels: Array = np.asarray(made).transpose(1, 2, 0)
    return levels


def agree_on_levels(folder: Path, implementation: str, theirs: Array, picture: Any, row: Row) -> None:
    """Both must scale and cut a picture to the same levels. Raises `DiagnosticError`."""
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
