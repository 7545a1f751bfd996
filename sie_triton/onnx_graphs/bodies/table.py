"""The architectures that are written without torch, by transformers' `model_type`."""

from __future__ import annotations

from collections.abc import Mapping

from sie_triton.onnx_graphs.bodies.architecture import Architecture
from sie_triton.onnx_graphs.bodies.bert import BERT, ROBERTA
from sie_triton.onnx_graphs.bodies.clip import CLIP
from sie_triton.onnx_graphs.bodies.deberta import DEBERTA
from sie_triton.onnx_graphs.bodies.decoder import LLAMA, MISTRAL, QWEN2, QWEN3
from sie_triton.onnx_graphs.bodies.distilbert import DISTILBERT
from sie_triton.onnx_graphs.bodies.gemma import GEMMA2, GEMMA3
from sie_triton.onnx_graphs.bodies.idefics3 import IDEFICS3
from sie_triton.onnx_graphs.bodies.modernbert import MODERNBERT
from sie_triton.onnx_graphs.bodies.mpnet import MPNET
from sie_triton.onnx_graphs.bodies.paligemma import COLPALI
from sie_triton.onnx_graphs.bodies.qwen3_vl import QWEN3_VL
from sie_triton.onnx_graphs.bodies.qwen25_vl import QWEN25_VL
from sie_triton.onnx_graphs.bodies.rotary_encoder import GTE, JINA, NOMIC_BERT
from sie_triton.onnx_graphs.bodies.siglip import SIGLIP

ARCHITECTURES: Mapping[str, Architecture] = {
    "bert": BERT,
    "camembert": ROBERTA,
    "clip": CLIP,
    "colpali": COLPALI,
    "deberta-v2": DEBERTA,
    "distilbert": DISTILBERT,
    "gemma2": GEMMA2,
    "gemma3_text": GEMMA3,
    "gte": GTE,
    "idefics3": IDEFICS3,
    "jina_embeddings_v3": JINA,
    "llama": LLAMA,
    "mistral": MISTRAL,
    "modernbert": MODERNBERT,
    "mpnet": MPNET,
    "nomic_bert": NOMIC_BERT,
    "qwen2": QWEN2,
    "qwen2_5_vl": QWEN25_VL,
    "qwen3": QWEN3,
    "qwen3_vl": QWEN3_VL,
    "roberta": ROBERTA,
    "siglip": SIGLIP,
    "xlm-roberta": ROBERTA,
}
