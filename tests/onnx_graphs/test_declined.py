"""What is not written is declined with the reason, and before anything is saved; torch then traces the graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from recipes.weights import edit_config
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from sie_triton.onnx_graphs.declined import Declined
from sie_triton.onnx_graphs.heads import HeadSite, head_outputs
from sie_triton.onnx_graphs.pooling import first_state, pool
from sie_triton.onnx_graphs.writer import GraphWriter
from sie_triton.planning.families import LastTokenLogits
from sie_triton.planning.tensors import ATTENTION_MASK, Tensor

from .checkpoints import DECODER, ENCODER, GEMMA, make
from .running import Written, texts

pytestmark = pytest.mark.export

YARN = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 80}


def no_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.bias"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def wrong_shape(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = "encoder.layer.0.attention.self.query.weight"
    tensors[name] = tensors[name][:16].contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def wrong_type(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    tensors[name] = tensors[name].to(torch.int8)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


ODD_FILES: Mapping[str, tuple[Callable[[Path], None], str]] = {
    "no tensor": (no_tensor, "no tensor `encoder.layer.1.output.dense.bias`"),
    "wrong shape": (
        wrong_shape,
        r"`encoder.layer.0.attention.self.query.weight` is \[16, 32\] and should be \[32, 32\]",
    ),
    "wrong type": (wrong_type, "`embeddings.word_embeddings.weight` has the type I8"),
    "unknown activation": (lambda folder: edit_config(folder, hidden_act="gelu_fast"), "`gelu_fast`"),
    "decoder": (lambda folder: edit_config(folder, is_decoder=True), "`is_decoder` is True"),
    "relative positions": (
        lambda folder: edit_config(folder, position_embedding_type="relative_key"),
        "`position_embedding_type` is 'relative_key'",
    ),
}


@pytest.mark.parametrize("case", ODD_FILES)
def test_odd_files(case: str, tmp_path: Path) -> None:
    change, reason = ODD_FILES[case]
    make("bert", AutoModel, tmp_path)
    change(tmp_path)
    with pytest.raises(Declined, match=reason):
        Written(tmp_path)


ODD_DECODERS: Mapping[str, tuple[Any, str]] = {
    "yarn": (transformers.Qwen3Config(**{**DECODER, "head_dim": 8, "rope_parameters": YARN}), "yarn"),
    "a window shorter than the longest text": (
        transformers.MistralConfig(**DECODER, sliding_window=64),
        "`sliding_window` is 64, and texts have up to 300 tokens",
    ),
    "layers with a window": (
        transformers.Qwen2Config(**DECODER, use_sliding_window=True, sliding_window=64, max_window_layers=1),
        "`sliding_window` is 64",
    ),
    "a cap that transformers ignores": (
        transformers.Gemma3TextConfig(**GEMMA, attn_logit_softcapping=50.0),
        "`attn_logit_softcapping` is 50.0",
    ),
    "both sides where only some kernels look": (
        transformers.Gemma2Config(**GEMMA, use_bidirectional_attention=True),
        "`use_bidirectional_attention` is True",
    ),
    "yarn in some layers": (
        transformers.Gemma3TextConfig(
            **GEMMA, rope_parameters={"full_attention": YARN, "sliding_attention": {"rope_type": "default"}}
        ),
        "yarn",
    ),
}


@pytest.mark.parametrize("case", ODD_DECODERS)
def test_odd_decoders(case: str, tmp_path: Path) -> None:
    config, reason = ODD_DECODERS[case]
    AutoModel.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(Declined, match=reason):
        Written(tmp_path)


def a_bias(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder.layers.1.attn.Wqkv.bias"] = torch.ones(96)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def no_queries(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layers.1.attn.Wqkv.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def setting(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit_config(folder, **changes)


DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}
PARTIAL = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5}
ODD_ROTARY: Mapping[str, tuple[str, Callable[[Path], None], str]] = {
    "a bias that the class does not have": ("nomic_bert", a_bias, r"a bias `encoder.layers.1.attn.Wqkv.bias`"),
    "no tensor": ("nomic_bert", no_queries, "no tensor `encoder.layers.1.attn.Wqkv.weight`"),
    "GPT-2's keys": ("nomic_bert", setting(n_embd=32), "GPT-2's keys"),
    "experts": ("nomic_bert", setting(num_experts=8), "`num_experts` is 8"),
    "norms before": ("nomic_bert", setting(prenorm=True), "`prenorm` is True"),
    "parallel layers": ("nomic_bert", setting(parallel_block=True), "`parallel_block` is True"),
    "norms by the mean square": ("nomic_bert", setting(use_rms_norm=True), "`use_rms_norm` is True"),
    "a part of each head": ("nomic_bert", setting(rotary_emb_fraction=0.5), "`rotary_emb_fraction` is 0.5"),
    "pairs": ("nomic_bert", setting(rotary_emb_interleaved=True), "`rotary_emb_interleaved` is True"),
    "by the longest text": ("nomic_bert", setting(rotary_scaling_factor=2), "`rotary_scaling_factor` is 2"),
    "rotary, dynamic": ("nomic_bert", setting(rope_parameters=DYNAMIC), "'dynamic'"),
    "rotary, partial": ("gte", setting(rope_parameters=PARTIAL), "'partial_rotary_factor': 0.5"),
    "rotary, yarn": ("jina_embeddings_v3", setting(rope_parameters=YARN), "yarn"),
    "no rotary positions": (
        "gte",
        setting(position_embedding_type="absolute"),
        "`position_embedding_type` is 'absolute'",
    ),
    "scores by length": ("gte", setting(logn_attention_scale=True), "`logn_attention_scale` is True"),
    "other norms": ("gte", setting(layer_norm_type="rms_norm"), "`layer_norm_type` is 'rms_norm'"),
    "adapters": ("jina_embeddings_v3", setting(lora_adaptations=["retrieval.query"]), "`lora_adaptations` is "),
    "decoder": ("jina_embeddings_v3", setting(is_decoder=True), "`is_decoder` is True"),
    "unknown activation": ("gte", setting(hidden_act="gelu_fast"), "`gelu_fast`"),
}


@pytest.mark.parametrize("case", ODD_ROTARY)
def test_odd_encoders_with_rotary_positions(case: str, tmp_path: Path) -> None:
    name, change, reason = ODD_ROTARY[case]
    make(name, AutoModel, tmp_path)
    assert Written(tmp_path).states
    change(tmp_path)
    with pytest.raises(Declined, match=reason):
        Written(tmp_path)


ODD_DEBERTAS: Mapping[str, tuple[dict[str, Any], str]] = {
    "positions to positions": ({"pos_att_type": ["p2p"]}, r"`pos_att_type` is \['p2p'\]"),
    "another norm": ({"norm_rel_ebd": "rms_norm"}, "`norm_rel_ebd` is 'rms_norm'"),
    "more buckets than distances": ({"max_relative_positions": 9}, "`position_buckets` is 16, and distances go to 9"),
    "a lopsided convolution": ({"conv_kernel_size": 4}, "`conv_kernel_size` is 4"),
    "wide heads": ({"attention_head_size": 16}, "`attention_head_size` is 16"),
    "unknown activation": ({"conv_kernel_size": 3, "conv_act": "gelu_fast"}, "`gelu_fast`"),
    "other embeddings of distances": ({"position_buckets": 18}, r"rel_embeddings.weight` is \[32, 32\]"),
}


@pytest.mark.parametrize("case", ODD_DEBERTAS)
def test_odd_debertas(case: str, tmp_path: Path) -> None:
    changes, reason = ODD_DEBERTAS[case]
    make("deberta-v2", AutoModel, tmp_path)
    edit_config(tmp_path, **changes)
    with pytest.raises(Declined, match=reason):
        Written(tmp_path)


def test_a_window_that_holds_the_longest_text_hides_nothing(tmp_path: Path) -> None:
    AutoModel.from_config(transformers.MistralConfig(**DECODER, sliding_window=64)).save_pretrained(tmp_path)
    assert Written(tmp_path, max_length=64).states


def test_layers_of_another_kind(tmp_path: Path) -> None:
    AutoModel.from_config(transformers.Gemma3TextConfig(**GEMMA)).save_pretrained(tmp_path)
    edit_config(tmp_path, layer_types=["chunked_attention", "full_attention", "full_attention"])
    with pytest.raises(Declined, match="layers of the kind `chunked_attention`"):
        Written(tmp_path)


def test_answers_behind_a_cap(tmp_path: Path) -> None:
    make("gemma3", AutoModelForCausalLM, tmp_path, final_logit_softcapping=30.0)
    written = Written(tmp_path)
    site = HeadSite(tmp_path, written.architecture, written.config, len)
    with pytest.raises(Declined, match=r"`final_logit_softcapping` is 30\.0"):
        head_outputs(written.b, LastTokenLogits("yes", "no", "difference"), written.states, ATTENTION_MASK, site)


def test_an_unknown_architecture(tmp_path: Path) -> None:
    AutoModel.from_config(transformers.DebertaConfig(**ENCODER)).save_pretrained(tmp_path)
    with pytest.raises(Declined, match="`deberta` is not written"):
        GraphWriter(tmp_path, lambda token: 0)


def test_a_configuration_that_only_the_checkpoints_code_reads(tmp_path: Path) -> None:
    make("bert", AutoModel, tmp_path)
    edit_config(tmp_path, model_type="theirs", auto_map={"AutoConfig": "configuration.TheirConfig"})
    with pytest.raises(Declined, match="transformers itself cannot read its configuration"):
        GraphWriter(tmp_path, lambda token: 0)


def test_a_checkpoint_whose_own_code_may_run(tmp_path: Path) -> None:
    make("bert", AutoModel, tmp_path)
    edit_config(tmp_path, auto_map={"AutoModel": "modeling.TheirModel"})
    GraphWriter(tmp_path, lambda token: 0)
    with pytest.raises(Declined, match="it has code of its own, which was allowed to run"):
        GraphWriter(tmp_path, lambda token: 0, trust_remote_code=True)


def test_a_head_of_another_size_than_planned(tmp_path: Path) -> None:
    make("bert", AutoModelForSequenceClassification, tmp_path, num_labels=2)
    written = Written(tmp_path)
    classifier = written.architecture.classifier
    assert classifier is not None
    first = first_state(written.b, written.states, ATTENTION_MASK)
    logits = classifier(written.b, written.config, written.states, first, ATTENTION_MASK)
    with pytest.raises(Declined, match="do not fit together"):
        written.run(logits, Tensor("score", "FP32", ("batch", 1)), tmp_path / "g.onnx", texts("right"), packing=False)


def test_quantized_weights(tmp_path: Path) -> None:
    make("bert", AutoModel, tmp_path)
    edit_config(tmp_path, quantization_config={"quant_method": "fp8"})
    with pytest.raises(Declined, match="quantized"):
        GraphWriter(tmp_path, lambda token: 0)


def test_precisions_and_poolings_that_are_not_written(tmp_path: Path) -> None:
    make("bert", AutoModel, tmp_path)
    with pytest.raises(Declined, match="bfloat16"):
        Written(tmp_path, precision="bfloat16")
    written = Written(tmp_path)
    with pytest.raises(Declined, match="`median`"):
        pool(written.b, written.states, ATTENTION_MASK, "median")
