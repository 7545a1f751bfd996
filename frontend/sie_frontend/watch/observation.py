"""What is told of a request besides its answer: metrics, one line in the log, a trace, and the headers that name it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from sie_frontend.access.keyring import Grant
from sie_frontend.contract.responses import Timing
from sie_frontend.watch.logs import REQUEST_ID, new_request_id, sane_request_id
from sie_frontend.watch.metrics import Metrics
from sie_frontend.watch.tracing import Tracing, stages_ms

access = logging.getLogger("sie_frontend.access")

# The label of every request to a path or a method that is not served: anybody could make up others.
UNKNOWN_ROUTE: Final = "unknown"


@dataclass(slots=True)
class Exchange:
    """One request and what became of it. `headers` are to be put on the answer, whatever it is.

    The handler sets `model_id`, `body_s` (seconds that reading and parsing took), `items`, `tokens` and `timing` as
    far as it gets, `answered` the status. `grant` is what its key lets it ask, null where no key is needed.
    """

    route: str
    model_id: str
    headers: dict[str, str] = field(default_factory=dict)
    begun: float = field(default_factory=time.perf_counter)
    body_s: float = 0.0
    items: int = 0
    tokens: int = 0
    timing: Timing | None = None
    status: int | None = None
    grant: Grant | None = None

    @property
    def spend(self) -> Callable[[int], None] | None:
        """What is to be told of tokens before they are computed; null where no key limits them."""
        return self.grant.spend if self.grant is not None and self.grant.counts_tokens else None

    def body_read(self) -> None:
        """The body is read and understood."""
        self.body_s = time.perf_counter() - self.begun

    def computed(self, items: int, tokens: int, timing: Timing) -> None:
        """The engine has answered."""
        self.items, self.tokens, self.timing = items, tokens, timing


class Observer:
    """Watches every exchange. Ids of models become labels only if they are `known`: anybody could make up others."""

    def __init__(self, metrics: Metrics, tracing: Tracing, known: Container[str], *, access_log: bool) -> None:
        self._metrics = metrics
        self._tracing = tracing
        self._known = known
        self._access_log = access_log

    @contextmanager
    def exchange(self, route: str, model_id: str, headers: Mapping[str, str]) -> Iterator[Exchange]:
        """Watch one request: whatever is logged or run within belongs to it.

        A caller's own `X-Request-ID` is taken over and echoed as `X-SIE-Request-ID`; an id of ours stays in the log,
        because SIE's clients would show the header to their callers, who did not ask.
        """
        given = sane_request_id(headers.get("x-request-id"))
        request_id = given or new_request_id()
        exchange = Exchange(route, model_id)
        if given:
            exchange.headers["x-sie-request-id"] = given
        token = REQUEST_ID.set(request_id)
        self._metrics.inflight_requests.inc()
        try:
            with self._tracing.request(route, headers, request_id) as trace:
                if trace.trace_id:
                    exchange.headers["x-trace-id"] = trace.trace_id
                yield exchange
                if exchange.status is not None:
                    label = exchange.model_id if exchange.model_id in self._known else ""
                    trace.finish(exchange.status, label, body_s=exchange.body_s, timing=exchange.timing)
                    self._count(exchange, label, exchange.status)
        finally:
            self._metrics.inflight_requests.dec()
            REQUEST_ID.reset(token)

    def _count(self, exchange: Exchange, label: str, status: int) -> None:
        seconds = time.perf_counter() - exchange.begun
        stages = {} if exchange.timing is None else {"body": exchange.body_s * 1e3, **stages_ms(exchange.timing)}
        self._metrics.observe_request(exchange.route, label, status, seconds, stages)
        if self._access_log:
            line: dict[str, Any] = {
                "route": exchange.route,
                "model": exchange.model_id[:256],
                "status": status,
                **({"key": exchange.grant.name} if exchange.grant else {}),
                "items": exchange.items,
                "tokens": exchange.tokens,
                "ms": round(seconds * 1e3, 2),
                **{f"{stage}_ms": round(milliseconds, 2) for stage, milliseconds in stages.items()},
            }
            access.info("request", extra={"fields": line})
