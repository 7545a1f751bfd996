"""One client before and after `fork()`, against the real server: no process gets another's vector."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.e2e

ROUNDS = 60
# A process of its own: what is forked must not have the threads of the tests.
PROGRAM = """
import json, os, sys, time
from collections import Counter
from sie_sdk import SIEClient
from sie_sdk.types import Item

url, rounds, model = sys.argv[1], int(sys.argv[2]), "sentence-transformers/all-MiniLM-L6-v2"
texts = [f"text number {i} about {'cats dogs birds fish horses'.split()[i % 5]}" for i in range(8)]
with SIEClient(url) as reference:
    truth = [reference.encode(model, Item(text=text))["dense"] for text in texts]


def ask(client, wanted):
    try:
        vector = client.encode(model, Item(text=texts[wanted]), wait_for_capacity=False)["dense"]
    except Exception as error:  # whatever it is, it is an outcome
        return f"{type(error).__name__}: {error}"
    similar = [float(vector @ other) for other in truth]
    nearest = max(range(len(texts)), key=similar.__getitem__)
    return "right" if nearest == wanted and similar[wanted] > 0.9999 else f"WRONG: that of {nearest} for {wanted}"


outcomes = Counter()
for number in range(rounds):
    with SIEClient(url) as client:
        client.encode(model, Item(text="warm up"))
        start, children = time.time() + 0.03, []
        for child in range(2):
            reading, writing = os.pipe()
            pid = os.fork()
            if pid == 0:
                while time.time() < start:
                    pass
                os.write(writing, ask(client, (number + child * 3) % 8).encode())
                os._exit(0)
            os.close(writing)
            children.append((pid, reading))
        while time.time() < start:
            pass
        outcomes[ask(client, (number + 6) % 8)] += 1
        for pid, reading in children:
            os.waitpid(pid, 0)
            outcomes[os.read(reading, 500).decode()] += 1
            os.close(reading)
print(json.dumps(outcomes))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_every_process_gets_its_own_vectors(url: str) -> None:
    command = [sys.executable, "-c", PROGRAM, url, str(ROUNDS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"right": ROUNDS * 3}
