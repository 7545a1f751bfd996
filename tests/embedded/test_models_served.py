"""Models on the real server: what a request gets."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from benchmarks.waiting import eventually
from embedded.client import infer, results, statistics
from sie_triton.embedded.server import TritonServer

pytestmark = pytest.mark.e2e


def executions(server: TritonServer, model: str) -> tuple[int, int]:
    stats = statistics(server.url, model)
    return stats["inference_count"], stats["execution_count"]


def together(
    server: TritonServer, model: str, name: str, datatype: str, rows: list[list[float]]
) -> list[httpx.Response]:
    """One request per row, at once: the models' queue delay lets the batcher see them all."""
    with ThreadPoolExecutor(len(rows)) as pool:
        return list(pool.map(lambda row: infer(server.url, model, {name: (datatype, [1, len(row)], row)}), rows))


@pytest.mark.parametrize(
    ("model", "datatype", "sent", "received"),
    [
        ("double", "FP32", [1.5, -2.0], [3.0, -4.0]),
        ("tuned", "FP32", [1.5, -2.0], [3.0, -4.0]),
        ("flags", "BOOL", [True, False], [False, True]),
        ("encoder", "FP32", [1.5, -2.0], [-1.5, 2.0]),
    ],
)
def test_values_of_each_type(
    server: TritonServer, model: str, datatype: str, sent: list[float], received: list[float]
) -> None:
    answer = results(infer(server.url, model, {"x": (datatype, [1, 2], sent)}))
    assert answer == {"y": ([1, 2], received)}


def test_half_precision(server: TritonServer) -> None:
    """FP16 exists only in binary form: 1.5 is 0x3E00, 3.0 is 0x4200."""
    head = (
        b'{"inputs":[{"name":"x","datatype":"FP16","shape":[1,2],"parameters":{"binary_data_size":4}}],'
        b'"outputs":[{"name":"y","parameters":{"binary_data":true}}]}'
    )
    answer = httpx.post(
        f"{server.url}/v2/models/half/infer",
        content=head + b"\x00\x3e\x00\xbe",
        headers={"Inference-Header-Content-Length": str(len(head))},
    )
    assert answer.status_code == 200
    assert answer.content[-4:] == b"\x00\x42\x00\xc2"


def test_empty_sequences_and_many_rows(server: TritonServer) -> None:
    assert results(infer(server.url, "double", {"x": ("FP32", [2, 0], [])})) == {"y": ([2, 0], [])}
    assert results(infer(server.url, "double", {"x": ("FP32", [8, 1], list(range(8)))}))["y"] == (
        [8, 1],
        [2.0 * n for n in range(8)],
    )


def test_reshape_and_another_file_name(server: TritonServer) -> None:
    assert results(infer(server.url, "reshaped", {"x": ("INT64", [3, 1], [1, 2, 3])})) == {"y": ([3, 1], [2, 4, 6])}


def test_a_scalar_output_has_the_configured_dims(server: TritonServer) -> None:
    answer = results(infer(server.url, "scalar", {"x": ("FP32", [2, 3], [1, 2, 3, 4, 5, 6])}))
    assert answer == {"sum": ([1], [21.0])}


def test_requests_of_equal_shape_run_once(server: TritonServer) -> None:
    answers = together(server, "merged", "x", "FP32", [[1, 2], [3, 4], [5, 6]])
    assert [results(answer)["y"] for answer in answers] == [([1, 2], [2, 4]), ([1, 2], [6, 8]), ([1, 2], [10, 12])]
    assert executions(server, "merged") == (3, 1)


def test_one_bad_request_does_not_fail_its_neighbors(server: TritonServer) -> None:
    good, bad, other = together(server, "lookup", "ids", "INT64", [[0, 2], [1, 7], [2, 1]])
    assert results(good)["y"] == ([1, 2], [10, 12])
    assert results(other)["y"] == ([1, 2], [12, 11])
    assert bad.status_code == 500
    assert "model `lookup` failed on `ids` int64[1, 2]" in bad.json()["error"]
    assert "idx=7 must be within the inclusive range" in bad.json()["error"]
    assert executions(server, "lookup")[1] == 1  # they did run together


def test_ragged_requests_arrive_concatenated(server: TritonServer) -> None:
    """The lengths and the numbers seen in NVIDIA's C++ backend; the requests' order in the batch is the server's."""
    rows = [[1.0, 2, 3, 4, 5], [6.0, 7], [8.0, 9, 10]]
    answers = [results(answer) for answer in together(server, "ragged", "tokens", "FP32", rows)]
    for row, answer in zip(rows, answers, strict=True):
        assert answer["doubled"] == ([1, len(row)], [2 * value for value in row])
    counts = answers[0]["saw_count"][1]
    assert sorted(counts) == [2, 3, 5]
    ends = [sum(counts[: n + 1]) for n in range(3)]
    for answer in answers:
        assert answer["saw_count"] == ([1, 3], counts)
        assert answer["saw_end"] == ([1, 3], ends)
        assert answer["saw_bounds"] == ([1, 4], [0, *ends])
        assert answer["saw_item"] == ([1, 3], counts)
        assert answer["saw_flat"] == ([1, 3], counts)
        assert answer["saw_longest"] == ([1, 1], [5])
    assert executions(server, "ragged") == (3, 1)


def test_surplus_rows_are_cut_and_logged_as_nvidia_does(server: TritonServer) -> None:
    answers = together(server, "surplus", "x", "FP32", [[1, 1], [2, 2], [3, 3]])
    assert all(results(answer)["y"][0] == [1, 2] for answer in answers)
    log = server.spec.log_path
    assert eventually(lambda: "3 surplus rows of output `y` are dropped" in log.read_text())


def test_missing_rows_are_an_error_of_the_requests_that_miss_them(server: TritonServer) -> None:
    answers = together(server, "first_row", "x", "FP32", [[1, 1], [2, 2], [3, 3]])
    assert sorted(answer.status_code for answer in answers) == [200, 501, 501]
    errors = {answer.json()["error"] for answer in answers if answer.status_code == 501}
    assert errors == {
        f"model `first_row`: failed to split the output: output `y` has 1 rows, the batch at least {least}"
        for least in (2, 3)
    }


def test_an_ensemble_runs_only_the_heads_that_are_asked_for(server: TritonServer) -> None:
    asked = {"x": ("FP32", [1, 2], [1.0, -2.0])}
    assert results(infer(server.url, "ensemble", asked, ["a"])) == {"a": ([1, 2], [1.0, 2.0])}
    assert executions(server, "head_a")[0] == 1
    assert executions(server, "head_b")[0] == 0
    both = results(infer(server.url, "ensemble", {"x": ("FP32", [1, 1], [0.0])}))
    assert both == {"a": ([1, 1], [0.0]), "b": ([1, 1], [1.0])}
    assert executions(server, "head_b")[0] == 1


@pytest.mark.parametrize(
    ("model", "values", "factor"), [("indexed", "A__0", "B__1"), ("by_argument", "values", "factor")]
)
def test_torchscript_arguments_go_by_their_names(server: TritonServer, model: str, values: str, factor: str) -> None:
    asked = {values: ("FP32", [2, 2], [1.0, 2.0, 3.0, 4.0]), factor: ("FP32", [2, 1], [10.0, 100.0])}
    answer = results(infer(server.url, model, asked, ["SCALED__0"]))
    assert answer == {"SCALED__0": ([2, 2], [10.0, 20.0, 300.0, 400.0])}


def test_torchscript_outputs_have_the_configured_type(server: TritonServer) -> None:
    asked = {"A__0": ("FP32", [1, 2], [1.0, 2.0]), "B__1": ("FP32", [1, 1], [2.0])}
    assert results(infer(server.url, "indexed", asked, ["WHOLE__1"])) == {"WHOLE__1": ([1, 2], [1, 2])}
    wrong = {"values": ("FP32", [1, 2], [1.0, 2.0]), "factor": ("FP32", [1, 1], [2.0])}
    for asked_for in ("WHOLE__1", "SCALED__0"):  # NVIDIA's backend looks at every configured output of a run
        answer = infer(server.url, "mistyped", wrong, [asked_for])
        assert answer.status_code == 500
        assert "output `WHOLE__1` is torch.int64, the configuration says torch.float32" in answer.json()["error"]


def test_models_can_be_unloaded_and_loaded(server: TritonServer) -> None:
    models = f"{server.url}/v2/repository/models"
    assert httpx.post(f"{models}/tuned/unload", timeout=60).status_code == 200
    assert eventually(lambda: infer(server.url, "tuned", {"x": ("FP32", [1, 1], [1])}).status_code == 404)
    assert httpx.post(f"{models}/tuned/load", timeout=60).status_code == 200
    assert results(infer(server.url, "tuned", {"x": ("FP32", [1, 1], [1])}))["y"] == ([1, 1], [2.0])


def test_metrics_count_executions(server: TritonServer) -> None:
    infer(server.url, "half", {"x": ("FP32", [1, 2], [1, 2])})
    lines = httpx.get(server.metrics_url, timeout=60).text
    assert 'nv_inference_exec_count{model="double",version="1"}' in lines
