from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from sie_frontend.contract.errors import WireError
from sie_frontend.contract.requests import EncodeParams, Item, ScoreRequest
from sie_frontend.outputs.options import ResolvedCall, resolve_encode, resolve_score

PROFILES: Mapping[str, Mapping[str, Any]] = {
    "default": {"normalize": True, "instruction": "from the profile"},
    "half": {"output_dtype": "float16", "output_types": None},
    "sparse": {"output_types": ["sparse"]},
    "query": {"is_query": True},
    "muvera": {"muvera": {}, "output_types": ["dense"]},
}
DECLARED = ("dense", "sparse", "multivector")


def _resolve(
    profiles: Mapping[str, Mapping[str, Any]] = PROFILES, declared: tuple[str, ...] = DECLARED, **params: Any
) -> ResolvedCall:
    return resolve_encode(
        EncodeParams(**params) if params else None, profiles=profiles, declared_outputs=declared, model_id="m"
    )


def _message(**params: Any) -> str:
    with pytest.raises(WireError) as refusal:
        _resolve(**params)
    assert (refusal.value.status, refusal.value.code) == (400, "INVALID_INPUT")
    return refusal.value.message


def test_defaults() -> None:
    call = _resolve({"default": {}})
    assert call == ResolvedCall(("dense",), ("dense",), "float32", None, False, False, False, {})


def test_options_beat_params_for_output_types() -> None:
    call = _resolve(output_types=["dense"], options={"output_types": ["sparse"]})
    assert call.output_types == ("sparse",)


def test_a_profile_beats_params_for_output_types() -> None:
    assert _resolve(output_types=["dense"], options={"profile": "sparse"}).output_types == ("sparse",)


def test_a_null_option_overrides_the_profile() -> None:
    call = _resolve(output_types=["dense"], options={"profile": "muvera", "muvera": None})
    assert (call.output_types, call.muvera, call.adapter_outputs) == (("dense",), False, ("dense",))


@pytest.mark.parametrize("options", [{}, {"profile": "muvera"}])
def test_null_output_types_among_the_options_are_no_array(options: dict[str, Any]) -> None:
    expected = "'output_types' must be a non-empty array"
    assert _message(output_types=["dense"], options={**options, "output_types": None}) == expected


def test_params_beat_options_for_dtype_and_instruction() -> None:
    call = _resolve(
        output_dtype="int8", instruction="asked", options={"output_dtype": "uint8", "instruction": "optional"}
    )
    assert (call.output_dtype, call.instruction) == ("int8", "asked")


def test_options_then_profile_when_params_are_silent() -> None:
    assert _resolve(options={"output_dtype": "uint8", "profile": "half"}).output_dtype == "uint8"
    assert _resolve(options={"profile": "half"}).output_dtype == "float16"
    assert _resolve().instruction == "from the profile"
    assert _resolve(options={"instruction": "optional"}).instruction == "optional"
    assert _resolve(options={"instruction": None}).instruction is None


def test_an_empty_instruction_is_given_and_an_empty_dtype_is_not() -> None:
    call = _resolve(instruction="", output_dtype="", options={"profile": "half"})
    assert (call.instruction, call.output_dtype) == ("", "float16")


def test_merged_options_hold_the_rest_without_the_profile() -> None:
    call = _resolve(options={"profile": "half", "max_seq_length": 16, "anything": [1]})
    assert call.options == {"output_dtype": "float16", "output_types": None, "max_seq_length": 16, "anything": [1]}
    assert PROFILES["half"] == {"output_dtype": "float16", "output_types": None}


@pytest.mark.parametrize(("value", "expected"), [("no", True), (1, True), (0, False), ("", False), (None, False)])
def test_is_query_is_truthiness(value: Any, expected: bool) -> None:
    assert _resolve(options={"is_query": value}).is_query is expected


def test_is_query_may_come_from_the_profile() -> None:
    assert _resolve(options={"profile": "query"}).is_query is True
    assert _resolve(options={"profile": "query", "is_query": None}).is_query is False


def test_output_types_lose_repeats_and_take_the_order_of_the_wire() -> None:
    assert _resolve(output_types=["multivector", "dense", "multivector"]).output_types == ("dense", "multivector")


@pytest.mark.parametrize(
    ("options", "wanted", "adapter"),
    [
        ({"muvera": {}}, ["dense"], ("multivector",)),
        ({"muvera": {"ignored": 1}}, ["dense", "multivector"], ("multivector",)),
        ({"muvera": {}}, ["dense", "sparse"], ("sparse", "multivector")),
        ({"muvera": {}}, ["sparse"], ("sparse",)),
        ({"smve": {}}, ["sparse"], ("multivector",)),
        ({"smve": {}}, ["dense"], ("dense",)),
        ({"smve": False, "muvera": 0}, ["dense", "sparse"], ("multivector",)),
    ],
)
def test_switches_ask_the_adapter_for_the_multivector(
    options: dict[str, Any], wanted: list[str], adapter: tuple[str, ...]
) -> None:
    call = _resolve(output_types=wanted, options=options)
    assert call.output_types == tuple(wanted)
    assert call.adapter_outputs == adapter
    assert call.muvera is ("muvera" in options and "dense" in wanted)
    assert call.smve is ("smve" in options and "sparse" in wanted)


def test_a_profile_widens_what_the_model_declares() -> None:
    call = _resolve(declared=("multivector",), options={"profile": "muvera"})
    assert (call.output_types, call.adapter_outputs) == (("dense",), ("multivector",))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"options": {"profile": "nope"}}, f"Profile 'nope' not found. Available: {list(PROFILES)}"),
        ({"options": {"profile": " "}}, "'options.profile' must be a non-empty string or null"),
        ({"options": {"profile": ["default"]}}, "'options.profile' must be a non-empty string or null"),
        ({"output_types": []}, "'output_types' must be a non-empty array"),
        ({"options": {"output_types": "dense"}}, "'output_types' must be a non-empty array"),
        ({"output_types": ["score"]}, "'output_types' entries must be one of ['dense', 'multivector', 'sparse']"),
        (
            {"options": {"output_types": [{}]}},
            "'output_types' entries must be one of ['dense', 'multivector', 'sparse']",
        ),
        ({"output_dtype": "INT8"}, "Unsupported output_dtype: INT8"),
        ({"options": {"output_dtype": 5}}, "Unsupported output_dtype: 5"),
        ({"options": {"instruction": [1]}}, "Expected `str | null`, got `array` - at `$.params.options.instruction`"),
        (
            {"options": {"overflow_policy": {}}},
            "Invalid overflow_policy: {}. Must be one of ['default', 'error', 'truncate_text'].",
        ),
        (
            {"output_types": ["sparse", "multivector"], "declared": ("dense", "score")},
            "Model 'm' does not support output types: {'multivector', 'sparse'}. Supported: {'dense', 'score'}",
        ),
        (
            {"output_types": ["dense"], "options": {"profile": "sparse", "output_types": ["dense"]}},
            "Model 'm' does not support output types: {'dense'}. Supported: {'sparse'}",
        ),
    ],
)
def test_refusals(params: dict[str, Any], message: str) -> None:
    assert _message(**params) == message


@pytest.mark.parametrize("policy", [None, "default", "truncate_text", "error"])
def test_overflow_policies(policy: str | None) -> None:
    assert _resolve(options={"overflow_policy": policy}).options["overflow_policy"] == policy


def test_score_instruction() -> None:
    def resolved(**fields: Any) -> str | None:
        request = ScoreRequest(query=Item(text="q"), items=[Item(text="a")], **fields)
        return resolve_score(request, profiles=PROFILES).instruction

    assert resolved() == "from the profile"
    assert resolved(instruction="asked", options={"instruction": "optional"}) == "asked"
    assert resolved(options={"instruction": "optional"}) == "optional"
    assert resolved(options={"profile": "half"}) is None
    with pytest.raises(WireError, match=r"options\.profile"):
        resolved(options={"profile": ""})
