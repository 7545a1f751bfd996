"""Known architectures under their authors' names: which are read, and what is refused by name.

The numbers are tested elsewhere (`tests/recipes`), with the factory's checkpoints in the published layouts. Here the
configurations are the published ones, as far as their authors' repositories show them, and the damage done to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from sie_triton.checkpoint import FAMILIES
from sie_triton.checkpoint.published import Beyond, Native, read_published
from sie_triton.checkpoint.published_keys import CARRIED, HARMLESS

GTE: Mapping[str, Any] = {
    "architectures": ["NewModel", "NewForTokenClassification"],
    "attention_probs_dropout_prob": 0.0,
    "auto_map": {"AutoModel": "Alibaba-NLP/new-impl--modeling.NewModel"},
    "classifier_dropout": 0.0,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "id2label": {"0": "LABEL_0"},
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "label2id": {"LABEL_0": 0},
    "layer_norm_eps": 1e-12,
    "layer_norm_type": "layer_norm",
    "logn_attention_clip1": False,
    "logn_attention_scale": False,
    "max_position_embeddings": 8192,
    "model_type": "new",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pack_qkv": True,
    "pad_token_id": 1,
    "position_embedding_type": "rope",
    "rope_scaling": {"factor": 8.0, "type": "ntk"},
    "rope_theta": 20000,
    "torch_dtype": "float16",
    "transformers_version": "4.39.1",
    "type_vocab_size": 1,
    "unpad_inputs": False,
    "use_memory_efficient_attention": False,
    "vocab_size": 250048,
}
GTE_TENSORS = (
    "new.embeddings.word_embeddings.weight",
    "new.encoder.layer.0.attention.qkv_proj.bias",
    "new.encoder.layer.0.mlp.up_gate_proj.weight",
    "classifier.weight",
)
NOMIC: Mapping[str, Any] = {
    "activation_function": "swiglu",
    "architectures": ["NomicBertModel"],
    "attn_pdrop": 0.0,
    "auto_map": {"AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel"},
    "bos_token_id": None,
    "causal": False,
    "dense_seq_output": True,
    "embd_pdrop": 0.0,
    "eos_token_id": None,
    "fused_bias_fc": True,
    "fused_dropout_add_ln": True,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-12,
    "max_trained_positions": 2048,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "model_type": "nomic_bert",
    "n_embd": 768,
    "n_head": 12,
    "n_inner": 3072,
    "n_layer": 12,
    "n_positions": 8192,
    "pad_vocab_size_multiple": 64,
    "parallel_block": False,
    "parallel_block_tied_norm": False,
    "prenorm": False,
    "qkv_proj_bias": False,
    "reorder_and_upcast_attn": False,
    "resid_pdrop": 0.0,
    "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None,
    "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True,
    "summary_activation": None,
    "summary_first_dropout": 0.0,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
    "torch_dtype": "float32",
    "transformers_version": "4.37.2",
    "type_vocab_size": 2,
    "use_cache": True,
    "use_flash_attn": True,
    "use_rms_norm": False,
    "use_xentropy": True,
    "vocab_size": 30528,
}
NOMIC_TENSORS = ("emb_ln.weight", "encoder.layers.0.attn.Wqkv.weight", "encoder.layers.0.mlp.fc11.weight")
JINA: Mapping[str, Any] = {
    "_name_or_path": "jina-reranker-v2-base-multilingual",
    "architectures": ["XLMRobertaForSequenceClassification"],
    "attention_probs_dropout_prob": 0.1,
    "auto_map": {"AutoConfig": "configuration_xlm_roberta.XLMRobertaFlashConfig"},
    "bos_token_id": 0,
    "classifier_dropout": None,
    "emb_pooler": None,
    "eos_token_id": 2,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "id2label": {"0": "LABEL_0"},
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "label2id": {"LABEL_0": 0},
    "layer_norm_eps": 1e-5,
    "max_position_embeddings": 1026,
    "model_type": "xlm-roberta",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "num_labels": 1,
    "output_past": True,
    "pad_token_id": 1,
    "position_embedding_type": "absolute",
    "torch_dtype": "bfloat16",
    "transformers_version": "4.40.0",
    "type_vocab_size": 1,
    "use_cache": False,
    "use_flash_attn": True,
    "vocab_size": 250002,
}
JINA_TENSORS = (
    "roberta.emb_ln.weight",
    "roberta.embeddings.position_embeddings.weight",
    "roberta.encoder.layers.0.mixer.Wqkv.weight",
    "roberta.encoder.layers.11.norm2.bias",
    "classifier.out_proj.weight",
)
ROTARY = {"position_embedding_type": "rotary", "rotary_emb_base": 20000.0, "architectures": ["HF_ColBERT"]}


def native(config: Mapping[str, Any], names: tuple[str, ...]) -> Native:
    found = read_published(config, names)
    assert isinstance(found, Native), found
    return found


def test_gte_multilingual_base() -> None:
    config = native(GTE, GTE_TENSORS).config
    assert (config["model_type"], config["architectures"]) == ("gte", ["GteModel", "GteForTokenClassification"])
    assert config["rope_parameters"]["rope_theta"] == 160_000
    assert config["rope_parameters"]["factor"] == pytest.approx(8 ** (2 / 64))
    assert "auto_map" not in config and config["id2label"] == {"0": "LABEL_0"}
    plain = native({**GTE, "rope_scaling": None, "rope_theta": 160_000}, GTE_TENSORS).config["rope_parameters"]
    assert plain == {"rope_type": "default", "rope_theta": 160_000.0}


def test_nomic_embed_text() -> None:
    config = native(NOMIC, NOMIC_TENSORS).config
    assert (config["hidden_size"], config["num_hidden_layers"], config["vocab_size"]) == (768, 12, 30528)
    assert config["rope_parameters"] == {"rope_type": "default", "rope_theta": 1000.0}
    # The authors' code rounds the vocabulary up, and so do its tensors.
    assert native({**NOMIC, "vocab_size": 30522}, NOMIC_TENSORS).config["vocab_size"] == 30528


def test_jina_reranker_v2() -> None:
    found = native(JINA, JINA_TENSORS)
    assert found.config["architectures"] == ["XLMRobertaForSequenceClassification"]
    assert found.rename is not None
    assert found.rename("roberta.emb_ln.bias") == ("roberta.embeddings.LayerNorm.bias",)
    assert found.rename("roberta.encoder.layers.11.norm2.bias") == ("roberta.encoder.layer.11.output.LayerNorm.bias",)
    assert found.rename("classifier.out_proj.weight") == ("classifier.out_proj.weight",)
    assert found.rename("roberta.encoder.layers.3.mixer.Wqkv.bias") == tuple(
        f"roberta.encoder.layer.3.attention.self.{part}.bias" for part in ("query", "key", "value")
    )


def test_jina_colbert_v2_is_another_class_of_transformers() -> None:
    found = native({**JINA, **ROTARY}, (*JINA_TENSORS[:1], *JINA_TENSORS[2:4], "linear.weight"))
    assert found.rename is None  # transformers knows these names
    assert (found.config["model_type"], found.config["architectures"]) == (
        "jina_embeddings_v3",
        ["JinaEmbeddingsV3Model"],
    )
    assert found.config["rope_parameters"]["rope_theta"] == 20000.0


@pytest.mark.parametrize(
    ("config", "names", "said"),
    [
        ({**GTE, "logn_attention_scale": True}, GTE_TENSORS, "logn_attention_scale"),
        ({**GTE, "layer_norm_type": "rms_norm"}, GTE_TENSORS, "layer_norm_type"),
        ({**GTE, "position_embedding_type": "absolute"}, GTE_TENSORS, "position_embedding_type"),
        ({**GTE, "pack_qkv": False}, GTE_TENSORS, "pack_qkv"),
        ({**GTE, "rope_scaling": {"type": "ntk", "factor": 8.0, "mixed_b": 0.6}}, GTE_TENSORS, "rope_scaling"),
        ({**GTE, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, GTE_TENSORS, "rope_scaling"),
        ({**GTE, "window_size": 128}, GTE_TENSORS, "`window_size`"),
        ({**GTE, "hidden_size": "768"}, GTE_TENSORS, "hidden_size"),
        (GTE, (*GTE_TENSORS, "new.encoder.layer.0.attention.q_proj.weight"), "attention.q_proj"),
        ({**NOMIC, "activation_function": "gelu"}, NOMIC_TENSORS, "activation_function"),
        ({**NOMIC, "rotary_emb_fraction": 0.5}, NOMIC_TENSORS, "rotary_emb_fraction"),
        ({**NOMIC, "prenorm": True}, NOMIC_TENSORS, "prenorm"),
        ({**NOMIC, "rotary_scaling_factor": 2}, NOMIC_TENSORS, "rotary_scaling_factor"),
        ({**NOMIC, "num_experts": 8}, NOMIC_TENSORS, "mixture of experts"),
        (NOMIC, (*NOMIC_TENSORS, "encoder.layers.1.mlp.experts.mlp.w1"), "mixture of experts"),
        ({key: value for key, value in NOMIC.items() if key != "qkv_proj_bias"}, NOMIC_TENSORS, "qkv_proj_bias"),
        ({**JINA, "lora_adaptations": ["retrieval.query"]}, JINA_TENSORS, "LoRA"),
        (JINA, (*JINA_TENSORS, "roberta.pooler.dense.parametrizations.weight.original"), "LoRA"),
        ({**JINA, "position_embedding_type": "alibi"}, JINA_TENSORS, "alibi"),
        ({**JINA, "position_embedding_type": "rotary"}, JINA_TENSORS, "rotary_emb_base"),
        (JINA, (*JINA_TENSORS, "roberta.encoder.layers.0.mixer.Wkv.weight"), "mixer.Wkv"),
        ({"model_type": "bert", "position_embedding_type": "alibi"}, (), "ALiBi"),
        ({"model_type": "bert"}, ("encoder.layer.0.mlp.gated_layers.weight",), "ALiBi"),
    ],
)
def test_what_the_native_class_would_not_obey_is_refused_by_name(
    config: Mapping[str, Any], names: tuple[str, ...], said: str
) -> None:
    found = read_published(config, names)
    assert isinstance(found, Beyond)
    assert said in found.reason


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"model_type": "bert", "position_embedding_type": "absolute"}, ("encoder.layer.0.output.dense.weight",)),
        ({"model_type": "xlm-roberta", "auto_map": {}}, ("roberta.encoder.layer.0.attention.self.query.weight",)),
        ({"model_type": "nomic_bert", "hidden_size": 768}, NOMIC_TENSORS),
        ({"model_type": "gte", "auto_map": {"AutoModel": "modeling_hf_alibaba_nlp_gte.GteModel"}}, GTE_TENSORS),
        ({"model_type": "jina_embeddings_v3"}, ("encoder.layers.0.mixer.Wqkv.weight",)),
    ],
)
def test_transformers_own_layouts_are_left_alone(config: Mapping[str, Any], names: tuple[str, ...]) -> None:
    assert read_published(config, names) is None


def test_each_native_family_is_one_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    for family in FAMILIES:
        for name in (family.native or "").split(", "):
            assert not name or hasattr(transformers, f"{name}Model"), name


def test_keys_have_reasons_and_none_is_said_to_decide_nothing_by_mistake() -> None:
    assert all(HARMLESS.values())
    assert HARMLESS.keys() >= CARRIED
    assert (
        not {"hidden_size", "rope_theta", "hidden_act", "layer_norm_eps", "position_embedding_type"} & HARMLESS.keys()
    )
