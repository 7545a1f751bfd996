"""Checkpoints of dense encoders: BERT and its kin, in the layouts in which their authors publish them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    GteConfig,
    GteModel,
    ModernBertConfig,
    ModernBertModel,
    MPNetConfig,
    MPNetModel,
    NomicBertConfig,
    NomicBertModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from . import vocabularies
from .sentence_modules import DenseSpec, write_sentence_modules
from .tiny_shapes import ENCODER, NTK_FACTOR, NTK_THETA, POSITIONS, ROBERTA, WIDTH
from .vocabularies import Vocabulary
from .weights import edit_config, gaussian, linear, spread, write_json, write_model, write_tensors


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


def bert(folder: Path, *, vocabulary: Vocabulary | None = None) -> None:
    words = vocabulary or vocabularies.wordpiece()
    model = BertModel(BertConfig(**ENCODER, vocab_size=words.size, pad_token_id=words.id_of(pad(words))))
    spread(model, folder.name)
    write_model(model, folder)
    words.save(folder, max_length=POSITIONS)


def pad(vocabulary: Vocabulary) -> str:
    return str(vocabulary.config["pad_token"])


def bert_xlmr_vocabulary(folder: Path) -> None:
    bert(folder, vocabulary=vocabularies.unigram())


def sentence_bert(folder: Path) -> None:
    bert(folder)
    write_sentence_modules(folder, width=WIDTH, pooling="mean", max_length=POSITIONS)


def sentence_bert_dense(folder: Path) -> None:
    bert(folder)
    dense = (DenseSpec(WIDTH, 48, "Tanh"), DenseSpec(48, 24, "Identity", bias=False))
    prompts = {"query": "query: ", "document": "passage: "}
    write_sentence_modules(folder, width=WIDTH, pooling="cls", dense=dense, max_length=40, prompts=prompts)


def sentence_bert_unnormalized(folder: Path) -> None:
    bert(folder)
    prompts = {"always": "passage: "}
    write_sentence_modules(
        folder, width=WIDTH, pooling="mean", normalize=False, prompts=prompts, default_prompt="always"
    )


def roberta(folder: Path) -> None:
    words = vocabularies.roberta()
    model = RobertaModel(RobertaConfig(**ROBERTA, vocab_size=words.size))
    spread(model, folder.name)
    write_model(model, folder)
    words.save(folder, max_length=POSITIONS)
    write_sentence_modules(folder, width=WIDTH, pooling="mean", max_length=POSITIONS)


def xlm_roberta(folder: Path) -> None:
    words = vocabularies.multilingual_e5()
    model = XLMRobertaModel(XLMRobertaConfig(**ROBERTA, vocab_size=words.size))
    spread(model, folder.name)
    write_model(model, folder)
    words.save(folder, max_length=POSITIONS)


def mpnet(folder: Path) -> None:
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


def distilbert(folder: Path) -> None:
    words = vocabularies.wordpiece(tokenizer_class="DistilBertTokenizer", type_ids=False)
    model = DistilBertModel(distilbert_config(words))
    spread(model, folder.name)
    write_model(model, folder)
    words.save(folder, max_length=POSITIONS)
    write_sentence_modules(folder, width=WIDTH, pooling="mean", max_length=POSITIONS)


def modernbert(folder: Path) -> None:
    words = vocabularies.modernbert()
    model = ModernBertModel(modernbert_config(words))
    spread(model, folder.name)
    write_model(model, folder)
    words.save(folder, max_length=POSITIONS)


def sentence_modernbert(folder: Path) -> None:
    modernbert(folder)
    write_sentence_modules(folder, width=WIDTH, pooling="cls", max_length=POSITIONS)


def nomic_bert(folder: Path) -> None:
    words = vocabularies.wordpiece()
    model = NomicBertModel(NomicBertConfig(**{**ENCODER, "vocab_size": words.size}))
    spread(model, folder.name)
    write_model(model, folder)
    words.save(folder, max_length=POSITIONS)


def nomic_bert_original(folder: Path) -> None:
    nomic_bert(folder)
    write_original_nomic_config(folder)


def write_original_nomic_config(folder: Path, **changes: Any) -> None:
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


def nomic_bert_moe(folder: Path) -> None:
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
    write_original_nomic_config(
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


def gte(folder: Path) -> None:
    words = vocabularies.unigram()
    model = GteModel(gte_config(words, pad_token_id=1))
    spread(model, folder.name)
    write_model(model, folder)
    words.save(folder, max_length=POSITIONS)


def gte_original(folder: Path) -> None:
    gte(folder)
    write_original_gte_config(folder, "NewModel")


def jina_bert(folder: Path) -> None:
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
