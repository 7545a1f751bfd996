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

TOLERANCE = 1e-4
BAD_SHARE = 0.05
HANG_S = 60.0
TEXTS = [
    " ".join([f"{subject} {verb} {thing}"] * length)
    for subject in ("The cell", "A mitochondrion", "Nobody")
    for verb in ("builds", "finds")
    for thing in ("the power house", "an answer to every search")
    for length in (1, 4, 12)
]


@dataclass(frozen=True, slots=True)
class Call:
    """One call, from its beginning to its end on the clock of `time.monotonic`."""

    model: str
    begun: float
    ended: float


@dataclass
class Callers:
    """Threads that encode until they are told to stop, and everything that must be counted."""

    url: str
    models: Sequence[str]
    calls: list[Call] = field(default_factory=list)
    bad: int = 0
    wrong: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    _expected: dict[tuple[str, str], NDArray[np.float32]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _over: threading.Event = field(default_factory=threading.Event)

    def prepare(self) -> None:
        """The reference answers: every text alone, before anything happens."""
        with SIEClient(self.url) as client:
            for model in self.models:
                for text in TEXTS:
                    [self._expected[model, text]] = _vectors(client.encode(model, [Item(text=text)]))

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

    def _work(self, seed: int) -> None:
        chance = random.Random(seed)
        with SIEClient(self.url) as client:
            while not self._over.is_set():
                if chance.random() < BAD_SHARE:
                    self._ask_badly(client, chance)
                else:
                    self._ask(client, chance)

    def _ask(self, client: SIEClient, chance: random.Random) -> None:
        model = chance.choice(list(self.models))
        texts = chance.sample(TEXTS, chance.choice((1, 1, 1, 2, 5)))
        begun, problem, wrong = time.monotonic(), "", False
        try:
            found = _vectors(client.encode(model, [Item(text=text) for text in texts]))
            pairs = zip(found, texts, strict=True)
            wrong = any(_distance(vector, self._expected[model, text]) > TOLERANCE for vector, text in pairs)
        except Exception as error:  # whatever a caller would have seen is what is counted here
            problem = f"{type(error).__name__}: {error}"[:300]
        call = Call(model, begun, time.monotonic())
        with self._lock:
            self.calls.append(call)
            self.wrong += wrong
            if problem:
                self.failures[problem] += 1

    def _ask_badly(self, client: SIEClient, chance: random.Random) -> None:
        """A request that must be refused, and hurt nobody."""
        model = chance.choice(list(self.models))
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


def _vectors(results: Sequence[Mapping[str, Any]]) -> list[NDArray[np.float32]]:
    return [np.asarray(result["dense"], np.float32) for result in results]


def _distance(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The largest difference, relative to the largest number; that of another shape or without numbers is infinite."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - expected).max() / max(1e-6, float(np.abs(expected).max())))
