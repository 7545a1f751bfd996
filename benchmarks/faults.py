"""Kills, stops and starves a server under load, changes what it serves, and counts what its callers notice.

    python -m benchmarks.faults --requests 100000 --limit 14400

Eight callers use the SDK with its default retries on three models; a twentieth of their requests is bad. Meanwhile
processes of models are killed, tritonserver is killed, processes are stopped for two seconds, some get no memory; a
model is replaced twice by versions that are built beside it, one is removed and added again. Every answer must be
wholly one version's, by what sentence-transformers says of its checkpoint. At the end the server gets SIGTERM, another
one loses its parent to `kill -9`, and whatever is left then is counted.

The models are random BERTs of a layer, made when it begins; `--folder` keeps them for the next time. Only loopback is
used. It ends by itself: everything has a limit, and after `--limit` seconds all of its processes are killed. Prints a
table in Markdown; the exit code is 1 if an aim is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.fault_kinds import SHORT, Amount, Fault, Scene, plan
from benchmarks.fault_load import Callers
from benchmarks.fault_report import as_table, missed
from benchmarks.fault_server import FaultsError, Server
from benchmarks.fault_world import Grounds, make_world
from benchmarks.waiting import eventually

# So long after a fault a call may still be hit by it: the model is loaded again, and the SDK waits five seconds.
AFTERMATH_S = 8.0
SETTLE_S = 4.0
# By then the frontend has seen that something is wrong, so that its readiness tells when that is over.
NOTICED_S = 1.5
# The share of all requests that are made before the memory is looked at for the first time.
WARM = 0.1
_BACK_SECONDS = 60.0
_STALLED_SECONDS = 120.0


class Exercise:
    """One server under load, from its start to its end."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._server = scene.server
        self._callers = scene.callers
        self._struck: list[tuple[str, float, float]] = []
        self._counts: dict[str, int] = {}

    def run(self, faults: Sequence[Fault], threads: int, requests: int) -> dict[str, Any]:
        """Let the faults happen, evenly spread over so many requests."""
        self._server.start()
        with self._callers.running(threads, seed=1):
            self._until(int(WARM * requests))
        before = self._settled()
        first, begun = self._callers.requests, time.monotonic()
        with self._callers.running(threads, seed=2):
            for number, fault in enumerate(faults):
                self._until(first + (number + 1) * (requests - first) // (len(faults) + 1))
                self._happen(fault)
            self._until(requests)
        took = time.monotonic() - begun
        after = self._settled()
        left = self._server.end(signal.SIGTERM)
        measured = {"seconds_of_faults": round(took), "memory_before": before, "memory_after": after}
        return {**self._report(), **measured, "left_after_sigterm": left}

    def _until(self, requests: int) -> None:
        """Wait until so many requests are made. Raises `FaultsError` where none is answered any more."""
        while (before := self._callers.requests) < requests:
            if not eventually(lambda: self._callers.requests > before, _STALLED_SECONDS):
                raise FaultsError(f"nothing is answered for {_STALLED_SECONDS:g} s; it said:\n{self._server.said()}")

    def _settled(self) -> dict[str, int]:
        """The memory once nothing is under way."""
        if not eventually(self._server.is_ready, _BACK_SECONDS):
            raise FaultsError(f"the server is not ready any more; it said:\n{self._server.said()}")
        time.sleep(SETTLE_S)
        return self._server.memory()

    def _happen(self, fault: Fault) -> None:
        begun = time.monotonic()
        said = f"{self._callers.requests} requests; {fault.name}: {', '.join(fault.hits) or 'nobody'}"
        print(said, file=sys.stderr, flush=True)
        fault.strike(self._scene)
        self._counts[fault.name] = self._counts.get(fault.name, 0) + 1
        if not fault.hits:
            return
        time.sleep(NOTICED_S)
        if not eventually(self._server.is_ready, _BACK_SECONDS):
            raise FaultsError(f"not ready again after {fault.name}; the server said:\n{self._server.said()}")
        self._struck += [(model, begun, time.monotonic() + AFTERMATH_S) for model in fault.hits]

    def _report(self) -> dict[str, Any]:
        longest: dict[str, dict[str, float]] = {}
        for call in self._callers.calls:
            hit = any(
                model == call.model and call.begun < until and call.ended > since
                for model, since, until in self._struck
            )
            place = longest.setdefault(call.model, {"hit": 0.0, "not_hit": 0.0})
            kind = "hit" if hit else "not_hit"
            place[kind] = max(place[kind], round(call.ended - call.begun, 2))
        return {
            "faults": self._counts,
            "requests": self._callers.requests,
            "bad_requests": self._callers.bad,
            "bad_requests_not_refused": dict(self._callers.accepted),
            "wrong_vectors": dict(self._callers.wrong),
            "failed_calls": sum(self._callers.failures.values()),
            "kinds_of_failures": dict(self._callers.failures.most_common(5)),
            "answers_by_version": dict(sorted(self._callers.versions.items())),
            "longest_call_s": longest,
        }


def exercised(grounds: Grounds, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Serve a world twice, and let everything happen to it. Raises `FaultsError`."""
    world, vectors = grounds.read()
    # Whether orphans are left does not depend on how many models there are.
    few = ("--load", "on-demand", "--preload", world.steady[0]) if arguments.short else ()
    server, second = (Server(grounds.repository.resolve(), folder, options) for options in ((), few))
    answering = {model: frozenset({version}) for model, version in world.versions.items()}
    callers = Callers(server.url, vectors, answering, list(world.versions), arguments.pause)
    faults = plan(world, SHORT if arguments.short else Amount(), arguments.seed)
    alarm = threading.Timer(arguments.limit, _give_up, (server, second))
    alarm.daemon = True
    alarm.start()
    begun = time.monotonic()
    try:
        exercise = Exercise(Scene(server, callers, grounds, random.Random(arguments.seed)))
        result = exercise.run(faults, arguments.clients, arguments.requests)
        second.start()
        result["left_after_sigkill"] = second.end(signal.SIGKILL)
        result["seconds"] = round(time.monotonic() - begun)
        result["missed"] = missed(result, short=arguments.short)
        if result["missed"]:
            sys.stderr.write(server.said())
    finally:
        server.kill()
        second.kill()
        alarm.cancel()
    return result


def _give_up(*servers: Server) -> None:
    for server in servers:
        server.kill()
    os._exit(2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the models are kept; used again if they are there")
    parser.add_argument("--requests", type=int, default=5000, help="good and bad ones, over which all is spread")
    parser.add_argument("--clients", type=int, default=8, help="callers at a time")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds that a caller waits between two requests")
    parser.add_argument("--limit", type=float, default=1800, help="after so many seconds everything is killed")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the faults")
    parser.add_argument("--short", action="store_true", help="a few faults only")
    parser.add_argument("--json", type=Path, help="a file for everything that was found")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-")))
        grounds = Grounds(arguments.folder or temporary / "world")
        try:
            if not (grounds.folder / "world.json").exists():
                make_world(grounds)
            result = exercised(grounds, arguments, temporary)
        except FaultsError as error:
            sys.exit(f"error: {error}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2), encoding="utf-8")
    print(as_table(result, arguments.clients))
    return 1 if result["missed"] else 0


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")
    sys.exit(main())
