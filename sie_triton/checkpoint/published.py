"""Known architectures under the names of their authors' own code, in transformers' terms.

Such a checkpoint names code of its own (`auto_map`), yet transformers has the architecture: its configuration has other
keys, or its tensors other names. Each `Family` is read strictly. A key or a tensor that the native class would not see,
or a value that it would not obey, makes the checkpoint `Beyond` what transformers can build, with the reason.

Sources: the modelling code that the checkpoints' authors published, and their papers and model cards.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sie_triton.checkpoint.files import architectures
from sie_triton.checkpoint.published_keys import CARRIED, HARMLESS

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Native:
    """What transformers reads: a `config.json`, and native names for a published tensor's.

    `rename` gives one name, or several that share the tensor's first axis in equal parts; None where transformers knows
    the published names itself.
    """

    config: dict[str, Any]
    rename: Callable[[str], tuple[str, ...]] | None = None


@dataclass(frozen=True)
class Beyond:
    """Why transformers' own classes cannot build it, as a sentence without its full stop."""

    reason: str


class _BeyondError(Exception):
    """Carries the reason out of a translation."""


_SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
_BUFFERS = r".*\brotary_emb\.inv_freq|.*\bposition_ids"


@dataclass(frozen=True)
class Family:
    """One published layout. `models` are ids of SIE's catalogue or of its integrations that have it.

    `native` is transformers' class family, None where transformers has none; `differs` says in what the published
    layout differs from it, or what transformers lacks.
    """

    name: str
    models: tuple[str, ...]
    native: str | None
    differs: str
    recognise: Callable[[Config, frozenset[str]], bool]
    translate: Callable[[Config, frozenset[str]], Native]


def read_published(config: Config, tensor_names: Iterable[str]) -> Native | Beyond | None:
    """The checkpoint in transformers' terms, or why it has none; None for one that is in no published layout here."""
    names = frozenset(tensor_names)
    family = next((family for family in FAMILIES if family.recognise(config, names)), None)
    if family is None:
        return None
    try:
        return family.translate(config, names)
    except _BeyondError as error:
        return Beyond(f"{family.name}: {error}")


class _Reader:
    """Reads a configuration so that no key is overlooked."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._read: set[str] = set()

    def stated(self, key: str, kinds: type | tuple[type, ...] = int) -> Any:
        """The value of a key that has to be there."""
        self._read.add(key)
        value = self._config.get(key)
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise _BeyondError(f"`{key}` of `config.json` is {value!r}")
        return value

    def value(self, key: str, default: Any) -> Any:
        """The value of a key, by default that of the authors' class."""
        self._read.add(key)
        value = self._config.get(key, default)
        return default if value is None else value

    def expect(self, reason: str, default: Any, key: str, *allowed: Any) -> None:
        """A key that transformers' class does not obey must have the value that the class stands for."""
        self._read.add(key)
        value = self._config.get(key, default)
        if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed):
            raise _BeyondError(f"`{key}` of `config.json` is {value!r}, and {reason}")

    def finish(self, model_type: str, architectures: list[str], **native: Any) -> dict[str, Any]:
        """The native configuration. Raises for a key that nobody read and nobody knows to be harmless."""
        for key in ("is_decoder", "add_cross_attention"):
            self.expect("only encoders are compiled", False, key, False, None)
        unknown = sorted(set(self._config) - self._read - HARMLESS.keys())
        if unknown:
            raise _BeyondError(f"`config.json` has `{unknown[0]}`, whose effect is not known")
        carried = {key: value for key, value in self._config.items() if key in CARRIED and value is not None}
        return {**carried, **native, "model_type": model_type, "architectures": architectures}


def _check_names(names: frozenset[str], patterns: Iterable[str]) -> None:
    known = re.compile("|".join(f"(?:{pattern})" for pattern in (*patterns, _BUFFERS)))
    unknown = sorted(name for name in names if not known.fullmatch(name))
    if unknown:
        raise _BeyondError(f"the weights hold `{unknown[0]}`, which transformers' class does not have")


# --- GTE, `model_type: new` -------------------------------------------------------------------------------------------

_GTE_TENSORS = (
    r"(new\.)?embeddings\.(word_embeddings|token_type_embeddings|LayerNorm)\.(weight|bias)",
    r"(new\.)?encoder\.layer\.\d+\.(attention\.(qkv_proj|o_proj)|attn_ln|mlp\.down_proj|mlp_ln)\.(weight|bias)",
    r"(new\.)?encoder\.layer\.\d+\.mlp\.up_gate_proj\.weight",
    r"(new\.)?pooler\.dense\.(weight|bias)",
    r"lm_head\.(dense|norm|decoder)\.(weight|bias)",
    r"classifier\.(weight|bias)",
)


def _gte(config: Config, names: frozenset[str]) -> Native:
    read = _Reader(config)
    sizes = {key: read.stated(key) for key in (*_SIZES, "max_position_embeddings")}
    act, norm = "its head uses gelu alone", "it has layer norms alone"
    read.expect(act, "gelu", "hidden_act", "gelu")
    read.expect(norm, "layer_norm", "layer_norm_type", "layer_norm")
    read.expect("it has rotary positions alone", "rope", "position_embedding_type", "rope")
    read.expect("it does not scale attention by length", False, "logn_attention_scale", False, None)
    read.expect("its projections are packed", True, "pack_qkv", True)
    _check_names(names, _GTE_TENSORS)
    scaling = read.value("rope_scaling", {})
    theta = float(read.value("rope_theta", 10_000.0))
    head = sizes["hidden_size"] // sizes["num_attention_heads"]
    return Native(
        read.finish(
            "gte",
            [name.replace("New", "Gte", 1) for name in architectures(config)],
            **sizes,
            hidden_act="gelu",
            type_vocab_size=read.value("type_vocab_size", 1),
            layer_norm_eps=read.value("layer_norm_eps", 1e-12),
            rope_parameters=_fixed_ntk(scaling, theta, head),
        )
    )


def _fixed_ntk(scaling: Any, theta: float, head: int) -> dict[str, Any]:
    """Fixed NTK scaling by a factor f: `theta` times f, and frequencies over f^(2/head), which is linear scaling."""
    if not scaling:
        return {"rope_type": "default", "rope_theta": theta}
    unknown = set(scaling) - {"type", "factor", "mixed_b"}
    factor = scaling.get("factor")
    if scaling.get("type") != "ntk" or scaling.get("mixed_b") or unknown or not isinstance(factor, int | float):
        raise _BeyondError(
            f"`rope_scaling` of `config.json` is {scaling!r}, and only fixed NTK scaling has a counterpart"
        )
    if factor <= 1:  # the authors' code scales only what it lengthens
        return {"rope_type": "default", "rope_theta": theta}
    return {"rope_type": "linear", "rope_theta": theta * factor, "factor": factor ** (2 / head)}


# --- NomicBERT under GPT-2's keys -------------------------------------------------------------------------------------

_NOMIC_TENSORS = (
    r"embeddings\.(word_embeddings|token_type_embeddings)\.weight",
    r"emb_ln\.(weight|bias)",
    r"encoder\.layers\.\d+\.(attn\.(Wqkv|out_proj)|mlp\.(fc11|fc12|fc2))\.weight",
    r"encoder\.layers\.\d+\.(norm1|norm2)\.(weight|bias)",
)


def _nomic(config: Config, names: frozenset[str]) -> Native:
    read = _Reader(config)
    if config.get("num_experts") or any(".experts." in name for name in names):
        raise _BeyondError("it is a mixture of experts, which transformers' NomicBERT does not have")
    for key in ("num_experts", "moe_every_n_layers", "moe_top_k", "moe_normalize_expert_weights", "moe_resid_pdrop"):
        read.value(key, None)
    read.expect("its feed-forward layers are gated by silu", "gelu_new", "activation_function", "swiglu")
    for key in ("qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias"):
        read.expect("its projections have no bias", True, key, False)
    plain = "it normalises after each of two layers"
    for key in ("prenorm", "parallel_block", "parallel_block_tied_norm", "use_rms_norm"):
        read.expect(plain, False, key, False, None)
    read.expect("it attends to both sides", False, "causal", False)
    read.expect("it rotates whole heads", 0.0, "rotary_emb_fraction", 1.0, 1)
    read.expect("it rotates halves", False, "rotary_emb_interleaved", False)
    read.expect("it does not scale rotations", None, "rotary_emb_scale_base", None)
    read.expect("it scales by the size of a head", True, "scale_attn_weights", True)
    read.expect("it scales all layers alike", False, "scale_attn_by_inverse_layer_idx", False)
    positions = read.stated("n_positions")
    if read.value("rotary_scaling_factor", None) and positions > read.value("max_trained_positions", 2048):
        raise _BeyondError(
            f"`rotary_scaling_factor` is {config['rotary_scaling_factor']!r}: frequencies would depend on the longest "
            "text of a batch"
        )
    _check_names(names, _NOMIC_TENSORS)
    vocabulary, multiple = read.stated("vocab_size"), int(read.value("pad_vocab_size_multiple", 1))
    return Native(
        read.finish(
            "nomic_bert",
            ["NomicBertModel"],
            vocab_size=-(-vocabulary // multiple) * multiple,
            hidden_size=read.stated("n_embd"),
            num_hidden_layers=read.stated("n_layer"),
            num_attention_heads=read.stated("n_head"),
            intermediate_size=read.stated("n_inner"),
            hidden_act="silu",
            layer_norm_eps=read.value("layer_norm_epsilon", 1e-5),
            type_vocab_size=read.value("type_vocab_size", 2),
            max_position_embeddings=positions,
            rope_parameters={"rope_type": "default", "rope_theta": float(read.value("rotary_emb_base", 1000))},
        )
    )


# --- XLM-RoBERTa in jinaai's code -------------------------------------------------------------------------------------

_JINA_TENSORS = (
    r"(roberta\.)?embeddings\.(word_embeddings|token_type_embeddings|position_embeddings)\.weight",
    r"(roberta\.)?emb_ln\.(weight|bias)",
    r"(roberta\.)?encoder\.layers\.\d+\.(mixer\.(Wqkv|out_proj)|mlp\.(fc1|fc2)|norm1|norm2)\.(weight|bias)",
    r"(roberta\.)?pooler\.dense\.(weight|bias)",
    r"classifier\.(dense|out_proj)\.(weight|bias)",
    r"lm_head\.((dense|layer_norm|decoder)\.(weight|bias)|bias)",
    r"linear\.(weight|bias)",
)
_JINA_RENAMES = (
    (r"\bemb_ln\.", "embeddings.LayerNorm."),
    (r"\bencoder\.layers\.", "encoder.layer."),
    (r"\bmixer\.out_proj\.", "attention.output.dense."),
    (r"\bnorm1\.", "attention.output.LayerNorm."),
    (r"\bnorm2\.", "output.LayerNorm."),
    (r"\bmlp\.fc1\.", "intermediate.dense."),
    (r"\bmlp\.fc2\.", "output.dense."),
)


def _jina(config: Config, names: frozenset[str]) -> Native:
    read = _Reader(config)
    if read.value("lora_adaptations", None) or any("parametrizations" in name for name in names):
        raise _BeyondError(
            "it has an adapter (LoRA) for each task, chosen with a request, and a graph has one set of weights"
        )
    sizes = {key: read.stated(key) for key in (*_SIZES, "max_position_embeddings", "type_vocab_size")}
    read.expect("vectors are cut by the bundle alone", None, "truncate_dim", None)
    read.expect("it computes every token", False, "last_layer_subset", False, None)
    shared = {
        **sizes,
        "vocab_size": -(-sizes["vocab_size"] // (multiple := int(read.value("pad_vocab_size_multiple", 1)))) * multiple,
        "hidden_act": read.value("hidden_act", "gelu"),
        "layer_norm_eps": read.value("layer_norm_eps", 1e-12),
    }
    _check_names(names, _JINA_TENSORS)
    positions = read.value("position_embedding_type", "absolute")
    if positions == "rotary":
        base = float(read.stated("rotary_emb_base", (int, float)))
        rope = {"rope_type": "default", "rope_theta": base}
        native = [f"JinaEmbeddingsV3{_task(name)}" for name in architectures(config)]
        # transformers knows the published tensor names of this architecture.
        return Native(read.finish("jina_embeddings_v3", native, **shared, rope_parameters=rope))
    read.value("rotary_emb_base", None)
    if positions != "absolute":
        raise _BeyondError(f"`position_embedding_type` of `config.json` is {positions!r}")
    native = [f"XLMRoberta{_task(name)}" for name in architectures(config)]
    return Native(read.finish("xlm-roberta", native, **shared), _jina_name)


def _task(architecture: object) -> str:
    found = re.search(r"For\w+$", str(architecture))
    return found[0] if found else "Model"


def _jina_name(name: str) -> tuple[str, ...]:
    for pattern, native in _JINA_RENAMES:
        name = re.sub(pattern, native, name)
    if ".mixer.Wqkv." not in name:
        return (name,)
    return tuple(name.replace(".mixer.Wqkv.", f".attention.self.{part}.") for part in ("query", "key", "value"))


# --- others -----------------------------------------------------------------------------------------------------------


def _jina_bert(config: Config, names: frozenset[str]) -> Native:
    raise _BeyondError("positions are ALiBi's and feed-forward layers gated, which transformers' BERT does not have")


def _llama_bidirectional(config: Config, names: frozenset[str]) -> Native:
    """Llama's own keys and tensors; the authors' class only lifts the causal mask."""
    changed = {"model_type": "llama", "architectures": ["LlamaModel"], "is_causal": False}
    dropped = ("auto_map", "pooling", "temperature")
    return Native({**{key: value for key, value in config.items() if key not in dropped}, **changed})


def _is_jina(config: Config, names: frozenset[str]) -> bool:
    return config.get("model_type") == "xlm-roberta" and any(".mixer.Wqkv." in name for name in names)


def _is_jina_bert(config: Config, names: frozenset[str]) -> bool:
    alibi = config.get("position_embedding_type") == "alibi"
    return config.get("model_type") == "bert" and (alibi or any(".mlp.gated_layers." in name for name in names))


FAMILIES: tuple[Family, ...] = (
    Family(
        "GTE (`model_type: new`)",
        ("Alibaba-NLP/gte-multilingual-base", "opensearch-project/opensearch-neural-sparse-encoding-doc-v3-gte"),
        "Gte",
        "other keys for rotary positions: fixed NTK scaling is linear scaling of a larger base",
        lambda config, names: config.get("model_type") == "new",
        _gte,
    ),
    Family(
        "NomicBERT",
        ("nomic-ai/nomic-embed-text-v1.5", "nomic-ai/nomic-embed-text-v2-moe"),
        "NomicBert",
        "GPT-2's keys in `config.json`; the mixture of experts of v2 is refused, transformers does not have it",
        lambda config, names: config.get("model_type") == "nomic_bert" and "n_embd" in config,
        _nomic,
    ),
    Family(
        "jinaai's XLM-RoBERTa",
        ("jinaai/jina-reranker-v2-base-multilingual", "jinaai/jina-colbert-v2", "jinaai/jina-embeddings-v3"),
        "XLMRoberta, JinaEmbeddingsV3",
        "other tensor names, and query, key and value in one (`Wqkv`); rotary positions make it transformers' "
        "JinaEmbeddingsV3; the adapters for tasks of v3 are refused",
        _is_jina,
        _jina,
    ),
    Family(
        "JinaBERT",
        (
            *(f"jinaai/jina-embeddings-v2-base-{kind}" for kind in ("code", "de", "en", "es", "zh")),
            "jinaai/jina-embeddings-v2-small-en",
        ),
        None,
        "BERT with ALiBi and gated feed-forward layers: refused, transformers does not have it",
        _is_jina_bert,
        _jina_bert,
    ),
    Family(
        "Llama without its causal mask (`model_type: llama_bidirec`)",
        ("nvidia/llama-embed-nemotron-8b",),
        "Llama",
        "Llama's own keys and tensors; `is_causal: false` lifts the mask",
        lambda config, names: config.get("model_type") == "llama_bidirec",
        _llama_bidirectional,
    ),
)
