"""Small random checkpoints of models for images and texts, saved as transformers saves them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from random_weights import draw
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from sie_triton.verify.reference_texts import SENTENCE

START, END = "<|startoftext|>", "<|endoftext|>"
SIZE = 24
PREPROCESSOR: Mapping[str, Any] = {
    "crop_size": {"height": SIZE, "width": SIZE},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "CLIPImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": SIZE},
}
TINY: Mapping[str, Any] = {
    "projection_dim": 20,
    "text_config": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 77,
    },
    "vision_config": {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "image_size": SIZE,
        "patch_size": 8,
    },
}


def write_clip(
    folder: Path,
    *,
    legacy_end: bool = False,
    preprocessor: Mapping[str, Any] = PREPROCESSOR,
    config: Mapping[str, Any] = TINY,
    spread: float = 1.5,
) -> CLIPModel:
    """A seeded CLIP with its tokenizer, whose every weight is random, norms and biases too.

    `legacy_end`: with the end token that configurations named before transformers 4.31.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = write_tokenizer(folder)
    ids = {"vocab_size": len(vocabulary), "bos_token_id": vocabulary[START], "pad_token_id": 1}
    ids["eos_token_id"] = 2 if legacy_end else vocabulary[END]
    made = CLIPModel(CLIPConfig(**{**config, "text_config": {**config["text_config"], **ids}}))
    loaded: CLIPModel = _saved(made, folder, preprocessor, spread)
    return loaded


def _saved(made: Any, folder: Path, preprocessor: Mapping[str, Any], spread: float) -> Any:
    """Every weight drawn anew, the checkpoint written, and read again."""
    draw(made, spread)
    made.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(dict(preprocessor)), encoding="utf-8")
    return type(made).from_pretrained(folder, attn_implementation="eager").eval()


def write_tokenizer(folder: Path) -> dict[str, int]:
    """`tokenizer.json` of CLIP's kind: letters, byte level, ends of words; words of the reference are one token each.

    The end token is the last one, as in CLIP's own vocabulary.
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in dict.fromkeys(SENTENCE.split()):
        left = word[0]
        for place, letter in enumerate(word[1:], start=1):
            right = f"{letter}</w>" if place == len(word) - 1 else letter
            if (left, right) not in merges:
                merges.append((left, right))
                pieces.append(left + right)
            left += right
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys([*pieces, START, END]))}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, end_of_word_suffix="</w>", unk_token=END))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(rf"<\|startoftext\|>|<\|endoftext\|>|{words}"), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(
        (END, vocabulary[END]), (START, vocabulary[START]), trim_offsets=False, add_prefix_space=False
    )
    tokenizer.add_special_tokens([START, END])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": END,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return vocabulary


TEXTS = (
    SENTENCE,
    "a photo of a cat",
    "two dogs, one bone; what's that?",
    "the quick brown fox jumps over the lazy dog",
)
SIGLIP_PREPROCESSOR: Mapping[str, Any] = {
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "SiglipImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "processor_class": "SiglipProcessor",
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": SIZE, "width": SIZE},
}
SIGLIP: Mapping[str, Any] = {
    "text_config": {
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 16,
    },
    "vision_config": TINY["vision_config"],
}


def write_siglip(
    folder: Path,
    *,
    config: Mapping[str, Any] = SIGLIP,
    preprocessor: Mapping[str, Any] = SIGLIP_PREPROCESSOR,
    tokenizer: Mapping[str, Any] | None = None,
    spread: float = 1.5,
    second: bool = False,
) -> SiglipModel:
    """A seeded SigLIP with SentencePiece's model and its `tokenizer.json`; `tokenizer` changes the settings beside.

    `second`: with a tokenizer as SigLIP 2 has it, which is Gemma's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size = (write_gemma if second else write_sentencepiece)(folder, tokenizer or {})
    sized = {"vocab_size": size, "pad_token_id": 1, "bos_token_id": None, "eos_token_id": 1}
    made = SiglipModel(SiglipConfig(**{**config, "text_config": {**sized, **config["text_config"]}}))
    loaded: SiglipModel = _saved(made, folder, preprocessor, spread)
    return loaded


def write_sentencepiece(folder: Path, changes: Mapping[str, Any]) -> int:
    """`spiece.model` and the `tokenizer.json` that says the same without what SigLIP's own class does to texts."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 3),
        model_writer=model,
        vocab_size=90,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (folder / "spiece.model").write_bytes(model.getvalue())
    told = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())  # type: ignore[attr-defined]
    pieces = [(piece.piece, piece.score) for piece in told.pieces]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Precompiled(told.normalizer_spec.precompiled_charsmap), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = (AddedToken(name, lstrip=True, rstrip=True, normalized=False) for name in ("</s>", "<unk>"))
    tokenizer.add_special_tokens(list(special))
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "SiglipTokenizer",
        "model_input_names": ["input_ids"],
        "model_max_length": 16,
        "do_lower_case": True,
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "</s>",
        **changes,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return len(pieces)


def write_gemma(folder: Path, changes: Mapping[str, Any]) -> int:
    """`tokenizer.json` of Gemma's kind: letters, bytes for what has none, blanks as letters of words."""
    special = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
    letters = sorted({letter for text in TEXTS for letter in text.replace(" ", "\u2581")})
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *letters, "at", "\u2581a"]
    merges = [("a", "t"), ("\u2581", "a")]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    tokenizer.add_special_tokens(list(special))
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "GemmaTokenizer",
        "model_input_names": ["input_ids"],
        "model_max_length": 16,
        "padding_side": "right",
        "add_bos_token": False,
        "add_eos_token": True,
        **{f"{name[1:-1]}_token": name for name in special},
        **changes,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return len(pieces)
