"""How many tokens the server counted. `sie_sdk` does not tell: SIE's contract has the number in the body only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sie_sdk import RequestError, SIEConnectionError
from sie_sdk._protocol import Send
from sie_sdk._reply import Reply, json_value
from sie_sdk._settings import resolve_settings
from sie_sdk.transport.with_urllib3 import Urllib3Http

_JSON = {"Content-Type": "application/json", "Accept": "application/json"}


def token_count(
    base_url: str,
    api_key: str | None,
    model: str,
    texts: Sequence[str],
    params: Mapping[str, Any],
    timeout_s: float,
) -> int:
    """The `usage.input_tokens` of an encode call.

    Raises `SIEConnectionError` without an answer, `RequestError` for one that is no count.
    """
    settings = resolve_settings(base_url, timeout_s=timeout_s, api_key=api_key)
    body = json.dumps({"items": [{"text": text} for text in texts], "params": params}).encode()
    http = Urllib3Http(settings, 1, lambda _: None)
    try:
        reply = http.exchange(Send("POST", f"/v1/encode/{model}", _JSON, body, timeout_s, timeout_s))
    finally:
        http.close()
    if not isinstance(reply, Reply):
        raise SIEConnectionError(f"{type(reply.error).__name__}: {reply.error}") from reply.error
    answer = json_value(reply.body)
    usage = answer.get("usage") if isinstance(answer, dict) else None
    if reply.status != 200 or not isinstance(usage, dict):
        detail = answer.get("detail") if isinstance(answer, dict) else None
        said = detail.get("message") if isinstance(detail, dict) else detail
        raise RequestError(
            f"the server at {base_url} counted no tokens of `{model}`: HTTP {reply.status}, {said or 'no usage'}",
            status_code=reply.status,
        )
    return int(usage["input_tokens"])
