"""A peer that runs: something with a process tree that turns texts into vectors, in process or over HTTP."""

from __future__ import annotations

import http.client
import importlib
import json
import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import load
from benchmarks.corpora import Corpus
from benchmarks.environment import Environment, Unavailable
from benchmarks.load import ROOT, Plan
from benchmarks.measure import cpu_seconds, watch_memory
from benchmarks.peers import Files, HttpServer, Peer
from sie_triton.embedded.ports import free_port

_START_SECONDS = 300.0


@dataclass(frozen=True)
class Sample:
    """One measurement: real tokens per second of wall clock, what it cost, and the latency of each request."""

    tokens: int
    texts: int
    wall_s: float
    cpu_s: float
    peak_pss: int
    latencies: tuple[float, ...] = ()

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.wall_s

    @property
    def cpu_s_per_1k_tokens(self) -> float:
        return self.cpu_s / self.tokens * 1000


class Contestant(ABC):
    """One column of the comparison; `close` leaves no process behind."""

    def __init__(self, peer: Peer, variant: str, start_s: float) -> None:
        self.peer = peer
        self.variant = variant
        self.start_s = start_s

    @property
    def name(self) -> str:
        """The peer, and its variant where it has several."""
        return f"{self.peer.name} ({self.variant})" if self.variant else self.peer.name

    @property
    @abstractmethod
    def pid(self) -> int:
        """The root of its processes."""

    @abstractmethod
    def bulk(self, corpus: Corpus, *, clients: int, texts_per_request: int) -> Sample:
        """Embed the whole corpus once."""

    @abstractmethod
    def online(self, corpus: Corpus, *, clients: int, seconds: float) -> Sample:
        """Embed one text a request for about `seconds`."""

    @abstractmethod
    def vectors(self, texts: Sequence[str]) -> list[list[float]]:
        """The embeddings themselves."""

    @abstractmethod
    def close(self) -> None:
        """End it and wait for the end."""

    def _sample(self, tokens: int, texts: int, watched: _Watched) -> Sample:
        return Sample(tokens, texts, watched.wall_s, watched.cpu_s, watched.peak_pss, tuple(watched.latencies))


@dataclass
class _Watched:
    wall_s: float
    cpu_s: float
    peak_pss: int
    latencies: Sequence[float] = ()


class WorkerProcess:
    """The process of one in-process peer, which all its variants share."""

    def __init__(self, peer: Peer, environment: Environment, files: Files, log: Path) -> None:
        begun = time.monotonic()
        command = [str(environment.python), "-m", "benchmarks.peers.worker", peer.module, json.dumps(asdict(files))]
        self._log = log
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True
            )
        self.variants: list[str] = self._answer()["variants"]
        self.start_s = time.monotonic() - begun

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send a command and wait for its answer. Raises `Unavailable` if the process has ended."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise Unavailable(f"its process ended: {_last_line(self._log)}")
        content: dict[str, Any] = json.loads(line)
        return content

    def close(self) -> None:
        """End the process; safe to call twice."""
        if self.process.stdin and not self.process.stdin.closed:
            self.process.stdin.close()
        self.process.wait(timeout=60)


class InProcess(Contestant):
    """One variant of an in-process peer. It has no clients: what is asked for at once is computed at once."""

    def __init__(self, peer: Peer, variant: str, worker: WorkerProcess) -> None:
        super().__init__(peer, variant, worker.start_s)
        self._worker = worker

    @property
    def pid(self) -> int:
        return self._worker.process.pid

    def bulk(self, corpus: Corpus, *, clients: int, texts_per_request: int) -> Sample:
        return self._run("bulk", corpus)

    def online(self, corpus: Corpus, *, clients: int, seconds: float) -> Sample:
        # As many texts as the time is likely to suffice for: one call each, no clock inside the worker.
        probe = self._run("online", corpus.part(8))
        return self._run("online", corpus.part(max(20, int(seconds / probe.wall_s * 8))))

    def _run(self, do: str, corpus: Corpus) -> Sample:
        cpu = cpu_seconds(self.pid)
        with watch_memory(self.pid) as peak:
            answer = self._worker.ask(do=do, variant=self.variant, texts=corpus.texts)
        spent = cpu_seconds(self.pid) - cpu
        watched = _Watched(answer["wall_s"], spent, peak.pss, answer.get("latencies", ()))
        return self._sample(corpus.tokens, len(corpus.texts), watched)

    def vectors(self, texts: Sequence[str]) -> list[list[float]]:
        vectors: list[list[float]] = self._worker.ask(do="vectors", variant=self.variant, texts=list(texts))["vectors"]
        return vectors

    def close(self) -> None:
        self._worker.close()


class OverHttp(Contestant):
    """A server and the clients that the load generator plays."""

    def __init__(self, peer: Peer, server: HttpServer, environment: Environment, log: Path) -> None:
        self._server = server
        self._log = log
        begun = time.monotonic()
        command = list(server.command)
        if (environment.scripts / command[0]).exists():
            command[0] = str(environment.scripts / command[0])
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=server.directory or log.parent,
                env={**os.environ, "PYTHONPATH": "", **server.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_ready(begun + _START_SECONDS)
        except Unavailable:
            self.close()
            raise
        super().__init__(peer, "", time.monotonic() - begun)

    def _wait_ready(self, deadline: float) -> None:
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise Unavailable(f"the server ended: {_last_line(self._log)}")
            connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=5)
            try:
                connection.request("GET", self._server.ready_path)
                if connection.getresponse().status == 200:
                    # Some servers say ready before they have loaded anything: the first answer is what counts.
                    load.run(self._plan([["one text that makes everything load"]], 1))
                    return
            except (OSError, load.LoadError, http.client.HTTPException):
                pass
            finally:
                connection.close()
            time.sleep(0.1)
        raise Unavailable(f"not ready after {_START_SECONDS:.0f} seconds: {_last_line(self._log)}")

    @property
    def pid(self) -> int:
        return self._process.pid

    def _plan(self, requests: Sequence[Sequence[str]], clients: int, *, seconds: float | None = None) -> Plan:
        server = self._server
        bodies = [server.request(texts) for texts in requests]
        return Plan("127.0.0.1", server.port, server.path, server.content_type, bodies, clients, seconds)

    def bulk(self, corpus: Corpus, *, clients: int, texts_per_request: int) -> Sample:
        return self._run(corpus, clients, texts_per_request, None)

    def online(self, corpus: Corpus, *, clients: int, seconds: float) -> Sample:
        return self._run(corpus, clients, 1, seconds)

    def _run(self, corpus: Corpus, clients: int, texts_per_request: int, seconds: float | None) -> Sample:
        starts = range(0, len(corpus.texts), texts_per_request)
        plan = self._plan([corpus.texts[n : n + texts_per_request] for n in starts], clients, seconds=seconds)
        tokens = [sum(corpus.lengths[n : n + texts_per_request]) for n in starts]
        cpu = cpu_seconds(self.pid)
        with watch_memory(self.pid) as peak:
            result = load.run(plan)
        spent = cpu_seconds(self.pid) - cpu
        texts = sum(min(texts_per_request, len(corpus.texts) - starts[number]) for number in result.numbers)
        watched = _Watched(result.wall_s, spent, peak.pss, result.latencies)
        return self._sample(sum(tokens[number] for number in result.numbers), texts, watched)

    def start_bulk(self, corpus: Corpus, *, clients: int, texts_per_request: int, seconds: float) -> Any:
        """Begin bulk work that goes on for `seconds` beside something else; give the result to `load.finish`."""
        starts = range(0, len(corpus.texts), texts_per_request)
        requests = [corpus.texts[n : n + texts_per_request] for n in starts]
        return load.start(self._plan(requests, clients, seconds=seconds))

    def vectors(self, texts: Sequence[str]) -> list[list[float]]:
        requests = [list(texts[n : n + 64]) for n in range(0, len(texts), 64)]
        plan = msgspec.structs.replace(self._plan(requests, 1), keep=len(requests))
        kept = load.run(plan).kept
        return [vector for number in range(len(requests)) for vector in self._server.vectors(kept[number])]

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def start(peer: Peer, environment: Environment, files: Files, cache: Path, variant: str = "") -> list[Contestant]:
    """Start a peer: one contestant for each of its variants. Raises `Unavailable`."""
    log = cache / f"{peer.name}.log"
    if not peer.http:
        worker = WorkerProcess(peer, environment, files, log)
        return [InProcess(peer, name, worker) for name in worker.variants]
    module = importlib.import_module(f"benchmarks.peers.{peer.module}")
    server: HttpServer = module.server(files, free_port(), variant or peer.variant, cache)
    return [OverHttp(peer, server, environment, log)]


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it printed nothing"
