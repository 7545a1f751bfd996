"""What went wrong at the hub: the cause and the hint behind what the client library raised."""

from __future__ import annotations

import errno
import os
from typing import Any

from sie_triton.checkpoint.request import Request
from sie_triton.diagnostics import Diagnostic


class HubFailure(Exception):
    """The hub did not provide the files. `unreachable`: another source may have the model."""

    def __init__(self, diagnostics: list[Diagnostic], *, unreachable: bool = False) -> None:
        super().__init__("\n".join(map(str, diagnostics)))
        self.diagnostics = diagnostics
        self.unreachable = unreachable


OFFLINE_HINT = "check the network, the proxy variables and HF_ENDPOINT; HF_HUB_OFFLINE=1 uses the cache and asks nobody"
ROOM_HINT = "free some space, or set HF_HOME to a larger disk"


def explain(error: Exception, request: Request) -> HubFailure | None:
    """The cause and hint behind what the library raised; None for what is nobody's fault but ours.

    The library changed its HTTP client twice; the kinds of its errors kept their names, so names decide.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    while "LocalEntryNotFoundError" in kinds_of(error) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    if isinstance(error, HfHubHTTPError):
        return _explain_status(error, request)
    if isinstance(error, HFValidationError):
        return HubFailure([no_such_model(request)])
    return _explain_silence(error, request) or (_explain_disk(error, request) if isinstance(error, OSError) else None)


def _explain_silence(error: Exception, request: Request) -> HubFailure | None:
    """No answer, or an answer that is not from a hub. None for errors that have nothing to do with the network."""
    kinds, endpoint, unreachable = kinds_of(error), endpoint_url(), True
    if "OfflineModeIsEnabled" in kinds:
        message = f"`{request.hf_id}` is absent or incomplete in the local cache, and HF_HUB_OFFLINE keeps the hub out"
        diagnostic = Diagnostic("SIE311", message, hint="unset HF_HUB_OFFLINE once, or pass `--weights FOLDER`")
    elif "TimeoutException" in kinds and "ConnectTimeout" not in kinds:
        message = f"the hub at {endpoint} did not answer in time"
        hint = (
            "run again: finished files are kept; HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT set the seconds; "
            "HF_HUB_OFFLINE=1 uses the cache and asks nobody"
        )
        diagnostic = Diagnostic("SIE317", message, hint=hint)
    elif kinds & {"TransportError", "ConnectionError"}:
        message = f"the hub at {endpoint} cannot be reached" + (f": {error}" if str(error) else "")
        diagnostic = Diagnostic("SIE310", message, hint=f"{OFFLINE_HINT}; or pass `--weights FOLDER`")
        unreachable = "UnsupportedProtocol" not in kinds
    elif "FileMetadataError" in kinds:
        diagnostic, unreachable = not_a_hub("its answers lack the hub's headers"), False
    else:
        return None
    return HubFailure([diagnostic], unreachable=unreachable)


def is_silence(error: Exception) -> bool:
    """Whether an error says that nothing answers at all, whatever is asked."""
    if isinstance(error, HubFailure):
        return error.unreachable
    return bool(kinds_of(error) & {"TransportError", "ConnectionError", "Timeout"})


def _explain_status(error: Any, request: Request) -> HubFailure:
    """An HTTP error. `error` is the library's `HfHubHTTPError`: it carries the request and the response."""
    kinds, status, endpoint = kinds_of(error), int(error.response.status_code), endpoint_url()
    if "GatedRepoError" in kinds:
        message = f"`{request.hf_id}` is gated: its authors want their licence accepted first"
        if error.response.request.headers.get("authorization"):
            message += ", and the account of this token has not done so"
        hint = f"accept the licence at {endpoint}/{request.hf_id}, then set HF_TOKEN to a token of that account"
        diagnostic = Diagnostic("SIE314", message, hint=hint)
    elif "RepositoryNotFoundError" in kinds:
        diagnostic = no_such_model(request)
    elif "RevisionNotFoundError" in kinds:
        message = f"`{request.hf_id}` has no revision `{request.revision or 'main'}`"
        hint = f"`hf_revision` is a branch, a tag or a full commit; see {endpoint}/{request.hf_id}/commits/main"
        diagnostic = Diagnostic("SIE313", message, hint=hint)
    elif status in (401, 403):
        message = f"the hub refuses this token for `{request.hf_id}` (HTTP {status})"
        hint = "set HF_TOKEN to a valid token that may read the model, or unset it for a public one"
        diagnostic = Diagnostic("SIE314", message, hint=hint)
    elif status == 429:
        after = error.response.headers.get("retry-after")
        message = "the hub limits the number of requests, and it is reached (HTTP 429)"
        hint = f"wait {f'{after} seconds' if after else 'some minutes'} and run again; HF_TOKEN raises the limit"
        diagnostic = Diagnostic("SIE315", message, hint=hint)
    elif status >= 500:
        message = f"the hub at {endpoint}, or a proxy before it, answers HTTP {status}"
        hint = "run again later: finished files are kept; or pass `--weights FOLDER`"
        diagnostic = Diagnostic("SIE310", message, hint=hint)
    else:
        diagnostic = not_a_hub(f"it answers HTTP {status}")
    return HubFailure([diagnostic], unreachable=status in (502, 503, 504))


def _explain_disk(error: OSError, request: Request) -> HubFailure:
    from huggingface_hub import constants

    place = error.filename or constants.HF_HUB_CACHE
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        message = f"`{place}` has no room for {request.shown}: {os.strerror(error.errno)}"
        return HubFailure([Diagnostic("SIE316", message, hint=ROOM_HINT)])
    if error.errno is not None:
        message = f"the cache cannot be written, `{place}`: {os.strerror(error.errno)}"
        return HubFailure(
            [Diagnostic("SIE316", message, hint="mend its permissions, or set HF_HOME to another folder")]
        )
    message = f"a file of {request.shown} arrived incomplete: {str(error).splitlines()[0]}"
    return HubFailure([Diagnostic("SIE319", message, hint="run again: finished files are kept")])


def no_such_model(request: Request) -> Diagnostic:
    """The hub knows no such model, or hides it."""
    message = f"the hub at {endpoint_url()} has no model `{request.hf_id}`, or it is private and hidden from this token"
    return Diagnostic("SIE312", message, hint="check the spelling of `hf_id`; for a private model set HF_TOKEN")


def not_a_hub(reason: str) -> Diagnostic:
    """Something answers, but it is not a hub."""
    hint = "check HF_ENDPOINT and the proxy variables; unset HF_ENDPOINT for the public hub"
    return Diagnostic("SIE318", f"the server at {endpoint_url()} does not speak like a hub: {reason}", hint=hint)


def kinds_of(error: BaseException) -> set[str]:
    """The names of an error's classes."""
    return {kind.__name__ for kind in type(error).__mro__}


def endpoint_url() -> str:
    """The hub's address."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def is_offline() -> bool:
    """Whether the network is not to be used."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)
