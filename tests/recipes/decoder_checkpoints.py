"""Checkpoints of decoders that give dense vectors."""

from __future__ import annotations

from pathlib import Path

from transformers import (
    Gemma3TextConfig,
    Gemma3TextModel,
    LlamaConfig,
    LlamaModel,
    MistralConfig,
    MistralModel,
    Qwen2Config,
    Qwen2Model,
    Qwen3Config,
    Qwen3Model,
)

from . import vocabularies
from .sentence_modules import DenseSpec, write_dense, write_sentence_modules
from .tiny_shapes import DECODER, WIDTH
from .weights import edit_config, spread, write_model


def qwen2(folder: Path, *, causal: bool) -> None:
    words = vocabularies.qwen()
    model = Qwen2Model(Qwen2Config(**DECODER, vocab_size=words.size, eos_token_id=words.id_of("<|endoftext|>")))
    spread(model, folder.name, embedding=0.3)
    write_model(model, folder)
    if not causal:
        edit_config(folder, is_causal=False)
    words.save(folder, max_length=512)


def stella_qwen2(folder: Path) -> None:
    qwen2(folder, causal=True)
    write_dense(folder / "2_Dense_24", DenseSpec(WIDTH, 24), seed=f"{folder.name}:2_Dense_24")


def sentence_qwen2(folder: Path) -> None:
    qwen2(folder, causal=False)
    write_sentence_modules(folder, width=WIDTH, pooling="lasttoken", max_length=512)


def qwen3(folder: Path) -> None:
    words = vocabularies.qwen_embedding()
    config = Qwen3Config(**DECODER, head_dim=8, vocab_size=words.size, eos_token_id=words.id_of("<|im_end|>"))
    model = Qwen3Model(config)
    spread(model, folder.name, embedding=0.3)
    write_model(model, folder)
    words.save(folder, max_length=512)


def mistral(folder: Path, *, extra: tuple[str, ...] = ()) -> None:
    words = vocabularies.sentencepiece_bpe(extra=extra)
    model = MistralModel(MistralConfig(**DECODER, vocab_size=words.size, sliding_window=None))
    spread(model, folder.name, embedding=0.3)
    write_model(model, folder)
    words.save(folder, max_length=512)


def gritlm(folder: Path) -> None:
    mistral(folder, extra=("<|user|>", "<|embed|>"))


def llama_bidirectional(folder: Path) -> None:
    words = vocabularies.sentencepiece_bpe()
    model = LlamaModel(LlamaConfig(**DECODER, vocab_size=words.size))
    spread(model, folder.name, embedding=0.3)
    write_model(model, folder)
    auto_map = {
        "AutoConfig": "llama_bidirectional_model.LlamaBidirectionalConfig",
        "AutoModel": "llama_bidirectional_model.LlamaBidirectionalModel",
    }
    edit_config(folder, architectures=["LlamaBidirectionalModel"], auto_map=auto_map, model_type="llama_bidirec")
    words.save(folder, max_length=512)


def embedding_gemma(folder: Path) -> None:
    words = vocabularies.sentencepiece_bpe(gemma=True, add_eos=True)
    config = Gemma3TextConfig(
        **{**DECODER, "num_hidden_layers": 3, "max_position_embeddings": 256},
        vocab_size=words.size,
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        use_bidirectional_attention=True,
    )
    model = Gemma3TextModel(config)
    spread(model, folder.name, embedding=0.3)
    write_model(model, folder)
    words.save(folder, max_length=256)
    dense = (DenseSpec(WIDTH, 64, bias=False), DenseSpec(64, WIDTH, bias=False))
    prompts = {"query": "task: search result | query: ", "document": "title: none | text: "}
    write_sentence_modules(folder, width=WIDTH, pooling="mean", dense=dense, max_length=256, prompts=prompts)
