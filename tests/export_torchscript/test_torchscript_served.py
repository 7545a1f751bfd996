"""Exported graphs on the real server, behind the embedded `pytorch` backend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from embedded.client import infer
from embedded.started import started
from torch import Tensor, nn

from sie_triton.embedded.server import ServerSpec, TritonServer
from sie_triton.export.to_torchscript import export_torchscript
from sie_triton.planning.families import SparseMax
from sie_triton.planning.plan import GraphPlan

from .graphs import graphs, make_inputs, run

pytestmark = [pytest.mark.e2e, pytest.mark.export]

FAMILIES = ("modernbert", "splade_bert")
TUNED = {
    "INTRA_OP_THREAD_COUNT": "2",
    "INTER_OP_THREAD_COUNT": "-1",
    "INFERENCE_MODE": "false",
    "DISABLE_OPTIMIZED_EXECUTION": "true",
    "ENABLE_JIT_PROFILING": "false",
    "ENABLE_TENSOR_FUSER": "false",
}


def config(graph: GraphPlan, parameters: dict[str, str], *, filename: str | None = None) -> str:
    """Inputs in another order than `forward` takes them: their names are its arguments'."""
    types = {"INT64": "TYPE_INT64", "FP32": "TYPE_FP32"}

    def entries(tensors: Any) -> str:
        return ", ".join(f'{{ name: "{t.name}" data_type: {types[t.datatype]} dims: {list(t.dims)} }}' for t in tensors)

    extra = f'default_model_filename: "{filename}"' if filename else ""
    given = "".join(f'parameters {{ key: "{k}" value {{ string_value: "{v}" }} }}\n' for k, v in parameters.items())
    return f"""
        backend: "pytorch"
        platform: "pytorch_libtorch"
        max_batch_size: 8
        input [ {entries(graph.inputs[::-1])} ]
        output [ {entries(graph.outputs)} ]
        instance_group [ {{ kind: KIND_CPU count: 1 }} ]
        {extra}
        {given}
    """


class Served:
    """The server and the modules behind its models."""

    def __init__(self, server: TritonServer, modules: dict[str, tuple[GraphPlan, nn.Module]]) -> None:
        self.server = server
        self.modules = modules


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("torchscript")
    repository = folder / "repository"
    modules = {}
    for family in FAMILIES:
        for graph, module, max_sequence in graphs(family):
            home = repository / graph.triton_model
            tuned = graph.triton_model.endswith("splade-bert.encoder")
            filename = "other.pt" if tuned else None
            export_torchscript(module, graph, home / "1" / (filename or "model.pt"), max_sequence=max_sequence)
            (home / "config.pbtxt").write_text(config(graph, TUNED if tuned else {}, filename=filename))
            modules[graph.triton_model] = (graph, module)
    with started(ServerSpec(repository, folder / "triton.log")) as server:
        yield Served(server, modules)


def request(graph: GraphPlan, inputs: tuple[Tensor, ...]) -> dict[str, tuple[str, list[int], list[Any]]]:
    return {
        tensor.name: (tensor.datatype, list(value.shape), value.flatten().tolist())
        for tensor, value in zip(graph.inputs, inputs, strict=True)
    }


def ask(served: Served, name: str, inputs: tuple[Tensor, ...]) -> list[np.ndarray[Any, Any]]:
    graph, _ = served.modules[name]
    answer = infer(served.server.url, name, request(graph, inputs))
    assert answer.status_code == 200, answer.text
    outputs = {
        output["name"]: np.asarray(output["data"]).reshape(output["shape"]) for output in answer.json()["outputs"]
    }
    return [outputs[tensor.name] for tensor in graph.outputs]


def test_the_server_answers_what_the_modules_compute(served: Served) -> None:
    for name, (graph, module) in served.modules.items():
        for lengths, padded in (([1], 1), ([17, 3, 8], 17), ([40, 31, 2, 1, 5, 6, 7, 8], 40)):
            inputs = make_inputs(graph, lengths, padded)
            answers, expected = ask(served, name, inputs), run(module, inputs)
            if isinstance(graph.module, SparseMax):
                ids, weights = answers
                dense = torch.zeros_like(expected[0])
                dense.scatter_(1, torch.from_numpy(ids), torch.from_numpy(weights).float())
                answers = [dense.numpy()]
            for answer, wanted in zip(answers, expected, strict=True):
                np.testing.assert_allclose(answer, wanted.numpy(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("folder", "changes", "words"),
    [
        # One name that is no argument of `forward` sends all of them to their indices.
        ("misplaced", {'name: "attention_mask"': 'name: "mask__0"', 'name: "input_ids"': 'name: "ids__0"'}, "not fill"),
        ("undecided", {'string_value: "true"': 'string_value: "perhaps"'}, "`perhaps`"),
    ],
)
def test_what_nvidia_refuses_is_refused_when_loaded(
    folder: str, changes: dict[str, str], words: str, served: Served
) -> None:
    graph, module = served.modules["tiny__splade-bert.encoder"]
    home = served.server.spec.repository / folder
    export_torchscript(module, graph, home / "1" / "model.pt", max_sequence=40)
    text = config(graph, TUNED)
    for written, changed in changes.items():
        text = text.replace(written, changed)
    (home / "config.pbtxt").write_text(text)
    answer = httpx.post(f"{served.server.url}/v2/repository/models/{folder}/load", timeout=60)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


def test_a_model_file_that_is_a_directory_is_not_found(served: Served) -> None:
    graph, _ = served.modules["tiny__splade-bert.encoder"]
    home = served.server.spec.repository / "folder"
    (home / "1" / "model.pt").mkdir(parents=True)
    (home / "config.pbtxt").write_text(config(graph, {}))
    answer = httpx.post(f"{served.server.url}/v2/repository/models/folder/load", timeout=60)
    assert answer.status_code == 400
    assert "unable to find" in answer.json()["error"]
