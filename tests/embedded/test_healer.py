"""A model whose process ends is back alone, on the real tritonserver, while the others answer all the time."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.waiting import eventually
from embedded.client import group_members, infer, regions, results, stub_of
from embedded.graphs import DOUBLING_CONFIG, add_model, doubling
from sie_triton.diagnostics import Diagnostic
from sie_triton.embedded.healing import HealingRules
from sie_triton.embedded.server import ServerSpec
from sie_triton.embedded.stubs import children
from sie_triton.embedded.supervisor import RestartPolicy, State, Supervisor, Transition

pytestmark = pytest.mark.e2e
MODEL = Path(__file__).parent / "patient_model.py"
RULES = HealingRules(first_delay=0.5, max_delay=1.0, healthy=4.0, failing=3, still_loading=6.0, still_running=3.0)
ENSEMBLE = """
platform: "ensemble"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ -1 ] } ]
ensemble_scheduling { step [
    { model_name: "part" model_version: -1
      input_map { key: "x" value: "x" } output_map { key: "y" value: "h" } },
    { model_name: "head" model_version: -1
      input_map { key: "x" value: "h" } output_map { key: "y" value: "y" } } ] }
"""


class Clinic:
    """A supervised server of a patient, a model that is always well, and an ensemble of two parts if it is wanted."""

    def __init__(self, folder: Path, ensemble: bool, policy: RestartPolicy | None = None, **spec: Any) -> None:
        self.repository = folder / "repository"
        config = DOUBLING_CONFIG.replace('"onnxruntime"', '"python"')
        add_model(self.repository, "well", DOUBLING_CONFIG, doubling())
        add_model(self.repository, "patient", config)
        if ensemble:
            add_model(self.repository, "part", config.replace("count: 1", "count: 2"))
            add_model(self.repository, "head", DOUBLING_CONFIG, doubling())
            add_model(self.repository, "whole", ENSEMBLE)
        for name in ("patient", "part") if ensemble else ("patient",):
            (self.repository / name / "1" / "model.py").write_bytes(MODEL.read_bytes())
        self.told: list[Diagnostic] = []
        self.states: list[State] = []
        self.transitions: list[Transition] = []
        self.supervisor = Supervisor(
            ServerSpec(self.repository, folder / "triton.log", **spec),
            on_change=self._changed,
            on_trouble=self.told.append,
            policy=policy,
            healing=RULES,
        )

    def _changed(self, transition: Transition) -> None:
        self.states.append(transition.state)
        self.transitions.append(transition)

    @property
    def pid(self) -> int:
        assert self.supervisor.server.pid
        return self.supervisor.server.pid

    def ask(self, name: str, x: float = 3.0) -> httpx.Response:
        return infer(self.supervisor.url, name, {"x": ("FP32", [1, 1], [x])})

    def answers(self, name: str, x: float = 3.0) -> bool:
        try:
            response = self.ask(name, x)
        except httpx.TransportError:
            return False
        if response.status_code != 200:
            return False
        assert results(response)["y"] == ([1, 1], [x * (4 if name == "whole" else 2)])
        return True

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        # A look must have seen it alive, or its name is found out another way: both are tested.
        pid = stub_of(self.pid, name)
        os.kill(pid, number)
        return pid

    def stubs(self, name: str) -> list[int]:
        """The living processes of a model."""
        of = f"/{name}/".encode()
        members = [pid for pid in group_members(self.pid) if pid != self.pid]
        return [pid for pid in members if of in Path(f"/proc/{pid}/cmdline").read_bytes()]

    @contextlib.contextmanager
    def others_answer(self, *names: str) -> Iterator[list[float]]:
        """Ask the others all the time; none may fail. Gives how long each call took."""
        over, delays, failures = threading.Event(), list[float](), list[str]()

        def go_on() -> None:
            while not over.wait(0.02):
                for name in names or ("well",):
                    begun = time.monotonic()
                    if not self.answers(name):
                        failures.append(name)
                    delays.append(time.monotonic() - begun)

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            yield delays
        finally:
            over.set()
            thread.join()
        assert not failures and delays


@contextlib.contextmanager
def opened(folder: Path, *, ensemble: bool = False, **spec: Any) -> Iterator[Clinic]:
    clinic = Clinic(folder, ensemble, **spec)
    clinic.supervisor.start()
    try:
        clinic.supervisor.wait_ready(60)
        yield clinic
    finally:
        clinic.supervisor.stop(1)
    assert group_members(clinic.pid) == []
    assert regions(clinic.supervisor.server.shm_prefix) == []


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    with opened(tmp_path_factory.mktemp("clinic"), ensemble=True, run_limit_s=1.0) as clinic:
        yield clinic


@pytest.fixture
def clinic(running: Clinic) -> Iterator[Clinic]:
    """The clinic, with everybody well and nothing told."""
    assert eventually(lambda: not running.supervisor.troubles())
    running.told.clear()
    pid = running.pid
    yield running
    assert running.pid == pid, "the whole server was started again"
    assert running.states == [State.STARTING, State.READY]


def test_one_process_dies_and_one_model_is_loaded_again(clinic: Clinic) -> None:
    with clinic.others_answer("well", "whole"):
        clinic.kill("patient")
        assert eventually(lambda: len(clinic.told) == 1)
        assert clinic.told[0].code == "SIE711"
        assert clinic.told[0].message.startswith("the process of model `patient` was killed by SIGKILL")
        [trouble] = clinic.supervisor.troubles().values()
        assert (trouble.times, trouble.failing) == (1, False)
        assert eventually(lambda: clinic.answers("patient"), 60)


def test_what_is_composed_of_a_part_is_back_with_it(clinic: Clinic) -> None:
    with clinic.others_answer("well", "patient"):
        late = [threading.Thread(target=clinic.ask, args=("part", -2.0)) for _ in range(2)]
        for one in late:
            one.start()
        time.sleep(0.1)
        clinic.kill("part")
        for one in late:
            one.join()
        assert eventually(lambda: clinic.answers("whole") and clinic.answers("part"), 60)
        # tritonserver forgets a run of the dead process, and then never ends the other one.
        assert eventually(lambda: len(clinic.stubs("part")) == 2, 60)
        assert clinic.answers("whole")


def test_a_stop_in_the_middle_of_a_run_hurts_that_model_alone(clinic: Clinic) -> None:
    """Continued after a second, such a process would take the whole server along."""
    with clinic.others_answer("well", "whole"):
        late = threading.Thread(target=clinic.ask, args=("patient", -2.0))
        late.start()
        time.sleep(0.1)
        pid = clinic.kill("patient", signal.SIGSTOP)
        time.sleep(2.0)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
        late.join()
        assert eventually(lambda: clinic.answers("patient"), 60)
    assert [one.code for one in clinic.told] == ["SIE711"]
    assert "was stopped for" in clinic.told[0].message


def test_a_run_that_never_ends_is_ended_and_named(clinic: Clinic) -> None:
    with clinic.others_answer("well", "whole"):
        assert clinic.ask("patient", -1.0).status_code == 500
        assert eventually(lambda: clinic.answers("patient"), 60)
    assert "`patient` did not finish a run in time and ended itself" in clinic.told[0].message
    log = clinic.supervisor.server.spec.log_path.read_text()
    assert "model `patient` has computed one run for" in log


def test_a_model_that_dies_again_and_again_is_called_failing_until_it_is_mended(clinic: Clinic) -> None:
    broken = clinic.repository / "patient" / "broken"
    try:
        broken.write_text("the weights are cut short")
        with clinic.others_answer("well", "whole"):
            clinic.kill("patient")
            assert eventually(lambda: any(one.failing for one in clinic.supervisor.troubles().values()))
            trouble = clinic.supervisor.troubles()["patient"]
            assert trouble.down and "the weights are cut short" in trouble.cause
            assert "could not be loaded again" in trouble.cause
            assert {one.code for one in clinic.told[1:]} == {"SIE718"}
            broken.unlink()
            assert eventually(lambda: clinic.answers("patient"), 60)
    finally:
        broken.unlink(missing_ok=True)


def test_a_restart_starts_without_what_cannot_be_loaded(tmp_path: Path) -> None:
    """And beyond loopback nobody but the supervisor may load or unload."""
    with opened(tmp_path, host="0.0.0.0") as clinic:
        url = clinic.supervisor.url
        for what in ("index", "models/well/unload", "models/well/load"):
            assert httpx.post(f"{url}/v2/repository/{what}").status_code in (401, 403)
        broken = clinic.repository / "patient" / "broken"
        broken.write_text("the weights are cut short")
        os.kill(clinic.pid, signal.SIGKILL)
        assert eventually(lambda: clinic.states.count(State.READY) == 2, 60)
        with clinic.others_answer("well"):
            assert "the weights are cut short" in clinic.supervisor.troubles()["patient"].cause
            broken.unlink()
            assert eventually(lambda: clinic.answers("patient"), 60)
            clinic.kill("patient")
            assert eventually(lambda: clinic.answers("patient"), 60)


def newborn(leader: int, model: str, old: int) -> int:
    """The next process of a model, before it has loaded its libraries: so nothing is read but what is new."""
    until, of = time.monotonic() + 15, f"/{model}/".encode()
    while time.monotonic() < until:
        for pid in children(leader) - {old}:
            with contextlib.suppress(OSError):
                if of in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
    raise AssertionError("no process")


def test_a_process_that_ends_as_it_begins_costs_one_restart_and_not_the_model(tmp_path: Path) -> None:
    """tritonserver waits for it for ever, be it in a load or in its own start; nothing but a restart helps."""
    with opened(tmp_path) as clinic:
        first = clinic.pid
        for _ in range(5):
            # Whether tritonserver has heard of the process by then is a matter of microseconds.
            os.kill(newborn(first, "patient", clinic.kill("patient")), signal.SIGKILL)
            if eventually(lambda: clinic.supervisor.server.pid not in (None, first), 12):
                break
            assert eventually(lambda: clinic.answers("patient"), 60)
        second = clinic.pid
        assert second != first
        os.kill(newborn(second, "patient", 0), signal.SIGKILL)
        assert eventually(lambda: clinic.answers("patient") and clinic.answers("well"), 60)
        causes = [one.diagnostic.message for one in clinic.transitions if one.diagnostic]
        assert causes and all("ended as it began" in cause for cause in causes), causes


def test_a_process_that_nobody_saw_alive_is_found_by_what_lacks_one(clinic: Clinic) -> None:
    stubs = clinic.supervisor.server.stubs
    with clinic.others_answer("well", "whole"):
        pid = stub_of(clinic.pid, "patient")
        forget: Callable[..., object] = stubs._stubs[pid].__setattr__
        os.kill(pid, signal.SIGKILL)
        forget("model", None)
        assert eventually(lambda: bool(clinic.told))
        assert "the process of model `patient` was killed by SIGKILL" in clinic.told[0].message
        assert eventually(lambda: clinic.answers("patient"), 60)


def test_a_process_that_computes_nothing_while_somebody_waits_is_ended(clinic: Clinic) -> None:
    """One that computes is left alone, however long it takes."""
    with clinic.others_answer("well", "whole"):
        for x, status in ((-4.0, 200), (-3.0, 500)):
            with ThreadPoolExecutor() as threads:
                begun, answer = time.monotonic(), threads.submit(clinic.ask, "patient", x)
                while not answer.done():
                    clinic.supervisor.suspect("patient", time.monotonic() - begun)
                    time.sleep(0.1)
            assert answer.result().status_code == status, clinic.told
        assert eventually(lambda: clinic.answers("patient"), 60)
    [told] = clinic.told
    assert told.code == "SIE711" and "process of model `patient` did not answer a run, computed nothing" in told.message


def test_a_load_that_hangs_is_ended_and_tried_again(clinic: Clinic) -> None:
    hang = clinic.repository / "patient" / "hang"
    with clinic.others_answer("well", "whole"):
        hang.touch()
        clinic.kill("patient")
        assert eventually(lambda: not hang.exists() and clinic.answers("patient"), 60)
    assert [one.code for one in clinic.told] == ["SIE711", "SIE718"], clinic.told


def test_a_start_that_hangs_is_begun_again(tmp_path: Path) -> None:
    """No process computes, none ends, and tritonserver would wait for them for ever."""
    clinic = Clinic(tmp_path, False, policy=RestartPolicy(first_delay=0.05, standstill=6.0, starts=2))
    (clinic.repository / "patient" / "hang").touch()
    clinic.supervisor.start()
    try:
        clinic.supervisor.wait_ready(60)
        assert clinic.answers("patient") and clinic.answers("well")
    finally:
        clinic.supervisor.stop(1)
    assert clinic.states == [State.STARTING, State.WAITING, State.STARTING, State.READY, State.STOPPED]
    told = clinic.transitions[1].diagnostic
    assert told and told.code == "SIE722"
    assert re.search(
        r"start 1 of at most 2 would .* has computed or read anything for [6-9] s, those of `patient` among",
        told.message,
    )


def test_what_is_unloaded_on_purpose_while_it_is_down_is_not_brought_back(clinic: Clinic) -> None:
    """And once somebody loads it again, it is looked after as before."""
    broken, control = clinic.repository / "patient" / "broken", clinic.supervisor.server.control
    try:
        broken.write_text("the weights are cut short")
        clinic.kill("patient")
        assert eventually(lambda: any(one.times > 1 for one in clinic.supervisor.troubles().values()))
        clinic.supervisor.discharge(["patient"])
        told = len(clinic.told)
        broken.unlink()
        time.sleep(2 * RULES.max_delay)
        assert control.index()["patient"] != "READY" and not clinic.supervisor.troubles()
        assert len(clinic.told) - told <= 1, "it is still tried"
    finally:
        broken.unlink(missing_ok=True)
        control.load("patient", 10)
    clinic.kill("patient")
    assert eventually(lambda: clinic.told[-1].code == "SIE711" and clinic.answers("patient"), 60)


def test_whoever_unloads_a_model_that_is_just_brought_back_meets_nobody(clinic: Clinic) -> None:
    slow, control = clinic.repository / "patient" / "slow_load", clinic.supervisor.server.control
    try:
        slow.touch()
        clinic.kill("patient")
        assert eventually(lambda: control.index()["patient"] == "LOADING")
        clinic.supervisor.discharge(["patient"])
        assert control.index()["patient"] == "READY", "it was still being loaded"
        control.unload("patient")
        assert eventually(lambda: control.index()["patient"] == "UNAVAILABLE")
        time.sleep(RULES.max_delay)
        assert control.index()["patient"] == "UNAVAILABLE" and not clinic.supervisor.troubles()
    finally:
        slow.unlink()
        control.load("patient", 10)
