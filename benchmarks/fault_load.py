"""The callers of the fault program: SDK clients as they come, some of whose requests are bad, and what they got."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sie_sdk import SIEClient
from sie_sdk.errors import SIEError
from sie_sdk.types import Item

from benchmarks.fault_world import TEXTS, Vectors

TOLERANCE = 1e-4
BAD_SHARE = 0.05
HANG_S = 60.0


@dataclass(frozen=True, slots=True)
class Call:
    """One call, from its beginning to its end on the clock of `time.monotonic`."""

    model: str
    begun: float
    ended: float


@dataclass
class Callers:
    """Threads that encode until they are told to stop, and everything that must be counted.

    `vectors` is what another implementation says, `answering` the versions of which an answer may be, by model. Each
    answer must be one version's, whole. A caller waits for `pause` seconds between its requests.
    """

    url: str
    vectors: Vectors
    answering: dict[str, frozenset[str]]
    models: list[str]
    pause: float = 0.0
    calls: list[Call] = field(default_factory=list)
    bad: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    _under_way: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _over: threading.Event = field(default_factory=threading.Event)

    @property
    def requests(self) -> int:
        """How many were answered, or failed; good ones and bad ones."""
        return len(self.calls) + self.bad

    @contextlib.contextmanager
    def running(self, threads: int, seed: int = 0) -> Iterator[None]:
        """Keep that many callers busy within."""
        self._over.clear()
        workers = [threading.Thread(target=self._work, args=(seed * 1000 + n,), daemon=True) for n in range(threads)]
        for worker in workers:
            worker.start()
        try:
            yield
            self._over.set()
            deadline = time.monotonic() + HANG_S
            for worker in workers:
                worker.join(max(0.0, deadline - time.monotonic()))
            with self._lock:
                self.failures["a caller that hangs"] += sum(worker.is_alive() for worker in workers)
        finally:
            self._over.set()

    @contextlib.contextmanager
    def changing(self, model: str, version: str) -> Iterator[None]:
        """Within, answers may be of the model's versions so far or of this one; afterwards of this one alone."""
        self.answering[model] |= {version}
        yield
        self.answering[model] = frozenset({version})

    def leave_alone(self, model: str) -> None:
        """Ask for the model no more, and return when nothing of it is under way."""
        with self._lock:
            self.models.remove(model)
        while self._under_way[model]:
            time.sleep(0.02)

    def ask_again(self, model: str) -> None:
        """The model is asked for like the others."""
        with self._lock:
            self.models.append(model)

    def refused(self, model: str) -> bool:
        """Whether a call for the model is told that there is none."""
        with SIEClient(self.url) as client:
            try:
                client.encode(model, [Item(text=TEXTS[0])])
            except SIEError as error:
                return getattr(error, "status_code", None) == 404
        return False

    def _work(self, seed: int) -> None:
        chance = random.Random(seed)
        with SIEClient(self.url) as client:
            while not self._over.wait(self.pause):
                if chance.random() < BAD_SHARE:
                    self._ask_badly(client, chance)
                else:
                    self._ask(client, chance)

    def _ask(self, client: SIEClient, chance: random.Random) -> None:
        with self._lock:
            model = chance.choice(self.models)
            self._under_way[model] += 1
            allowed = self.answering[model]
        places = chance.sample(range(len(TEXTS)), chance.choice((1, 1, 1, 2, 5)))
        begun, problem, found = time.monotonic(), "", list[NDArray[np.float32]]()
        try:
            results = client.encode(model, [Item(text=TEXTS[place]) for place in places])
            found = [np.asarray(result["dense"], np.float32) for result in results]
        except Exception as error:  # whatever a caller would have seen is what is counted here
            problem = f"{type(error).__name__}: {error}"[:300]
        call = Call(model, begun, time.monotonic())
        versions = self._versions(model, allowed | self.answering[model], places, found)
        with self._lock:
            self._under_way[model] -= 1
            self.calls.append(call)
            if problem:
                self.failures[problem] += 1
            elif len(versions) != 1:
                self.wrong[f"{model}: of {versions or 'no version'}"] += 1
            else:
                self.versions[f"{model}@{versions[0]}"] += 1

    def _versions(
        self, model: str, allowed: frozenset[str], places: Sequence[int], found: Sequence[NDArray[np.float32]]
    ) -> list[str]:
        """Those versions of which every vector of one answer is."""
        if len(found) != len(places):
            return []
        return [
            version
            for version in sorted(allowed)
            if all(
                _distance(vector, self.vectors[model][version][place]) <= TOLERANCE
                for vector, place in zip(found, places, strict=True)
            )
        ]

    def _ask_badly(self, client: SIEClient, chance: random.Random) -> None:
        """A request that must be refused, and hurt nobody."""
        with self._lock:
            model = chance.choice(self.models)
        name, keywords = chance.choice(_BAD)
        arguments: dict[str, Any] = {"model": model, "items": [Item(text="the cell")], **keywords}
        try:
            client.encode(**arguments)
            outcome = "accepted"
        except SIEError as error:
            outcome = "" if getattr(error, "status_code", 400) in (400, 404, 413, 422, None) else str(error)
        except (TypeError, ValueError):
            outcome = ""  # the SDK itself refuses it
        with self._lock:
            self.bad += 1
            if outcome:
                self.accepted[f"{name}: {outcome}"[:200]] += 1


_BAD: list[tuple[str, Mapping[str, Any]]] = [
    ("an unknown model", {"model": "nobody/has-this"}),
    ("no item", {"items": []}),
    ("an item without a text", {"items": [{}]}),
    ("a text that is a number", {"items": [{"text": 7}]}),
    ("an unknown output type", {"output_types": ["colour"]}),
    ("an output type that the model has not", {"output_types": ["multivector"]}),
    ("a profile that is none", {"options": {"profile": "nobody"}}),
]


def _distance(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The largest difference, relative to the largest number; that of another shape or without numbers is infinite."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - expected).max() / max(1e-6, float(np.abs(expected).max())))
