"""How many tokens the server counted. `sie_sdk` does not tell: SIE's contract has the number in the body only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx
from sie_sdk import RequestError, SIEConnectionError
from sie_sdk._connections import certificates


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
    headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
    body = {"items": [{"text": text} for text in texts], "params": params}
    local = urlsplit(base_url).hostname in ("localhost", "127.0.0.1", "::1")
    try:
        with httpx.Client(timeout=timeout_s, trust_env=not local, verify=certificates()) as client:
            reply = client.post(f"{base_url}/v1/encode/{model}", json=body, headers=headers)
    except httpx.HTTPError as error:
        raise SIEConnectionError(f"{type(error).__name__}: {error}") from error
    answer = reply.json() if "json" in reply.headers.get("content-type", "") else {}
    usage = answer.get("usage") if isinstance(answer, dict) else None
    if reply.status_code != 200 or not isinstance(usage, dict):
        detail = answer.get("detail") if isinstance(answer, dict) else None
        said = detail.get("message") if isinstance(detail, dict) else detail
        raise RequestError(
            f"the server at {base_url} counted no tokens of `{model}`: HTTP {reply.status_code}, {said or 'no usage'}",
            status_code=reply.status_code,
        )
    return int(usage["input_tokens"])
