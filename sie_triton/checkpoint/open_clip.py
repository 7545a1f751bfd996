"""Checkpoints in open_clip's layout, in transformers' terms: its SigLIP on timm's vision transformer.

open_clip writes `open_clip_config.json` and `open_clip_model.safetensors`. What is understood is what its SigLIP models
are: timm's transformer without a class token behind attention pooling, and a text transformer that looks at everything
and ends in its last position. A key or a tensor beyond that is refused by name.

Sources: the papers of SigLIP, and the public classes of open_clip and timm, whose names the weights bear.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sie_triton.checkpoint.files import (
    INDEX,
    OPEN_CLIP_CONFIG,
    OPEN_CLIP_WEIGHTS,
    PREPROCESSOR,
    SINGLE,
    read_json,
)
from sie_triton.checkpoint.tensors import Header, read_header
from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where

PUBLISHED = "published"
"""The folder of a view in which the checkpoint's own files lie under their own names."""

# Transformers of timm with so many attention heads, and an exact GELU.
_HEADS = (
    (re.compile(r"vit_base_patch16_siglip_\d+"), 12),
    (re.compile(r"vit_large_patch16_siglip_(?:256|384)"), 16),
    (re.compile(r"vit_so400m_patch14_siglip_\d+"), 16),
)
_TIMM_EPS = 1e-6
_TORCH_EPS = 1e-5
_FILTERS = {"bicubic": 3, "random": 3, "bilinear": 2}
_COPY_BYTES = 1 << 20

# Keys whose other values are not compiled, and keys that decide no vector.
_MODEL = {"quick_gelu": (False,), "custom_text": (True,)}
_MODEL_HARMLESS = {"embed_dim", "init_logit_bias", "init_logit_scale", "nonscalar_logit_scale", "output_dict"}
_VISION = {"timm_pool": ("map",), "timm_proj": ("none",)}
_VISION_HARMLESS = {
    *("image_size", "timm_model_name", "timm_model_pretrained", "timm_proj_bias", "timm_drop", "timm_drop_path"),
    "patch_dropout",
}
_TEXT = {
    "no_causal_mask": (True,),
    "pool_type": ("last",),
    "proj_bias": (True,),
    "proj_type": ("linear", None),
    "tokenizer_kwargs": ({"clean": "canonicalize"},),
    "tokenizer_mode": (None,),
    "embed_cls": (False, None),
    "output_tokens": (False, None),
    "ls_init_value": (None,),
    "act_kwargs": (None,),
    "hf_model_name": (None,),
}
_TEXT_HARMLESS = {
    *("context_length", "vocab_size", "hf_tokenizer_name", "width", "heads", "layers", "mlp_ratio", "norm_kwargs"),
    *("pad_id", "eos_id"),
}
_PIXELS = {"mode": ("RGB", None), "resize_mode": ("squash",)}
_PIXELS_HARMLESS = {"size", "mean", "std", "interpolation", "fill_color"}

_NAMES = (
    (r"visual\.trunk\.patch_embed\.proj\.", "vision_model.embeddings.patch_embedding."),
    (r"visual\.trunk\.pos_embed$", "vision_model.embeddings.position_embedding.weight"),
    (r"visual\.trunk\.blocks\.(\d+)\.norm([12])\.", r"vision_model.encoder.layers.\1.layer_norm\2."),
    (r"visual\.trunk\.blocks\.(\d+)\.attn\.qkv\.", r"vision_model.encoder.layers.\1.self_attn.*_proj."),
    (r"visual\.trunk\.blocks\.(\d+)\.attn\.proj\.", r"vision_model.encoder.layers.\1.self_attn.out_proj."),
    (r"visual\.trunk\.blocks\.(\d+)\.mlp\.fc([12])\.", r"vision_model.encoder.layers.\1.mlp.fc\2."),
    (r"visual\.trunk\.norm\.", "vision_model.post_layernorm."),
    (r"visual\.trunk\.attn_pool\.latent$", "vision_model.head.probe"),
    (r"visual\.trunk\.attn_pool\.(?:q|kv)\.", "vision_model.head.attention.in_proj_"),
    (r"visual\.trunk\.attn_pool\.proj\.", "vision_model.head.attention.out_proj."),
    (r"visual\.trunk\.attn_pool\.norm\.", "vision_model.head.layernorm."),
    (r"visual\.trunk\.attn_pool\.mlp\.", "vision_model.head.mlp."),
    (r"text\.token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"text\.positional_embedding$", "text_model.embeddings.position_embedding.weight"),
    (r"text\.transformer\.resblocks\.(\d+)\.ln_([12])\.", r"text_model.encoder.layers.\1.layer_norm\2."),
    (r"text\.transformer\.resblocks\.(\d+)\.attn\.in_proj_", r"text_model.encoder.layers.\1.self_attn.*_proj."),
    (r"text\.transformer\.resblocks\.(\d+)\.attn\.out_proj\.", r"text_model.encoder.layers.\1.self_attn.out_proj."),
    (r"text\.transformer\.resblocks\.(\d+)\.mlp\.c_fc\.", r"text_model.encoder.layers.\1.mlp.fc1."),
    (r"text\.transformer\.resblocks\.(\d+)\.mlp\.c_proj\.", r"text_model.encoder.layers.\1.mlp.fc2."),
    (r"text\.ln_final\.", "text_model.final_layer_norm."),
    (r"text\.text_projection\.", "text_model.head."),
    (r"logit_(scale|bias)$", r"logit_\1"),
)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A native tensor: its shape, and the bytes of the published file that it is made of, one behind the other."""

    dtype: str
    shape: tuple[int, ...]
    ranges: tuple[tuple[int, int], ...]


def is_open_clip(files: Iterable[str]) -> bool:
    """Whether these files of a checkpoint are in open_clip's layout."""
    return OPEN_CLIP_CONFIG in set(files)


def needs_open_clip(folder: Path) -> bool:
    """Whether a folder has a checkpoint in this layout, and none that transformers reads without code of its own."""
    if not all((folder / name).is_file() for name in (OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS)):
        return False
    weights = any((folder / name).is_file() for name in (SINGLE, INDEX))
    return reads_as_open_clip(read_json(folder / "config.json"), weights=weights)


def reads_as_open_clip(config: Any, *, weights: bool) -> bool:
    """Whether open_clip's files are the ones to read beside this `config.json` and, it may be, `weights` of its own."""
    auto_map = config.get("auto_map") if isinstance(config, dict) else None
    own_code = isinstance(auto_map, dict) and any(str(key).startswith("AutoModel") for key in auto_map)
    return own_code or not (isinstance(config, dict) and weights)


def published_folder(folder: Path) -> Path:
    """The checkpoint under its own names, where `folder` is a view of one in open_clip's layout; else `folder`."""
    own = folder / PUBLISHED
    return own if (own / OPEN_CLIP_CONFIG).is_file() else folder


def fill_view(view: Path, origin: Path, files: Sequence[str]) -> None:
    """The checkpoint as transformers would have saved it; its own files lie in `published`.

    Raises `DiagnosticError` SIE345 for what is not compiled, and OSError for the disk.
    """
    read = _Reading(origin)
    config, pixels, settings = read.config(), read.pixels(), read.tokenizer_settings()
    own = view / PUBLISHED
    own.mkdir()
    for name in files:
        (own / name).symlink_to((origin / name).resolve())
        if name not in ("config.json", "tokenizer_config.json", OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS):
            (view / name).symlink_to((origin / name).resolve())
    for name, document in (("config.json", config), (PREPROCESSOR, pixels), ("tokenizer_config.json", settings)):
        (view / name).write_text(json.dumps(document, indent=2), encoding="utf-8")
    _write_weights(view / SINGLE, origin / OPEN_CLIP_WEIGHTS, read.header, read.pieces())


class _Reading:
    """The configuration and the header of one checkpoint."""

    def __init__(self, origin: Path) -> None:
        self._path = origin / OPEN_CLIP_CONFIG
        document = self._object(read_json(self._path), "the file")
        self._model = self._object(document.get("model_cfg"), "`model_cfg`")
        self._vision = self._object(self._model.get("vision_cfg"), "`vision_cfg`")
        self._text = self._object(self._model.get("text_cfg"), "`text_cfg`")
        self._pixels = self._object(document.get("preprocess_cfg"), "`preprocess_cfg`")
        self._settings = self._object(read_json(origin / "tokenizer_config.json") or {}, "`tokenizer_config.json`")
        self.header: Header = read_header(origin / OPEN_CLIP_WEIGHTS)
        self._check(self._model, _MODEL, {*_MODEL_HARMLESS, "vision_cfg", "text_cfg"}, "")
        self._check(self._vision, _VISION, _VISION_HARMLESS, "vision_cfg.")
        self._check(self._text, _TEXT, _TEXT_HARMLESS, "text_cfg.")
        self._check(self._pixels, _PIXELS, _PIXELS_HARMLESS, "preprocess_cfg.")

    def config(self) -> dict[str, Any]:
        """transformers' configuration of a SigLIP with these sizes."""
        if not self._text.get("hf_tokenizer_name"):
            raise self._refused("`text_cfg` names no `hf_tokenizer_name`: texts are read by CLIP's tokenizer")
        shapes = {name: tuple(entry["shape"]) for name, entry in self.header.tensors.items()}
        norms = self._object(self._text.get("norm_kwargs") or {}, "`norm_kwargs`")
        self._check(norms, {}, {"eps"}, "text_cfg.norm_kwargs.")
        vocabulary, text_width = self._shape(shapes, "text.token_embedding.weight", 2)
        positions, _ = self._shape(shapes, "text.positional_embedding", 2)
        width, _, patch, _ = self._shape(shapes, "visual.trunk.patch_embed.proj.weight", 4)
        _, patches, _ = self._shape(shapes, "visual.trunk.pos_embed", 3)
        size = self._whole(self._vision, "image_size", "vision_cfg.")
        if (size // patch) ** 2 != patches:
            raise self._refused(
                f"pictures of {size} pixels have {(size // patch) ** 2} patches of {patch}, the weights {patches}"
            )
        text = {
            "vocab_size": vocabulary,
            "hidden_size": text_width,
            "intermediate_size": self._shape(shapes, "text.transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
            "num_hidden_layers": _layers(shapes, r"text\.transformer\.resblocks\.(\d+)\."),
            "num_attention_heads": self._whole(self._text, "heads", "text_cfg."),
            "max_position_embeddings": positions,
            "projection_size": self._shape(shapes, "text.text_projection.weight", 2)[0],
            "hidden_act": "gelu",
            "layer_norm_eps": norms.get("eps", _TORCH_EPS),
            "bos_token_id": None,
            "eos_token_id": 1,
            "pad_token_id": 1,
        }
        vision = {
            "hidden_size": width,
            "intermediate_size": self._shape(shapes, "visual.trunk.blocks.0.mlp.fc1.weight", 2)[0],
            "num_hidden_layers": _layers(shapes, r"visual\.trunk\.blocks\.(\d+)\."),
            "num_attention_heads": self._vision_heads(),
            "image_size": size,
            "patch_size": patch,
            "hidden_act": "gelu",
            "layer_norm_eps": _TIMM_EPS,
        }
        architecture = {"model_type": "siglip", "architectures": ["SiglipModel"]}
        return {**architecture, "text_config": text, "vision_config": vision}

    def pixels(self) -> dict[str, Any]:
        """The picture's way to numbers, as transformers' image processor has it."""
        interpolation = self._pixels.get("interpolation")
        if interpolation not in _FILTERS:
            raise self._refused(f"`preprocess_cfg.interpolation` is {interpolation!r}")
        size = self._whole(self._vision, "image_size", "vision_cfg.")
        return {
            "image_processor_type": "SiglipImageProcessor",
            "image_mean": self._pixels.get("mean"),
            "image_std": self._pixels.get("std"),
            "resample": _FILTERS[interpolation],
            "size": {"height": size, "width": size},
        }

    def tokenizer_settings(self) -> dict[str, Any]:
        """The tokenizer's settings, with the limit of the configuration and without a mask, as open_clip reads it."""
        limit = self._whole(self._text, "context_length", "text_cfg.")
        return {**self._settings, "model_max_length": limit, "model_input_names": ["input_ids"]}

    def pieces(self) -> dict[str, _Piece]:
        """Every native tensor, and which bytes it is made of."""
        made: dict[str, _Piece] = {}
        # Of attention pooling, the query's projection stands in front of those of keys and values.
        for name in sorted(self.header.tensors, key=lambda name: (".attn_pool.kv." in name, name)):
            native = self._native(name)
            entry = self.header.tensors[name]
            shape, (begin, end) = tuple(map(int, entry["shape"])), map(int, entry["data_offsets"])
            if ".*_proj." in native:
                made.update(self._thirds(native, str(entry["dtype"]), shape, begin, end))
                continue
            if name.endswith("visual.trunk.pos_embed"):
                shape = shape[1:]
            before = made.get(native)
            if before is not None and (before.dtype != entry["dtype"] or before.shape[1:] != shape[1:]):
                raise self._refused(f"the weights hold `{name}` in another type or width than the query's")
            rows = (before.shape[0] if before else 0) + shape[0] if shape else None
            joined = (*before.ranges, (begin, end)) if before else ((begin, end),)
            made[native] = _Piece(str(entry["dtype"]), (rows, *shape[1:]) if rows is not None else (), joined)
        return made

    def _thirds(self, native: str, dtype: str, shape: tuple[int, ...], begin: int, end: int) -> dict[str, _Piece]:
        """Query, key and value, which lie one behind the other."""
        if shape[0] % 3:
            raise self._refused(f"the weights hold {shape[0]} rows of query, key and value together")
        step, rows = (end - begin) // 3, (shape[0] // 3, *shape[1:])
        return {
            native.replace("*", part): _Piece(dtype, rows, ((begin + place * step, begin + (place + 1) * step),))
            for place, part in enumerate("qkv")
        }

    def _native(self, name: str) -> str:
        for pattern, replacement in _NAMES:
            if re.match(pattern, name):
                return re.sub(f"^{pattern}", replacement, name)
        raise self._refused(f"the weights hold `{name}`, which no SigLIP of this layout has")

    def _vision_heads(self) -> int:
        name = str(self._vision.get("timm_model_name"))
        found = next((heads for pattern, heads in _HEADS if pattern.fullmatch(name)), None)
        if found is None:
            raise self._refused(f"`vision_cfg.timm_model_name` is `{name}`")
        return found

    def _check(self, document: Mapping[str, Any], known: Mapping[str, Any], harmless: set[str], place: str) -> None:
        for key, value in document.items():
            if key not in known and key not in harmless:
                raise self._refused(f"`{place}{key}` is a key whose effect is not known")
            if key in known and value not in known[key]:
                raise self._refused(f"`{place}{key}` is {value!r}")
        for key, allowed in known.items():
            if key not in document and None not in allowed and False not in allowed:
                raise self._refused(f"`{place}{key}` is not set, and only {allowed[0]!r} is compiled")

    def _shape(self, shapes: Mapping[str, tuple[int, ...]], name: str, count: int) -> tuple[int, ...]:
        found = shapes.get(name, ())
        if len(found) != count:
            raise self._refused(f"the weights hold `{name}` with the shape {list(found)}" if found else f"no `{name}`")
        return found

    def _whole(self, document: Mapping[str, Any], key: str, place: str) -> int:
        value = document.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            raise self._refused(f"`{place}{key}` is {value!r}, not a positive whole number")
        return value

    def _object(self, value: Any, what: str) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise self._refused(f"{what} is no object")
        return value

    def _refused(self, reason: str) -> DiagnosticError:
        message = f"`{OPEN_CLIP_CONFIG}` describes a model that is not compiled: {reason}"
        hint = "open_clip's SigLIP models on timm's vision transformers are (docs/images.md)"
        return DiagnosticError([Diagnostic("SIE345", message, Where(self._path), hint)])


def _layers(shapes: Iterable[str], pattern: str) -> int:
    """How many layers the names number."""
    return max((int(found[1]) + 1 for name in shapes if (found := re.match(pattern, name))), default=0)


def _write_weights(target: Path, source: Path, header: Header, pieces: Mapping[str, _Piece]) -> None:
    """The native tensors, copied range by range."""
    place, tensors = 0, {}
    for name, piece in pieces.items():
        size = sum(end - begin for begin, end in piece.ranges)
        tensors[name] = {"dtype": piece.dtype, "shape": piece.shape, "data_offsets": [place, place + size]}
        place += size
    text = json.dumps({"__metadata__": {"format": "pt"}, **tensors}).encode()
    text += b" " * (-len(text) % 8)
    with source.open("rb") as read, target.open("wb") as write:
        write.write(len(text).to_bytes(8, "little") + text)
        for begin, end in (span for piece in pieces.values() for span in piece.ranges):
            read.seek(header.data_start + begin)
            left = end - begin
            while left and (chunk := read.read(min(left, _COPY_BYTES))):
                write.write(chunk)
                left -= len(chunk)
