"""Which operators an ONNX Runtime has beyond those of ONNX itself, by version.

Read out of the releases themselves (`get_all_operator_schema` of the wheels 1.19.2, 1.20.1, 1.21.1, 1.22.1, 1.23.2,
1.24.2, 1.27.0 and 1.28.0). A release ignores no operator that it does not know: it refuses the graph.
"""

from __future__ import annotations

from collections.abc import Mapping

Version = tuple[int, int]
"""Major and minor number of an ONNX Runtime."""

STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
ML_DOMAIN, MICROSOFT_DOMAIN = "ai.onnx.ml", "com.microsoft"
MAX_ML_OPSET = 5
"""The newest opset of `ai.onnx.ml` that any of these releases loads, used or only imported."""

# What ONNX Runtime's own optimizer writes into graphs that it saves, and ONNX's preview domains.
_INTERNAL_DOMAINS = frozenset({"com.microsoft.nchwc", "com.ms.internal.nhwc", "ai.onnx.preview.training"})
LEGACY_OPERATORS = frozenset(
    {
        "Affine",
        "Crop",
        "DisentangledAttention_TRT",
        "DynamicSlice",
        "EfficientNMS_TRT",
        "GRUUnit",
        "GivenTensorFill",
        "ImageScaler",
        "MemcpyFromHost",
        "MemcpyToHost",
        "MultilevelCropAndResize_TRT",
        "ParametricSoftplus",
        "PyramidROIAlign_TRT",
        "Scale",
        "ScaledTanh",
        "SimplifiedLayerNormalization",
    }
)
"""Operators of the default domain that ONNX has no schema for and every one of these releases has."""

_MICROSOFT: Mapping[Version, str] = {
    (1, 19): (
        "Attention AttnLSTM BeamSearch BiasAdd BiasDropout BiasGelu BiasSoftmax BiasSplitGelu BifurcationDetector "
        "BitmaskBiasDropout BitmaskDropout CDist ComplexMul ComplexMulConj ConvTransposeWithDynamicPads CropAndResize "
        "DecoderAttention DecoderMaskedMultiHeadAttention DecoderMaskedSelfAttention DequantizeBFP DequantizeLinear "
        "DequantizeWithOrder DynamicQuantizeLSTM DynamicQuantizeMatMul DynamicTimeWarping EPContext "
        "EmbedLayerNormalization ExpandDims FastGelu FusedConv FusedGemm FusedMatMul FusedMatMulActivation "
        "GatedRelativePositionBias GatherND Gelu GemmFastGelu GemmFloat8 GemmaRotaryEmbedding GreedySearch GridSample "
        "GroupNorm GroupQueryAttention Inverse Irfft IsAllFinite LongformerAttention MatMulBnb4 MatMulFpQ4 "
        "MatMulInteger16 MatMulIntegerToFloat MatMulNBits MaxpoolWithMask MoE MulInteger MultiHeadAttention "
        "MurmurHash3 NGramRepeatBlock NhwcConv NhwcFusedConv NhwcMaxPool PackedAttention PackedMultiHeadAttention Pad "
        "QAttention QEmbedLayerNormalization QGemm QLinearAdd QLinearAveragePool QLinearConcat QLinearConv "
        "QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul QLinearReduceMean QLinearSigmoid QLinearSoftmax "
        "QLinearWhere QMoE QOrderedAttention QOrderedGelu QOrderedLayerNormalization QOrderedLongformerAttention "
        "QOrderedMatMul QuantizeBFP QuantizeLinear QuantizeWithOrder QuickGelu Range ReduceSumInteger "
        "RelativePositionBias RemovePadding RestorePadding Rfft RotaryEmbedding SampleOp Sampling SkipGroupNorm "
        "SkipLayerNormalization SkipSimplifiedLayerNormalization Snpe SparseAttention SparseToDenseMatMul Tokenizer "
        "TorchEmbedding TransposeMatMul Trilu UnfoldTensor Unique WhisperBeamSearch WordConvEmbedding"
    ),
    (1, 20): "GatherBlockQuantized",
    (1, 23): "PagedAttention",
    (1, 27): "CausalConvWithState LinearAttention MatMulNBitsMlp MatMulNBitsQkv",
}
_SINCE = {name: version for version, names in _MICROSOFT.items() for name in names.split()}


def foreign(domain: str, operator: str, version: Version) -> str | None:
    """Why an ONNX Runtime of `version` lacks an operator outside ONNX's own domains; None where it has it."""
    if domain in STANDARD_DOMAINS | _INTERNAL_DOMAINS | {ML_DOMAIN}:
        return None
    if domain != MICROSOFT_DOMAIN:
        return f"`{operator}` of the domain `{domain}`, which ONNX Runtime does not have without a library"
    since = _SINCE.get(operator)
    if since is None:
        return f"`{operator}`, which is none of ONNX Runtime's own (`{domain}`)"
    if since > version:
        return f"`{operator}` of `{domain}`, which came with ONNX Runtime {since[0]}.{since[1]}"
    return None


BLOCK_BITS_SINCE: Mapping[int, Version] = {4: (1, 19), 8: (1, 22)}
"""With which ONNX Runtime `MatMulNBits` of so many bits came to CPUs: 1.19.2 to 1.21.1 refuse 8, 1.22.1 computes it."""
