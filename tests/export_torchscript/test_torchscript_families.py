"""Each representative family's graphs as TorchScript: what the module computes, on shapes unlike the example's."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recipes.built import REPRESENTATIVE
from torch import Tensor

from sie_triton.export.masks import masks_with_room
from sie_triton.export.to_torchscript import export_torchscript
from sie_triton.formats import Precision
from sie_triton.planning.families import SparseMax
from sie_triton.planning.modules import Encoder
from sie_triton.planning.plan import GraphPlan

from .graphs import encoder, graphs, load, make_inputs, run

pytestmark = pytest.mark.export

ROOT = Path(__file__).resolve().parent.parent.parent
# Two families whose traces depend on loops over sets of strings, and one whose trace does not.
ORDERED_BY_HASH = ("modernbert", "embedding_gemma", "bert")


def shapes(max_sequence: int) -> list[tuple[list[int], int]]:
    """Lengths of the rows and the length they are padded to."""
    longest = [max_sequence - 5 * row for row in range(8)]
    return [([1], 1), ([17, 1, 9], 17), (longest, max_sequence), ([3, 2], 24)]


def densified(ids: Tensor, weights: Tensor, vocabulary: int) -> Tensor:
    return torch.zeros(ids.shape[0], vocabulary).scatter(1, ids, weights)


def check(graph: GraphPlan, results: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    if isinstance(graph.module, SparseMax):
        (vocabulary,), (ids, weights) = expected, results
        fullest = max(1, int(np.count_nonzero(vocabulary.numpy() > 0, axis=1).max()))
        assert ids.shape == weights.shape == (len(vocabulary), fullest)
        assert (weights[:, :-1] >= weights[:, 1:]).all()
        results = (densified(ids, weights, vocabulary.shape[1]),)
    for result, wanted in zip(results, expected, strict=True):
        np.testing.assert_allclose(result.numpy(), wanted.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", REPRESENTATIVE)
def test_the_file_computes_what_the_module_computes(family: str, tmp_path: Path) -> None:
    for graph, module, max_sequence in graphs(family):
        path = tmp_path / graph.triton_model / "1" / "model.pt"
        export_torchscript(module, graph, path, max_sequence=max_sequence)
        loaded = load(path)
        arguments = loaded.forward.schema.arguments[1:]  # type: ignore[attr-defined]
        assert [argument.name for argument in arguments] == [tensor.name for tensor in graph.inputs]
        # Loading the file on a GPU moves the weights; a device written down in the code would stay what it is.
        assert "torch.device(" not in loaded.code  # type: ignore[attr-defined]
        # Twice: TorchScript's interpreter specialises itself to what it sees first.
        for lengths, padded in shapes(min(max_sequence, 150)) * 2:
            inputs = make_inputs(graph, lengths, padded)
            check(graph, run(loaded, inputs), run(module, inputs))
        if isinstance(graph.module, Encoder):
            assert_alone_is_batched(loaded, graph)


def assert_alone_is_batched(loaded: Callable[..., Any], graph: GraphPlan) -> None:
    lengths = [21, 2, 13, 8]
    (together,) = run(loaded, make_inputs(graph, lengths, 32))
    for row, length in enumerate(lengths):
        single = tuple(tensor[row : row + 1, :length] for tensor in make_inputs(graph, lengths, 32))
        (alone,) = run(loaded, single)
        np.testing.assert_allclose(alone[0], together[row, :length], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("family", ["bert", "modernbert", "embedding_gemma", "splade_distilbert", "causal_qwen3"])
def test_half_inside(family: str, precision: Precision, tmp_path: Path) -> None:
    with masks_with_room(precision):
        for graph, module, max_sequence in graphs(family, precision):
            path = tmp_path / graph.triton_model / "1" / "model.pt"
            export_torchscript(module, graph, path, max_sequence=max_sequence)
            loaded = load(path)
            for lengths, padded in shapes(40):
                inputs = make_inputs(graph, lengths, padded)
                check(graph, run(loaded, inputs), run(module, inputs))
            parameters = [*module.parameters(), *module.buffers()]
            halved = sum(p.numel() for p in parameters if p.dtype.itemsize == 2)
            whole = sum(p.numel() for p in parameters) - halved
            assert path.stat().st_size < 2.2 * halved + 8 * whole + 200_000


def test_the_file_tells_nothing_of_this_machine_and_can_be_mapped(tmp_path: Path) -> None:
    graph, module, max_sequence = encoder("bert")
    path = tmp_path / "model.pt"
    export_torchscript(module, graph, path, max_sequence=max_sequence)
    content = path.read_bytes()
    for trace in (sys.prefix, str(ROOT), str(tmp_path), "site-packages", "modeling_bert"):
        assert trace.encode() not in content
    assert list(tmp_path.iterdir()) == [path]
    assert load(path).training is False  # type: ignore[attr-defined]
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        for record in archive.infolist():
            header = content[record.header_offset : record.header_offset + 30]
            names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
            if "/constants/" in record.filename:
                assert record.compress_type == zipfile.ZIP_STORED
                assert (record.header_offset + 30 + names) % 64 == 0


def order_of_a_set(environment: dict[str, str]) -> str:
    code = "print(list({'full_attention', 'sliding_attention'}))"
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_equal_inputs_give_equal_bytes_in_every_process(tmp_path: Path) -> None:
    """transformers makes masks in loops over sets of strings, whose order differs between processes."""
    ours = f"{list({'full_attention', 'sliding_attention'})}\n"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), *sys.path])}
    seeds = ({**environment, "PYTHONHASHSEED": str(seed)} for seed in range(64))
    other = next(candidate for candidate in seeds if order_of_a_set(candidate) != ours)
    code = (
        "import sys, export_torchscript.test_torchscript_families as tests\n"
        "tests.export_encoders(tests.Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "elsewhere")]
    done = subprocess.run(command, env=other, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    export_encoders(tmp_path / "here")
    export_encoders(tmp_path / "again")
    for family in ORDERED_BY_HASH:
        here, *others = ((tmp_path / f / family / "model.pt").read_bytes() for f in ("here", "again", "elsewhere"))
        assert all(content == here for content in others), family


def export_encoders(folder: Path) -> None:
    for family in ORDERED_BY_HASH:
        graph, module, max_sequence = encoder(family)
        export_torchscript(module, graph, folder / family / "model.pt", max_sequence=max_sequence)
