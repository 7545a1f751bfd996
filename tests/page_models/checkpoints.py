"""Small random ColPali checkpoints, saved as transformers saves them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from random_weights import draw
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import ColPaliConfig, ColPaliForRetrieval

from sie_triton.verify.reference_texts import SENTENCE

SIZE = 28
WIDTH = 20
PREPROCESSOR: Mapping[str, Any] = {
    "do_convert_rgb": None,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "SiglipImageProcessor",
    "image_seq_length": 16,
    "image_std": [0.5, 0.5, 0.5],
    "processor_class": "ColPaliProcessor",
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": SIZE, "width": SIZE},
}
SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
IMAGE = "<image>"
TINY: Mapping[str, Any] = {
    "vision_config": {
        "model_type": "siglip_vision_model",
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "image_size": SIZE,
        "patch_size": 7,
        "projection_dim": 32,
        "vision_use_head": False,
    },
    "text_config": {
        "model_type": "gemma",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 8,
    },
    "projection_dim": 32,
    "hidden_size": 32,
}


def write_colpali(
    folder: Path,
    *,
    config: Mapping[str, Any] = TINY,
    preprocessor: Mapping[str, Any] = PREPROCESSOR,
    spread: float = 1.5,
    width: int = WIDTH,
    older: bool = False,
) -> ColPaliForRetrieval:
    """A seeded ColPali whose every weight is random. `older`: as transformers 4 names its tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = write_gemma(folder)
    text = {**config["text_config"], "vocab_size": len(vocabulary), "pad_token_id": 0}
    vlm = {**config, "model_type": "paligemma", "text_config": text, "image_token_index": vocabulary[IMAGE]}
    made = ColPaliForRetrieval(ColPaliConfig(vlm_config=vlm, embedding_dim=width))
    draw(made, spread)
    made.save_pretrained(folder)
    if older:
        rename(folder / "model.safetensors")
    (folder / "preprocessor_config.json").write_text(json.dumps(dict(preprocessor)), encoding="utf-8")
    loaded: ColPaliForRetrieval = ColPaliForRetrieval.from_pretrained(folder, attn_implementation="eager")
    return loaded.eval()


def rename(path: Path) -> None:
    """The tower's tensors under the names that releases of transformers before 5 gave them, and that the hub has."""
    older = {name.replace("vision_tower.", "vision_tower.vision_model."): t for name, t in load_file(path).items()}
    save_file(older, path, metadata={"format": "pt"})


def write_gemma(folder: Path) -> dict[str, int]:
    """`tokenizer.json` of Gemma's kind: letters, bytes for what has none, blanks as letters of words."""
    letters = sorted(set("\u2581\n" + SENTENCE.replace(" ", "\u2581") + "Question:Describe the image."))
    words = ["at", "\u2581a", "es", "\u2581t", "ti"]
    pieces = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *words, IMAGE]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    merges = [("a", "t"), ("\u2581", "a"), ("e", "s"), ("\u2581", "t"), ("t", "i")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    # ColPali's processor asks the tokenizer for no start of its own: texts have it written in front of them.
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    tokenizer.add_special_tokens([*SPECIAL, IMAGE])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "GemmaTokenizer",
        "processor_class": "ColPaliProcessor",
        "padding_side": "right",
        "add_bos_token": True,
        "add_eos_token": False,
        "model_max_length": 1000000000000000019884624838656,
        "additional_special_tokens": [IMAGE],
        **{f"{name[1:-1]}_token": name for name in SPECIAL},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return vocabulary
