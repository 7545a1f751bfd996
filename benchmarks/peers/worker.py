"""Runs one in-process peer: commands in on stdin, answers out on stdout, one JSON value a line.

    python -m benchmarks.peers.worker MODULE FILES-AS-JSON

Standard library and numpy only, since it runs inside every peer's environment.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.peers import Embed, Files


def bulk(embed: Embed, texts: list[str]) -> dict[str, Any]:
    """Embed all texts in one call, as the library likes it best."""
    begun = time.perf_counter()
    embed(texts)
    return {"wall_s": time.perf_counter() - begun}


def online(embed: Embed, texts: list[str]) -> dict[str, Any]:
    """Embed one text after the other."""
    latencies = []
    first = time.perf_counter()
    for text in texts:
        begun = time.perf_counter()
        embed([text])
        latencies.append(time.perf_counter() - begun)
    return {"wall_s": time.perf_counter() - first, "latencies": latencies}


def vectors(embed: Embed, texts: list[str]) -> dict[str, Any]:
    """The embeddings themselves."""
    return {"vectors": np.asarray(embed(texts), dtype=np.float64).tolist()}


COMMANDS: dict[str, Callable[[Embed, list[str]], dict[str, Any]]] = {
    "bulk": bulk,
    "online": online,
    "vectors": vectors,
}


def main() -> None:
    # Libraries print; only answers may reach the runner.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    module, files = sys.argv[1], Files(**json.loads(sys.argv[2]))
    embeds: dict[str, Embed] = importlib.import_module(f"benchmarks.peers.{module}").load(files)
    for embed in embeds.values():
        embed(["one text that makes everything load"])
    print(json.dumps({"variants": list(embeds)}), file=answers, flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        embed = embeds[command["variant"]]
        print(json.dumps(COMMANDS[command["do"]](embed, command["texts"])), file=answers, flush=True)


if __name__ == "__main__":
    main()
