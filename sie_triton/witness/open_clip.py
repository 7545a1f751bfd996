"""Texts and images in one space as open_clip computes them, with its own tokenizer and its own transforms."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from sie_frontend.reference import Case
from sie_frontend.rows import Array
from sie_frontend.text.tokenization import TextRow

from .base import Witness
from .subject import Outputs, Subject

# The last steps of a transform, from a picture of the right size to numbers.
_TO_NUMBERS = 2


def _name(folder: Path) -> str:
    return f"local-dir:{folder}"


def _open_model(folder: Path) -> tuple[Any, Any]:
    """The model, and the transform of pictures that it is validated with."""
    model, _, transform = open_clip.create_model_and_transforms(_name(folder), precision="fp32", device="cpu")
    return model.eval(), transform


def _implementation(model: Any) -> str:
    versions = f"open_clip {version('open_clip_torch')} {type(model).__name__}, timm {version('timm')}"
    return f"{versions}, torch {torch.__version__.split('+')[0]}, float32"


class _Texts:
    """The tower of texts, as far as its vocabulary is asked for."""

    def __init__(self, model: Any) -> None:
        self._embedding = model.text.token_embedding

    def get_input_embeddings(self) -> Any:
        """The table of tokens."""
        return self._embedding


class OpenClipWitness(Witness):
    """The tower of texts: `encode_text` behind the checkpoint's tokenizer and open_clip's cleaning."""

    compared = ("text to tokens", "transformer", "projection", "vectors")

    def __init__(self, subject: Subject) -> None:
        self._names = subject.names
        self._towers, _ = _open_model(subject.folder)
        self._tokenizer: Any = open_clip.get_tokenizer(_name(subject.folder))
        self.implementation = _implementation(self._towers)
        self._limit: int = self._tokenizer.context_length

    @property
    def model(self) -> Any:
        """The tower of texts."""
        return _Texts(self._towers)

    @property
    def positions(self) -> int:
        """How many positions a text has."""
        found: int = self._towers.context_length
        return found

    @property
    def limit(self) -> int:
        """open_clip pads every text to its context."""
        return self._limit

    def narrow(self, limit: int) -> None:
        """Read no more than `limit` tokens."""
        self._limit = limit

    def read_with(self, tokenizer: Any) -> None:
        """Tokenise with the checkpoint's own file, and pad as before."""
        for setting in ("pad_token", "padding_side"):
            setattr(tokenizer, setting, getattr(self._tokenizer.tokenizer, setting))
        self._tokenizer.tokenizer = tokenizer

    def token_ids(self, case: Case) -> list[int]:
        """The ids of a text."""
        ids: list[int] = self._encoded(case)[0].tolist()
        return ids

    def text(self, case: Case) -> str:
        """The text once it is clean."""
        cleaned: str = self._tokenizer.clean_fn(_given(case))
        return cleaned

    def outputs(self, case: Case, row: TextRow) -> Outputs:
        """The text's vector at unit length."""
        (name,) = self._names
        return {name: self._towers.encode_text(self._encoded(case), normalize=True)[0].float().numpy()}

    def _encoded(self, case: Case) -> torch.Tensor:
        ids: torch.Tensor = self._tokenizer([_given(case)], context_length=self._limit)
        return ids


def _given(case: Case) -> str:
    return (case.query if case.document is None else case.document) or ""


class OpenClipImageWitness:
    """The tower of pictures: `encode_image` behind open_clip's transform."""

    def __init__(self, folder: Path) -> None:
        self._towers, self._transform = _open_model(folder)
        self.implementation = _implementation(self._towers)

    def levels(self, picture: Any) -> Array:
        """The levels before they become numbers, uint8 `[size, size, 3]`."""
        for step in self._transform.transforms[:-_TO_NUMBERS]:
            picture = step(picture)
        return np.asarray(picture)

    def vector(self, picture: Any) -> Array:
        """The picture's vector at unit length."""
        found: Array = self._towers.encode_image(self._transform(picture)[None], normalize=True)[0].float().numpy()
        return found
