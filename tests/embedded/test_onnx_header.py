"""The two numbers of an ONNX file, against the `onnx` package's own reading."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import helper

from embedded.graphs import doubling
from sie_triton.embedded.onnx_header import OnnxHeader, read_header


@pytest.mark.parametrize(("ir_version", "opset"), [(8, 17), (10, 21), (3, 7), (300, 1000)])
def test_versions_are_those_that_onnx_reads(tmp_path: Path, ir_version: int, opset: int) -> None:
    model = doubling(ir_version=ir_version, opset=opset)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    read = onnx.load(path)
    assert read_header(path) == OnnxHeader(read.ir_version, read.opset_import[0].version)


@pytest.mark.parametrize("content", [b"", b"this is no model", b"\x08"], ids=["empty", "text", "cut short"])
def test_what_is_no_model_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.onnx"):
        read_header(path)


def test_a_model_without_its_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(doubling().SerializeToString()[:-20])
    with pytest.raises(ValueError, match="cut short"):
        read_header(path)
