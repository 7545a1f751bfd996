"""Page models as transformers' own retrieval classes and processors compute them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sie_frontend.rows import Array, Row
from sie_frontend.text.tokenization import TextRow
from transformers import AutoTokenizer, ColPaliForRetrieval, ColPaliProcessor, SiglipImageProcessorPil

from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where
from sie_triton.verify.reference import Case
from sie_triton.verify.testimony import Testimony

from .base import Witness, asking
from .image_text import agree_on_pixels, implementation_of, picture_of
from .subject import Outputs, Subject

_CUT_TEXTS = "a text that is too long loses its end, and keeps what stands behind it; transformers cuts nothing"


class _ColPali:
    """The checkpoint with its processor; pictures are scaled on Pillow, as SIE has it."""

    def __init__(self, folder: Path) -> None:
        hub = {"local_files_only": True, "trust_remote_code": False}
        loaded: Any = ColPaliForRetrieval.from_pretrained(folder, dtype=torch.float32, use_safetensors=True, **hub)
        self.model: Any = loaded.eval()
        self.images: Any = SiglipImageProcessorPil.from_pretrained(folder, **hub)
        tokenizer = AutoTokenizer.from_pretrained(folder, **hub)
        kwargs = ColPaliProcessor.get_processor_dict(folder)[0] if (folder / "processor_config.json").is_file() else {}
        known = {name: kwargs[name] for name in ("query_prefix", "visual_prompt_prefix") if name in kwargs}
        self.processor: Any = ColPaliProcessor(self.images, tokenizer, **known)
        self.implementation = implementation_of("ColPaliProcessor", "ColPaliForRetrieval")

    def vectors(self, batch: Any) -> Array:
        """`[positions, dim]` of one item."""
        found = self.model(**{name: batch[name] for name in batch if name != "labels"}, use_cache=False)
        made: Array = found.embeddings[0].float().numpy()
        return made


class PageTextWitness(Witness):
    """Queries: the processor's text, and a vector for each of its tokens."""

    compared = ("text to tokens", "transformer", "projection", "token vectors")
    departures = (_CUT_TEXTS,)

    def __init__(self, subject: Subject) -> None:
        self._names = subject.names
        self._told = _ColPali(subject.folder)
        self._kept = len(self._told.processor(text=[""])["input_ids"][0]) - len(self._ids_of_prefix())
        self._limit = subject.plan.max_length
        self.implementation = self._told.implementation

    @property
    def model(self) -> Any:
        """The whole model, whose input embeddings are the language model's."""
        return self._told.model

    @property
    def positions(self) -> int | None:
        """Rotary positions have no end."""
        return None

    def narrow(self, limit: int) -> None:
        """Read no more than `limit` tokens."""
        self._limit = limit

    def read_with(self, tokenizer: Any) -> None:
        """Never asked: SIE's server runs this very processor."""
        raise TypeError("the processor and `tokenizer.json` read a text differently")

    def token_ids(self, case: Case) -> list[int]:
        """The ids of a text with everything around it, cut where it is too long.

        None of a text that has the token of pictures written in it: this processor takes none.
        """
        if self._told.processor.image_token in self.text(case):
            return []
        ids: list[int] = self._told.processor(text=[self.text(case)])["input_ids"][0].tolist()
        if len(ids) <= self._limit:
            return ids
        return ids[: self._limit - self._kept] + ids[-self._kept :]

    def text(self, case: Case) -> str:
        """The text as it is."""
        return (case.query if case.document is None else case.document) or ""

    def outputs(self, case: Case, row: TextRow) -> Outputs:
        """`[tokens, dim]`."""
        ids = torch.tensor([self.token_ids(case)])
        (name,) = self._names
        # The types say that everything is prefix, which looks both ways; without them it depends on the kernel.
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
        return {name: self._told.vectors(given)}

    def _ids_of_prefix(self) -> list[int]:
        processor = self._told.processor
        text = processor.tokenizer.bos_token + processor.query_prefix
        ids: list[int] = processor.tokenizer(text)["input_ids"]
        return ids


def testify_pages(folder: Path, names: Sequence[str], cases: Sequence[Case], rows: Sequence[Row]) -> Testimony:
    """What transformers makes of pages, prepared by its processor on Pillow.

    Raises `DiagnosticError` where it prepares one otherwise than we do.
    """
    (name,) = names
    with asking(folder, "load the checkpoint", "transformers"):
        told = _ColPali(folder)
    implementation = f"{told.implementation}, {type(told.images).__name__}"
    vectors = []
    with asking(folder, "run the checkpoint", "transformers"):
        for case, row in zip(cases, rows, strict=True):
            picture = picture_of(case)
            agree_on_pixels(folder, implementation, told.images, picture, row)
            vectors.append(told.vectors(told.processor(images=[picture])))
    if not all(np.isfinite(array).all() for array in vectors):
        message = f"the checkpoint itself gives numbers that are not finite, says {implementation}"
        hint = "its weights are damaged, or were never trained; fetch the checkpoint again"
        raise DiagnosticError([Diagnostic("SIE507", message, Where(folder), hint)])
    return Testimony(
        implementation=implementation,
        outputs={name: tuple(vectors)},
        compared=("pictures to pixels", "levels to numbers", "prompt", "transformer", "projection", "vectors"),
    )
