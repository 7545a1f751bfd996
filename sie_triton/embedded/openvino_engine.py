"""OpenVINO as the engine of an ONNX graph on a CPU: what `cpu_execution_accelerator { name: "openvino" }` asks for.

NVIDIA's onnxruntime backend reads no parameter of this accelerator: it opens ONNX Runtime's provider with the device
`CPU` and nothing else. The embedded server computes by the `openvino` package, and reads the precision that is asked
for. The package is an extra and imported only where a configuration asks for it.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import LifoQueue
from typing import Any, ClassVar, Final, TypeAlias

from sie_triton.backends.onnxruntime.header import read_header
from sie_triton.backends.onnxruntime.signature import GraphTensor
from sie_triton.embedded import openvino_weights
from sie_triton.embedded.packed import few, filled, mask_of, unpack, with_more_tokens
from sie_triton.resources import available_cores

Array: TypeAlias = Any  # numpy's; this module is imported where numpy may come later

ACCELERATOR: Final = "openvino"
PRECISION_KEY: Final = "inference_precision"
"""Parameter of the accelerator: `f32` (the default) or `bf16`."""
PRECISIONS: Final = ("f32", "bf16")
# OpenVINO's names of element types, as Triton calls them.
_TYPES: Final[Mapping[str, str]] = {
    "boolean": "TYPE_BOOL",
    "u8": "TYPE_UINT8",
    "i8": "TYPE_INT8",
    "i32": "TYPE_INT32",
    "i64": "TYPE_INT64",
    "f16": "TYPE_FP16",
    "f32": "TYPE_FP32",
    "f64": "TYPE_FP64",
}


_COARSE: Final = ("u8", "i8", "u4", "i4")
# Where a run costs least has the last one's shape, and each costs memory: a row that is alone has one of few widths,
# multiples of 8 or of a quarter, and a packed run one of few numbers of tokens, of 32 (two of AMX's tiles) or a 16th.
_WIDTHS: Final = (8, 4)
_TOKENS: Final = (32, 16)
# After so many runs most of what is prepared in a first one has been.
_PREPARED: Final = (16, 128, 1024)
_FIRST_RUN: Final = threading.Lock()


class OpenVinoError(Exception):
    """OpenVINO cannot compute the graph, or is not there; the message says why."""


def installed() -> bool:
    """Whether the `openvino` package can be imported."""
    return importlib.util.find_spec("openvino") is not None


def engine_precision(precision: str) -> str | None:
    """What OpenVINO shall compute a graph of this precision in, where that is not its default.

    States between weights of 8 bits may be bfloat16: a processor that has it is 1.3 to 1.6 times as fast then.
    """
    return "bf16" if precision in ("bfloat16", "int8") else None


def wanted_precision(parameters: Mapping[str, str]) -> str:
    """The precision that an accelerator's parameters ask for. Raises `OpenVinoError` for one that there is not."""
    wanted = parameters.get(PRECISION_KEY, "f32")
    if wanted not in PRECISIONS:
        raise OpenVinoError(f"`{PRECISION_KEY}` of the accelerator `openvino` is `{wanted}`, not `f32` or `bf16`")
    return wanted


class OpenVinoGraph:
    """One graph, compiled for this machine's CPU, with `streams` that share `threads`; as many threads may run it.

    With `alone_threads`, `run_alone` computes one row at a time by as many, over weights of its own; a packed graph is
    not packed there. Where outputs have the same shape for every row, rows are filled up to few widths, of which none
    exceeds `widest_row`. Raises `OpenVinoError`. `computes_in` is what it really computes in: a processor without
    bfloat16 gets float32.
    """

    _has_run: ClassVar[bool] = False

    def __init__(
        self,
        path: Path,
        *,
        threads: int,
        precision: str = "f32",
        streams: int = 1,
        alone_threads: int = 0,
        widest_row: int = 0,
    ) -> None:
        if not installed():
            raise OpenVinoError("the package `openvino` is not installed")
        openvino: Any = importlib.import_module("openvino")
        core = openvino.Core()
        capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self.computes_in = precision if precision != "bf16" or "BF16" in capabilities else "f32"
        settings: dict[str, Any] = {
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": max(threads, streams),
            # It pins threads to the first cores: two processes of one thread would sit on the same one.
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": self.computes_in,
        }
        try:
            with openvino_weights.opened(openvino, core, path) as (model, self._weights):
                compiled = self._compile(core, model, settings, streams)
                self._alone = self._compile_alone(core, model, settings, threads, alone_threads, widest_row)
        except RuntimeError as error:
            raise OpenVinoError(f"OpenVINO does not load the graph: {_first_line(error)}") from error
        self.inputs = [_tensor(port, port.get_any_name()) for port in compiled[0].inputs]
        # A tensor that OpenVINO computes may have several names, of nodes that do nothing: the file has the output's.
        self.outputs = [_tensor(*pair) for pair in zip(compiled[0].outputs, read_header(path).outputs, strict=True)]
        self._runs, self._runs_alone = itertools.count(1), itertools.count(1)
        self._places = {tensor.name: place for place, tensor in enumerate(self.outputs)}
        self._requests: LifoQueue[Any] = LifoQueue()
        self._alone_free = threading.Lock()
        # Whoever comes gets what was put last: the first compiled model's streams, while there is one.
        for one in reversed(compiled):
            for _ in range(int(one.get_property("NUM_STREAMS"))):
                self._requests.put(one.create_infer_request())

    def _compile(self, core: Any, model: Any, settings: Mapping[str, Any], streams: int) -> list[Any]:
        """What streams compute by: one compiled model, or one for each of them. More than cores there never are."""
        self._mask = mask_of(model)
        if not _has_coarse_weights(model):
            return [core.compile_model(model, "CPU", settings)]
        threads = settings["INFERENCE_NUM_THREADS"] // streams
        one = {**settings, "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads}
        return [core.compile_model(model, "CPU", one) for _ in range(min(streams, available_cores()))]

    def _compile_alone(
        self, core: Any, model: Any, settings: Mapping[str, Any], threads: int, alone_threads: int, widest_row: int
    ) -> Any:
        """The request of rows that are alone; None where streams have as many threads and nothing is packed."""
        # Of the same model, which no stream reads any more: another would keep float32's weights once more.
        packed = bool(alone_threads) and unpack(model)
        # An axis that is open may be of tokens, of terms or of anything: then nothing is filled up.
        fixed = all(dim.is_static for port in model.outputs for dim in list(port.get_partial_shape())[1:])
        self._widest_row = widest_row if packed and fixed else 0
        if not packed and alone_threads in (0, threads):
            return None
        one = {**settings, "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": alone_threads}
        return core.compile_model(model, "CPU", one).create_infer_request()

    def run(self, outputs: Sequence[str], feed: Mapping[str, Array]) -> list[Array]:
        """Named inputs in, the named outputs in that order; the arrays are the caller's."""
        if OpenVinoGraph._has_run:
            return self._run(outputs, feed)
        # OpenVINO's binding (2026.4) makes its tables of numpy's types in the first run of a process, and lets go of
        # Python's lock meanwhile: of two first runs, one waits for the tables with that lock, and the other for it.
        with _FIRST_RUN:
            found = self._run(outputs, feed)
            OpenVinoGraph._has_run = True
            return found

    def run_alone(self, outputs: Sequence[str], feed: Mapping[str, Array]) -> list[Array]:
        """The same of one row by `alone_threads`."""
        if self._alone is None or not self._has_run:
            return self.run(outputs, feed)
        with self._alone_free:
            return self._run_one(outputs, feed)

    def _run_one(self, outputs: Sequence[str], feed: Mapping[str, Array]) -> list[Array]:
        tokens = next(iter(feed.values())).shape[1] if self._widest_row else 0
        width = min(few(tokens, *_WIDTHS), self._widest_row)
        return self._infer(self._alone, outputs, filled(feed, width) if width > tokens else feed)

    def _run(self, outputs: Sequence[str], feed: Mapping[str, Array]) -> list[Array]:
        """By the next stream that is free. A row that would wait for one goes the way of those that are alone: OpenVINO
        has no more streams than there are cores, and queries would wait for runs of bulk.
        """
        rows = len(next(iter(feed.values())))
        if (
            rows == 1
            and self._requests.empty()
            and self._alone is not None
            and self._alone_free.acquire(blocking=False)
        ):
            try:
                return self._run_one(outputs, feed)
            finally:
                self._alone_free.release()
        request = self._requests.get()
        try:
            if self._mask is None:
                return self._infer(request, outputs, feed)
            found = self._infer(request, outputs, with_more_tokens(feed, self._mask, *_TOKENS))
            return [array[:rows] for array in found]
        finally:
            self._requests.put(request)

    def _infer(self, request: Any, outputs: Sequence[str], feed: Mapping[str, Array]) -> list[Array]:
        found = request.infer(dict(feed), share_inputs=True)
        if next(self._runs_alone if request is self._alone else self._runs) in _PREPARED:
            self._weights.let_go()
        return [found[self._places[name]] for name in outputs]


def _has_coarse_weights(model: Any) -> bool:
    """Whether weights have 8 bits or fewer. Streams of one compiled model then spoil each other's (OpenVINO 2026.4, a
    processor with VNNI): of six models in three streams, five gave vectors with a cosine of 0.2 to 0.9. So each stream
    is compiled by itself; in float32 and bfloat16 they share.
    """
    return any(
        op.get_type_name() == "Constant"
        and op.get_element_type().get_type_name() in _COARSE
        and op.get_byte_size() > 64
        for op in model.get_ops()
    )


def _tensor(port: Any, name: str) -> GraphTensor:
    dims = tuple(int(dim.get_length()) if dim.is_static else None for dim in port.get_partial_shape())
    kind = str(port.get_element_type().get_type_name())
    return GraphTensor(name, _TYPES.get(kind, kind), dims)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
