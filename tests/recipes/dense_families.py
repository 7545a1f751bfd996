"""Dense encoders: every backbone of SIE's dense text bundles, plain or as sentence-transformers repositories."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    Gemma3TextConfig,
    Gemma3TextModel,
    GteConfig,
    GteModel,
    LlamaConfig,
    LlamaModel,
    MistralConfig,
    MistralModel,
    ModernBertConfig,
    ModernBertModel,
    MPNetConfig,
    MPNetModel,
    NomicBertConfig,
    NomicBertModel,
    Qwen2Config,
    Qwen2Model,
    Qwen3Config,
    Qwen3Model,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from . import vocabularies
from .family import Family
from .sentence_modules import DenseSpec, write_dense, write_sentence_modules
from .vocabularies import Vocabulary
from .weights import edit_config, gaussian, linear, spread, write_json, write_model, write_tensors

WIDTH = 32
POSITIONS = 64
"""Tokens that every encoder here takes; the bundles cut at 48, so that both limits are told apart."""

ENCODER: Mapping[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": POSITIONS,
}
ROBERTA: Mapping[str, Any] = {
    **ENCODER,
    "max_position_embeddings": POSITIONS + 2,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
}
DECODER: Mapping[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-6,
}
QUERY_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
INSTRUCT = "Instruct: {instruction}\nQuery: {text}"
NTK_FACTOR = 8.0
NTK_THETA = 20_000.0


def modernbert_config(vocabulary: Vocabulary, **changes: Any) -> ModernBertConfig:
    """Three layers, global every second, a local window of 8: both kinds of attention and both RoPE bases matter."""
    ids = {name: vocabulary.id_of(token) for name, token in (("cls", "[CLS]"), ("sep", "[SEP]"), ("pad", "[PAD]"))}
    return ModernBertConfig(
        vocab_size=vocabulary.size,
        hidden_size=WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=POSITIONS,
        global_attn_every_n_layers=2,
        local_attention=8,
        cls_token_id=ids["cls"],
        bos_token_id=ids["cls"],
        sep_token_id=ids["sep"],
        eos_token_id=ids["sep"],
        pad_token_id=ids["pad"],
        **changes,
    )


def gte_config(vocabulary: Vocabulary, **changes: Any) -> GteConfig:
    """GTE's "new" encoder with fixed NTK scaling: theta times the factor, frequencies over factor^(2/head_dim)."""
    head = WIDTH // int(ENCODER["num_attention_heads"])
    rope = {"rope_type": "linear", "rope_theta": NTK_THETA * NTK_FACTOR, "factor": NTK_FACTOR ** (2 / head)}
    return GteConfig(**{**ENCODER, "vocab_size": vocabulary.size, "rope_parameters": rope, **changes})


def write_original_gte_config(folder: Path, architecture: str) -> None:
    """Rewrite `config.json` as the published GTE checkpoints have it: `model_type: new`, code in another repository."""
    edit_config(
        folder,
        drop=("rope_parameters", "transformers_version", "dtype"),
        architectures=[architecture],
        auto_map={
            "AutoConfig": "Alibaba-NLP/new-impl--configuration.NewConfig",
            "AutoModel": "Alibaba-NLP/new-impl--modeling.NewModel",
            "AutoModelForMaskedLM": "Alibaba-NLP/new-impl--modeling.NewForMaskedLM",
        },
        model_type="new",
        layer_norm_type="layer_norm",
        logn_attention_clip1=False,
        logn_attention_scale=False,
        pack_qkv=True,
        position_embedding_type="rope",
        rope_scaling={"factor": NTK_FACTOR, "type": "ntk"},
        rope_theta=NTK_THETA,
        unpad_inputs=False,
        use_memory_efficient_attention=False,
        torch_dtype="float32",
    )


def _bert(folder: Path, *, vocabulary: Vocabulary | None = None) -> None:
    words = vocabulary or vocabularies.wordpiece()
    model = BertModel(BertConfig(**ENCODER, vocab_size=words.size, pad_token_id=words.id_of(_pad(words))))
    spread(model, folder.name)
    write_model(model, folder)
    words.save(folder, max_length=POSITIONS)


def _pad(vocabulary: Vocabulary) -> str:
    return str(vocabulary.config["pad_token"])


def _bert_xlmr_vocabulary(folder: Path) -> None:
    _bert(folder, vocabulary=vocabularies.unigram())


def _sentence_bert(folder: Path) -> None:
    _bert(folder)
    write_sentence_modules(folder, width=WIDTH, pooling="mean", max_length=POSITIONS)


def _sentence_bert_dense(folder: Path) -> None:
    _bert(folder)
    dense = (DenseSpec(WIDTH, 48, "Tanh"), DenseSpec(48, 24, "Identity", bias=False))
    prompts = {"query": "query: ", "document": "passage: "}
    write_sentence_modules(folder, width=WIDTH, pooling="cls", dense=dense, max_length=40, prompts=prompts)


def _sentence_bert_unnormalized(folder: Path) -> None:
    _bert(folder)
    prompts = {"always": "passage: "}
    write_sentence_modules(
        folder, width=WIDTH, pooling="mean", normalize=False, prompts=prompts, default_prompt="always"
    )


def _roberta(folder: Path) -> None:
    words = vocabularies.roberta()
    model = RobertaModel(RobertaConfig(**ROBERTA, vocab_size=words.size))
    spread(model, folder.name)
    write_model(model, folder)
    words.save(folder, max_length=POSITIONS)
    write_sentence_modules(folder, width=WIDTH, pooling="mean", max_length=POSITIONS)


def _xlm_roberta(folder: Path) -> None:
    words = vocabularies.multilingual_e5()
    model = XLMRobertaModel(XLMRobertaConfig(**ROBERTA, vocab_size=words.size))
    spread(model, folder.name)
    write_model(model, folder)
    words.save(folder, max_length=POSITIONS)


def _mpnet(folder: Path) -> None:
    words = vocabularies.mpnet()
    config = {**ENCODER, "max_position_embeddings": POSITIONS + 2}
    model = MPNetModel(MPNetConfig(**config, vocab_size=words.size, pad_token_id=1, bos_token_id=0, eos_token_id=2))
    spread(model, folder.name)
    write_model(model, folder)
    words.save(folder, max_length=POSITIONS)
    write_sentence_modules(folder, width=WIDTH, pooling="mean", max_length=POSITIONS)


def distilbert_config(vocabulary: Vocabulary) -> DistilBertConfig:
    """DistilBERT spells every width its own way."""
    return DistilBertConfig(
        vocab_size=vocabulary.size, dim=WIDTH, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=POSITIONS
    )


def _distilbert(folder: Path) -> None:
    words = vocabularies.wordpiece(tokenizer_class="DistilBertTokenizer", type_ids=False)
    model = DistilBertModel(distilbert_config(words))
    spread(model, folder.name)
    write_model(model, folder)
    words.save(folder, max_length=POSITIONS)
    write_sentence_modules(folder, width=WIDTH, pooling="mean", max_length=POSITIONS)


def _modernbert(folder: Path) -> None:
    words = vocabularies.modernbert()
    model = ModernBertModel(modernbert_config(words))
    spread(model, folder.name)
    write_model(model, folder)
    words.save(folder, max_length=POSITIONS)


def _sentence_modernbert(folder: Path) -> None:
    _modernbert(folder)
    write_sentence_modules(folder, width=WIDTH, pooling="cls", max_length=POSITIONS)


def _nomic_bert(folder: Path) -> None:
    words = vocabularies.wordpiece()
    model = NomicBertModel(NomicBertConfig(**{**ENCODER, "vocab_size": words.size}))
    spread(model, folder.name)
    write_model(model, folder)
    words.save(folder, max_length=POSITIONS)


def _nomic_bert_original(folder: Path) -> None:
    _nomic_bert(folder)
    _write_original_nomic_config(folder)


def _write_original_nomic_config(folder: Path, **changes: Any) -> None:
    """`config.json` as nomic-embed-text-v1.5 has it: GPT-2's names, and code in another repository."""
    words = vocabularies.wordpiece()
    content: dict[str, Any] = {
        "activation_function": "swiglu",
        "architectures": ["NomicBertModel"],
        "auto_map": {
            "AutoConfig": "nomic-ai/nomic-bert-2048--configuration_hf_nomic_bert.NomicBertConfig",
            "AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel",
        },
        "causal": False,
        "layer_norm_epsilon": 1e-12,
        "max_trained_positions": POSITIONS,
        "mlp_fc1_bias": False,
        "mlp_fc2_bias": False,
        "model_type": "nomic_bert",
        "n_embd": WIDTH,
        "n_head": 4,
        "n_inner": 48,
        "n_layer": 2,
        "n_positions": POSITIONS,
        "prenorm": False,
        "qkv_proj_bias": False,
        "rotary_emb_base": 1000,
        "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False,
        "rotary_scaling_factor": None,
        "type_vocab_size": 2,
        "use_rms_norm": False,
        "vocab_size": words.size,
    }
    write_json(folder / "config.json", {**content, **changes})


def _nomic_bert_moe(folder: Path) -> None:
    """nomic-embed-text-v2-moe: experts in every second layer, which transformers' NomicBERT does not have."""
    words = vocabularies.wordpiece()
    seed, hidden, inner, experts = folder.name, WIDTH, 48, 4
    tensors = {
        "embeddings.word_embeddings.weight": gaussian((words.size, hidden), f"{seed}:words"),
        "embeddings.token_type_embeddings.weight": gaussian((1, hidden), f"{seed}:types") * 0.4,
        "emb_ln.weight": gaussian((hidden,), f"{seed}:emb_ln") * 0.1 + 1,
        "emb_ln.bias": gaussian((hidden,), f"{seed}:emb_ln.bias") * 0.1,
    }
    for index in range(2):
        layer = f"encoder.layers.{index}"
        shapes = {"attn.Wqkv": (3 * hidden, hidden), "attn.out_proj": (hidden, hidden)}
        if index % 2:
            tensors |= {
                f"{layer}.mlp.router.layer.weight": linear(experts, hidden, f"{seed}:{index}:router"),
                f"{layer}.mlp.experts.mlp.w1": linear(experts * inner, hidden, f"{seed}:{index}:w1"),
                f"{layer}.mlp.experts.mlp.w2": linear(experts * inner, hidden, f"{seed}:{index}:w2"),
                f"{layer}.mlp.experts.bias": gaussian((hidden,), f"{seed}:{index}:bias") * 0.1,
            }
        else:
            shapes |= {"mlp.fc1": (inner, hidden), "mlp.fc2": (hidden, inner)}
        for name, (rows, columns) in shapes.items():
            tensors[f"{layer}.{name}.weight"] = linear(rows, columns, f"{seed}:{index}:{name}")
            tensors[f"{layer}.{name}.bias"] = gaussian((rows,), f"{seed}:{index}:{name}.bias") * 0.1
        for name in ("norm1", "norm2"):
            tensors[f"{layer}.{name}.weight"] = gaussian((hidden,), f"{seed}:{index}:{name}") * 0.1 + 1
            tensors[f"{layer}.{name}.bias"] = gaussian((hidden,), f"{seed}:{index}:{name}.bias") * 0.1
    write_tensors(folder / "model.safetensors", tensors)
    _write_original_nomic_config(
        folder,
        activation_function="gelu",
        mlp_fc1_bias=True,
        mlp_fc2_bias=True,
        qkv_proj_bias=True,
        moe_every_n_layers=2,
        moe_top_k=2,
        num_experts=experts,
        type_vocab_size=1,
    )
    words.save(folder, max_length=POSITIONS)


def _gte(folder: Path) -> None:
    words = vocabularies.unigram()
    model = GteModel(gte_config(words, pad_token_id=1))
    spread(model, folder.name)
    write_model(model, folder)
    words.save(folder, max_length=POSITIONS)


def _gte_original(folder: Path) -> None:
    _gte(folder)
    write_original_gte_config(folder, "NewModel")


def _jina_bert(folder: Path) -> None:
    """jina-embeddings-v2: BERT with symmetric ALiBi, no positions, a gated MLP; six heads, so slopes interleave."""
    words = vocabularies.wordpiece()
    seed, hidden, inner, heads = folder.name, 48, 40, 6
    linears = {
        "attention.self.query": (hidden, hidden, True),
        "attention.self.key": (hidden, hidden, True),
        "attention.self.value": (hidden, hidden, True),
        "attention.output.dense": (hidden, hidden, True),
        "mlp.gated_layers": (2 * inner, hidden, False),
        "mlp.wo": (hidden, inner, True),
    }
    norms = ["embeddings.LayerNorm"]
    tensors = {
        "embeddings.word_embeddings.weight": gaussian((words.size, hidden), f"{seed}:words"),
        "embeddings.token_type_embeddings.weight": gaussian((2, hidden), f"{seed}:types") * 0.4,
    }
    for index in range(2):
        layer = f"encoder.layer.{index}"
        for name, (rows, columns, bias) in linears.items():
            tensors[f"{layer}.{name}.weight"] = linear(rows, columns, f"{seed}:{index}:{name}") * 1.5
            if bias:
                tensors[f"{layer}.{name}.bias"] = gaussian((rows,), f"{seed}:{index}:{name}.bias") * 0.1
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.mlp.layernorm"]
    for name in norms:
        tensors[f"{name}.weight"] = gaussian((hidden,), f"{seed}:{name}") * 0.1 + 1
        tensors[f"{name}.bias"] = gaussian((hidden,), f"{seed}:{name}.bias") * 0.1
    write_tensors(folder / "model.safetensors", tensors)
    implementation = "jinaai/jina-bert-implementation"
    write_json(
        folder / "config.json",
        {
            "_name_or_path": implementation,
            "architectures": ["JinaBertForMaskedLM"],
            "attention_probs_dropout_prob": 0.0,
            "auto_map": {
                "AutoConfig": f"{implementation}--configuration_bert.JinaBertConfig",
                "AutoModel": f"{implementation}--modeling_bert.JinaBertModel",
                "AutoModelForMaskedLM": f"{implementation}--modeling_bert.JinaBertForMaskedLM",
            },
            "emb_pooler": "mean",
            "feed_forward_type": "geglu",
            "hidden_act": "gelu",
            "hidden_dropout_prob": 0.1,
            "hidden_size": hidden,
            "intermediate_size": inner,
            "layer_norm_eps": 1e-12,
            "max_position_embeddings": POSITIONS,
            "model_max_length": POSITIONS,
            "model_type": "bert",
            "num_attention_heads": heads,
            "num_hidden_layers": 2,
            "pad_token_id": 0,
            "position_embedding_type": "alibi",
            "type_vocab_size": 2,
            "vocab_size": words.size,
        },
    )
    words.save(folder, max_length=POSITIONS)


def _qwen2(folder: Path, *, causal: bool) -> None:
    words = vocabularies.qwen()
    model = Qwen2Model(Qwen2Config(**DECODER, vocab_size=words.size, eos_token_id=words.id_of("<|endoftext|>")))
    spread(model, folder.name, embedding=0.3)
    write_model(model, folder)
    if not causal:
        edit_config(folder, is_causal=False)
    words.save(folder, max_length=1024)


def _stella_qwen2(folder: Path) -> None:
    _qwen2(folder, causal=True)
    write_dense(folder / "2_Dense_24", DenseSpec(WIDTH, 24), seed=f"{folder.name}:2_Dense_24")


def _sentence_qwen2(folder: Path) -> None:
    _qwen2(folder, causal=False)
    write_sentence_modules(folder, width=WIDTH, pooling="lasttoken", max_length=1024)


def _qwen3(folder: Path) -> None:
    words = vocabularies.qwen_embedding()
    config = Qwen3Config(**DECODER, head_dim=8, vocab_size=words.size, eos_token_id=words.id_of("<|im_end|>"))
    model = Qwen3Model(config)
    spread(model, folder.name, embedding=0.3)
    write_model(model, folder)
    words.save(folder, max_length=1024)


def _mistral(folder: Path, *, extra: tuple[str, ...] = ()) -> None:
    words = vocabularies.sentencepiece_bpe(extra=extra)
    model = MistralModel(MistralConfig(**DECODER, vocab_size=words.size, sliding_window=None))
    spread(model, folder.name, embedding=0.3)
    write_model(model, folder)
    words.save(folder, max_length=1024)


def _gritlm(folder: Path) -> None:
    _mistral(folder, extra=("<|user|>", "<|embed|>"))


def _llama_bidirectional(folder: Path) -> None:
    words = vocabularies.sentencepiece_bpe()
    model = LlamaModel(LlamaConfig(**DECODER, vocab_size=words.size))
    spread(model, folder.name, embedding=0.3)
    write_model(model, folder)
    auto_map = {
        "AutoConfig": "llama_bidirectional_model.LlamaBidirectionalConfig",
        "AutoModel": "llama_bidirectional_model.LlamaBidirectionalModel",
    }
    edit_config(folder, architectures=["LlamaBidirectionalModel"], auto_map=auto_map, model_type="llama_bidirec")
    words.save(folder, max_length=1024)


def _embedding_gemma(folder: Path) -> None:
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


_NORMALIZED: Mapping[str, Any] = {"normalize": True}
_CLS: Mapping[str, Any] = {"pooling": "cls", "normalize": True}
_MEAN: Mapping[str, Any] = {"pooling": "mean", "normalize": True}
_E5: Mapping[str, Any] = {**_MEAN, "query_template": "query: {text}", "doc_template": "passage: {text}"}
_NOMIC: Mapping[str, Any] = {
    **_MEAN,
    "query_template": "search_query: {text}",
    "doc_template": "search_document: {text}",
}
_INSTRUCTED: Mapping[str, Any] = {"query_template": INSTRUCT, "default_instruction": QUERY_INSTRUCTION}
_ST = "SentenceTransformerDenseAdapter"
_D: Mapping[str, int] = {"dense": WIDTH}

DENSE_FAMILIES = (
    Family("bert", "BertFlashAdapter", _bert, "intfloat__e5-large-v2.yaml", _D, native="BertModel", runtime=_E5),
    Family(
        "bert_xlmr_vocabulary",
        "BertFlashAdapter",
        _bert_xlmr_vocabulary,
        "Snowflake__snowflake-arctic-embed-s.yaml",
        _D,
        native="BertModel",
        runtime={**_CLS, "query_template": "query: {text}", "doc_template": "{text}"},
        note="multilingual-e5-small's pairing: BERT weights behind an XLM-RoBERTa tokenizer",
    ),
    Family(
        "sentence_bert",
        _ST,
        _sentence_bert,
        "sentence-transformers__all-MiniLM-L6-v2.yaml",
        _D,
        native="BertModel",
        runtime=_MEAN,
    ),
    Family(
        "sentence_bert_dense",
        _ST,
        _sentence_bert_dense,
        "Snowflake__snowflake-arctic-embed-m-v2.0.yaml",
        {"dense": 24},
        native="BertModel",
        max_length=None,
        runtime=_NORMALIZED,
        note="two Dense modules (Tanh with bias, Identity without) and prompts; the checkpoint cuts at 40 tokens",
    ),
    Family(
        "sentence_bert_unnormalized",
        _ST,
        _sentence_bert_unnormalized,
        "Snowflake__snowflake-arctic-embed-m-v2.0.yaml",
        _D,
        native="BertModel",
        runtime={"normalize": False, "query_template": "query: {text}"},
        note="no Normalize module, and a default prompt that stays in front of the template",
    ),
    Family(
        "bert_candle",
        "CandleEmbeddingAdapter",
        _bert,
        "BAAI__bge-small-en-v1.5.yaml",
        _D,
        native="BertModel",
        runtime={
            **_CLS,
            "query_template": "Represent this sentence for searching relevant passages: {text}",
            "doc_template": "{text}",
        },
    ),
    Family(
        "roberta",
        _ST,
        _roberta,
        "sentence-transformers__all-MiniLM-L6-v2.yaml",
        _D,
        native="RobertaModel",
        runtime=_MEAN,
    ),
    Family(
        "xlm_roberta",
        "XLMRobertaFlashAdapter",
        _xlm_roberta,
        "intfloat__multilingual-e5-large-instruct.yaml",
        _D,
        native="XLMRobertaModel",
        runtime={**_E5, "query_template": r"Instruct: {instruction}\nQuery: {text}", **{"default_instruction": "find"}},
        note="the published SentencePiece vocabulary where its package can be had; the query template has `\\` and `n`",
    ),
    Family(
        "mpnet", _ST, _mpnet, "sentence-transformers__all-MiniLM-L6-v2.yaml", _D, native="MPNetModel", runtime=_MEAN
    ),
    Family(
        "distilbert",
        _ST,
        _distilbert,
        "sentence-transformers__all-MiniLM-L6-v2.yaml",
        _D,
        native="DistilBertModel",
        runtime=_MEAN,
    ),
    Family(
        "modernbert",
        "ModernBERTFlashAdapter",
        _modernbert,
        "Alibaba-NLP__gte-modernbert-base.yaml",
        _D,
        native="ModernBertModel",
        runtime=_CLS,
    ),
    Family(
        "modernbert_mean",
        "ModernBERTFlashAdapter",
        _modernbert,
        "ibm-granite__granite-embedding-small-english-r2.yaml",
        _D,
        native="ModernBertModel",
        runtime=_NOMIC,
    ),
    Family(
        "sentence_modernbert",
        _ST,
        _sentence_modernbert,
        "sentence-transformers__all-MiniLM-L6-v2.yaml",
        _D,
        native="ModernBertModel",
        runtime=_CLS,
    ),
    Family(
        "modernbert_pytorch",
        "PyTorchEmbeddingAdapter",
        _modernbert,
        "answerdotai__ModernBERT-base.yaml",
        _D,
        native="ModernBertModel",
        runtime=_CLS,
    ),
    Family(
        "nomic_bert",
        "CandleEmbeddingAdapter",
        _nomic_bert,
        "nomic-ai__nomic-embed-text-v1.5.yaml",
        _D,
        native="NomicBertModel",
        runtime=_NOMIC,
    ),
    Family(
        "nomic_bert_original",
        "CandleEmbeddingAdapter",
        _nomic_bert_original,
        "nomic-ai__nomic-embed-text-v1.5.yaml",
        _D,
        twin="NomicBertModel",
        runtime=_NOMIC,
        note="GPT-2's names in `config.json`: transformers reads none of them and builds its default sizes",
    ),
    Family(
        "nomic_bert_moe",
        "NomicFlashAdapter",
        _nomic_bert_moe,
        "",
        _D,
        runtime=_MEAN,
        has_reference=False,
        note="mixture of experts: only in the authors' code, though `model_type` is transformers' own `nomic_bert`",
    ),
    Family(
        "gte", "RoPEFlashAdapter", _gte, "Alibaba-NLP__gte-multilingual-base.yaml", _D, native="GteModel", runtime=_CLS
    ),
    Family(
        "gte_original",
        "RoPEFlashAdapter",
        _gte_original,
        "Alibaba-NLP__gte-multilingual-base.yaml",
        _D,
        twin="GteModel",
        runtime=_CLS,
        note="`model_type: new` with fixed NTK scaling; in transformers' terms, linear scaling of a larger base",
    ),
    Family(
        "jina_bert",
        "CandleEmbeddingAdapter",
        _jina_bert,
        "jinaai__jina-embeddings-v2-small-en.yaml",
        {"dense": 48},
        runtime=_MEAN,
        note="`model_type: bert`, so transformers loads a plain BERT with half of its weights missing and says nothing",
    ),
    Family(
        "qwen2",
        "Qwen2FlashAdapter",
        _stella_qwen2,
        "NovaSearch__stella_en_1.5B_v5.yaml",
        {"dense": 24},
        native="Qwen2Model",
        loadtime={"dense_projection_path": "2_Dense_24"},
        runtime={**_MEAN, **_INSTRUCTED},
        note="bidirectional, because the adapter is unless `causal`; the config does not say so",
    ),
    Family(
        "sentence_qwen2",
        _ST,
        _sentence_qwen2,
        "Alibaba-NLP__gte-Qwen2-7B-instruct.yaml",
        _D,
        native="Qwen2Model",
        loadtime={"config_kwargs": {"use_cache": False}},
        runtime={"pooling": "last", "normalize": True, **_INSTRUCTED},
        note="bidirectional by `is_causal` in its config",
    ),
    Family(
        "qwen3",
        "Qwen2FlashAdapter",
        _qwen3,
        "Qwen__Qwen3-Embedding-0.6B.yaml",
        _D,
        native="Qwen3Model",
        loadtime={"causal": True},
        runtime={
            "pooling": "last",
            "normalize": True,
            **_INSTRUCTED,
            "query_template": "Instruct: {instruction}\nQuery:{text}",
        },
        note="the tokenizer's file appends `<|endoftext|>`; transformers 5 drops that for `add_bos_token: false`",
    ),
    Family(
        "mistral",
        "SGLangEmbeddingAdapter",
        _mistral,
        "Linq-AI-Research__Linq-Embed-Mistral.yaml",
        _D,
        native="MistralModel",
        loadtime={"append_eos": True},
        runtime={"pooling": "last_token", "normalize": True, **_INSTRUCTED},
    ),
    Family(
        "mistral_bidirectional",
        "PyTorchEmbeddingAdapter",
        _gritlm,
        "GritLM__GritLM-7B.yaml",
        _D,
        native="MistralModel",
        loadtime={"forward_kwargs": {"is_causal": False}},
        runtime={
            **_MEAN,
            "query_template": "<|user|>\n{instruction}\n<|embed|>\n{text}",
            "doc_template": "<|embed|>\n{text}",
            "default_instruction": QUERY_INSTRUCTION,
        },
    ),
    Family(
        "llama_bidirectional",
        "PyTorchEmbeddingAdapter",
        _llama_bidirectional,
        "",
        _D,
        twin="LlamaModel",
        loadtime={"attn_implementation": "eager", "trust_remote_code": True},
        runtime={"pooling": "last_token", "normalize": True, **_INSTRUCTED},
        note="LlamaModel without the causal mask",
    ),
    Family(
        "embedding_gemma",
        _ST,
        _embedding_gemma,
        "sentence-transformers__all-MiniLM-L6-v2.yaml",
        _D,
        native="Gemma3TextModel",
        runtime={},
        note="bidirectional Gemma 3 with local windows, two Dense modules, prompts",
    ),
)
