from __future__ import annotations

from typing import Any

import pytest

from sie_triton.backends.received import ReceivedConfig
from sie_triton.embedded.cuda_options import accelerators, cuda_options


def config(accelerator: dict[str, str] | None = None, **parameters: str) -> dict[str, Any]:
    made: dict[str, Any] = {"parameters": {key: {"string_value": value} for key, value in parameters.items()}}
    if accelerator is not None:
        entries = [{"name": "cuda", "parameters": accelerator}]
        made["optimization"] = {"execution_accelerators": {"gpu_execution_accelerator": entries}}
    return made


def options(made: dict[str, Any], device_id: int) -> dict[str, str]:
    return cuda_options(ReceivedConfig.of(made), device_id)


def test_a_device_is_always_named() -> None:
    assert options({}, 1) == {"device_id": "1"}


def test_numbers_in_parameters_become_the_providers_names() -> None:
    made = config(intra_op_thread_count="1", arena_extend_strategy="1", cudnn_conv_algo_search="2", gpu_mem_limit="5")
    assert options(made, 0) == {
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "DEFAULT",
        "gpu_mem_limit": "5",
        "device_id": "0",
    }


def test_any_parameters_block_resets_what_the_accelerator_says_of_the_four() -> None:
    said = {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested", "gpu_mem_limit": "7", "device_id": "9"}
    assert options(config(said), 2) == {**said, "device_id": "2"}
    assert options(config(said, intra_op_thread_count="1"), 2) == {"use_tf32": "0", "device_id": "2"}


@pytest.mark.parametrize("value", ["2", "-1", "kSameAsRequested"])
def test_what_stands_for_nothing_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="arena_extend_strategy"):
        options(config(arena_extend_strategy=value), 0)


def test_accelerators_by_name() -> None:
    assert accelerators({}) == {}
    assert accelerators(config({"use_tf32": "0"})) == {"cuda": {"use_tf32": "0"}}
