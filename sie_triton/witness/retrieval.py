"""Checkpoints of page models with their processors, opened by transformers; each kind is a class here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load_file
from sie_frontend.rows import Array, Row
from transformers import (
    AutoTokenizer,
    ColPaliForRetrieval,
    ColPaliProcessor,
    Idefics3ImageProcessorPil,
    Idefics3Model,
    Idefics3Processor,
    SiglipImageProcessorPil,
)

from .image_text import agree_on_levels, implementation_of, levels_of, prepared_otherwise
from .late import weight_files

_HUB: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


class Retrieval(Protocol):
    """One checkpoint with its processor.

    `before_texts` and `behind_texts`: how many tokens always stand around a text. `not_compared`: what it was told.
    `writes_prompt`: whether the whole prompt of a page is its own.
    """

    model: Any
    implementation: str
    image_token: str
    before_texts: int
    behind_texts: int
    writes_prompt: bool
    not_compared: tuple[str, ...]

    def text_ids(self, text: str) -> list[int]:
        """The ids of a text with everything around it."""

    def text_vectors(self, ids: Sequence[int]) -> Array:
        """`[tokens, dim]`."""

    def page_vectors(self, picture: Any) -> Array:
        """`[positions, dim]` of a picture of Pillow."""

    def agree(self, folder: Path, picture: Any, row: Row) -> None:
        """Raises `DiagnosticError` where our row of a picture is another than the processor's."""


def open_retrieval(folder: Path, *, shifted: bool = False) -> Retrieval:
    """The implementation for a checkpoint, by the type in its `config.json`.

    `shifted`: patches have the positions that release 4.57 of transformers gives them in float32.
    """
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    found: Retrieval = KINDS[kind](folder)
    if shifted:
        assert isinstance(found, ColIdefics3), "no other model has such positions"
        found.place_as_before()
    return found


def _settings(folder: Path, *names: str) -> dict[str, Any]:
    """What `processor_config.json` says of these."""
    path = folder / "processor_config.json"
    document = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {name: document[name] for name in names if name in document}


class ColPali:
    """transformers' own class; pictures are scaled on Pillow, as SIE has it."""

    writes_prompt = True
    not_compared: tuple[str, ...] = ()

    def __init__(self, folder: Path) -> None:
        loaded: Any = ColPaliForRetrieval.from_pretrained(folder, dtype=torch.float32, use_safetensors=True, **_HUB)
        self.model: Any = loaded.eval()
        self._images: Any = SiglipImageProcessorPil.from_pretrained(folder, **_HUB)
        tokenizer = AutoTokenizer.from_pretrained(folder, **_HUB)
        words = _settings(folder, "query_prefix", "visual_prompt_prefix")
        self._processor: Any = ColPaliProcessor(self._images, tokenizer, **words)
        self.image_token: str = self._processor.image_token
        bos, prefix = self._processor.tokenizer.bos_token, self._processor.query_prefix
        self.before_texts = 1
        self.behind_texts = len(self.text_ids("")) - len(self._processor.tokenizer(bos + prefix)["input_ids"])
        self.implementation = implementation_of("ColPaliForRetrieval", "ColPaliProcessor", type(self._images).__name__)

    def text_ids(self, text: str) -> list[int]:
        """The processor's."""
        ids: list[int] = self._processor(text=[text])["input_ids"][0].tolist()
        return ids

    def text_vectors(self, ids: Sequence[int]) -> Array:
        """The types say that everything is prefix, which looks both ways; without them it depends on the kernel."""
        given = torch.tensor([list(ids)])
        return self._vectors(given, attention_mask=torch.ones_like(given), token_type_ids=torch.zeros_like(given))

    def page_vectors(self, picture: Any) -> Array:
        """The prompt is the processor's."""
        batch = dict(self._processor(images=[picture]))
        del batch["labels"]
        return self._vectors(batch.pop("input_ids"), **batch)

    def agree(self, folder: Path, picture: Any, row: Row) -> None:
        """On pixels."""
        agree_on_levels(folder, self.implementation, levels_of(self._images, picture), picture, row)

    def _vectors(self, ids: torch.Tensor, **given: torch.Tensor) -> Array:
        made: Array = self.model(input_ids=ids, use_cache=False, **given).embeddings[0].float().numpy()
        return made


class ColIdefics3:
    """transformers' Idefics3, and the checkpoint's own linear layer behind it, which transformers has no class for."""

    writes_prompt = False
    not_compared: tuple[str, ...] = ("the prompt of a page, and the tokens behind a query: SIE's contract names them",)
    _before, _behind = "<|im_start|>User:", "Describe the image.<end_of_utterance>\nAssistant:"
    _buffers = "<end_of_utterance>" * 10

    def __init__(self, folder: Path) -> None:
        made: Any
        made, told = Idefics3Model.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **_HUB
        )
        if missing := sorted(told["missing_keys"]):
            raise KeyError(f"the checkpoint has no tensor `{missing[0]}`")
        self.model: Any = made.eval()
        self._linear = _linear(folder, "linear")
        self._images: Any = Idefics3ImageProcessorPil.from_pretrained(folder, **_HUB)
        tokenizer = AutoTokenizer.from_pretrained(folder, **_HUB)
        self._processor: Any = Idefics3Processor(self._images, tokenizer, **_settings(folder, "image_seq_len"))
        self.image_token: str = self._processor.image_token
        self.before_texts, self.behind_texts = 0, len(self.text_ids(""))
        names = ("Idefics3Model", "Idefics3Processor", type(self._images).__name__)
        self.implementation = implementation_of(*names) + ", and the linear layer of the checkpoint in float64"

    def text_ids(self, text: str) -> list[int]:
        """The tokenizer's, behind the processor."""
        ids: list[int] = self._processor(text=[text + self._buffers])["input_ids"][0]
        return ids

    def text_vectors(self, ids: Sequence[int]) -> Array:
        """As the model sees them."""
        given = torch.tensor([list(ids)])
        return self._vectors(input_ids=given, attention_mask=torch.ones_like(given))

    def page_vectors(self, picture: Any) -> Array:
        """With the processor's tiles and their markers."""
        return self._vectors(**self._page(picture, return_tensors="pt"))

    def agree(self, folder: Path, picture: Any, row: Row) -> None:
        """On every tile, and on the ids among which they stand."""
        page = self._page(picture, return_tensors="np", do_rescale=False, do_normalize=False)
        pixels, ids = row.arrays.values()
        theirs = page["pixel_values"][0].transpose(0, 2, 3, 1)
        if np.array_equal(pixels, theirs) and ids.tolist() == page["input_ids"][0].tolist():
            return
        off = "other tokens" if np.array_equal(pixels, theirs) else "other tiles"
        raise prepared_otherwise(folder, self.implementation, picture, off)

    def place_as_before(self) -> None:
        """Find the positions of patches as release 4.57 does in float32, which this release finds otherwise."""
        embeddings = self.model.vision_model.embeddings
        side = embeddings.num_patches_per_side
        places = _places_of_before(side)

        def forward(pixel_values: torch.Tensor, patch_attention_mask: torch.Tensor) -> torch.Tensor:
            assert patch_attention_mask.shape[1:] == (side, side) and bool(patch_attention_mask.all())
            seen = embeddings.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
            found: torch.Tensor = seen + embeddings.position_embedding(places)
            return found

        embeddings.forward = forward
        self.implementation += ", with the positions of patches that transformers 4.57 computes in float32"
        self.not_compared += ("which positions patches have: the bundle names them",)

    def _page(self, picture: Any, **how: Any) -> dict[str, Any]:
        # A picture of three lines would be taken for one whose channels come first.
        prompt = f"{self._before}{self.image_token}{self._behind}"
        return dict(self._processor(text=[prompt], images=[[picture]], input_data_format="channels_last", **how))

    def _vectors(self, **given: torch.Tensor) -> Array:
        states = self.model(use_cache=False, **given).last_hidden_state[0].double()
        made: Array = torch.nn.functional.normalize(self._linear(states), dim=-1).float().numpy()
        return made


def _places_of_before(side: int) -> torch.Tensor:
    """Where the patches of a whole tile are looked up: by fractions of an edge that are a millionth too small.

    Source: Idefics3VisionEmbeddings of transformers 4.57.6.
    """
    edges = torch.arange(1 / side, 1.0, 1 / side)
    fractions = torch.arange(side, dtype=torch.float32) / side * (1 - 1e-6)
    line = torch.bucketize(fractions, edges, right=True)
    return (line[:, None] * side + line).flatten()


KINDS: Mapping[str, Callable[[Path], Retrieval]] = {"colpali": ColPali, "idefics3": ColIdefics3}
"""By the type in a checkpoint's `config.json`."""


def _linear(folder: Path, name: str) -> torch.nn.Linear:
    """The checkpoint's own layer, in float64."""
    tensors: dict[str, torch.Tensor] = {}
    for path in weight_files(folder):
        tensors.update({key: tensor for key, tensor in load_file(path).items() if key.startswith(f"{name}.")})
    weight = tensors[f"{name}.weight"]
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=f"{name}.bias" in tensors, dtype=torch.float64)
    layer.load_state_dict({key.removeprefix(f"{name}."): tensor.double() for key, tensor in tensors.items()})
    return layer
