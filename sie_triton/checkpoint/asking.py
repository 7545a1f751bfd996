"""The first question about a model at the hub: said when it takes long, given up early, and asked once in a command."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Final

from sie_triton.checkpoint.hub_failures import OFFLINE_HINT, HubFailure, endpoint_url, is_silence
from sie_triton.checkpoint.packaged import Announce
from sie_triton.diagnostics import Diagnostic

_QUIET_S: Final = 1.0
# Names are looked up without a limit of their own.
_SLACK_S: Final = 2.0

_Answer = tuple[Any, Exception | None]
_answers: ContextVar[dict[tuple[str, str | None], _Answer] | None] = ContextVar("answers", default=None)


@contextlib.contextmanager
def asked_once() -> Iterator[None]:
    """Within, no question is asked twice; once the hub was silent, it is not asked about other models either."""
    token = _answers.set({})
    try:
        yield
    finally:
        _answers.reset(token)


def describe(hf_id: str, revision: str | None, announce: Announce) -> Any:
    """The hub's description of a model, with its files. Raises what the client library raises, and `HubFailure`
    (`SIE317`) where nothing has come after HF_HUB_ETAG_TIMEOUT and two seconds.
    """
    known = _answers.get()
    if known is None:
        return _given(_ask(hf_id, revision, announce))
    silent = next((failure for _, failure in known.values() if failure is not None and is_silence(failure)), None)
    if silent is not None:
        raise silent
    if (hf_id, revision) not in known:
        known[hf_id, revision] = _ask(hf_id, revision, announce)
    return _given(known[hf_id, revision])


def _given(answer: _Answer) -> Any:
    description, failure = answer
    if failure is not None:
        raise failure
    return description


def _ask(hf_id: str, revision: str | None, announce: Announce) -> _Answer:
    """In a thread: neither the looking up of a name nor the library's retries can be interrupted."""
    from huggingface_hub import HfApi, constants  # `plan` does without

    timeout = constants.HF_HUB_ETAG_TIMEOUT
    answers: list[_Answer] = []

    def ask() -> None:
        try:
            info = HfApi().model_info(hf_id, revision=revision, files_metadata=True, timeout=timeout)
            answers.append((info, None))
        except Exception as error:  # raised where it was asked
            answers.append((None, error))

    thread = threading.Thread(target=ask, name="hub-question", daemon=True)
    begun, patience = time.monotonic(), timeout + _SLACK_S
    thread.start()
    thread.join(min(_QUIET_S, patience))
    if thread.is_alive():
        announce(f"asking the hub at {endpoint_url()} for `{hf_id}`, for up to {patience:.0f} s")
        thread.join(begun + patience - time.monotonic())
    if answers:
        return answers[0]
    message = f"the hub at {endpoint_url()} did not answer in {patience:.0f} s"
    hint = f"{OFFLINE_HINT}; HF_HUB_ETAG_TIMEOUT sets the seconds"
    return None, HubFailure([Diagnostic("SIE317", message, hint=hint)], unreachable=True)
