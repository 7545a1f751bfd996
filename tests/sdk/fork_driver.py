"""`python fork_driver.py SCHEME URL ROUNDS`: use one client before and after `fork()`, and print what came of it.

The server answers each text with the digest of it (`test_sdk_fork.py`), so that another process's answer shows. A
process of its own, so that what is forked has the threads of its scheme and no others. Prints JSON: how often each
outcome was seen.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import multiprocessing
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sie_sdk import SIEAsyncClient, SIEClient, SIEError
from sie_sdk.types import Item

CHILDREN = 2
_shared: list[SIEClient] = []


def digest(text: str) -> list[float]:
    """What the server answers a text with."""
    return [float(byte) for byte in hashlib.sha256(text.encode()).digest()[:8]]


def judge(call: Callable[[], Any], text: str) -> str:
    """Whether the answer is the text's."""
    try:
        result = call()
    except (SIEError, RuntimeError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return "right" if result["dense"].tolist() == digest(text) else "WRONG: another text's vector"


def ask(client: SIEClient, text: str) -> str:
    return judge(lambda: client.encode("m", Item(text=text), wait_for_capacity=False), text)


def ask_async(client: SIEAsyncClient, text: str) -> str:
    return judge(lambda: asyncio.run(client.encode("m", Item(text=text), wait_for_capacity=False)), text)


def sockets() -> set[str]:
    """The sockets that this process has."""
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(descriptor.readlink()))
        except FileNotFoundError:  # the listing's own
            continue
    return {link for link in links if link.startswith("socket:")}


def family(work: Callable[[str], str], name: str, others: set[str]) -> list[str]:
    """The outcomes of `CHILDREN` forked processes and of this one, all at work at the same moment.

    `others` are the sockets that are not the client's.
    """
    before, start, pipes = sockets() - others, time.time() + 0.02, []
    for number in range(CHILDREN):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            shared = sockets() & before
            while time.time() < start:
                pass
            outcome = work(f"child {number} of {name}")
            os.write(writing, (f"still has {len(shared)} of the parent's sockets" if shared else outcome).encode())
            os._exit(0)
        os.close(writing)
        pipes.append((pid, reading))
    while time.time() < start:
        pass
    outcomes = [work(f"parent of {name}")]
    for pid, reading in pipes:
        outcomes.append(os.read(reading, 500).decode() or "died")
        os.close(reading)
        os.waitpid(pid, 0)
    return [*outcomes, work(f"parent of {name}, afterwards")]


def sync(url: str, rounds: int) -> list[str]:
    outcomes, others = [], sockets()
    for number in range(rounds):
        with SIEClient(url) as client:
            outcomes.append(ask(client, f"before {number}"))
            outcomes += family(lambda text, client=client: ask(client, text), str(number), others)  # type: ignore[misc]
    return outcomes


def async_(url: str, rounds: int) -> list[str]:
    """The parent's loop stays as it is, with its connection, in a thread; each child runs a loop of its own."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(20)
    mine, others = os.getpid(), sockets()
    outcomes = []
    for number in range(rounds):
        client = SIEAsyncClient(url)

        def work(text: str, client: SIEAsyncClient = client) -> str:
            if os.getpid() != mine:
                return ask_async(client, text)
            call = client.encode("m", Item(text=text), wait_for_capacity=False)
            return judge(lambda: asyncio.run_coroutine_threadsafe(call, loop).result(20), text)

        outcomes.append(work(f"before {number}"))
        outcomes += family(work, str(number), others)
        asyncio.run_coroutine_threadsafe(client.close(), loop).result(20)
    return outcomes


def threads(url: str, rounds: int) -> list[str]:
    """Forks while four threads keep one client busy: whatever lock one of them holds, no child waits for it."""
    outcomes: list[str] = []
    with SIEClient(url) as client:
        done = threading.Event()

        def keep_asking(number: int) -> None:
            for count in range(1_000_000):
                if done.is_set():
                    return
                outcomes.append(ask(client, f"thread {number} asks {count}"))

        workers = [threading.Thread(target=keep_asking, args=(number,)) for number in range(4)]
        for worker in workers:
            worker.start()
        for number in range(rounds):
            outcomes += _threads_of_a_child(client, number)
        done.set()
        for worker in workers:
            worker.join()
    return outcomes


def _threads_of_a_child(client: SIEClient, number: int) -> list[str]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        found: list[str] = []

        def one(thread: int) -> None:
            found.append(ask(client, f"thread {thread} of child {number}"))

        mine = [threading.Thread(target=one, args=(thread,)) for thread in range(2)]
        for thread in mine:
            thread.start()
        for thread in mine:
            thread.join(20)
        os.write(writing, json.dumps(found + ["hangs"] * (2 - len(found))).encode())
        os._exit(0)
    os.close(writing)
    answer = os.read(reading, 4000)
    os.close(reading)
    os.waitpid(pid, 0)
    return list(json.loads(answer))


def _ask_the_shared(text: str) -> str:
    return ask(_shared[0], text)


def _share(client: SIEClient) -> None:
    _shared[:] = [client]


def pools(url: str, rounds: int) -> list[str]:
    """`multiprocessing`'s pools: forked ones inherit the client, spawned ones get it pickled."""
    outcomes = []
    texts = [f"text {number}" for number in range(rounds)]
    with SIEClient(url) as client:
        outcomes.append(ask(client, "before"))
        _share(client)
        with multiprocessing.get_context("fork").Pool(3) as pool:
            outcomes += pool.map(_ask_the_shared, texts, chunksize=1)
        with multiprocessing.get_context("spawn").Pool(2, _share, (client,)) as pool:
            outcomes += pool.map(_ask_the_shared, texts, chunksize=1)
        outcomes.append(ask(client, "afterwards"))
    return outcomes


SCHEMES = {"sync": sync, "async": async_, "threads": threads, "pools": pools}

if __name__ == "__main__":
    scheme, server, count = sys.argv[1:]
    print(json.dumps(Counter(SCHEMES[scheme](server, int(count)))))
