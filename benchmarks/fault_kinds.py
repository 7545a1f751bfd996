"""What happens to a server in the fault program: faults that hit a model or all, and changes that may hit nobody."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from sie_frontend.manifest import read_manifest

from benchmarks.fault_load import Callers
from benchmarks.fault_server import FaultsError, Server, starve
from benchmarks.fault_world import Change, Grounds, World, call_command, run_command
from benchmarks.waiting import eventually
from sie_triton.diagnostics import DiagnosticError

STOP_S = 2.0
_THERE_SECONDS = 30.0
_CHANGED_SECONDS = 60.0


@dataclass(frozen=True)
class Scene:
    """A server that is asked, and where its repository lies."""

    server: Server
    callers: Callers
    grounds: Grounds
    chance: random.Random


@dataclass(frozen=True)
class Fault:
    """One thing that happens: its name, the ids that it hits, and how it is done. It returns when it is over."""

    name: str
    hits: tuple[str, ...]
    strike: Callable[[Scene], None]


@dataclass(frozen=True)
class Amount:
    """How many of each."""

    kills: int = 20
    server_kills: int = 3
    stops: int = 5
    starvings: int = 4


SHORT = Amount(kills=3, server_kills=1, stops=1, starvings=1)


def plan(world: World, amount: Amount, seed: int) -> list[Fault]:
    """Everything that happens, in its order. Models are hit in turn; kills of the server and changes lie apart."""
    faults: list[Fault] = []
    for name, number, strike in (
        ("a killed process", amount.kills, _kill),
        ("a stopped process", amount.stops, _stop),
        ("no memory", amount.starvings, _starve),
    ):
        for turn in range(number):
            model = world.steady[(turn + len(faults)) % len(world.steady)]
            faults.append(Fault(name, (model,), partial(strike, model=model)))
    random.Random(seed).shuffle(faults)
    killed = Fault("a killed tritonserver", tuple(world.versions), _kill_tritonserver)
    return _spread(_spread(faults, [killed] * amount.server_kills), live_operations(world))


def live_operations(world: World) -> list[Fault]:
    """What is done to the repository while it is served: each hits nobody."""
    return [Fault(_named(world, change), (), partial(_change, change=change)) for change in world.changes]


def _named(world: World, change: Change) -> str:
    if change.version is None:
        return "a model removed"
    return "a model replaced" if change.model in world.steady else "a model added"


def _spread(many: Sequence[Fault], few: Sequence[Fault]) -> list[Fault]:
    """The few in their order, evenly among the many."""
    found = list(many)
    for number, fault in reversed(list(enumerate(few))):
        found.insert((number + 1) * len(many) // (len(few) + 1), fault)
    return found


def _part(scene: Scene, model: str) -> str:
    """A Triton model that computes an id now."""
    manifest = read_manifest(scene.grounds.repository)
    names = manifest.models[model].triton_models
    known = [manifest.triton_models[name] for name in names if name in manifest.triton_models]
    return scene.chance.choice(sorted({part for entry in known for part in entry.depends_on}) or sorted(names))


def _process(scene: Scene, model: str) -> int:
    """A process that computes an id, whatever their number. Raises `FaultsError` if there is none for long."""
    part = _part(scene, model)
    if not eventually(lambda: scene.server.stubs(part), _THERE_SECONDS):
        raise FaultsError(f"`{part}` has no process; the server said:\n{scene.server.said()}")
    return scene.server.stubs(part)[0]


def _kill(scene: Scene, model: str) -> None:
    _signal(_process(scene, model), signal.SIGKILL)


def _stop(scene: Scene, model: str) -> None:
    pid = _process(scene, model)
    _signal(pid, signal.SIGSTOP)
    time.sleep(STOP_S)
    if pid in scene.server.processes():
        _signal(pid, signal.SIGCONT)


def _starve(scene: Scene, model: str) -> None:
    starve(_process(scene, model), STOP_S)


def _kill_tritonserver(scene: Scene) -> None:
    pid = scene.server.tritonserver()
    if pid is None:
        raise FaultsError(f"there is no tritonserver; the server said:\n{scene.server.said()}")
    _signal(pid, signal.SIGKILL)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _change(scene: Scene, change: Change) -> None:
    """Run a command that changes the repository, and wait until the server has followed."""
    model, callers = change.model, scene.callers
    if change.version is None:
        callers.leave_alone(model)
        _command(scene, change)
        if not callers.refused(model):
            raise FaultsError(f"`{model}` was removed, and is not refused")
    elif model in callers.models:
        with callers.changing(model, change.version):
            _command(scene, change)
    else:
        _command(scene, change)
        callers.answering[model] = frozenset({change.version})
        callers.ask_again(model)


def _command(scene: Scene, change: Change) -> None:
    run = run_command if change.command[0] == "add" else call_command
    try:
        run(*change.command, "-r", str(scene.grounds.repository), "--url", scene.server.url)
    except (subprocess.CalledProcessError, DiagnosticError) as error:
        raise FaultsError(
            f"`sie-triton {change.command[0]}` failed; the server said:\n{scene.server.said()}"
        ) from error
    if not eventually(lambda: _is_settled(scene, change), _CHANGED_SECONDS):
        raise FaultsError(f"`{change.model}` is not {change.version or 'gone'}: {scene.server.status()}")


def _is_settled(scene: Scene, change: Change) -> bool:
    """Whether the server serves what lies there, and what was replaced has answered its last request."""
    try:
        status = scene.server.status()
    except OSError:
        return False
    there = change.model in status["models"]
    return status["phase"] == "current" and not status["leaving"] and there == (change.version is not None)
