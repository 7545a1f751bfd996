"""Requests joined and split: the numbers that the C++ backend was seen to give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sie_triton.backends.received import ReceivedConfig
from sie_triton.embedded.batching import BatchPlan, RowsError, batch_input_values

LENGTHS = [(1, 5), (1, 2), (1, 3)]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("BATCH_ELEMENT_COUNT", [5, 2, 3]),
        ("BATCH_ACCUMULATED_ELEMENT_COUNT", [5, 7, 10]),
        ("BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO", [0, 5, 7, 10]),
        ("BATCH_ITEM_SHAPE", [[5], [2], [3]]),
        ("BATCH_ITEM_SHAPE_FLATTEN", [5, 2, 3]),
    ],
)
def test_batch_inputs_of_three_requests(kind: str, values: list[Any]) -> None:
    for datatype in (np.int32, np.float32):
        made = batch_input_values(kind, LENGTHS, datatype)
        assert made.dtype == datatype
        assert made.tolist() == values


def test_counts_are_per_request_and_item_shapes_per_row() -> None:
    shapes = [(2, 3), (1, 4)]
    assert batch_input_values("BATCH_ELEMENT_COUNT", shapes, np.int32).tolist() == [6, 4]
    assert batch_input_values("BATCH_ITEM_SHAPE", shapes, np.int32).tolist() == [[3], [3], [4]]
    # Triton's own example, from its model configuration's documentation.
    assert batch_input_values("BATCH_ITEM_SHAPE_FLATTEN", [(2, 3, 1), (1, 2, 2)], np.int32).tolist() == [3, 1] * 2 + [
        2,
        2,
    ]


def test_the_longest_request_is_told_by_a_shape() -> None:
    assert batch_input_values("BATCH_MAX_ELEMENT_COUNT_AS_SHAPE", LENGTHS, np.int32).shape == (5,)


def plan(rows: int = 8, ragged: bool = False, **changes: Any) -> BatchPlan:
    config = {
        "max_batch_size": rows,
        "input": [{"name": "x", "dims": [-1], "allow_ragged_batch": ragged}],
        "output": [{"name": "y", "dims": [-1]}],
        **changes,
    }
    return BatchPlan.of(ReceivedConfig.of(config))


def requests(*shapes: tuple[int, ...]) -> list[dict[str, Any]]:
    return [{"x": np.arange(np.prod(shape), dtype=np.float32).reshape(shape)} for shape in shapes]


def arrays(parts: list[Any]) -> list[Any]:
    assert not any(isinstance(part, RowsError) for part in parts)
    return parts


def test_only_requests_of_equal_shape_run_together() -> None:
    assert list(plan().groups(requests((1, 3), (2, 3), (1, 5), (1, 3)))) == [[0, 1, 3], [2]]
    assert list(plan(ragged=True).groups(requests((1, 3), (2, 3), (1, 5)))) == [[0, 1, 2]]
    assert list(plan(rows=0).groups(requests((3,), (3,)))) == [[0], [1]]


def test_a_single_request_is_not_copied() -> None:
    (request,) = requests((2, 3))
    assert plan().gather([request], np.concatenate)["x"] is request["x"]
    ragged = plan(ragged=True).gather([request], np.concatenate)["x"]
    assert ragged.shape == (6,)
    assert np.shares_memory(ragged, request["x"])


def test_outputs_are_split_by_rows_without_a_copy() -> None:
    output = np.arange(12).reshape(6, 2)
    parts = arrays(plan().split("y", output, requests((1, 3), (2, 3), (3, 3))))
    assert [part.tolist() for part in parts] == [output[:1].tolist(), output[1:3].tolist(), output[3:].tolist()]
    assert all(np.shares_memory(part, output) for part in parts)


def test_too_few_rows_fail_the_requests_that_they_do_not_reach() -> None:
    first: Any
    first, second, third = plan().split("y", np.zeros((2, 4)), requests((1, 3), (2, 3), (1, 3)))
    assert first.shape == (1, 4)
    assert isinstance(second, RowsError)
    assert str(second) == "output `y` has 2 rows, the batch at least 3"
    assert isinstance(third, RowsError)


def test_surplus_rows_are_dropped_and_counted() -> None:
    members = requests((1, 3), (1, 3))
    output = np.arange(10).reshape(5, 2)
    assert [part.tolist() for part in arrays(plan().split("y", output, members))] == [[[0, 1]], [[2, 3]]]
    assert plan().surplus("y", output, members) == 3


def test_scattered_outputs_take_the_shape_of_their_input() -> None:
    scatter = {"kind": "BATCH_SCATTER_WITH_INPUT_SHAPE", "target_name": ["y"], "source_input": ["x"]}
    scattering = plan(ragged=True, batch_output=[scatter], output=[{"name": "y", "dims": [-1, 2]}])
    members = [{"x": np.zeros((1, 2, 2))}, {"x": np.zeros((1, 1, 2))}]
    first, second = arrays(scattering.split("y", np.arange(6), members))
    assert first.tolist() == [[[0, 1], [2, 3]]]
    assert second.tolist() == [[[4, 5]]]
    reached, missing = scattering.split("y", np.arange(5), members)
    assert arrays([reached])[0].shape == (1, 2, 2)
    assert str(missing) == "output `y` has 5 elements, its requests need at least 6"
