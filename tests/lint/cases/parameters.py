"""Rules on `parameters` and the graph level of the onnxruntime backend."""

from __future__ import annotations

from lint.builders import identity_config
from lint.configs import parameter

from .case import Case, texts

CASES: dict[str, Case] = {
    "L701": texts(parameter("inter_op_thread_count", "two"), parameter("inter_op_thread_count", "2"), line=8),
    "L702": texts(parameter("execution_mode", "2"), parameter("execution_mode", "1")),
    "L703": texts(parameter("intra_op_threads_count", "2")),
    "L704": texts(
        parameter("session.use_device_allocator_for_initializers", "1"),
        parameter("session.use_device_allocator_for_initializers", "1"),
        triton="25.01",
        good_triton="25.02",
    ),
    "L706": texts(parameter("enable_mem_arena", "off"), parameter("enable_mem_arena", "false")),
    "L710": texts(
        identity_config(more="optimization { graph { level: 99 } }"),
        identity_config(more="optimization { graph { level: 1 } }"),
    ),
    "L711": texts(
        parameter("inter_op_thread_count", "2"),
        parameter("inter_op_thread_count", "2") + 'parameters { key: "execution_mode" value { string_value: "1" } }\n',
    ),
}
