"""How fast settings of a model are, by the frontend's own scheduler, with the graphs in this process.

Several one-threaded streams over one session behave as the server's instances do. Settings take turns, so that a busy
machine disturbs all alike, and the median of the rounds counts.

Sessions are configured as on the server that will serve. Idle threads of the embedded server sleep; those of NVIDIA's
spin, and then streams of several threads take each other's cores.
"""

from __future__ import annotations

import asyncio
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sie_frontend.manifest import Manifest
from sie_frontend.rows import Reader, Row
from sie_frontend.serving.scheduler import RunQueue
from sie_frontend.text.reader import TextReader
from sie_frontend.text.tokenization import TOKEN_TYPE_IDS, TextRow

from sie_triton.resources import available_memory
from sie_triton.tuning.settings import RunSetting
from sie_triton.verify.model_runner import ModelRunner, Timed, TimedServer
from sie_triton.verify.public_model import input_of, public_model, served_by
from sie_triton.verify.reference_texts import SENTENCE

ROWS_PER_REQUEST = 64
REQUESTS_AT_ONCE = 4
SAMPLES = REQUESTS_AT_ONCE * ROWS_PER_REQUEST
# A realistic distribution: half below 55 tokens, one in twenty above 250, none beyond the longest row.
MEDIAN_LENGTH, SPREAD, LONGEST = 55, 0.9, 512
# Of a lone query.
ALONE_TOKENS = 22


@dataclass(frozen=True, slots=True)
class Samples:
    """How much is measured: `rounds` samples of each setting, of `seconds` each."""

    seconds: float
    rounds: int
    server: TimedServer = "embedded"


class _Opened:
    """Runners that were opened, as many as half of the memory takes; the one that was used longest ago is closed."""

    def __init__(self, open_runner: Callable[[Path, Timed], ModelRunner], triton_models: Sequence[str]) -> None:
        self._open = open_runner
        self._triton_models = triton_models
        memory = available_memory()
        self._room = math.inf if memory is None else memory / 2
        self._kept: dict[tuple[Path, Timed], ModelRunner] = {}

    def get(self, folder: Path, timed: Timed) -> ModelRunner:
        """The runner of a folder, opened as a server would."""
        runner = self._kept.pop((folder, timed), None)
        while runner is None and self._kept and self._bytes(*self._kept, (folder, timed)) > self._room:
            del self._kept[next(iter(self._kept))]
        self._kept[folder, timed] = runner or self._open(folder, timed)
        return self._kept[folder, timed]

    def _bytes(self, *keys: tuple[Path, Timed]) -> int:
        """Weights as they lie on the disk, as they are computed with, and once more for what runs take."""
        places = (folder / name / "1" for folder, _ in keys for name in self._triton_models)
        return sum(3 * path.stat().st_size for place in places for path in place.glob("*") if path.is_file())


class TimedModel:
    """A public model of a manifest, whose settings can be timed in any folder that has its graphs."""

    def __init__(self, repository: Path, manifest: Manifest, name: str) -> None:
        model = public_model(repository, manifest, name)
        _, entry = input_of(next(iter(served_by(manifest, name).values())), name)
        self.name = name
        self._triton_models = manifest.built[name].triton_models
        self.reader = model.reader
        self.config_name = manifest.built[name].configs["cpu"]
        self._padding_cost = entry.batching["cpu"].padding_cost
        self._rows = _rows(model.reader)
        self._outputs = tuple(tensor.name for tensor in manifest.triton_models[name].outputs)

    def speeds(
        self, folders: Sequence[Path], settings: Sequence[RunSetting], samples: Samples
    ) -> list[dict[RunSetting, float]]:
        """By folder, what each setting computes in a second, the median of its rounds, in tokens or pictures."""
        found: dict[tuple[Path, RunSetting], list[float]] = {(f, s): [] for f in folders for s in settings}
        by_shape = sorted(settings, key=lambda setting: (setting.streams, setting.threads))
        opened = self._opened_runners()
        for _ in range(samples.rounds):
            for folder in folders:
                for setting in by_shape:
                    runner = opened.get(folder, Timed(setting.threads, setting.streams, samples.server))
                    found[folder, setting].append(asyncio.run(self._speed(runner, setting, samples.seconds)))
        return [{setting: statistics.median(found[folder, setting]) for setting in settings} for folder in folders]

    def alone(self, folders: Mapping[Path, int], samples: Samples) -> list[float]:
        """By folder, with the threads of a run that is alone: the median seconds of one row, a query's where it is
        a text.
        """
        row = min(self._rows, key=lambda row: abs(row.cost - ALONE_TOKENS))
        feed = self.reader.batch([row], row.cost)
        opened = self._opened_runners()
        found: dict[Path, list[float]] = {folder: [] for folder in folders}
        for _ in range(samples.rounds):
            for folder, threads in folders.items():
                runner = opened.get(folder, Timed(threads, server=samples.server, alone=True))
                end = time.perf_counter() + samples.seconds
                while (begun := time.perf_counter()) < end:
                    runner.run(feed, self._outputs)
                    found[folder].append(time.perf_counter() - begun)
        return [statistics.median(seconds) for seconds in found.values()]

    def _opened_runners(self) -> _Opened:
        return _Opened(lambda *how: ModelRunner(how[0], self.name, self.config_name, how[1]), self._triton_models)

    async def _speed(self, runner: ModelRunner, setting: RunSetting, seconds: float) -> float:
        loop = asyncio.get_running_loop()
        widths = self.reader.widths(exact=True)
        with ThreadPoolExecutor(setting.streams) as threads:
            done = 0

            async def run(batch: Sequence[Row], names: tuple[str, ...]) -> Sequence[Any]:
                nonlocal done
                costs = [row.cost for row in batch]
                await loop.run_in_executor(threads, runner.run, self.reader.batch(batch, max(costs)), names)
                done += sum(costs)
                return [None] * len(batch)

            queue: RunQueue[Row] = RunQueue(
                run,
                widths=widths,
                run_tokens=setting.run_tokens,
                max_rows=ROWS_PER_REQUEST,
                streams=setting.streams,
                padding_cost=self._padding_cost,
            )

            async def client(number: int) -> None:
                while True:
                    await queue.submit(self._rows[number::REQUESTS_AT_ONCE], self._outputs)

            begun = time.perf_counter()
            clients = [loop.create_task(client(number)) for number in range(REQUESTS_AT_ONCE)]
            await asyncio.wait(clients, timeout=seconds)
            for task in clients:
                task.cancel()
            # What is under way still counts, and so does the time that it takes.
            await queue.drain()
            finished = time.perf_counter()
            failures = [e for e in await asyncio.gather(*clients, return_exceptions=True) if isinstance(e, Exception)]
            if failures:
                raise failures[0]
            return done / (finished - begun)


def _rows(reader: Reader) -> Sequence[Row]:
    """The same rows every time: texts of many lengths, or the row to try a model with, where all have one shape."""
    if isinstance(reader, TextReader) and not reader.spec.pads:
        return sample_rows(reader)
    return [reader.probe(reader.widths(exact=False)[-1])] * SAMPLES


def sample_rows(reader: TextReader, count: int = SAMPLES) -> list[TextRow]:
    """An English sentence repeated, cut to a realistic distribution of lengths."""
    limit = min(LONGEST, reader.spec.max_length)
    (ids,) = reader.tokenizer.encode([SENTENCE * (limit // 4 + 1)], limit)
    random_lengths = random.Random(count)
    lengths = [
        max(1, min(len(ids), round(random_lengths.lognormvariate(np.log(MEDIAN_LENGTH), SPREAD)))) for _ in range(count)
    ]
    types = np.zeros_like(ids) if TOKEN_TYPE_IDS in reader.spec.inputs else None
    return [TextRow(ids[:n], n, None if types is None else types[:n]) for n in lengths]
