"""Texts of configurations with one thing that a test chooses."""

from __future__ import annotations

from collections.abc import Sequence

from .builders import identity_config, replaced


def queue(more: str = "", policy: str = "max_queue_size: 64") -> str:
    """An identity with a dynamic batcher; fixed dims, so that all requests merge."""
    return identity_config(more=f"dynamic_batching {{ {more} default_queue_policy {{ {policy} }} }}")


def ragged(*, batch_input: str | None = None, more_input: str = "", batching: bool = True, inputs: str = "") -> str:
    """A ragged identity: the graph gets all elements and the lengths."""
    if batch_input is None:
        batch_input = (
            'batch_input [ { kind: BATCH_ELEMENT_COUNT target_name: "n" data_type: TYPE_INT32 source_input: "x" } ]'
        )
    queue_text = "dynamic_batching { default_queue_policy { max_queue_size: 9 } }" if batching else ""
    return identity_config(
        dims="[ -1 ]",
        more_input=f"allow_ragged_batch: true {more_input}",
        more=f"{batch_input}\n{inputs}\n{queue_text}",
    )


def warm(sample: str) -> str:
    return identity_config(more=f'model_warmup [ {{ name: "w" {sample} }} ]')


def warm_x(data: str, batch_size: int = 1) -> str:
    return warm(f'batch_size: {batch_size} inputs {{ key: "x" value {{ {data} }} }}')


GOOD_WARMUP = warm_x("data_type: TYPE_FP32 dims: [ 4 ] zero_data: true")


def group(text: str, parameters: str | None = None) -> str:
    if parameters is None:
        return identity_config(group=f"instance_group [ {{ {text} }} ]")
    return identity_config(group=f"instance_group [ {{ {text} }} ]", parameters=parameters)


def parameter(key: str, value: str) -> str:
    return identity_config(more=f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}')


def accelerator(name: str, *options: tuple[str, str], device: str = "gpu", kind: str = "KIND_GPU") -> str:
    pairs = " ".join(f'parameters {{ key: "{key}" value: "{value}" }}' for key, value in options)
    text = f'{device}_execution_accelerator [ {{ name: "{name}" {pairs} }} ]'
    return identity_config(
        group=f"instance_group [ {{ kind: {kind} count: 1 }} ]",
        more=f"optimization {{ execution_accelerators {{ {text} }} }}",
    )


def half(config: str) -> str:
    """`config` with another file."""
    return replaced(config, 'name: "copy"', 'name: "copy"\ndefault_model_filename: "model.float16.onnx"')


def tensorrt(*options: tuple[str, str]) -> str:
    """A model behind TensorRT with a cache, and more options."""
    return accelerator("tensorrt", *CACHE, *options)


def profiles(low: str, best: str, high: str) -> tuple[tuple[str, str], ...]:
    bounds = zip(("min", "opt", "max"), (low, best, high), strict=True)
    return tuple((f"trt_profile_{bound}_shapes", text) for bound, text in bounds)


def scripted(*parameters: tuple[str, str], dims: str = "[ 4 ]") -> str:
    """A TorchScript model with its parameters."""
    written = "\n".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in parameters
    )
    text = identity_config(backend='backend: "pytorch"', parameters=written, dims=dims)
    return replaced(replaced(text, '"x"', '"INPUT__0"'), '"y"', '"OUTPUT__0"')


# A Python model that completes nothing.
PYTHON_MODEL = "class TritonPythonModel:\n    def execute(self, requests):\n        return []\n"
CACHE = (("trt_engine_cache_enable", "1"), ("trt_engine_cache_path", "/var/cache/engines"))
PROFILES = tuple((f"trt_profile_{bound}_shapes", "x:1x4") for bound in ("min", "opt", "max"))


def with_w(more: str = "", *, batching: bool = True) -> str:
    """The configuration of `added` that lists `w` too."""
    written = f'input {{ name: "w" data_type: TYPE_FP32 dims: 4 {more} }}'
    return (
        identity_config(more=written) if batching else identity_config(max_batch_size=0, dims="[ -1, 4 ]", more=written)
    )


def python_model(name: str, inputs: Sequence[str], *, decoupled: bool = False) -> tuple[str, str]:
    """Name and configuration of a Python model with one output `y`."""
    listed = ", ".join(f'{{ name: "{tensor}" data_type: TYPE_INT32 dims: [ -1 ] }}' for tensor in inputs)
    policy = "model_transaction_policy { decoupled: true }" if decoupled else ""
    return name, (
        f'name: "{name}"\nbackend: "python"\nmax_batch_size: 0\n{policy}\ninput [ {listed} ]\n'
        'output [ { name: "y" data_type: TYPE_INT32 dims: [ -1 ] } ]\n'
    )
