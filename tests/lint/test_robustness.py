"""Whatever stands in the files, the linter reports and does not raise; line numbers stay inside the text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sie_triton.lint import lint_model_config, lint_repository
from sie_triton.lint.pbtxt import FieldLines

from .builders import ENCODER, ENSEMBLE, RepositoryBuilder, identity_config, identity_graph
from .cases import CASES

WORDS = """
name input output dims reshape shape max_batch_size data_type TYPE_FP32 TYPE_INT64 0 1 -1 true 1e9 0x1f
dynamic_batching ensemble_scheduling step model_name input_map key value platform backend
instance_group kind KIND_GPU count gpus parameters string_value version_policy latest num_versions
batch_input batch_output model_warmup inputs optimization execution_accelerators sequence_batching
"onnxruntime" "ensemble" "x" "\\u00e9" 9223372036854775808
"""
TOKENS = [*"{}[]<>:,;#\"'-\n ", *WORDS.split()]
texts = st.lists(st.sampled_from(TOKENS), max_size=60).map(" ".join)


@given(st.binary(max_size=200) | texts.map(str.encode))
@settings(max_examples=300)
def test_any_bytes_are_linted(raw: bytes) -> None:
    for finding in lint_model_config(raw):
        assert finding.message
        assert finding.line is None or 1 <= finding.line <= raw.count(b"\n") + 1


@given(st.integers(0, 10**6), st.sampled_from(["", "{", "}", '"', "-1", "input", "0", "\x00", "\n#", ": 7"]))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_repositories_are_linted(tmp_path: Path, at: int, junk: str) -> None:
    """The reference repository with a few characters of one configuration replaced."""
    builder = RepositoryBuilder(tmp_path)
    if not (tmp_path / "pooling").exists():
        builder.reference()
    for name, text in (("encoder", ENCODER), ("model", ENSEMBLE)):
        position = at % len(text)
        (tmp_path / name / "config.pbtxt").write_text(text[:position] + junk + text[position + 3 :])
    lint_repository(tmp_path)


@given(st.binary(max_size=120))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_as_a_graph(tmp_path: Path, raw: bytes) -> None:
    builder = RepositoryBuilder(tmp_path)
    builder.add("copy", identity_config(), files={"1/model.onnx": raw})
    lint_repository(tmp_path)


@pytest.mark.parametrize("cut", [10, 60, 100])
def test_a_truncated_graph_is_an_error(tmp_path: Path, cut: int) -> None:
    raw = identity_graph().SerializeToString()
    builder = RepositoryBuilder(tmp_path)
    builder.add("copy", identity_config(), files={"1/model.onnx": raw[: min(cut, len(raw) - 1)]})
    assert "error" in {f.severity for f in lint_repository(tmp_path)}


@given(texts)
@settings(max_examples=200)
def test_field_lines_never_raise(text: str) -> None:
    found = FieldLines.read(text)
    assert all(1 <= line <= text.count("\n") + 1 for line in found.lines.values())


def test_nesting_does_not_exhaust_the_stack() -> None:
    assert lint_model_config("input {" * 100_000)[0].rule_id == "L101"
    assert FieldLines.read("a {" * 100_000).line("a") == 1


def test_field_lines_of_both_ways_to_repeat_and_of_comments() -> None:
    text = """\
# input { name: "no" }
input [
  { name: "a", dims: [ 1, 2 ] },
  {
    name: 'b' # the second
    dims: 3
  }
]
input < name: "c" >
parameters: { key: "k" value: { string_value: "{ \\" }" } }
max_batch_size: 4
"""
    found = FieldLines.read(text)
    assert found.line("input", 1, "dims") == 6
    assert found.line("input", 1, "data_type") == 4
    assert found.line("input", 2, "name") == 9
    assert found.entry(("input",), "b", key="name") == 5
    assert found.entry(("parameters",), "k") == 10
    assert found.entry(("parameters",), "j") is None
    assert found.line("max_batch_size") == 11
    assert found.line("output") is None
    assert found.has("parameters", "value", "string_value")
    assert not found.has("output")


def test_the_linter_writes_nothing(tmp_path: Path) -> None:
    repository = RepositoryBuilder(tmp_path)
    for rule_id in ("L211", "L609"):
        CASES[rule_id].bad(repository)

        def snapshot() -> dict[Path, tuple[int, bytes]]:
            files = (p for p in tmp_path.rglob("*") if p.is_file())
            return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in files}

        before = snapshot()
        lint_repository(tmp_path)
        assert snapshot() == before
