"""A format is a row, and every layer that must know it knows it."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from compiler.command import sie_triton
from sie_triton.formats import FORMATS, Format, format_of
from sie_triton.repository.config import CPU_PARAMETERS, CUDA_PARAMETERS
from sie_triton.serving.machines import RUNTIMES as SERVED_WITH
from sie_triton.verify.model_runner import RUNTIMES as VERIFIED_WITH

NAMES = set(get_args(Format))


def test_every_format_has_a_row_and_a_platform_of_its_own() -> None:
    assert {name: row.name for name, row in FORMATS.items()} == {name: name for name in NAMES}
    assert all(format_of(row.backend, row.platform) is row for row in FORMATS.values())
    assert len({row.suffix for row in FORMATS.values()}) == len(NAMES)


def test_a_graph_of_no_format_is_none() -> None:
    with pytest.raises(LookupError, match="tensorrt_plan"):
        format_of("tensorrt", "tensorrt_plan")


@pytest.mark.parametrize("table", [CPU_PARAMETERS, CUDA_PARAMETERS, VERIFIED_WITH, SERVED_WITH])
def test_every_layer_knows_every_format(table: Any) -> None:
    assert set(table) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_format_can_be_asked_for(name: str) -> None:
    done = sie_triton("plan", "-m", "BAAI/bge-small-en-v1.5", "--format", name, "--json")
    assert done.code == 0, done.stderr
    assert {plan["format"] for plan in json.loads(done.stdout)} == {name}


def test_every_format_is_written_and_its_ranges_are_watched() -> None:
    from sie_triton.export.tracer import WRITERS
    from sie_triton.half_precision.measure import half_runtimes
    from sie_triton.half_precision.ranges import Ranges

    assert set(WRITERS) == set(half_runtimes(Ranges("float16"))) == NAMES
