"""How large the numbers become that products multiply, over some rows: what outliers are told by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from sie_triton.eight_bits.blocks import Array
from sie_triton.eight_bits.products import products_of


def largest_seen(path: Path, batches: Iterable[Mapping[str, Array]]) -> dict[str, Array]:
    """For the states of each product of the float32 graph at `path`, the largest magnitude of each input: `[inputs]`.

    `batches` are the graph's inputs by name.
    """
    import onnxruntime

    model = onnx.load(str(path), load_external_data=False)
    names = list(dict.fromkeys(product.states for product in products_of(model)))
    if not names:
        return {}
    given = {value.name for value in (*model.graph.input, *model.graph.output)}
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in given)
    # Beside the graph, since weights in another file are found from there.
    watched = path.with_name(f"{path.name}.watched")
    watched.write_bytes(model.SerializeToString())
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = False
        session = onnxruntime.InferenceSession(str(watched), options, providers=["CPUExecutionProvider"])
    finally:
        watched.unlink()
    takes = {value.name for value in session.get_inputs()}
    found: dict[str, Array] = {}
    for batch in batches:
        states: Sequence[Array] = session.run(names, {name: a for name, a in batch.items() if name in takes})
        for name, array in zip(names, states, strict=True):
            largest = np.abs(array.reshape(-1, array.shape[-1])).max(axis=0, initial=0.0)
            found[name] = np.maximum(found[name], largest) if name in found else largest
    return found
