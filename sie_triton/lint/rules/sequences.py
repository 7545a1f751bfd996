"""Rules on sequence models: which tensors tell them where a sequence begins, ends and belongs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sie_triton.lint.config import enum_name, model_config_pb2
from sie_triton.lint.rule import LintSubject, Problem, rule

_CORRELATION = 3  # CONTROL_SEQUENCE_CORRID carries an id instead of a flag
_ID_TYPES = ("TYPE_UINT64", "TYPE_INT64", "TYPE_UINT32", "TYPE_INT32", "TYPE_STRING")


def _controls(s: LintSubject) -> Iterator[tuple[int, Any, Any]]:
    """Every control with its control input and that one's index."""
    for index, control_input in enumerate(s.config.message.sequence_batching.control_input):
        for control in control_input.control:
            yield index, control_input, control


@rule(
    "L120",
    "error",
    title="a sequence control is not complete",
    explanation="Each control needs a tensor of its own and one pair of values; the correlation id needs none.",
    hint="write `name` and one of `int32_false_true`, `fp32_false_true`, `bool_false_true` with two values",
)
def _controls_complete(s: LintSubject) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, control_input in enumerate(s.config.message.sequence_batching.control_input):
        line = s.line("sequence_batching", "control_input", index)
        if not control_input.name or control_input.name in seen:
            name = control_input.name or index
            yield Problem(f"control input `{name}` has no name of its own", line)
        seen.add(control_input.name)
    for index, control_input, control in _controls(s):
        line = s.line("sequence_batching", "control_input", index)
        pairs = [len(getattr(control, f"{kind}_false_true")) for kind in ("int32", "fp32", "bool")]
        typed = control.kind == _CORRELATION
        if (not typed and sorted(pairs) != [0, 0, 2]) or (typed and any(pairs)):
            values = "no values" if typed else "exactly one pair of false and true values"
            yield Problem(f"control input `{control_input.name}` needs {values}", line)


@rule(
    "L122",
    "error",
    title="two sequence controls of one kind",
    explanation=(
        "Triton refuses a model with two tensors for the start of a sequence, its end, its readiness or its "
        "correlation id. One tensor may have several kinds."
    ),
    hint="remove one of them",
)
def _controls_once(s: LintSubject) -> Iterator[Problem]:
    kinds = model_config_pb2().ModelSequenceBatching.Control.Kind
    first: dict[int, str] = {}
    for index, control_input, control in _controls(s):
        if control.kind in first:
            kind = enum_name(kinds, control.kind)
            text = f"`{control_input.name}` is {kind}, and so is `{first[control.kind]}`"
            yield Problem(text, s.line("sequence_batching", "control_input", index))
        first.setdefault(control.kind, str(control_input.name))


@rule(
    "L123",
    "error",
    title="a correlation id of an impossible type",
    explanation=(
        "CONTROL_SEQUENCE_CORRID is one of TYPE_UINT64, TYPE_INT64, TYPE_UINT32, TYPE_INT32 and TYPE_STRING; Triton "
        "refuses any other type, and none."
    ),
    hint="write `data_type: TYPE_UINT64`, or TYPE_STRING for ids that are text",
)
def _correlation_type(s: LintSubject) -> Iterator[Problem]:
    types = model_config_pb2().DataType
    for index, control_input, control in _controls(s):
        name = enum_name(types, control.data_type)
        if control.kind == _CORRELATION and name not in _ID_TYPES:
            said = "has no `data_type`" if name == "TYPE_INVALID" else f"is {name}"
            line = s.line("sequence_batching", "control_input", index)
            yield Problem(f"the correlation id `{control_input.name}` {said}", line)
