"""What ONNX Runtime does not tell of an ONNX file: its versions, and which operators it is made of.

Read from the file's protobuf fields, skipping weights, since the `onnx` package is needed to build repositories but
not to serve them. Field numbers are those of onnx.proto.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# ModelProto
_IR_VERSION, _GRAPH, _OPSET_IMPORT, _FUNCTIONS = 1, 7, 8, 25
# OperatorSetIdProto
_SET_DOMAIN, _SET_VERSION = 1, 2
# GraphProto, FunctionProto and NodeProto
_GRAPH_OUTPUT, _VALUE_NAME = 12, 1
_GRAPH_NODE, _FUNCTION_NAME, _FUNCTION_NODE, _FUNCTION_DOMAIN = 1, 1, 7, 10
_NODE_TYPE, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
# AttributeProto
_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS = 6, 11

Span = tuple[int, int]
Operator = tuple[str, str]
"""Domain and type of a node."""


@dataclass(frozen=True, slots=True)
class OnnxHeader:
    """Versions of an ONNX file: `opset` is that of the default domain, `ml_opset` of `ai.onnx.ml`; 0 for none.

    `operators` are those of all nodes, also inside of loops and branches, without the file's own functions. `outputs`
    are the names of the graph's outputs, in order.
    """

    ir_version: int
    opset: int
    ml_opset: int = 0
    operators: frozenset[Operator] = frozenset()
    outputs: tuple[str, ...] = ()


def read_header(path: Path) -> OnnxHeader:
    """Read the header of the model at `path`.

    Raises:
        ValueError: the file is empty, cut short, or no protobuf message.
    """
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise ValueError(f"`{path}` is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _header(data)
            except (IndexError, UnicodeDecodeError):
                raise ValueError(f"`{path}` is cut short or is no ONNX model") from None


def _header(data: mmap.mmap) -> OnnxHeader:
    ir_version = 0
    opsets: dict[bytes, int] = {}
    operators: set[Operator] = set()
    functions: set[Operator] = set()
    outputs: tuple[str, ...] = ()
    for number, value in _fields(data, (0, len(data))):
        if number == _IR_VERSION and isinstance(value, int):
            ir_version = value
        elif number == _OPSET_IMPORT and isinstance(value, tuple):
            domain, version = _operator_set(data, value)
            opsets[domain] = version
        elif number == _GRAPH and isinstance(value, tuple):
            operators |= _operators(data, value, _GRAPH_NODE)
            outputs = tuple(_text(data, span, _VALUE_NAME) for span in _messages(data, value, _GRAPH_OUTPUT))
        elif number == _FUNCTIONS and isinstance(value, tuple):
            functions.add((_text(data, value, _FUNCTION_DOMAIN), _text(data, value, _FUNCTION_NAME)))
            operators |= _operators(data, value, _FUNCTION_NODE)
    opset = max(opsets.get(b"", 0), opsets.get(b"ai.onnx", 0))
    return OnnxHeader(ir_version, opset, opsets.get(b"ai.onnx.ml", 0), frozenset(operators - functions), outputs)


def _operator_set(data: mmap.mmap, span: Span) -> tuple[bytes, int]:
    domain, version = b"", 0
    for number, value in _fields(data, span):
        if number == _SET_DOMAIN and isinstance(value, tuple):
            domain = data[value[0] : value[1]]
        elif number == _SET_VERSION and isinstance(value, int):
            version = value
    return domain, version


def _operators(data: mmap.mmap, span: Span, node_field: int) -> set[Operator]:
    """The operators of a graph's or a function's nodes."""
    found: set[Operator] = set()
    for node in _messages(data, span, node_field):
        found.add((_text(data, node, _NODE_DOMAIN), _text(data, node, _NODE_TYPE)))
        for inner in _inner_graphs(data, node):
            found |= _operators(data, inner, _GRAPH_NODE)
    return found


def _inner_graphs(data: mmap.mmap, node: Span) -> Iterator[Span]:
    """The bodies of loops and branches."""
    for attribute in _messages(data, node, _NODE_ATTRIBUTE):
        for inner in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
            yield from _messages(data, attribute, inner)


def _text(data: mmap.mmap, span: Span, field: int) -> str:
    """A string field of a message, "" where it is absent."""
    for number, value in _fields(data, span):
        if number == field and isinstance(value, tuple):
            return data[value[0] : value[1]].decode()
    return ""


def _messages(data: mmap.mmap, span: Span, field: int) -> Iterator[Span]:
    """The messages that a field holds."""
    for number, value in _fields(data, span):
        if number == field and isinstance(value, tuple):
            yield value


def _fields(data: mmap.mmap, span: Span) -> Iterator[tuple[int, int | Span]]:
    """Yield (field number, integer, or (start, end) of a length-delimited value)."""
    at, end = span
    while at < end:
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield number, value
        elif kind == _BYTES:
            length, at = _varint(data, at)
            if at + length > end:
                raise IndexError
            yield number, (at, at + length)
            at += length
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise IndexError


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError
