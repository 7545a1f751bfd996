"""Triton's model repository API: load and unload one model of one Triton, and what it says of all of them."""

from __future__ import annotations

from enum import Enum
from urllib.parse import quote

import msgspec

from sie_frontend.triton.client import FailureKind, TritonClient, TritonFailure, refusal
from sie_frontend.triton.connections import ExchangeError
from sie_frontend.triton.reasons import cause_of_load

INDEX_TIMEOUT_S = 10.0


class _Entry(msgspec.Struct):
    name: str
    state: str = ""
    reason: str = ""


_READ_INDEX = msgspec.json.Decoder(list[_Entry])


class ModelState(Enum):
    """What Triton says of a model. `ABSENT`: it was never loaded, is unloaded and released, or could not be loaded."""

    READY = "READY"
    LOADING = "LOADING"
    UNLOADING = "UNLOADING"
    ABSENT = "UNAVAILABLE"


async def load(client: TritonClient, model: str, timeout_s: float) -> None:
    """Load a model and return when Triton says that it serves. Raises `TritonFailure` with Triton's reason.

    Loading what is loaded and unchanged does nothing.
    """
    try:
        await _post(client, f"/v2/repository/models/{quote(model)}/load", timeout_s, apart=True)
    except TritonFailure as failure:
        raise TritonFailure(failure.kind, cause_of_load(str(failure))) from failure


async def unload(client: TritonClient, model: str, timeout_s: float) -> None:
    """Begin to unload a model: it finishes its requests and is gone once `index` says so. Raises `TritonFailure`."""
    await _post(client, f"/v2/repository/models/{quote(model)}/unload", timeout_s)


async def index(client: TritonClient) -> dict[str, ModelState]:
    """The state of every model of the repository. Raises `TritonFailure`."""
    body = await _post(client, "/v2/repository/index", INDEX_TIMEOUT_S)
    try:
        entries = _READ_INDEX.decode(body)
    except msgspec.MsgspecError as error:
        raise TritonFailure(FailureKind.REJECTED, f"Triton's index cannot be read: {error}") from error
    known = {state.value: state for state in ModelState}
    found: dict[str, ModelState] = {}
    for entry in entries:  # a model of several versions has several entries: one that serves counts
        state = known.get(entry.state, ModelState.ABSENT)
        if found.get(entry.name, ModelState.ABSENT) is ModelState.ABSENT or state is ModelState.READY:
            found[entry.name] = state
    return found


async def _post(client: TritonClient, path: str, timeout_s: float, *, apart: bool = False) -> bytes:
    try:
        answer = await client.post(path, b"{}", timeout_s, apart=apart)
    except ExchangeError as error:
        raise TritonFailure(FailureKind.UNREACHABLE, str(error)) from error
    if answer.status != 200:
        raise refusal(answer)
    return answer.body
