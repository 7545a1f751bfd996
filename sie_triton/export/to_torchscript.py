"""A torch module and its planned signature -> `model.pt`, TorchScript that Triton's `pytorch` backend loads.

Traced, not scripted: transformers' models cannot be compiled by TorchScript, and their `eager` attention traces without
any length of the example in it. That is not believed but checked: what was written is loaded and compared with the
module on other shapes before anybody gets it.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from sie_triton.export.to_onnx import EXAMPLE
from sie_triton.onnx_graphs.finish import ExportError
from sie_triton.planning.plan import GraphPlan
from sie_triton.planning.tensors import ATTENTION_MASK, INPUT_IDS, SPARSE_IDS
from sie_triton.verify.parity import TOLERANCES

# The one class in the file. `torch.jit.trace` names classes by what the process traced before: unequal bytes.
CLASS = "__torch__.sie_triton.Graph"
DTYPES = {"INT64": torch.int64, "FP32": torch.float32}
# Batch and sequence that differ from the example in every way; the last is longer than ModernBERT's local attention.
CHECKED = ((1, 1), (3, 17), (2, 131))
# Every vocabulary has so many ids.
EXAMPLE_IDS = 32
# Source lines of Python frames, with the paths of this machine: only error messages would show them.
DEBUG_RECORD = ".debug_pkl"
# The archive's writer makes these itself. The format's version lies in one of two places, depending on its number.
VERSION_RECORDS = ("version", ".data/version")
WRITERS_OWN_RECORDS = (*VERSION_RECORDS, ".data/serialization_id")


def export_torchscript(module: nn.Module, graph: GraphPlan, path: Path, *, max_sequence: int) -> None:
    """Trace `module` and write `path`; equal inputs give equal bytes.

    The file takes `graph.inputs` in their order and by their names, and gives a tuple of `graph.outputs`, or the tensor
    if there is one; on whichever device it is loaded. `module` is put into evaluation mode and its parameters ask for
    no gradients afterwards. While the file is written it needs its size on disk twice, and while it is checked the
    weights are in memory twice.

    Raises `ExportError` if torch cannot trace the module, or if the file is not what was planned, and OSError for the
    disk.
    """
    module.eval().requires_grad_(False)
    try:
        with torch.inference_mode(), _quiet():
            scripted = _trace(module, graph, min(EXAMPLE["sequence"], max_sequence))
            traced = scripted._get_method("forward").graph
            _follow_the_inputs_device(traced)
            _sort(traced)
            path.parent.mkdir(parents=True, exist_ok=True)
            unscrubbed = path.with_name(f"{path.stem}.traced{path.suffix}")
            try:
                _reserve(unscrubbed, 2 * _size(module))
                scripted.save(str(unscrubbed))
                _scrub(unscrubbed, path)
            finally:
                unscrubbed.unlink(missing_ok=True)
            del scripted, traced
            loaded = cast(Callable[..., Any], torch.jit.load(str(path), map_location="cpu"))  # type: ignore[no-untyped-call]
            for rows, length in dict.fromkeys((rows, min(length, max_sequence)) for rows, length in CHECKED):
                _check(module, loaded, graph, rows, length)
    except (ExportError, OSError):
        path.unlink(missing_ok=True)
        raise
    except Exception as error:  # torch raises whatever its tracer, its printer and its interpreter raise
        path.unlink(missing_ok=True)
        cause = str(error).strip().splitlines() or [type(error).__name__]
        raise ExportError(f"torch cannot trace the graph `{graph.triton_model}`: {cause[-1]}") from error


def _size(module: nn.Module) -> int:
    """Bytes of the parameters and buffers."""
    tensors = (*module.parameters(), *module.buffers())
    return sum(tensor.numel() * tensor.element_size() for tensor in {id(tensor): tensor for tensor in tensors}.values())


def _reserve(path: Path, size: int) -> None:
    """Ask the disk for room, and give it back. torch's writer aborts the process where a write fails; this raises."""
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(size, 1))
    finally:
        path.unlink(missing_ok=True)


def compact_weights(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Vocabulary-wide weights `[batch, vocabulary]` to ids and weights `[batch, k]`, descending and exact.

    `k` is the largest number of positive weights of any row. An empty row still gives one column: tensors without
    elements are trouble on the way.
    """
    fullest = int((weights > 0).sum(1).max().item())
    top = torch.topk(weights, max(fullest, 1), dim=1)
    return top[1], top[0]


@lru_cache
def _scripted_compact_weights() -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    # A `k` that the data decide cannot be traced. Compiled once, or the second would have another name.
    return cast(Callable[[Tensor], tuple[Tensor, Tensor]], torch.jit.script(compact_weights))


def _trace(module: nn.Module, graph: GraphPlan, length: int) -> Any:
    """A module of one method with every weight a constant, which is what freezing would make of it."""

    def forward(*inputs: Tensor) -> Any:
        outputs = _compacted(_tuple(module(*inputs)), graph, _scripted_compact_weights())
        return outputs if len(outputs) > 1 else outputs[0]

    # mypy knows none of these: they are what `torch.jit.trace` is made of.
    internals: Any = torch._C
    scripted = internals.ScriptModule(CLASS, internals.CompilationUnit(), True)
    scripted._register_attribute("training", internals.BoolType.get(), False)
    example = tuple(_inputs(graph, EXAMPLE["batch"], length).values())
    names = [tensor.name for tensor in graph.inputs]
    with _broadcast_masks():
        scripted._create_method_from_trace("forward", forward, example, lambda _: "", True, False, names, False)
    internals._jit_pass_inline(scripted._get_method("forward").graph)
    return scripted


def _follow_the_inputs_device(traced: Any) -> None:
    """Make what `forward` creates on the way on the device of its first input.

    The tracer writes down the device of the example as a constant. Loading moves the weights elsewhere, not that.
    """
    internals: Any = torch._C
    constants = [
        node for node in traced.findAllNodes("prim::Constant") if node.output().type().kind() == "DeviceObjType"
    ]
    if not constants:
        return
    device = traced.create("prim::device", [list(traced.inputs())[1]], 1)
    device.output().setType(internals.DeviceObjType.get())
    traced.prependNode(device)
    for node in constants:
        node.output().replaceAllUsesWith(device.output())
        node.destroy()


def _sort(traced: Any) -> None:
    """Put the nodes into the order in which the outputs need them, which is one and the same for equal computations.

    transformers makes masks and rotary tables in loops over sets of strings, whose order differs between processes.
    """
    internals: Any = torch._C
    internals._jit_pass_remove_mutation(traced)
    internals._jit_pass_dce(traced)
    nodes = list(traced.nodes())
    if any("!" in node.schema() for node in nodes):
        # What writes in place, by its schema, depends on more than its inputs say.
        return
    made_by = {output.unique(): place for place, node in enumerate(nodes) for output in node.outputs()}

    def needed(node: Any) -> list[int]:
        return [made_by[value.unique()] for value in _values_used(node) if value.unique() in made_by]

    sorted_places: dict[int, None] = {}
    waiting = needed(traced.return_node())[::-1]
    while waiting:
        place = waiting[-1]
        missing = [other for other in needed(nodes[place]) if other not in sorted_places]
        if missing and place not in sorted_places:
            waiting += missing[::-1]
        else:
            sorted_places[waiting.pop()] = None
    for place in sorted_places:
        nodes[place].moveBefore(traced.return_node())
    traced.lint()


def _values_used(node: Any) -> Iterator[Any]:
    """The values that a node reads, those of the blocks inside it too."""
    yield from node.inputs()
    for block in node.blocks():
        for inner in block.nodes():
            yield from _values_used(inner)
        yield from block.outputs()


def _scrub(source: Path, target: Path) -> None:
    """Copy the archive without the records that tell of this machine, by torch's own writer: it aligns the weights."""
    internals: Any = torch._C
    reader = internals.PyTorchFileReader(str(source))
    writer = internals.PyTorchFileWriter(str(target))
    version = next(name for name in VERSION_RECORDS if reader.has_record(name))
    writer.set_min_version(int(reader.get_record(version)))
    for name in reader.get_all_records():
        if not name.endswith(DEBUG_RECORD) and name not in WRITERS_OWN_RECORDS:
            record = reader.get_record(name)
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()


def _check(module: nn.Module, loaded: Callable[..., Any], graph: GraphPlan, rows: int, length: int) -> None:
    """Compare the file with the module on one shape. Raises `ExportError`."""
    where = f"`{graph.triton_model}` on {rows} x {length} tokens"
    inputs = tuple(_inputs(graph, rows, length).values())
    results, expected = _tuple(loaded(*inputs)), _compacted(_tuple(module(*inputs)), graph, compact_weights)
    if len(results) != len(graph.outputs):
        raise ExportError(f"{where} came out with {len(results)} outputs, planned {[t.name for t in graph.outputs]}")
    axes: Mapping[str | int, int] = {"batch": rows, "sequence": length}
    for tensor, result, wanted in zip(graph.outputs, results, expected, strict=True):
        shape = tuple(axes.get(axis, axis if isinstance(axis, int) else -1) for axis in tensor.axes)
        fits = len(shape) == result.dim() and all(
            dim in (-1, real) for dim, real in zip(shape, result.shape, strict=True)
        )
        if result.dtype != DTYPES[tensor.datatype] or not fits:
            raise ExportError(
                f"{where}: `{tensor.name}` came out as {result.dtype} {list(result.shape)}, planned {tensor}"
            )
        try:
            # The same operations on the same CPU: how precise the weights are makes no difference.
            limit = TOLERANCES["float32"].batch_max_abs
            torch.testing.assert_close(result, wanted, rtol=limit, atol=limit, equal_nan=True)
        except AssertionError as error:
            raise ExportError(
                f"{where}: `{tensor.name}` is not what the module computes; its tracing depends on the example's "
                f"shape or values: {' '.join(str(error).split())}"
            ) from None


def _inputs(graph: GraphPlan, rows: int, length: int) -> dict[str, Tensor]:
    """Inputs by name: the first row full, the others padded on the right, so that masks matter."""
    generator = torch.Generator().manual_seed(0)
    attended = torch.tensor([max(1, length - 3 * row) for row in range(rows)])
    made = {}
    for tensor in graph.inputs:
        shape = [{"batch": rows, "sequence": length}[axis] if isinstance(axis, str) else axis for axis in tensor.axes]
        if tensor.name == ATTENTION_MASK:
            made[tensor.name] = (torch.arange(length) < attended[:, None]).long()
        elif tensor.datatype == "INT64":
            high = EXAMPLE_IDS if tensor.name == INPUT_IDS else 2
            made[tensor.name] = torch.randint(0, high, shape, generator=generator)
        else:
            made[tensor.name] = torch.randn(shape, generator=generator)
    return made


def _compacted(
    outputs: tuple[Tensor, ...], graph: GraphPlan, compact: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> tuple[Tensor, ...]:
    """The module's outputs with ids and weights in place of the vocabulary-wide tensor, where there is one."""
    names = [tensor.name for tensor in graph.outputs]
    if SPARSE_IDS not in names:
        return outputs
    place = names.index(SPARSE_IDS)
    return (*outputs[:place], *compact(outputs[place]), *outputs[place + 1 :])


def _tuple(outputs: Any) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch warns of every Python number in a trace and of TorchScript's retirement; nothing of it helps the user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _broadcast_masks() -> Iterator[None]:
    """Let transformers build all of eager attention's masks by broadcasting.

    Those with an `or` (Gemma 3 looks both ways) it builds by `torch.vmap`, which the tracer cannot follow. Gemma's
    functions are of positions alone, for which broadcasting gives the same; if another's are not, the check says so.
    """
    original = ALL_MASK_ATTENTION_FUNCTIONS["eager"]

    def without_vmap(*arguments: Any, **named: Any) -> Any:
        return original(*arguments, **{**named, "use_vmap": False})

    ALL_MASK_ATTENTION_FUNCTIONS["eager"] = without_vmap
    try:
        yield
    finally:
        ALL_MASK_ATTENTION_FUNCTIONS["eager"] = original
