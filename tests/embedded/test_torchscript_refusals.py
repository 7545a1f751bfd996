"""How tensors find their place in `forward`."""

from __future__ import annotations

from typing import Any

import pytest

from sie_triton.backends.pytorch.signature import Argument, input_positions, output_positions
from sie_triton.backends.received import ReceivedConfig
from sie_triton.embedded.backends.pytorch.refusals import refusals

TWO = (Argument("ids", "TensorType"), Argument("mask", "TensorType"))


def config(*inputs: str, outputs: tuple[str, ...] = ("y",), **changes: Any) -> ReceivedConfig:
    tensor = {"data_type": "TYPE_FP32", "dims": [-1]}
    return ReceivedConfig.of(
        {
            "input": [{"name": name, **tensor} for name in inputs],
            "output": [{"name": name, **tensor} for name in outputs],
            **changes,
        }
    )


@pytest.mark.parametrize(
    ("names", "positions"),
    [
        (("mask", "ids"), {"mask": 1, "ids": 0}),
        (("A__1", "B__0"), {"A__1": 1, "B__0": 0}),
        (("ids", "other"), {"ids": 0, "other": 1}),
        (("x__b", "x__0"), {"x__b": 0, "x__0": 1}),
        (("x__", "x__1"), {"x__": 0, "x__1": 1}),
    ],
    ids=["argument names", "indices", "order", "order, for an index is no number", "an index left out is 0"],
)
def test_the_three_ways_to_name_an_input(names: tuple[str, ...], positions: dict[str, int]) -> None:
    assert input_positions(config(*names), TWO) == positions
    assert refusals(config(*names), TWO) == []


def test_outputs_have_indices_or_an_order() -> None:
    assert output_positions(config(outputs=("a__3", "b__0"))) == {"a__3": 3, "b__0": 0}
    assert output_positions(config(outputs=("ids", "b__0"))) == {"ids": 0, "b__0": 1}


@pytest.mark.parametrize(
    ("target", "positions"),
    [("mask", {"ids": 0, "mask": 1}), ("lengths", {"ids": 0, "lengths": 0})],
    ids=["an argument", "none, which is position 0"],
)
def test_batch_inputs_go_the_way_of_the_inputs(target: str, positions: dict[str, int]) -> None:
    configuration = config("ids", batch_input=[{"kind": "BATCH_ELEMENT_COUNT", "target_name": [target]}])
    assert input_positions(configuration, TWO) == positions
    assert bool(refusals(configuration, TWO)) == (target == "lengths")


def test_a_dictionary_takes_any_names() -> None:
    assert refusals(config("a", "b", "c"), [Argument("inputs", "DictType")]) == []


@pytest.mark.parametrize(
    ("configuration", "words"),
    [
        (config("ids"), "has 1 inputs, `forward` takes 2"),
        (config("ids", "mask", "mask"), "input `mask` is listed 2 times"),
        (config("A__0", "B__2"), "do not fill"),
        (config("A__0", "B__0"), "do not fill"),
        (config("ids", "mask", parameters={"INTRA_OP_THREAD_COUNT": {"string_value": "many"}}), "`many`"),
        (config("ids", "mask", parameters={"INFERENCE_MODE": {"string_value": "yes"}}), "`yes`"),
        (config("ids", "mask", parameters={"ENABLE_TENSOR_FUSER": {"string_value": "on"}}), "`on`"),
        (config("ids", "mask", output=[]), "no output"),
        (config("ids", "mask", instance_group=[{"kind": "KIND_GPU"}]), "KIND_GPU"),
        (config("ids", "mask", output=[{"name": "y", "data_type": "TYPE_UINT32"}]), "TYPE_UINT32"),
    ],
)
def test_refusals_name_the_cause(configuration: ReceivedConfig, words: str) -> None:
    (reason,) = refusals(configuration, TWO, gpu=False)
    assert words in reason


def test_arguments_are_tensors() -> None:
    (reason,) = refusals(config("ids", "mask"), (TWO[0], Argument("mask", "IntType")))
    assert "`mask` of `forward` is a IntType" in reason
