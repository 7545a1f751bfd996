"""Small random ColSmol checkpoints: transformers' Idefics3 with a linear layer behind it, as merged ones are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from random_weights import draw
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import Idefics3Config, Idefics3Model

TILE = 16
LONGEST = 48
WIDTH = 12
IMAGE, AROUND, WHOLE, END = "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"
MARKERS = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))
PREPROCESSOR: Mapping[str, Any] = {
    "do_convert_rgb": True,
    "do_image_splitting": True,
    "do_normalize": True,
    "do_pad": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "Idefics3ImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "max_image_size": {"longest_edge": TILE},
    "processor_class": "Idefics3Processor",
    "resample": 1,
    "rescale_factor": 0.00392156862745098,
    "size": {"longest_edge": LONGEST},
}
TINY: Mapping[str, Any] = {
    "vision_config": {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "image_size": TILE,
        "patch_size": 4,
    },
    "text_config": {
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"},
    },
    "scale_factor": 2,
}


class Made(torch.nn.Module):
    """The model and its projection, as SIE puts them together."""

    def __init__(self, model: Idefics3Model, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.model = model
        self.linear = linear

    def forward(self, **given: torch.Tensor) -> torch.Tensor:
        """`[batch, positions, dim]` of unit length."""
        states = self.model(**given, use_cache=False).last_hidden_state
        return torch.nn.functional.normalize(self.linear(states), dim=-1)


def write_colsmol(
    folder: Path,
    *,
    config: Mapping[str, Any] = TINY,
    preprocessor: Mapping[str, Any] = PREPROCESSOR,
    spread: float = 1.5,
    width: int = WIDTH,
) -> Made:
    """A seeded one whose every weight is random."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = write_smol(folder)
    text = {**config["text_config"], "vocab_size": len(vocabulary), "pad_token_id": vocabulary[END]}
    told = Idefics3Config(**{**config, "text_config": text, "image_token_id": vocabulary[IMAGE]})
    model = Idefics3Model(told)
    made = Made(model, torch.nn.Linear(model.config.text_config.hidden_size, width)).eval()
    draw(made, spread)
    told.architectures = ["ColIdefics3"]
    told.save_pretrained(folder)
    save_file(
        {name: t.contiguous() for name, t in made.state_dict().items()}, folder / "model.safetensors", {"format": "pt"}
    )
    (folder / "preprocessor_config.json").write_text(json.dumps(dict(preprocessor)), encoding="utf-8")
    vision = config["vision_config"]
    positions = (vision["image_size"] // vision["patch_size"] // config["scale_factor"]) ** 2
    (folder / "processor_config.json").write_text(json.dumps({"image_seq_len": positions}), encoding="utf-8")
    return made


def write_smol(folder: Path) -> dict[str, int]:
    """`tokenizer.json` of SmolLM's kind: bytes, two new lines as one token, markers as special ones."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("\u010a", "\u010a"), ("t", "h"), ("th", "e"), ("i", "n")]
    special = ("<|im_start|>", "<|im_end|>", END, AROUND, WHOLE, IMAGE, *MARKERS)
    pieces = [*letters, *(left + right for left, right in merges), *special]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE({p: n for p, n in vocabulary.items() if p not in special}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens(list(special))
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "GPT2Tokenizer",
        "processor_class": "Idefics3Processor",
        "model_max_length": 8192,
        "bos_token": "<|im_start|>",
        "eos_token": END,
        "pad_token": "<|im_end|>",
        "unk_token": "<|im_end|>",
        "add_prefix_space": False,
        "truncation_side": "left",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return vocabulary
