"""What a client meant that asks a path which is not served: other servers' paths, and bases that lack their `/v1`."""

from __future__ import annotations

import re
from typing import Final

_OPENAI: Final = 'OpenAI\'s clients take a base URL that ends in /v1, once, as in base_url="http://HOST:PORT/v1"'
_SIE: Final = 'SIE\'s clients take the address alone, as in SIEClient("http://HOST:PORT")'

# The end of a path -> the route that is meant, and what to change. The first that fits is taken.
_MEANT: Final[tuple[tuple[re.Pattern[str], str, str], ...]] = tuple(
    (re.compile(end), route, cure)
    for end, route, cure in (
        (r"/api/(?:embed|embeddings)", "POST /v1/embeddings", f"this is Ollama's path; {_OPENAI}"),
        (r"/embed(?:_all|_sparse)?", "POST /v1/embeddings", f"this is TEI's path; {_OPENAI}"),
        (r".*/embeddings", "POST /v1/embeddings", _OPENAI),
        (r".*/rerank", "POST /v1/rerank", "clients of Cohere take the address alone, others a base that ends in /v1"),
        (r".*/encode/.+", "POST /v1/encode/{model}", _SIE),
        (r".*/score/.+", "POST /v1/score/{model}", _SIE),
        (r".*/models(?:/.+)?", "GET /v1/models", _OPENAI),
        (r".*/(?:chat/)?completions|.*/responses", "POST /v1/embeddings", "no model here writes text"),
    )
)
# What is longer is no client's path.
_LONGEST: Final = 512


def near_route(path: str) -> str | None:
    """A sentence with the route that a path was meant for, and what to change; None where nothing is near."""
    bare = path.rstrip("/")
    if len(bare) > _LONGEST:
        return None
    found = ((route, cure) for end, route, cure in _MEANT if end.fullmatch(bare))
    route, cure = next(found, (None, ""))
    return None if route is None else f"Near to it is {route}: {cure}."
