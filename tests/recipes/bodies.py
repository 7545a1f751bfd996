"""The transformer bodies of the references: plain transformers in float32 and eager attention, one item at a time.

Checkpoints in a layout that only their authors' code reads are computed from their tensors: with the native class whose
arithmetic is the same, or (GTE's fixed NTK scaling, JinaBERT's ALiBi) with the arithmetic written out here. Sources:
the papers and model cards (ALiBi, arXiv 2108.12409; jina-embeddings-v2, arXiv 2310.19923; NTK scaling, the article
https://kexue.fm/archives/9706).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    GteConfig,
    GteForMaskedLM,
    JinaEmbeddingsV3Config,
    JinaEmbeddingsV3Model,
    LlamaConfig,
    LlamaModel,
    NomicBertConfig,
    NomicBertModel,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

Body = Callable[[Sequence[int], "Sequence[int] | None"], Tensor]
"""Token ids, and for each whether others may attend to it (None: to all) -> hidden states `[tokens, width]`."""
Tensors = Mapping[str, Tensor]

_HELD = 4


def read_json(path: Path) -> Any:
    """The content of a JSON file, None where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def is_jina_bert(config: Mapping[str, Any]) -> bool:
    """Whether this is BERT with ALiBi instead of positions."""
    return config.get("model_type") == "bert" and config.get("position_embedding_type") == "alibi"


def is_flash_xlm_roberta(config: Mapping[str, Any]) -> bool:
    """Whether the tensors are named as in jinaai's own XLM-RoBERTa code."""
    return config.get("model_type") == "xlm-roberta" and "auto_map" in config


@lru_cache(maxsize=_HELD)
def load_body(folder: Path, *, bidirectional: bool = False) -> Body:
    """The checkpoint's encoder; `bidirectional` lifts the causal mask of a decoder that has one."""
    config = read_json(folder / "config.json")
    if config["model_type"] == "new":
        return _gte_body(config, load_file(folder / "model.safetensors"))
    if is_jina_bert(config):
        return _jina_bert_body(config, load_file(folder / "model.safetensors"))
    model = _load_model(folder, config, bidirectional=bidirectional).eval()

    def run(ids: Sequence[int], visible: Sequence[int] | None) -> Tensor:
        mask = torch.tensor([visible if visible is not None else [1] * len(ids)])
        with torch.no_grad():
            states: Tensor = model(input_ids=torch.tensor([ids]), attention_mask=mask).last_hidden_state
        return states[0]

    return run


def _load_model(folder: Path, config: Mapping[str, Any], *, bidirectional: bool) -> Any:
    options: dict[str, Any] = {"attn_implementation": "eager", "dtype": torch.float32, "local_files_only": True}
    if config["model_type"] == "llama_bidirec":
        names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
        more = ("intermediate_size", "max_position_embeddings", "rms_norm_eps", "rope_parameters", "head_dim")
        llama = LlamaConfig(**{name: config[name] for name in (*names, *more)}, is_causal=False)
        return LlamaModel.from_pretrained(folder, config=llama, **options)
    if config["model_type"] == "nomic_bert" and "n_embd" in config:
        nomic = NomicBertConfig(
            vocab_size=config["vocab_size"],
            hidden_size=config["n_embd"],
            num_hidden_layers=config["n_layer"],
            num_attention_heads=config["n_head"],
            intermediate_size=config["n_inner"],
            layer_norm_eps=config["layer_norm_epsilon"],
            type_vocab_size=config["type_vocab_size"],
            max_position_embeddings=config["n_positions"],
            rope_parameters={"rope_type": "default", "rope_theta": float(config["rotary_emb_base"])},
        )
        return NomicBertModel.from_pretrained(folder, config=nomic, **options)
    if is_flash_xlm_roberta(config):
        names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        rest = ("max_position_embeddings", "type_vocab_size", "layer_norm_eps", "pad_token_id")
        rope = {"rope_type": "default", "rope_theta": float(config["rotary_emb_base"])}
        jina = JinaEmbeddingsV3Config(**{name: config[name] for name in (*names, *rest)}, rope_parameters=rope)
        return JinaEmbeddingsV3Model.from_pretrained(folder, config=jina, **options)
    native = AutoConfig.from_pretrained(folder)
    if bidirectional:
        native.is_causal = False
    return AutoModel.from_pretrained(folder, config=native, **options)


@lru_cache(maxsize=_HELD)
def load_mlm(folder: Path) -> Body:
    """The masked language model: logits `[tokens, vocabulary]`."""
    config = read_json(folder / "config.json")
    if config["model_type"] == "new":
        tensors = load_file(folder / "model.safetensors")
        model = GteForMaskedLM.from_pretrained(
            None, config=_gte_config(config), state_dict={_gte_name(k): v for k, v in tensors.items()}
        )
        model.set_attn_implementation("eager")
    else:
        model = AutoModelForMaskedLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    model.eval()

    def run(ids: Sequence[int], visible: Sequence[int] | None) -> Tensor:
        assert visible is None
        with torch.no_grad():
            logits: Tensor = model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))).logits
        return logits[0]

    return run


@lru_cache(maxsize=_HELD)
def load_classifier(folder: Path) -> Callable[[Sequence[int], Sequence[int] | None], Tensor]:
    """The sequence classifier: token ids and type ids (None: the model has none) -> logits `[labels]`."""
    config = read_json(folder / "config.json")
    if is_flash_xlm_roberta(config):
        model = _jina_reranker(folder, config)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, attn_implementation="eager", dtype=torch.float32
        )
    model.eval()

    def run(ids: Sequence[int], type_ids: Sequence[int] | None) -> Tensor:
        more = {} if type_ids is None else {"token_type_ids": torch.tensor([type_ids])}
        with torch.no_grad():
            logits: Tensor = model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), **more).logits
        return logits[0]

    return run


@lru_cache(maxsize=_HELD)
def load_causal(folder: Path) -> Callable[[Sequence[int]], Tensor]:
    """The causal language model: the logits `[vocabulary]` that follow the last token."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()

    def run(ids: Sequence[int]) -> Tensor:
        with torch.no_grad():
            logits: Tensor = model(input_ids=torch.tensor([ids])).logits
        return logits[0, -1]

    return run


def _jina_reranker(folder: Path, config: Mapping[str, Any]) -> Any:
    """XLM-RoBERTa with absolute positions, its fused and renamed tensors taken apart again."""
    tensors = load_file(folder / "model.safetensors")
    renames = (
        ("emb_ln", "embeddings.LayerNorm"),
        ("encoder.layers.", "encoder.layer."),
        ("mixer.out_proj", "attention.output.dense"),
        ("norm1", "attention.output.LayerNorm"),
        ("norm2", "output.LayerNorm"),
        ("mlp.fc1", "intermediate.dense"),
        ("mlp.fc2", "output.dense"),
    )
    plain: dict[str, Tensor] = {}
    for stored, tensor in tensors.items():
        name = stored
        for old, new in renames:
            name = name.replace(old, new)
        if "mixer.Wqkv" in name:
            for part, chunk in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                plain[name.replace("mixer.Wqkv", f"attention.self.{part}")] = chunk
        else:
            plain[name] = tensor
    fields = {key: value for key, value in config.items() if key not in ("auto_map", "architectures", "torch_dtype")}
    model = XLMRobertaForSequenceClassification._from_config(
        XLMRobertaConfig(**fields), attn_implementation="eager", dtype=torch.float32
    )
    missing, unexpected = model.load_state_dict(plain, strict=False)
    assert not unexpected and all("position_ids" in name for name in missing), (missing, unexpected)
    return model


def _gte_config(config: Mapping[str, Any]) -> GteConfig:
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    more = ("max_position_embeddings", "type_vocab_size", "layer_norm_eps", "pad_token_id")
    factor = config["rope_scaling"]["factor"]
    head = config["hidden_size"] // config["num_attention_heads"]
    rope = {"rope_type": "linear", "rope_theta": config["rope_theta"] * factor, "factor": factor ** (2 / head)}
    return GteConfig(**{name: config[name] for name in (*names, *more)}, rope_parameters=rope)


def _gte_name(name: str) -> str:
    return f"gte.{name.removeprefix('new.')}" if name.startswith("new.") else name


# --- arithmetic of its own --------------------------------------------------------------------------------------------


def _linear(states: Tensor, tensors: Tensors, name: str) -> Tensor:
    return functional.linear(states, tensors[f"{name}.weight"], tensors.get(f"{name}.bias"))


def _norm(states: Tensor, tensors: Tensors, name: str, eps: float) -> Tensor:
    return functional.layer_norm(states, states.shape[-1:], tensors[f"{name}.weight"], tensors[f"{name}.bias"], eps)


def _heads(states: Tensor, heads: int) -> Tensor:
    return states.view(states.shape[0], heads, -1).transpose(0, 1)


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | float) -> Tensor:
    """`[heads, tokens, head]` each -> `[tokens, width]`."""
    scores = query @ key.transpose(1, 2) / math.sqrt(query.shape[-1]) + bias
    mixed = functional.softmax(scores, dim=-1) @ value
    return mixed.transpose(0, 1).reshape(query.shape[1], -1)


def _gte_body(config: Mapping[str, Any], tensors: Tensors) -> Body:
    """GTE's "new" encoder: post-norm, rotary positions with fixed NTK scaling, a gated MLP `gelu(gate) * up`."""
    heads, eps = int(config["num_attention_heads"]), float(config["layer_norm_eps"])
    size = int(config["hidden_size"]) // heads
    factor = float(config["rope_scaling"]["factor"])
    exponent = torch.arange(0, size, 2).float() / size
    frequencies = 1.0 / ((float(config["rope_theta"]) * factor) ** exponent) / factor ** (2 / size)

    def rotate(states: Tensor) -> Tensor:
        angles = torch.arange(states.shape[1]).float()[:, None] * frequencies
        cos, sin = (torch.cat([part, part], -1) for part in (angles.cos(), angles.sin()))
        first, second = states.chunk(2, -1)
        return states * cos + torch.cat([-second, first], -1) * sin

    def run(ids: Sequence[int], visible: Sequence[int] | None) -> Tensor:
        assert visible is None
        states = tensors["embeddings.word_embeddings.weight"][torch.tensor(list(ids))]
        if config["type_vocab_size"]:
            states = states + tensors["embeddings.token_type_embeddings.weight"][0]
        states = _norm(states, tensors, "embeddings.LayerNorm", eps)
        for index in range(int(config["num_hidden_layers"])):
            layer = f"encoder.layer.{index}"
            query, key, value = (
                _heads(part, heads) for part in _linear(states, tensors, f"{layer}.attention.qkv_proj").chunk(3, -1)
            )
            mixed = _linear(_attend(rotate(query), rotate(key), value, 0.0), tensors, f"{layer}.attention.o_proj")
            states = _norm(states + mixed, tensors, f"{layer}.attn_ln", eps)
            up, gate = _linear(states, tensors, f"{layer}.mlp.up_gate_proj").chunk(2, -1)
            fed = _linear(functional.gelu(gate) * up, tensors, f"{layer}.mlp.down_proj")
            states = _norm(states + fed, tensors, f"{layer}.mlp_ln", eps)
        return states

    return run


def alibi_slopes(heads: int) -> list[float]:
    """2^(-8/n), 2^(-16/n), ... for a power of two n; else those of the lower power, then every other of the next."""
    if math.log2(heads).is_integer():
        return [2 ** (-8 * (index + 1) / heads) for index in range(heads)]
    lower = 2 ** math.floor(math.log2(heads))
    return alibi_slopes(lower) + alibi_slopes(2 * lower)[0::2][: heads - lower]


def _jina_bert_body(config: Mapping[str, Any], tensors: Tensors) -> Body:
    """JinaBERT: BERT with `-slope * |i - j|` on the scores and a gated MLP `wo(gelu(first) * second)`."""
    heads, eps = int(config["num_attention_heads"]), float(config["layer_norm_eps"])
    slopes = torch.tensor(alibi_slopes(heads))

    def run(ids: Sequence[int], visible: Sequence[int] | None) -> Tensor:
        assert visible is None
        positions = torch.arange(len(ids))
        bias = -slopes[:, None, None] * (positions[None, :] - positions[:, None]).abs()
        states = tensors["embeddings.word_embeddings.weight"][torch.tensor(list(ids))]
        states = states + tensors["embeddings.token_type_embeddings.weight"][0]
        states = _norm(states, tensors, "embeddings.LayerNorm", eps)
        for index in range(int(config["num_hidden_layers"])):
            layer = f"encoder.layer.{index}"
            query, key, value = (
                _heads(_linear(states, tensors, f"{layer}.attention.self.{name}"), heads)
                for name in ("query", "key", "value")
            )
            mixed = _linear(_attend(query, key, value, bias), tensors, f"{layer}.attention.output.dense")
            states = _norm(states + mixed, tensors, f"{layer}.attention.output.LayerNorm", eps)
            first, second = _linear(states, tensors, f"{layer}.mlp.gated_layers").chunk(2, -1)
            fed = _linear(functional.gelu(first) * second, tensors, f"{layer}.mlp.wo")
            states = _norm(states + fed, tensors, f"{layer}.mlp.layernorm", eps)
        return states

    return run
