"""Every recorded exchange about parsing, validation, negotiation or the shape of an answer, byte for byte."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import pytest
from contract.recorded import Exchange, exchanges
from replay import Reply, replay_embeddings, replay_encode, replay_score
from sie_frontend.contract.errors import WireError, model_load_failed, model_loading
from sie_frontend.contract.requests import MAX_BODY_BYTES, check_body_size

# The recordings below need more than the wire layer; the application's tests replay them over HTTP.
NEEDS_THE_APPLICATION = (
    ("get_", "a redirect of the application"),
    ("get_health", "a route of the application"),
    ("get_livez", "a route of the application"),
    ("get_readyz", "a route of the application"),
    ("models_get", "reads the catalogue and the load states"),
    ("models_get_variant", "reads the catalogue and the load states"),
    ("models_list", "reads the catalogue and the load states"),
    ("models_list_slash", "a route of the application, with an empty id"),
    ("score_query_no_text", "the message is an adapter's; a text model refuses the item itself"),
    ("score_options_nonempty_default_delegate", "the fake adapter takes no options; ours ignores unknown ones"),
)


def _too_big() -> WireError:
    check_body_size(MAX_BODY_BYTES)
    with pytest.raises(WireError) as refusal:
        check_body_size(MAX_BODY_BYTES + 1)
    return refusal.value


def _load_failed() -> WireError:
    return model_load_failed(
        "acme/fake-fail",
        "RuntimeError: sie-fake injected load failure",
        error_class="UNKNOWN",
        attempts=1,
        permanent=False,
    )


# Recordings of load states and of the body limit: the state is the application's, the answer is ours.
ANSWERS_ONLY: Mapping[str, Callable[[], WireError]] = {
    "encode_body_too_big": _too_big,
    "encode_load_failed_first": lambda: model_loading("acme/fake-fail"),
    "encode_load_failed_second": _load_failed,
    "oai_load_failed": _load_failed,
}

# Where we answer otherwise, on purpose.
DEPARTURES = {
    "encode_dtype_option_wrong_type": (400, "INVALID_INPUT", "Unsupported output_dtype: 5"),
}

ENCODE = (
    "encode_512_items_status_only",
    "encode_513_items",
    "encode_accept_text_html",
    "encode_body_empty_json",
    "encode_body_trailing",
    "encode_body_trunc",
    "encode_case_mismatch",
    "encode_dense_only_ask_sparse",
    "encode_dtype_bfloat16",
    "encode_dtype_binary",
    "encode_dtype_empty",
    "encode_dtype_float16",
    "encode_dtype_float32",
    "encode_dtype_float64",
    "encode_dtype_in_options",
    "encode_dtype_int8",
    "encode_dtype_ubinary",
    "encode_dtype_uint8",
    "encode_id_int",
    "encode_image_bare_bytes",
    "encode_image_json_b64",
    "encode_image_json_bad_b64",
    "encode_image_msgpack",
    "encode_image_msgpack_str_data",
    "encode_images_empty_list",
    "encode_instruction_int",
    "encode_is_query_str",
    "encode_item_empty",
    "encode_items_empty",
    "encode_items_null",
    "encode_items_str",
    "encode_json_accept_json_q",
    "encode_json_bad_utf8",
    "encode_json_body_as_msgpack",
    "encode_json_lone_surrogate",
    "encode_json_request_no_accept",
    "encode_metadata_list",
    "encode_msgpack",
    "encode_msgpack_body_as_json",
    "encode_msgpack_ids",
    "encode_no_content_type",
    "encode_no_model_path",
    "encode_nodefault_bare",
    "encode_nodefault_variant",
    "encode_options_list",
    "encode_options_output_types_wins",
    "encode_output_types_dup",
    "encode_output_types_null",
    "encode_output_types_score",
    "encode_output_types_str",
    "encode_output_types_unknown",
    "encode_overflow_policy_bad",
    "encode_params_null",
    "encode_pct_slash",
    "encode_profile_half",
    "encode_profile_int",
    "encode_profile_option",
    "encode_profile_path",
    "encode_profile_unknown_option",
    "encode_remote_bad",
    "encode_remote_forbid",
    "encode_sparse_only_default_types",
    "encode_text_bad_utf8",
    "encode_text_bin",
    "encode_text_int",
    "encode_text_null",
    "encode_text_plain",
    "encode_top_level_output_types_ignored",
    "encode_unknown_fields_ignored",
    "encode_unknown_model",
    "encode_unknown_model_bad_body",
    "encode_unknown_model_suggest",
)
SCORE = (
    "score_512",
    "score_513",
    "score_dup_ids",
    "score_empty_id",
    "score_instruction_option_int",
    "score_json",
    "score_msgpack",
    "score_no_query",
    "score_unknown_model",
)
EMBEDDINGS = (
    "oai_base64",
    "oai_dims_ok",
    "oai_empty_str",
    "oai_encfmt_bad",
    "oai_encfmt_null",
    "oai_extra_fields",
    "oai_float",
    "oai_nonjson",
    "oai_sparse_only",
    "oai_tokens",
    "oai_unknown_model",
    "oai_variant",
)

# What an application and its connection add to every answer.
_NOT_OURS = {"content-length"}
# The recorded total goes on after the body was made, so it is not the body's.
_MEASURED_LATER = {"x-total-time"}


def test_every_recording_is_replayed_or_excused() -> None:
    excused = {name for name, _ in NEEDS_THE_APPLICATION}
    groups: tuple[Iterable[str], ...] = (excused, ANSWERS_ONLY, DEPARTURES, ENCODE, SCORE, EMBEDDINGS)
    handled = [name for group in groups for name in group]
    assert sorted(handled) == sorted(exchanges())


@pytest.mark.parametrize("name", ENCODE)
def test_encode(name: str) -> None:
    _check(exchanges()[name], replay_encode)


@pytest.mark.parametrize("name", SCORE)
def test_score(name: str) -> None:
    _check(exchanges()[name], replay_score)


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_embeddings(name: str) -> None:
    _check(exchanges()[name], replay_embeddings)


@pytest.mark.parametrize("name", ANSWERS_ONLY)
def test_answer(name: str) -> None:
    exchange = exchanges()[name]
    error = ANSWERS_ONLY[name]()
    body = error.openai_body() if name.startswith("oai_") else error.body()
    assert (error.status, body) == (exchange.status, exchange.response_body)
    assert error.headers().get("retry-after") == exchange.response_headers.get("retry-after")


@pytest.mark.parametrize("name", DEPARTURES)
def test_departure(name: str) -> None:
    exchange = exchanges()[name]
    reply = replay_encode(exchange)
    status, code, message = DEPARTURES[name]
    assert reply.status == status != exchange.status
    assert reply.body == f'{{"detail":{{"code":"{code}","message":"{message}"}}}}'.encode()


def _check(exchange: Exchange, replay: Callable[[Exchange], Reply]) -> None:
    reply = replay(exchange)
    assert (reply.status, reply.body) == (exchange.status, exchange.response_body)
    recorded = dict(exchange.response_headers)
    if reply.status != 200:
        recorded.pop("x-sie-runtime-instance", None)  # on an error it comes from the application
    assert _comparable(reply.headers) == _comparable(recorded)


def _comparable(headers: Mapping[str, str]) -> dict[str, str]:
    pairs = {name: value for name, value in headers.items() if name not in _NOT_OURS}
    return {name: "..." if name in _MEASURED_LATER else value for name, value in pairs.items()}
