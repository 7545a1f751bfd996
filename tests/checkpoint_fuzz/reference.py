"""What sentence-transformers itself answers for a saved folder, by the call that SIE's adapter makes.

The rules, each with its source in the contract (`wire-contract.md`):

* Dense (7.2): `encode(texts, prompt_name="query" or "document", normalize_embeddings=<runtime option>)` in float32.
  A bundle's `max_sequence_length` is set on the model and takes the place of the checkpoint's own limit (6.6).
* Sparse (7.2): `encode_query` and `encode_document`.
* Cross-encoders (5.2, 5.3): `CrossEncoder.predict(pairs)`; the bundle's limit is not passed on.
* Late interaction (7.5): `encode_query` and `encode_document`, under a bundle whose load-time options say what the
  checkpoint says. The adapters know one kind of expansion and one skip-list; recipes ask for no other.
* One text at a time: what sentence-transformers makes of left padding depends on the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder
from transformers import PreTrainedTokenizerFast

from .foreign import MULTI, SPARSE
from .recipe import Kind, Recipe

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

_CLASSES = {
    "dense": SentenceTransformer,
    "sparse": SparseEncoder,
    "cross": CrossEncoder,
    "multi": MultiVectorEncoder,
}


def output_kind(recipe: Recipe) -> Kind:
    """Which kind of model the recipe is; a foreign one counts as what it stands in for."""
    if recipe.kind != "foreign":
        return recipe.kind
    return "sparse" if recipe.foreign in SPARSE else "multi" if recipe.foreign in MULTI else "dense"


class Reference:
    """The checkpoint as sentence-transformers loads it. Raises what sentence-transformers raises."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.kind = output_kind(recipe)
        self._normalize = recipe.asks_normalized
        options = {"device": "cpu", "local_files_only": True, "model_kwargs": {"dtype": torch.float32}}
        self.model: Any = _CLASSES[self.kind](str(folder), **options)
        self.model.float().eval()
        if recipe.bundle_limit and self.kind in ("dense", "sparse"):
            self.model.max_seq_length = recipe.bundle_limit
        self.width = self._width()

    def _width(self) -> int:
        """How long its vectors are."""
        if self.kind == "cross":
            return 1
        if self.kind == "sparse":
            return int(self.model.encode_document("salt").shape[-1])
        # A dimension that is named wrongly would mislead: ask for a vector.
        return int(np.asarray(self.model.encode("salt", show_progress_bar=False)).shape[-1])

    def read_file(self, path: Path) -> None:
        """Tokenise as `tokenizer.json` says, where transformers rebuilds the tokenizer and loses some of it."""
        before = self.model.tokenizer
        names = ("pad_token", "mask_token", "unk_token", "cls_token", "sep_token", "bos_token", "eos_token")
        special = {name: getattr(before, name) for name in names if getattr(before, name, None)}
        after = PreTrainedTokenizerFast(
            tokenizer_file=str(path),
            truncation_side=before.truncation_side,
            padding_side=before.padding_side,
            model_input_names=before.model_input_names,
            **special,
        )
        after.model_max_length = before.model_max_length
        self.model[0].processor = after

    def encode(self, texts: Sequence[str], *, is_query: bool) -> list[Array | None]:
        """One array per text; None where sentence-transformers fails or gives numbers that are not finite."""
        if self.kind == "dense":
            name = "query" if is_query else "document"
            options = {"prompt_name": name, "normalize_embeddings": self._normalize}
            return [_tried(self.model.encode, text, options) for text in texts]
        encode = self.model.encode_query if is_query else self.model.encode_document
        return [_tried(encode, text, {}) for text in texts]

    def score(self, query: str, documents: Sequence[str]) -> list[Array | None]:
        """One score per document."""
        return [_tried(self.model.predict, (query, document), {}) for document in documents]


def _tried(call: Callable[..., Any], value: object, options: dict[str, Any]) -> Array | None:
    try:
        answer = call(value, batch_size=1, show_progress_bar=False, **options)
    except (IndexError, RuntimeError, ValueError):
        return None
    if isinstance(answer, torch.Tensor):
        answer = answer.to_dense() if answer.layout != torch.strided else answer
        answer = answer.float().cpu().numpy()
    found = np.asarray(answer, dtype=np.float32)
    return found if np.isfinite(found).all() else None
