"""Strangers' worst pictures from many clients at once, beside good requests, on the real server.

    PYTHONPATH=tests python -m image_text.hostile
    PYTHONPATH=tests python -m image_text.hostile --bombs 200 --repeats 600 --rounds 1

A tiny CLIP is built and served. Bombs of every kind come from 32 clients while good requests go on, and each answer is
looked at: a bomb is a 400 that names its place, and a good vector is what transformers makes of it. Memory is the
largest that the frontend's process ever had meanwhile, as the kernel tells it. The exit code is 1 if an aim is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import os
import signal
import sys
import tempfile
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgpack
import numpy as np
from e2e.processes import Serving
from frontend.pictures import bombs, chunk, crumbs, encoded, noise, png
from PIL import Image
from sie_frontend.rows import Array

from .builds import MODEL
from .served import Reference, build_clip

CLIENTS = 32
AIM_BOMBS_MB, AIM_REPEATS_MB, AIM_HEALTH_S = 50, 10, 0.2
_TEXT = "retrieval systems embed"
_HEADERS = {"content-type": "application/msgpack", "accept": "application/msgpack"}


def hurtful() -> Iterator[tuple[str, bytes]]:
    """Kinds and bytes, one kind after the other, for ever; no two are equal."""
    whole = photograph(1200, 900)
    kinds = {
        **bombs(),
        "cut in half": whole[: len(whole) // 2],
        "without its end": whole[:-128],
        "texts": png(8, 8, before=chunk(b"zTXt", b"a\0\0" + _deflated(1_000_000)) * 60),
        **{name: crumbs(1 << 20)[name] for name in ("jpeg fill", "gif comments")},
    }
    for number, (kind, data) in zip(itertools.count(), itertools.cycle(kinds.items()), strict=False):
        yield kind, data + b"%d" % number


def photograph(width: int, height: int, quality: int = 90) -> bytes:
    """A JPEG that is about as hard to decode as a photograph of its size."""
    coarse = Image.fromarray(noise(width // 8, height // 8))
    return encoded(coarse.resize((width, height), Image.Resampling.BICUBIC), "JPEG", quality=quality)


def _deflated(length: int) -> bytes:
    return zlib.compress(bytes(length), 9)


class Memory:
    """The memory of one process, in megabytes, from a moment on."""

    def __init__(self, pid: int) -> None:
        self._folder = Path("/proc") / str(pid)
        (self._folder / "clear_refs").write_text("5")
        self.before = self._told("VmRSS")

    @property
    def now(self) -> float:
        """What it has."""
        return self._told("VmRSS")

    @property
    def rise(self) -> float:
        """How much more than at the beginning it ever had."""
        return self._told("VmHWM") - self.before

    def _told(self, name: str) -> float:
        lines = (self._folder / "status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


@dataclass
class Attack:
    """What came of bombs: how many were sent, those that were not refused as they should be, and the good ones."""

    sent: int = 0
    wrong: list[str] = field(default_factory=list)
    good: int = 0
    spoiled: list[str] = field(default_factory=list)
    slowest_s: float = 0.0


class Good:
    """A request of two pictures and a text, and its right answer."""

    def __init__(self, reference: Reference) -> None:
        pictures = [Image.fromarray(noise(300, 200)), Image.open(io.BytesIO(photograph(320, 240)))]
        sent = [encoded(pictures[0], "PNG"), photograph(320, 240)]
        items: list[dict[str, Any]] = [{"images": [{"data": data}]} for data in sent]
        self.items = [items[0], {"text": _TEXT}, items[1]]
        seen = reference.seen(pictures)
        self.right: Array = np.stack([seen[0], reference.read([_TEXT])[0], seen[1]])

    async def mistake(self, client: httpx.AsyncClient) -> str:
        """What is wrong with the answer; "" where nothing is."""
        answer = await encode(client, self.items)
        if answer.status_code != 200:
            return answer.text
        off = float(np.abs(vectors(answer) - self.right).max())
        return "" if off < 1e-5 else f"vectors are off by {off}"


async def encode(client: httpx.AsyncClient, items: list[dict[str, Any]]) -> httpx.Response:
    """One call."""
    return await client.post(f"/v1/encode/{MODEL}", content=msgpack.packb({"items": items}), headers=_HEADERS)


def vectors(answer: httpx.Response) -> Array:
    """The dense vectors of an answer, in order."""
    content = msgpack.unpackb(answer.content, strict_map_key=False)
    found = [np.frombuffer(item["dense"]["values"][b"data"], np.float32) for item in content["items"]]
    return np.stack(found)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client with as many connections as it has calls."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=CLIENTS)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
        yield client


async def attack(url: str, good: Good, count: int, clients: int = CLIENTS) -> Attack:
    """So many bombs from so many clients, and good requests for as long."""
    outcome = Attack()
    sent = itertools.islice(hurtful(), count)

    async def bomber(client: httpx.AsyncClient) -> None:
        for kind, data in sent:
            answer = await encode(client, [{"images": [{"data": data}]}])
            outcome.sent += 1
            told = answer.json()["detail"] if answer.status_code == 400 else {}
            if told.get("code") != "INVALID_INPUT" or "- at `$.items[0].images[0].data`" not in told["message"]:
                outcome.wrong.append(f"{kind}: {answer.status_code} {answer.content[:200]!r}")

    async def asker(client: httpx.AsyncClient) -> None:
        while True:
            begun = time.monotonic()
            if mistake := await good.mistake(client):
                outcome.spoiled.append(mistake)
            outcome.good += 1
            outcome.slowest_s = max(outcome.slowest_s, time.monotonic() - begun)

    async with connected(url) as client:
        askers = [asyncio.create_task(asker(client)) for _ in range(2)]
        await asyncio.gather(*(bomber(client) for _ in range(clients)))
        await _ended(askers)
    return outcome


async def mixed(url: str, good: Good, rounds: int = 10) -> list[str]:
    """What is wrong where good and bad ones are in one list, so many times: the next call must be right at once."""
    mistakes = []
    bad = {"images": [{"data": bombs()["true png"]}]}
    async with connected(url) as client:
        for _ in range(rounds):
            answer = await encode(client, [*good.items, bad, *good.items])
            if (
                answer.status_code != 400
                or "- at `$.items[3].images[0].data`" not in answer.json()["detail"]["message"]
            ):
                mistakes.append(f"{answer.status_code} {answer.content[:200]!r}")
            if mistake := await good.mistake(client):
                mistakes.append(mistake)
    return mistakes


async def repeated(url: str, pid: int, data: bytes, count: int, settled: int) -> float:
    """Megabytes that the process gained from the picture `settled` on, of `count` equal ones; four are under way."""
    numbers = iter(range(count))
    memory: list[Memory] = []

    async def sender(client: httpx.AsyncClient) -> None:
        for number in numbers:
            if number == settled:
                memory.append(Memory(pid))
            (await encode(client, [{"images": [{"data": data}]}])).raise_for_status()

    async with connected(url) as client:
        await asyncio.gather(*(sender(client) for _ in range(4)))
    return memory[0].now - memory[0].before


async def large(url: str, data: bytes, count: int) -> tuple[float, list[float]]:
    """Pictures a second of `count` equal ones that come at once, and what each look at the health meanwhile took."""
    looks: list[float] = []

    async def look(client: httpx.AsyncClient) -> None:
        while True:
            begun = time.monotonic()
            (await client.get("/healthz")).raise_for_status()
            looks.append(time.monotonic() - begun)
            await asyncio.sleep(0.01)

    async def send(client: httpx.AsyncClient) -> None:
        (await encode(client, [{"images": [{"data": data}]}])).raise_for_status()

    async with connected(url) as client, connected(url) as other:
        looker = asyncio.create_task(look(other))
        begun = time.monotonic()
        await asyncio.gather(*(send(client) for _ in range(count)))
        seconds = time.monotonic() - begun
        await _ended([looker])
    return count / seconds, looks


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Report:
    """What was found, printed as it comes; `missed` counts the aims that were not reached."""

    def __init__(self) -> None:
        self.missed = 0

    def tell(self, fits: bool, line: str) -> None:
        """One line, with what it means."""
        self.missed += not fits
        print(f"{'ok    ' if fits else 'MISSED'}  {line}", flush=True)


def _run(work: Awaitable[Any]) -> Any:
    async def main() -> Any:
        return await work

    return asyncio.run(main())


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def endure(root: Path, options: argparse.Namespace, report: Report) -> None:
    """Bombs, mixed lists and one picture over and over."""
    good = Good(Reference(root / "checkpoint"))
    server = Serving(root / "repository", root / "serving")
    try:
        server.wait_ready()
        _run(attack(server.url, good, CLIENTS))  # every thread and buffer is there then
        memory = Memory(server.process.pid)
        outcome = _run(attack(server.url, good, options.bombs))
        rise = memory.rise
        report.tell(
            rise < AIM_BOMBS_MB, f"{outcome.sent} bombs, {CLIENTS} clients: memory rose by {rise:.0f} MB at most"
        )
        report.tell(not outcome.wrong, f"a clear 400 for each {outcome.wrong[:3] or ''}")
        told = f"{outcome.good} good requests beside, the slowest {outcome.slowest_s:.2f} s {outcome.spoiled[:3] or ''}"
        report.tell(not outcome.spoiled, told)
        mistakes = _run(mixed(server.url, good))
        report.tell(not mistakes, f"good and bad in one list, ten times {mistakes[:3] or ''}")
        data = photograph(1180, 840, 90)
        grown = _run(repeated(server.url, server.process.pid, data, options.repeats, options.repeats // 4))
        told = f"one JPEG of {len(data) // 1000} KB, {options.repeats} times: {grown:+.1f} MB after the first quarter"
        report.tell(grown < AIM_REPEATS_MB, told)
    finally:
        server.stop()


def grow(root: Path, options: argparse.Namespace, report: Report) -> None:
    """Large pictures with one thread and with two, in turn: the best of each counts."""
    data = photograph(4000, 3000)
    best = {1: 0.0, 2: 0.0}
    looks: list[float] = []
    for threads in [1, 2] * options.rounds:
        os.environ["SIE_TRITON_IMAGE_THREADS"] = str(threads)
        server = Serving(root / "repository", root / f"serving-{threads}")
        try:
            server.wait_ready()
            rate, seen = _run(large(server.url, data, 20))
        finally:
            server.stop()
            del os.environ["SIE_TRITON_IMAGE_THREADS"]
        best[threads] = max(best[threads], rate)
        looks += seen
    ratio, slow = best[2] / best[1], _percentile(looks, 0.95)
    told = f"20 JPEGs of 4000 x 3000 at once: {best[1]:.1f} a second with one thread, {best[2]:.1f} with two"
    report.tell(ratio > 1.2, f"{told}, {ratio:.2f} times")
    told = f"/healthz meanwhile: p50 {1000 * _percentile(looks, 0.5):.0f} ms, p95 {1000 * slow:.0f} ms"
    report.tell(slow < AIM_HEALTH_S, f"{told} of {len(looks)}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="image_text.hostile", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bombs", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=2000, help="how often one picture is sent")
    parser.add_argument("--rounds", type=int, default=2, help="of large pictures, with one thread and with two")
    options = parser.parse_args()
    # Ended from outside, it must not leave servers behind either.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    report = Report()
    with tempfile.TemporaryDirectory(prefix="sie-triton-hostile-") as folder:
        root = Path(folder)
        build_clip(root)
        endure(root, options, report)
        grow(root, options, report)
    sys.exit(report.missed > 0)


if __name__ == "__main__":
    main()
