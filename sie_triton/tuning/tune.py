"""`sie-triton tune`: measures how much a run should hold and how to use the cores of this machine.

Every setting runs the same rows through the frontend's own scheduler, with the graphs in this process: several
one-threaded streams over one session behave as the server's instances do. Settings take turns, so that a busy machine
disturbs all alike, and the median of the rounds counts.

Sessions are configured as on the server that will serve. Idle threads of the embedded server sleep; those of NVIDIA's
spin, and then streams of several threads take each other's cores.
"""

from __future__ import annotations

import asyncio
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from google.protobuf import text_format
from sie_frontend.manifest import Batching, Manifest, Measured, Model
from sie_frontend.mixed.reader import MixedReader
from sie_frontend.rows import Reader, Row
from sie_frontend.serving.scheduler import RunQueue
from sie_frontend.text.reader import TextReader
from sie_frontend.text.tokenization import TOKEN_TYPE_IDS, TextRow

from sie_triton.backends.embedded import ALONE_THREADS, STREAMS
from sie_triton.backends.embedded import CONFIG_NAME as EMBEDDED
from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where
from sie_triton.formats import FORMATS
from sie_triton.repository.config import INSTANCE_WEIGHT_BYTES, MAX_INSTANCES
from sie_triton.repository.publish import current_manifest, publish, staged_repository, write_manifest
from sie_triton.repository.record import redigest
from sie_triton.verify.checks import check_structure
from sie_triton.verify.model_runner import ModelRunner, TimedServer, config_path, read_model_config
from sie_triton.verify.public_model import input_of, public_model, served_by
from sie_triton.verify.reference_texts import SENTENCE

Announce = Callable[[str], None]

BUDGETS = (128, 256, 512, 1024, 2048)
# What rows of one shape cost does not tell how long they take: pictures are counted.
ROW_BUDGETS = (1, 2, 4, 8, 16)
ROWS_PER_REQUEST = 64
REQUESTS_AT_ONCE = 4
SAMPLES = REQUESTS_AT_ONCE * ROWS_PER_REQUEST
# A realistic distribution: half below 55 tokens, one in twenty above 250, none beyond the longest row.
MEDIAN_LENGTH, SPREAD, LONGEST = 55, 0.9, 512
# Settings closer than this count as equal; the one with the shortest runs lets queries through soonest.
RESOLUTION = 0.03
_SERVERS: Mapping[TimedServer, str] = {"embedded": "the embedded server", "nvidia": "NVIDIA's server"}


@dataclass(frozen=True, slots=True)
class RunSetting:
    """A candidate: the limit of a run in tokens or pictures, the number of parallel runs, and the threads of each."""

    run_tokens: int
    streams: int
    threads: int


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was measured for one public Triton model, and which setting was chosen.

    `speeds` are what is computed in a second by setting, in the `unit` that runs are limited in.
    """

    triton_model: str
    speeds: Mapping[RunSetting, float]
    chosen: RunSetting
    server: TimedServer = "embedded"
    unit: str = "tokens"


def tune_repository(
    repository: Path,
    manifest: Manifest,
    *,
    cores: int,
    seconds: float,
    rounds: int,
    announce: Announce,
    server: TimedServer = "embedded",
) -> list[Tuned]:
    """Measure every public model that has a configuration for CPUs, write what was chosen, publish.

    Raises `DiagnosticError` if there is none, or if one has a format whose streams share one thread count.
    """
    names = [name for name, built in manifest.served().built.items() if "cpu" in built.configs]
    if not names:
        raise DiagnosticError([Diagnostic("SIE607", "no model is built for CPUs: nothing to tune", Where(repository))])
    tuned = []
    for name in names:
        if not FORMATS[manifest.built[name].format].own_threads:
            message = f"`{name}` is {manifest.built[name].format}: torch has one number of threads for all streams"
            raise DiagnosticError([Diagnostic("SIE608", message, Where(repository), "tune an ONNX build")])
        weights = _weight_bytes(repository, manifest, name)
        budgets, unit = _budgets(public_model(repository, manifest, name).reader)
        settings = list(candidates(cores, weights, budgets))
        announce(f"{name}: {len(settings)} settings, {rounds} rounds of {seconds:g} s each")
        speeds = measure_speeds(repository, manifest, name, settings, seconds=seconds, rounds=rounds, server=server)
        tuned.append(Tuned(name, speeds, choose(speeds), server, unit))
    with staged_repository(repository) as staging:
        # Measuring took minutes, and only now is the repository locked: a build may have published in between.
        current = current_manifest(staging) or manifest
        for result in tuned:
            built = current.built.get(result.triton_model)
            if built is None or built.key != manifest.built[result.triton_model].key:
                message = f"`{result.triton_model}` was built again while it was measured; nothing was changed"
                raise DiagnosticError([Diagnostic("SIE609", message, Where(repository), "run `sie-triton tune` again")])
            current = _apply(staging, current, result)
        write_manifest(staging, current)
        if problems := list(check_structure(staging, current)):
            raise DiagnosticError(problems)
        publish(staging, repository)
    return tuned


def _budgets(reader: Reader) -> tuple[Sequence[int], str]:
    """What a run may cost, and in what that is told: as many pictures, each of which may take many positions."""
    if isinstance(reader, TextReader | MixedReader):
        return BUDGETS, "tokens"
    widest = reader.widths(exact=False)[-1]
    return [rows * widest for rows in ROW_BUDGETS], "rows" if widest == 1 else "tokens"


def candidates(cores: int, weight_bytes: int, budgets: Sequence[int] = BUDGETS) -> Iterator[RunSetting]:
    """Every budget with every way to use all cores that does not copy large weights."""
    affordable = min(cores, MAX_INSTANCES, max(1, INSTANCE_WEIGHT_BYTES // max(1, weight_bytes)))
    shapes = sorted({(streams, cores // streams) for streams in {1, 2, affordable} if streams <= affordable})
    for run_tokens in budgets:
        for streams, threads in shapes:
            yield RunSetting(run_tokens, streams, threads)


def choose(speeds: Mapping[RunSetting, float]) -> RunSetting:
    """The setting with the shortest runs, then the most streams, among those as fast as the fastest."""
    best = max(speeds.values())
    good = [setting for setting, speed in speeds.items() if speed >= best * (1 - RESOLUTION)]
    return min(good, key=lambda setting: (setting.run_tokens, -setting.streams))


def measure_speeds(
    repository: Path,
    manifest: Manifest,
    name: str,
    settings: Sequence[RunSetting],
    *,
    seconds: float,
    rounds: int,
    server: TimedServer = "embedded",
) -> dict[RunSetting, float]:
    """What each setting computes in a second, the median of its rounds, in tokens or pictures."""
    model = public_model(repository, manifest, name)
    _, entry = input_of(next(iter(served_by(manifest, name).values())), name)
    padding_cost = entry.batching["cpu"].padding_cost
    rows = _rows(model.reader)
    outputs = tuple(tensor.name for tensor in manifest.triton_models[name].outputs)
    config_name = manifest.built[name].configs["cpu"]
    runners = {
        threads: ModelRunner(repository, name, config_name, threads=threads, server=server)
        for threads in {setting.threads for setting in settings}
    }
    found: dict[RunSetting, list[float]] = {setting: [] for setting in settings}
    for _ in range(rounds):
        for setting, speeds in found.items():
            speeds.append(
                asyncio.run(
                    _speed(runners[setting.threads], model.reader, rows, outputs, setting, seconds, padding_cost)
                )
            )
    return {setting: statistics.median(speeds) for setting, speeds in found.items()}


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


async def _speed(
    runner: ModelRunner,
    reader: Reader,
    rows: Sequence[Row],
    outputs: tuple[str, ...],
    setting: RunSetting,
    seconds: float,
    padding_cost: float | None,
) -> float:
    loop = asyncio.get_running_loop()
    widths = reader.widths(exact=True)
    with ThreadPoolExecutor(setting.streams) as threads:
        done = 0

        async def run(batch: Sequence[Row], names: tuple[str, ...]) -> Sequence[Any]:
            nonlocal done
            costs = [row.cost for row in batch]
            await loop.run_in_executor(threads, runner.run, reader.batch(batch, max(costs)), names)
            done += sum(costs)
            return [None] * len(batch)

        queue: RunQueue[Row] = RunQueue(
            run,
            widths=widths,
            run_tokens=setting.run_tokens,
            max_rows=ROWS_PER_REQUEST,
            streams=setting.streams,
            padding_cost=padding_cost,
        )

        async def client(number: int) -> None:
            while True:
                await queue.submit(rows[number::REQUESTS_AT_ONCE], outputs)

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


def _weight_bytes(repository: Path, manifest: Manifest, name: str) -> int:
    built = manifest.built[name]
    heavy, *_ = built.triton_models
    filename = read_model_config(config_path(repository / heavy, built.configs["cpu"])).default_model_filename
    # Beyond protobuf's limit the weights lie beside the graph, in `NAME.data`.
    return sum(path.stat().st_size for path in (repository / heavy / "1").glob(f"{filename}*"))


def _apply(staging: Path, manifest: Manifest, tuned: Tuned) -> Manifest:
    """The chosen setting in the staged configurations and in the manifest, with everything that was measured."""
    setting = tuned.chosen
    served = served_by(manifest.served(), tuned.triton_model)
    model = public_model(staging, manifest, tuned.triton_model)
    name, entry = input_of(next(iter(served.values())), tuned.triton_model)
    old = entry.batching["cpu"]
    rows = max(old.max_batch_size, setting.run_tokens // model.reader.widths(exact=False)[0])
    batching = Batching(rows, setting.run_tokens, setting.streams, old.express, old.padding_cost, _measured(tuned))
    models = {
        **manifest.models,
        **{model_id: _batched(model, name, batching) for model_id, model in served.items()},
    }
    built = manifest.built[tuned.triton_model]
    # The first graph is the one with the transformer; the small ones behind it stay as they are.
    heavy, *_ = built.triton_models
    for part in built.triton_models:
        path = config_path(staging / part, built.configs["cpu"])
        _rewrite(path, setting, batching, computes=part == heavy)
        if (embedded := staging / part / "configs" / f"{EMBEDDED}.pbtxt").is_file():  # older builds have none
            _rewrite(embedded, setting, batching, computes=part == heavy)
    return redigest(msgspec.structs.replace(manifest, models=models), staging, built.triton_models)


def _batched(model: Model, name: str, batching: Batching) -> Model:
    """A model whose input `name` is batched so on CPUs."""
    entry = msgspec.structs.replace(model.inputs[name], batching={**model.inputs[name].batching, "cpu": batching})
    return msgspec.structs.replace(model, inputs={**model.inputs, name: entry})


def _rewrite(path: Path, setting: RunSetting, batching: Batching, *, computes: bool) -> None:
    config = read_model_config(path)
    config.max_batch_size = batching.max_batch_size
    if computes:
        streams, threads = setting.streams + batching.express, setting.threads
        if STREAMS in config.parameters:
            config.parameters[STREAMS].string_value = str(streams)
            threads = 1 if threads == 1 else threads * setting.streams
            if threads > 1:
                config.parameters.pop(ALONE_THREADS, None)
        else:
            (group,) = config.instance_group
            group.count = streams
        config.parameters["intra_op_thread_count"].string_value = str(threads)
    # The file may be a hard link into the published repository: it is replaced, never written into.
    path.unlink()
    path.write_text(text_format.MessageToString(config), encoding="utf-8")


def _measured(tuned: Tuned) -> Measured:
    return Measured(
        machine=f"{platform.processor() or platform.machine()}, {platform.system()} {platform.release()}, "
        f"with sessions as on {_SERVERS[tuned.server]}",
        tokens_per_second={
            f"{setting.run_tokens} {tuned.unit}, {setting.streams} x {setting.threads} threads": round(speed)
            for setting, speed in tuned.speeds.items()
        },
    )
