"""Element types under the three names that they have: ONNX's number, ONNX Runtime's words, Triton's enumeration."""

from __future__ import annotations

from collections.abc import Mapping

from sie_triton.backends.releases import Release

_TYPES = (
    (1, "tensor(float)", "TYPE_FP32"),
    (2, "tensor(uint8)", "TYPE_UINT8"),
    (3, "tensor(int8)", "TYPE_INT8"),
    (4, "tensor(uint16)", "TYPE_UINT16"),
    (5, "tensor(int16)", "TYPE_INT16"),
    (6, "tensor(int32)", "TYPE_INT32"),
    (7, "tensor(int64)", "TYPE_INT64"),
    (8, "tensor(string)", "TYPE_STRING"),
    (9, "tensor(bool)", "TYPE_BOOL"),
    (10, "tensor(float16)", "TYPE_FP16"),
    (11, "tensor(double)", "TYPE_FP64"),
    (12, "tensor(uint32)", "TYPE_UINT32"),
    (13, "tensor(uint64)", "TYPE_UINT64"),
    (16, "tensor(bfloat16)", "TYPE_BF16"),
)
BY_NUMBER: Mapping[int, str] = {number: triton for number, _, triton in _TYPES}
"""`onnx.TensorProto.DataType` -> Triton's name; what is left out the backend does not serve."""
BY_RUNTIME_NAME: Mapping[str, str] = {runtime: triton for _, runtime, triton in _TYPES}
"""What ONNX Runtime calls a type -> Triton's name."""

BF16_SINCE = Release(26, 3)
"""The first release whose backend maps BF16 inputs and outputs."""


def serves(data_type: str, release: Release) -> bool:
    """Whether the backend of `release` takes and gives tensors of this type."""
    return data_type in BY_NUMBER.values() and (data_type != "TYPE_BF16" or release >= BF16_SINCE)
