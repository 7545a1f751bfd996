"""Kills, stops and starves a server under load, and counts what its callers notice.

    python -m benchmarks.faults --repository model_repository

Eight callers use the SDK with its default retries on up to three models of a repository; a twentieth of their requests
is bad. Meanwhile processes of models are killed, tritonserver is killed, processes are stopped for two seconds, some
get no memory. Every vector is compared with one that was computed before. At the end the server gets SIGTERM,
another one loses its parent to `kill -9`, and whatever is left then is counted.

Only loopback is used. It ends by itself: everything has a limit, and after `--limit` seconds all of its processes are
killed. Prints what it found as JSON; the exit code is 1 if an aim is missed. `--short` takes a quarter of a minute.
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sie_frontend.manifest import Manifest, read_manifest

from benchmarks.fault_load import Callers
from benchmarks.fault_server import FaultsError, Server, eventually, starve

MODELS = 3
# So long after a fault a call may still be hit by it: the model is loaded again, and the SDK waits five seconds.
AFTERMATH_S = 8.0
LONGEST_S = 10.0
GROWTH = 0.05
STOP_S = 2.0
SETTLE_S = 4.0
# By then the frontend has seen that something is wrong, so that its readiness tells when that is over.
NOTICED_S = 1.5
_BACK_SECONDS = 60.0


@dataclass(frozen=True)
class Fault:
    """One thing that happens: its name, the ids that it hits, and how it is done. It returns when it is over."""

    name: str
    hits: tuple[str, ...]
    strike: Callable[[Server], None]


@dataclass(frozen=True)
class Amount:
    """How many of each."""

    kills: int = 20
    server_kills: int = 3
    stops: int = 5
    starvings: int = 4


SHORT = Amount(kills=3, server_kills=1, stops=1, starvings=1)


def processes_of(manifest: Manifest, model: str) -> list[str]:
    """The Triton models that compute an id."""
    names = manifest.models[model].triton_models
    known = [manifest.triton_models[name] for name in names if name in manifest.triton_models]
    return sorted({part for entry in known for part in entry.depends_on}) or sorted(names)


def live_operations(manifest: Manifest, models: Sequence[str], repository: Path) -> list[Fault]:
    """What is done to the repository while it is served: a model replaced twice, one removed and added.

    The place for operations on a running server: each is a `Fault` that hits nobody.
    """
    return []


def plan(manifest: Manifest, models: Sequence[str], amount: Amount, repository: Path, seed: int) -> list[Fault]:
    """Everything that happens, in its order. Models are hit in turn."""
    chance = random.Random(seed)

    def of(number: int) -> tuple[str, str]:
        model = models[number % len(models)]
        return model, chance.choice(processes_of(manifest, model))

    faults = []
    for number in range(amount.kills):
        model, part = of(number)
        faults.append(Fault("a killed process", (model,), partial(_kill, part=part)))
    for number in range(amount.stops):
        model, part = of(number + 1)
        faults.append(Fault("a stopped process", (model,), partial(_stop, part=part)))
    for number in range(amount.starvings):
        model, part = of(number + 2)
        faults.append(Fault("no memory", (model,), partial(_starve, part=part)))
    chance.shuffle(faults)
    for number in range(amount.server_kills):
        place = (number + 1) * len(faults) // (amount.server_kills + 1)
        faults.insert(place, Fault("a killed tritonserver", tuple(models), _kill_tritonserver))
    return [*faults, *live_operations(manifest, models, repository)]


def _kill(server: Server, part: str) -> None:
    _signal(server, part, signal.SIGKILL)


def _signal(server: Server, part: str, number: signal.Signals) -> int | None:
    found = server.stubs(part)
    if not found:
        return None
    with contextlib.suppress(ProcessLookupError):
        os.kill(found[0], number)
    return found[0]


def _stop(server: Server, part: str) -> None:
    pid = _signal(server, part, signal.SIGSTOP)
    time.sleep(STOP_S)
    if pid in server.stubs(part):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _starve(server: Server, part: str) -> None:
    for pid in server.stubs(part)[:1]:
        starve(pid, STOP_S)


def _kill_tritonserver(server: Server) -> None:
    pid = server.tritonserver()
    if pid is not None:
        os.kill(pid, signal.SIGKILL)


class Exercise:
    """One server under load, from its start to its end."""

    def __init__(self, server: Server, callers: Callers, manifest: Manifest) -> None:
        self._server = server
        self._callers = callers
        self._manifest = manifest
        self._struck: list[tuple[str, float, float]] = []
        self._counts: dict[str, int] = {}

    def run(self, faults: Sequence[Fault], threads: int, seconds: float, calls: int) -> dict[str, Any]:
        """Let the faults happen, spread over at least `seconds` and until `calls` calls are made."""
        self._server.start()
        self._callers.prepare()
        with self._callers.running(threads, seed=1):
            time.sleep(min(30.0, seconds / 4))
        before = self._settled()
        with self._callers.running(threads, seed=2):
            pause = seconds / (len(faults) + 1)
            for fault in faults:
                time.sleep(pause)
                self._happen(fault)
            time.sleep(pause)
            while len(self._callers.calls) < calls:
                time.sleep(0.5)
        after = self._settled()
        left = self._server.end(signal.SIGTERM)
        return {**self._report(), "memory_before": before, "memory_after": after, "left_after_sigterm": left}

    def _settled(self) -> dict[str, int]:
        """The memory once nothing is under way."""
        if not eventually(self._server.is_ready, _BACK_SECONDS):
            raise FaultsError(f"the server is not ready any more; it said:\n{self._server.said()}")
        time.sleep(SETTLE_S)
        return self._server.memory()

    def _happen(self, fault: Fault) -> None:
        begun = time.monotonic()
        print(f"{fault.name}: {', '.join(fault.hits) or 'nobody'}", file=sys.stderr, flush=True)
        fault.strike(self._server)
        self._counts[fault.name] = self._counts.get(fault.name, 0) + 1
        time.sleep(NOTICED_S)
        if fault.hits and not eventually(self._server.is_ready, _BACK_SECONDS):
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
            "calls": len(self._callers.calls),
            "bad_requests": self._callers.bad,
            "bad_requests_not_refused": dict(self._callers.accepted),
            "wrong_vectors": self._callers.wrong,
            "failed_calls": sum(self._callers.failures.values()),
            "kinds_of_failures": dict(self._callers.failures.most_common(5)),
            "longest_call_s": longest,
        }


def missed(result: dict[str, Any], *, short: bool) -> list[str]:
    """The aims that were missed, in words. What a short exercise holds at its end says nothing of what grows."""
    before, after = (sum(result[when].values()) for when in ("memory_before", "memory_after"))
    aims = {
        "wrong vectors": result["wrong_vectors"] == 0,
        "failed calls": result["failed_calls"] == 0,
        "bad requests that were not refused": not result["bad_requests_not_refused"],
        f"a call of more than {LONGEST_S:g} s to a model that was not hit": all(
            one["not_hit"] <= LONGEST_S for one in result["longest_call_s"].values()
        ),
        f"memory that grew by more than {GROWTH:.0%}": short or after <= before * (1 + GROWTH),
        "processes or shared memory left after SIGTERM": not any(result["left_after_sigterm"]),
        "processes or shared memory left after kill -9 of the parent": not any(result["left_after_sigkill"]),
    }
    return [words for words, held in aims.items() if not held]


def _give_up(*servers: Server) -> None:
    for server in servers:
        server.kill()
    os._exit(2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"), help="a built repository")
    parser.add_argument("--clients", type=int, default=8, help="callers at a time")
    parser.add_argument("--seconds", type=float, default=240, help="over which the faults are spread")
    parser.add_argument("--calls", type=int, default=0, help="go on until so many calls are made")
    parser.add_argument("--limit", type=float, default=1800, help="after so many seconds everything is killed")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the faults")
    parser.add_argument("--short", action="store_true", help="a few faults within about ten seconds")
    arguments = parser.parse_args()
    manifest = read_manifest(arguments.repository)
    dense = [name for name, entry in manifest.models.items() if "dense" in entry.outputs and ":" not in name]
    if not dense:
        sys.exit(f"error: `{arguments.repository}` has no model with dense vectors")
    models = dense[:MODELS]
    seconds = 9.0 if arguments.short else arguments.seconds
    faults = plan(manifest, models, SHORT if arguments.short else Amount(), arguments.repository, arguments.seed)
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder = Path(name)
        server, second = (Server(arguments.repository.resolve(), folder) for _ in range(2))
        alarm = threading.Timer(arguments.limit, _give_up, (server, second))
        alarm.daemon = True
        alarm.start()
        begun = time.monotonic()
        try:
            exercise = Exercise(server, Callers(server.url, models), manifest)
            result = exercise.run(faults, arguments.clients, seconds, arguments.calls)
            second.start()
            result["left_after_sigkill"] = second.end(signal.SIGKILL)
        except FaultsError as error:
            sys.exit(f"error: {error}")
        finally:
            server.kill()
            second.kill()
            alarm.cancel()
        result["seconds"] = round(time.monotonic() - begun)
        result["missed"] = missed(result, short=arguments.short)
        if result["missed"]:
            sys.stderr.write(server.said())
    print(json.dumps(result, indent=2))
    return 1 if result["missed"] else 0


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
