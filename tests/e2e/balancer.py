"""A Service of Kubernetes, as far as a rolling update needs one: connections go to the pods that are ready.

A connection stays with the pod that it was given, whatever becomes of that pod; a new one goes to one of the endpoints
in turn. A pod is an endpoint while its probe succeeds, and until a moment after it was deleted: kubelet and kube-proxy
learn that at different times.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import httpx


@dataclass
class Backend:
    """A pod behind the service. `connections` counts those that it was given."""

    port: int
    ready: bool = False
    failures: int = 0
    deleted: bool = False
    connections: int = 0

    @property
    def is_endpoint(self) -> bool:
        """Whether new connections may come."""
        return self.ready and not self.deleted


class ServiceBalancer:
    """Listens on loopback from `start` to `stop`, in a thread of its own."""

    def __init__(self, *, period_s: float, failures: int, notice_s: float) -> None:
        """`period_s` and `failures` are the readiness probe's; a deletion is known everywhere after `notice_s`."""
        self.port = 0
        self.refused = 0
        self._period_s = period_s
        self._failures = failures
        self._notice_s = notice_s
        self._backends: list[Backend] = []
        self._turn = itertools.count()
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.Task[None]] = set()
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="service-balancer", daemon=True)

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        """The service's URL while it is open."""
        self._thread.start()
        assert self._up.wait(60)
        try:
            yield f"http://127.0.0.1:{self.port}"
        finally:
            self._loop.call_soon_threadsafe(self._ended.set)
            self._thread.join(10)

    def add(self, port: int) -> Backend:
        """A new pod; it gets connections once it is ready."""
        backend = Backend(port)
        self._backends.append(backend)
        return backend

    def delete(self, backend: Backend) -> None:
        """A pod that was told to end."""
        self._loop.call_soon_threadsafe(self._loop.call_later, self._notice_s, setattr, backend, "deleted", True)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._ended = asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        watching = asyncio.create_task(self._watch())
        self._up.set()
        await self._ended.wait()
        server.close()
        tasks = [watching, *self._open]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()

    async def _watch(self) -> None:
        async with httpx.AsyncClient(timeout=5) as client:
            while True:
                for backend in self._backends:
                    await self._probe(client, backend)
                await asyncio.sleep(self._period_s)

    async def _probe(self, client: httpx.AsyncClient, backend: Backend) -> None:
        try:
            good = (await client.get(f"http://127.0.0.1:{backend.port}/readyz")).status_code == 200
        except httpx.TransportError:
            good = False
        backend.failures = 0 if good else backend.failures + 1
        if good or backend.failures >= self._failures:
            backend.ready = good

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            endpoints = [backend for backend in self._backends if backend.is_endpoint]
            if not endpoints:
                self.refused += 1
                return
            backend = endpoints[next(self._turn) % len(endpoints)]
            backend.connections += 1
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", backend.port)
            try:
                await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))
            finally:
                inner_writer.close()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._open.discard(task)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hand on what comes until its sender ends, and then say so."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()
