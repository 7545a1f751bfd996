"""A small random Qwen3-VL, saved as transformers saves it, with a tokenizer and a chat template of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from random_weights import draw
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLModel, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from sie_triton.verify.reference_texts import SENTENCE

MODEL = "acme/seer"
NAMES = {"Embedding": MODEL, "Reranker": "acme/judge"}
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# A conversation's parts in their order; written for these tests.
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PREPROCESSOR: Mapping[str, Any] = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "Qwen2VLImageProcessorFast",
    "image_std": [0.5, 0.5, 0.5],
    "merge_size": 2,
    "patch_size": 16,
    "processor_class": "Qwen3VLProcessor",
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"longest_edge": 16777216, "shortest_edge": 65536},
    "temporal_patch_size": 2,
}
VISION: Mapping[str, Any] = {
    "depth": 3,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_heads": 2,
    "out_hidden_size": 24,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "num_position_embeddings": 36,
    "deepstack_visual_indexes": [0, 1],
}
TEXT: Mapping[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 4096,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": [2, 2, 2],
        "mrope_interleaved": True,
    },
}


def bundle_text(folder: Path, *, adapter: str = "Embedding", limit: int = 700, width: int = 24) -> str:
    """A bundle of the checkpoint: an embedder, or with `Reranker` a reranker."""
    tasks = f"encode: {{dense: {{dim: {width}}}}}" if adapter == "Embedding" else "score: {}"
    return f"""\
sie_id: {MODEL}
weights_path: {folder}
inputs: {{text: true, image: true}}
tasks: {{{tasks}}}
max_sequence_length: {limit}
profiles:
  default:
    max_batch_tokens: 4096
    adapter_path: sie_server.adapters.qwen3_vl:Qwen3VL{adapter}Adapter
    adapter_options:
      runtime: {{}}
"""


def write_qwen3_vl(
    folder: Path, *, template: str = TEMPLATE, preprocessor: Mapping[str, Any] = PREPROCESSOR, **vision: Any
) -> Any:
    """A seeded model whose every weight is random, norms and biases too."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = write_tokenizer(folder)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor), encoding="utf-8")
    ids = {
        "image_token_id": vocabulary["<|image_pad|>"],
        "video_token_id": vocabulary["<|video_pad|>"],
        "vision_start_token_id": vocabulary["<|vision_start|>"],
        "vision_end_token_id": vocabulary["<|vision_end|>"],
    }
    text = {**TEXT, "vocab_size": len(vocabulary)}
    config = Qwen3VLConfig(vision_config={**VISION, **vision}, text_config=text, tie_word_embeddings=True, **ids)
    made: Any = Qwen3VLForConditionalGeneration(config)
    draw(made)
    made.save_pretrained(folder, safe_serialization=True)
    return Qwen3VLForConditionalGeneration.from_pretrained(folder).eval()


WINDOWED: Mapping[str, Any] = {
    "depth": 3,
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_heads": 2,
    "out_hidden_size": 24,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [1],
    "hidden_act": "silu",
}
PAGES = "acme/pages"
PROJECTION = "custom_text_proj"
DIM = 12
# What colpali's adapters of Qwen2.5-VL are trained on, as their settings spell it.
TARGETS = "(.*(model).*(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj).*$|.*(custom_text_proj).*$)"


def pages_text(folder: Path, *, limit: int = 420, dim: int = DIM) -> str:
    """A bundle of ColQwen2.5's kind."""
    return f"""\
sie_id: {PAGES}
weights_path: {folder}
inputs: {{text: true, image: true}}
tasks: {{encode: {{multivector: {{dim: {dim}}}}}}}
max_sequence_length: {limit}
profiles:
  default:
    max_batch_tokens: 4096
    adapter_path: sie_server.adapters.colqwen2:ColQwen2Adapter
    adapter_options:
      loadtime:
        token_dim: {dim}
        muvera_config: {{num_repetitions: 4, num_simhash_projections: 2, final_projection_dim: 64}}
  muvera:
    extends: default
    adapter_options:
      runtime: {{output_types: [dense], muvera: {{}}}}
"""


def write_colqwen(folder: Path, *, dim: int = DIM) -> Path:
    """A base model in `base`, with the projection of ColQwen2.5, and an adapter of it in `adapter`.

    Names are those of the published pair: the tower's begin with `visual.`, the language model's with `model.`.
    """
    base, adapter = folder / "base", folder / "adapter"
    for made in (base, adapter):
        made.mkdir(parents=True, exist_ok=True)
        vocabulary = write_tokenizer(made)
        settings = {**PREPROCESSOR, "patch_size": 14, "processor_class": "Qwen2_5_VLProcessor"}
        (made / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 2, 2]}
    text = {**TEXT, "rope_parameters": rope, "vocab_size": len(vocabulary)}
    del text["head_dim"]
    text |= {"hidden_size": 48, "num_attention_heads": 4}
    ids = {
        "image_token_id": vocabulary["<|image_pad|>"],
        "video_token_id": vocabulary["<|video_pad|>"],
        "vision_start_token_id": vocabulary["<|vision_start|>"],
        "vision_end_token_id": vocabulary["<|vision_end|>"],
    }
    config = Qwen2_5_VLConfig(vision_config={**WINDOWED, "out_hidden_size": 48}, text_config=text, **ids)
    config.save_pretrained(base)
    generator = torch.Generator().manual_seed(11)
    tensors = {}
    for name, parameter in Qwen2_5_VLModel(config).named_parameters():
        scale = 0.5 if parameter.dim() < 2 else 1.5 / parameter[0].numel() ** 0.5
        published = name.replace("language_model.", "model.", 1)
        tensors[published] = torch.randn(parameter.shape, generator=generator) * scale
    tensors[f"{PROJECTION}.weight"] = torch.randn(dim, 48, generator=generator) / 4
    tensors[f"{PROJECTION}.bias"] = torch.randn(dim, generator=generator) / 4
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    adapted = [name for name in tensors if "_proj.weight" in name and not name.startswith("visual.")]
    write_adapter(adapter, {name: tensors[name] for name in adapted}, "acme/pages-base", TARGETS, generator)
    return folder


def write_adapter(
    folder: Path, adapted: Mapping[str, torch.Tensor], base: str, targets: str, generator: torch.Generator
) -> None:
    """A random LoRA adapter of the tensors `adapted`, which the pattern `targets` names, as PEFT saves it."""
    changes = {}
    for name, tensor in adapted.items():
        root = f"base_model.model.{name.removesuffix('.weight')}"
        changes[f"{root}.lora_A.weight"] = torch.randn(4, tensor.shape[1], generator=generator) / 4
        changes[f"{root}.lora_B.weight"] = torch.randn(tensor.shape[0], 4, generator=generator) / 4
    save_file(changes, folder / "adapter_model.safetensors")
    told = {
        "base_model_name_or_path": base,
        "bias": "none",
        "init_lora_weights": "gaussian",
        "lora_alpha": 6,
        "lora_dropout": 0.1,
        "peft_type": "LORA",
        "r": 4,
        "target_modules": targets,
        "task_type": "FEATURE_EXTRACTION",
    }
    (folder / "adapter_config.json").write_text(json.dumps(told), encoding="utf-8")


def write_tokenizer(folder: Path) -> dict[str, int]:
    """Bytes, a few merges, and the markers of a conversation, as Qwen's tokenizers have them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges: list[tuple[str, str]] = []
    words = [*SENTENCE.split(), "yes", "no", "Represent", "input"]
    pieces = list(alphabet)
    for word in dict.fromkeys(words):
        for start in (word, f"Ġ{word}"):
            made = start[0]
            for letter in start[1:]:
                merges.append((made, letter))
                made += letter
                pieces.append(made)
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.BPE(vocabulary, list(dict.fromkeys(merges))))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "eos_token": "<|im_end|>",
        "additional_special_tokens": list(SPECIAL),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    found: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    return found
