"""Texts and pictures in one row as transformers' own Qwen-VL models compute them, with their processor on Pillow."""

from __future__ import annotations

import base64
import io
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from sie_frontend.reference import Case
from sie_frontend.rows import Array, Row
from transformers import AutoTokenizer, Qwen2_5_VLModel, Qwen2VLImageProcessorPil, Qwen3VLForConditionalGeneration

from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where
from sie_triton.verify.testimony import Testimony

from .base import asking
from .dense import unit
from .image_text import implementation_of
from .subject import Outputs

_CUT_TEXTS = "a text that is too long loses its end, and keeps what stands behind it; SIE cuts nothing"


@dataclass(frozen=True, slots=True)
class MixedSubject:
    """The checkpoint, and what SIE's adapter decides about it: how a conversation is made, and the bounds of pictures.

    A page model has `shown` for a picture, `behind` behind a text, and a `projection`. `limit` is where a text is cut.
    """

    folder: Path
    name: str
    outputs: tuple[str, ...]
    style: str
    shown: str
    behind: str
    projection: str
    system: str
    instruction: str
    pooling: str
    min_pixels: int
    max_pixels: int
    limit: int


class _QwenVL:
    """Words and pictures as SIE's adapters give them to transformers."""

    def __init__(self, subject: MixedSubject) -> None:
        folder, hub = subject.folder, {"local_files_only": True, "trust_remote_code": False}
        classes: Any = Qwen2_5_VLModel if subject.style == "page" else Qwen3VLForConditionalGeneration
        loaded: Any = classes.from_pretrained(folder, dtype=torch.float32, use_safetensors=True, **hub)
        self.model: Any = loaded.eval()
        self._projection = _linear(folder, subject.projection) if subject.projection else None
        bounds = {"shortest_edge": subject.min_pixels, "longest_edge": subject.max_pixels}
        self.images: Any = Qwen2VLImageProcessorPil.from_pretrained(folder, size=bounds, **hub)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, **hub)
        older = folder / "chat_template.json"
        template = json.loads(older.read_text(encoding="utf-8"))["chat_template"] if older.is_file() else None
        self._template = None if (folder / "chat_template.jinja").is_file() else template
        self.implementation = implementation_of(type(self.images).__name__, type(self.model).__name__)
        self._subject = subject

    def prepared(self, case: Case) -> tuple[list[int], Any]:
        """The ids of a conversation, a picture's token as often as it has squares, and what pictures became."""
        pictures: list[Any] = []
        prompt = self._prompt(case, pictures)
        seen: Any = self.images(pictures, return_tensors="pt") if pictures else None
        token = self.tokenizer.convert_ids_to_tokens(self.model.config.image_token_id)
        first, *others = prompt.split(token)
        for place, rest in enumerate(others):
            squares = int(seen["image_grid_thw"][place].prod()) // self.images.merge_size**2
            first += token * squares + rest
        ids: list[int] = self.tokenizer(first)["input_ids"]
        return ids, seen

    def _prompt(self, case: Case, pictures: list[Any]) -> str:
        if self._subject.style == "page":
            given: Any = case.query if case.document is None else case.document
            pictures += [_picture(data) for data in given.get("images", ())]
            return self._subject.shown if pictures else f"{given.get('text') or ''}{self._subject.behind}"
        reranks = self._subject.style == "rerank"
        messages = self._pair(case, pictures) if reranks else self._item(case, pictures)
        prompt: str = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, chat_template=self._template
        )
        return prompt

    def _item(self, case: Case, pictures: list[Any]) -> list[dict[str, Any]]:
        given = case.query if case.document is None else case.document
        instruction = self._subject.instruction.strip()
        if not unicodedata.category(instruction[-1]).startswith("P"):
            instruction += "."
        content = self._content(given, pictures)
        return _conversation(instruction, content or [{"type": "text", "text": ""}])

    def _pair(self, case: Case, pictures: list[Any]) -> list[dict[str, Any]]:
        nothing = [{"type": "text", "text": "NULL"}]
        content = [
            {"type": "text", "text": f"<Instruct>: {self._subject.instruction}"},
            {"type": "text", "text": "<Query>:"},
            *(self._content(case.query, pictures) or nothing),
            {"type": "text", "text": "\n<Document>:"},
            *(self._content(case.document, pictures) or nothing),
        ]
        return _conversation(self._subject.system, content)

    def _content(self, given: Any, pictures: list[Any]) -> list[dict[str, Any]]:
        found = [_picture(data) for data in given.get("images", ())]
        pictures += found
        texts = [{"type": "text", "text": given["text"]}] if given.get("text") else []
        return [*({"type": "image", "image": picture} for picture in found), *texts]

    def outputs(self, ids: Sequence[int], seen: Any) -> Outputs:
        """The tensors of one item or pair."""
        tokens = torch.tensor([list(ids)])
        given: dict[str, Any] = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
        if seen is not None:
            pictured = (tokens == self.model.config.image_token_id).int()
            given |= {**seen, "mm_token_type_ids": pictured}
        with torch.inference_mode():
            if self._projection is not None:
                (name,) = self._subject.outputs
                states = self.model(**given, use_cache=False).last_hidden_state[0].float()
                vectors = torch.nn.functional.linear(states, *self._projection)
                return {name: torch.nn.functional.normalize(vectors, dim=-1).numpy()}
            if self._subject.style == "rerank":
                logits = self.model(**given, use_cache=False).logits[0, -1].float()
                yes, no = (self.tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))
                (name,) = self._subject.outputs
                return {name: torch.sigmoid(logits[yes] - logits[no]).reshape(1).numpy()}
            states = self.model.model(**given, use_cache=False).last_hidden_state[0].float()
        raw: Array = (states.mean(0) if self._subject.pooling == "mean" else states[-1]).numpy()
        return dict(zip(self._subject.outputs, (unit(raw), raw), strict=True))


def testify_mixed(subject: MixedSubject, cases: Sequence[Case], rows: Sequence[Row]) -> Testimony:
    """What transformers makes of the cases, whose rows are ours.

    Raises `DiagnosticError` where it makes other tokens or other pixels of one.
    """
    with asking(subject.folder, "load the checkpoint", "transformers"):
        told = _QwenVL(subject)
    outputs: dict[str, list[Array]] = {name: [] for name in subject.outputs}
    with asking(subject.folder, "run the checkpoint", "transformers"):
        for case, row in zip(cases, rows, strict=True):
            ids, seen = told.prepared(case)
            ids = _agree_on_tokens(subject, told.implementation, case, row, ids)
            _agree_on_patches(subject, told, row, seen)
            for name, array in told.outputs(ids, seen).items():
                outputs[name].append(array)
    if not all(np.isfinite(array).all() for arrays in outputs.values() for array in arrays):
        message = f"the checkpoint itself gives numbers that are not finite, says {told.implementation}"
        hint = "its weights are damaged, or were never trained; fetch the checkpoint again"
        raise DiagnosticError([Diagnostic("SIE507", message, Where(subject.folder), hint)])
    last = {"rerank": "score", "page": "token vectors"}.get(subject.style, "pooling")
    first = "text to tokens" if subject.style == "page" else "conversation to tokens"
    return Testimony(
        implementation=told.implementation,
        outputs={name: tuple(arrays) for name, arrays in outputs.items()},
        compared=(first, "pictures to patches", "positions", "transformer", last),
        departures=(_CUT_TEXTS,) if subject.style == "page" else (),
        vocabulary=int(told.model.get_input_embeddings().weight.shape[0]),
    )


def _agree_on_tokens(subject: MixedSubject, implementation: str, case: Case, row: Row, theirs: list[int]) -> list[int]:
    """Both must make the same tokens, cut where SIE's adapter cuts them. Returns those that count."""
    ours: list[int] = row.arrays["input_ids"].tolist()
    if row.cut and len(ours) == subject.limit:
        # A pair loses the end of its document, an item its end.
        kept = subject.limit if subject.style == "embed" else subject.limit - _common_end(ours, theirs)
        theirs = [*theirs[:kept], *theirs[len(theirs) - (subject.limit - kept) :]]
    if ours == theirs:
        return theirs
    place = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    text = repr({key: value for key, value in (case.document or case.query).items() if key == "text"})
    message = (
        f"`{subject.name}` and {implementation} tokenise {text:.60} differently: from token {place} on, "
        f"{ours[place : place + 3]} of {len(ours)} against {theirs[place : place + 3]} of {len(theirs)}"
    )
    hint = "the tokenizer's files contradict each other; save the tokenizer again with `save_pretrained`"
    raise DiagnosticError([Diagnostic("SIE502", message, Where(subject.folder), hint)])


def _common_end(ours: Sequence[int], theirs: Sequence[int]) -> int:
    return next((n for n, (a, b) in enumerate(zip(reversed(ours), reversed(theirs), strict=False)) if a != b), 0)


def _agree_on_patches(subject: MixedSubject, told: _QwenVL, row: Row, seen: Any) -> None:
    """Both must scale a picture to the same levels, and cut it into the same patches."""
    if seen is None:
        return
    levels = row.arrays["patches"]
    frames, colours = told.images.temporal_patch_size, 3
    theirs = seen["pixel_values"].numpy().reshape(len(levels) if len(seen["pixel_values"]) == len(levels) else -1, -1)
    mean, std = (np.float32(told.images.image_mean), np.float32(told.images.image_std))
    whole = theirs.reshape(len(theirs), colours, frames, -1)
    rounded = np.rint((whole * std[:, None, None] + mean[:, None, None]) / told.images.rescale_factor)
    ours = levels.reshape(len(levels), colours, 1, -1)
    if len(ours) == len(rounded) and (rounded == ours).all():
        return
    message = f"a picture is cut into other patches than {told.implementation} makes of it"
    hint = "install the Pillow of `constraints.txt`, or report the checkpoint"
    raise DiagnosticError([Diagnostic("SIE540", message, Where(subject.folder), hint)])


def _linear(folder: Path, name: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight and bias of a layer that transformers' class does not have, out of the checkpoint's own file."""
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= {key: file.get_tensor(key).float() for key in file.keys() if key.startswith(f"{name}.")}  # noqa: SIM118
    return found[f"{name}.weight"], found.get(f"{name}.bias")


def _conversation(system: str, content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"role": "system", "content": [{"type": "text", "text": system}]},
        {"role": "user", "content": content},
    ]


def _picture(data: str) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
