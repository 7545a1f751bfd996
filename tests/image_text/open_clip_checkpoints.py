"""Small random checkpoints in open_clip's layout, with transformers' own SigLIP of the same numbers beside them.

The names and shapes are those of open_clip's `CustomTextCLIP` on timm's `VisionTransformer`, and
`test_open_clip_official.py` loads such a checkpoint with both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import SiglipConfig, SiglipModel

from .checkpoints import write_sentencepiece

SIZE, PATCH, WIDTH, LAYERS, TEXT_WIDTH, LENGTH = 24, 8, 48, 2, 24, 16
HEADS, TEXT_HEADS = 12, 4
MEAN, STD = [0.5, 0.45, 0.4], [0.5, 0.48, 0.52]
SETTINGS: Mapping[str, Any] = {"tokenizer_class": "T5Tokenizer", "model_input_names": ["input_ids", "attention_mask"]}


def document(**changes: Mapping[str, Any]) -> dict[str, Any]:
    """`open_clip_config.json`; `vision`, `text`, `model` and `pixels` change parts of it, None takes a key out."""
    parts: dict[str, dict[str, Any]] = {
        "vision": {
            "image_size": SIZE,
            "timm_model_name": "vit_base_patch16_siglip_224",
            "timm_model_pretrained": False,
            "timm_pool": "map",
            "timm_proj": "none",
        },
        "text": {
            "context_length": LENGTH,
            "vocab_size": 90,
            "hf_tokenizer_name": "timm/ViT-B-16-SigLIP",
            "tokenizer_kwargs": {"clean": "canonicalize"},
            "width": TEXT_WIDTH,
            "heads": TEXT_HEADS,
            "layers": LAYERS,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "norm_kwargs": {"eps": 1e-06},
        },
        "model": {"embed_dim": WIDTH, "init_logit_bias": -10, "custom_text": True},
        "pixels": {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "squash"},
    }
    for part, change in changes.items():
        parts[part] = {key: value for key, value in {**parts[part], **change}.items() if value is not None}
    towers = {"vision_cfg": parts["vision"], "text_cfg": parts["text"]}
    return {"model_cfg": {**parts["model"], **towers}, "preprocess_cfg": parts["pixels"]}


def write_open_clip(folder: Path, *, config: Mapping[str, Any] | None = None) -> SiglipModel:
    """A checkpoint whose every weight is random. Returns transformers' model of the same numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = write_sentencepiece(folder, SETTINGS)
    made = config or document(text={"vocab_size": vocabulary})
    (folder / "open_clip_config.json").write_text(json.dumps(made), encoding="utf-8")
    model = twin(vocabulary)
    save_file(published(model.state_dict()), folder / "open_clip_model.safetensors")
    return model


def twin(vocabulary: int) -> SiglipModel:
    """transformers' SigLIP of these sizes, with timm's exact GELU; seeded, norms and biases random too."""
    shared = {"num_hidden_layers": LAYERS, "hidden_act": "gelu", "layer_norm_eps": 1e-6}
    text = {
        **shared,
        "vocab_size": vocabulary,
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 4 * TEXT_WIDTH,
        "num_attention_heads": TEXT_HEADS,
        "max_position_embeddings": LENGTH,
        "projection_size": WIDTH,
        "bos_token_id": None,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    vision = {
        **shared,
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_attention_heads": HEADS,
        "image_size": SIZE,
        "patch_size": PATCH,
    }
    config = SiglipConfig(text_config=text, vision_config=vision)
    model: SiglipModel = SiglipModel(config).eval()
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.5 if parameter.dim() < 2 else 1.5 / parameter[0].numel() ** 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return model


def published(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state of transformers' SigLIP under open_clip's names."""
    made = {name: state[name].clone() for name in ("logit_scale", "logit_bias")}
    for kind in ("weight", "bias"):
        _vision(made, state, kind)
        _text(made, state, kind)
    positions = "embeddings.position_embedding.weight"
    made["visual.trunk.pos_embed"] = state[f"vision_model.{positions}"][None].clone()
    made["visual.trunk.attn_pool.latent"] = state["vision_model.head.probe"].clone()
    made["text.positional_embedding"] = state[f"text_model.{positions}"].clone()
    made["text.token_embedding.weight"] = state["text_model.embeddings.token_embedding.weight"].clone()
    return made


def _joined(state: Mapping[str, torch.Tensor], layer: str, kind: str) -> torch.Tensor:
    return torch.cat([state[f"{layer}.self_attn.{part}_proj.{kind}"] for part in "qkv"])


def _vision(made: dict[str, torch.Tensor], state: Mapping[str, torch.Tensor], kind: str) -> None:
    trunk, own = "visual.trunk", "vision_model"
    made[f"{trunk}.patch_embed.proj.{kind}"] = state[f"{own}.embeddings.patch_embedding.{kind}"].clone()
    made[f"{trunk}.norm.{kind}"] = state[f"{own}.post_layernorm.{kind}"].clone()
    asked = state[f"{own}.head.attention.in_proj_{kind}"]
    made[f"{trunk}.attn_pool.q.{kind}"] = asked[:WIDTH].clone()
    made[f"{trunk}.attn_pool.kv.{kind}"] = asked[WIDTH:].clone()
    made[f"{trunk}.attn_pool.proj.{kind}"] = state[f"{own}.head.attention.out_proj.{kind}"].clone()
    made[f"{trunk}.attn_pool.norm.{kind}"] = state[f"{own}.head.layernorm.{kind}"].clone()
    for name in ("fc1", "fc2"):
        made[f"{trunk}.attn_pool.mlp.{name}.{kind}"] = state[f"{own}.head.mlp.{name}.{kind}"].clone()
    for number in range(LAYERS):
        block, layer = f"{trunk}.blocks.{number}", f"{own}.encoder.layers.{number}"
        made[f"{block}.attn.qkv.{kind}"] = _joined(state, layer, kind)
        made[f"{block}.attn.proj.{kind}"] = state[f"{layer}.self_attn.out_proj.{kind}"].clone()
        for theirs, ours in (("norm1", "layer_norm1"), ("norm2", "layer_norm2"), *(("mlp.fc1",) * 2, ("mlp.fc2",) * 2)):
            made[f"{block}.{theirs}.{kind}"] = state[f"{layer}.{ours}.{kind}"].clone()


def _text(made: dict[str, torch.Tensor], state: Mapping[str, torch.Tensor], kind: str) -> None:
    own = "text_model"
    made[f"text.ln_final.{kind}"] = state[f"{own}.final_layer_norm.{kind}"].clone()
    made[f"text.text_projection.{kind}"] = state[f"{own}.head.{kind}"].clone()
    names = (("ln_1", "layer_norm1"), ("ln_2", "layer_norm2"), ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2"))
    for number in range(LAYERS):
        block, layer = f"text.transformer.resblocks.{number}", f"{own}.encoder.layers.{number}"
        made[f"{block}.attn.in_proj_{kind}"] = _joined(state, layer, kind)
        for theirs, ours in (*names, ("attn.out_proj", "self_attn.out_proj")):
            made[f"{block}.{theirs}.{kind}"] = state[f"{layer}.{ours}.{kind}"].clone()
