"""A hundred models in one repository: what a start, a list and evictions cost, and whether every vector is right.

    python -m benchmarks.hundred
    python -m benchmarks.hundred --models 30 --seconds 20 --keep /tmp/hundred

Makes random BERTs of one layer, each with weights of its own, builds `--distinct` of them as a user does, and copies
their folders under further ids until there are `--models`: a server cannot tell them from built ones, and building each
would take half an hour. Serves them twice: all at the start, and on demand within a memory budget. Clients ask the SDK,
with its default retries, for models at random; each vector is compared with sentence-transformers on the checkpoint.
Prints Markdown. Ends with 1 if a call failed or a vector was wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import descendants, pss_bytes
from sie_triton.embedded.installation import find_installation
from sie_triton.embedded.ports import free_port

TEXTS = ("the cell", "what powers a cell?", "search answers, and embeds text")
LETTERS = "abcdefghijklmnopqrstuvwxyz.,?"
TOLERANCE = 1e-4
_READY_SECONDS = 1200.0


def write_checkpoint(folder: Path, seed: int) -> None:
    """A random BERT of one layer that reads letters."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    named = {f"{name}_token": token for name, token in special.items()}
    config = {"tokenizer_class": "BertTokenizerFast", "model_max_length": 64, **named}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.manual_seed(seed)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    model = BertModel(BertConfig(vocab_size=len(pieces), max_position_embeddings=64, **shape))
    model.eval().save_pretrained(folder, safe_serialization=True)


def expected(folders: Mapping[str, Path]) -> dict[str, NDArray[np.float32]]:
    """What sentence-transformers gives for the texts, by model: `[texts, width]`."""
    from sentence_transformers import SentenceTransformer

    return {name: SentenceTransformer(str(path), device="cpu").encode(list(TEXTS)) for name, path in folders.items()}


@dataclass
class Server:
    """One `sie-triton serve`."""

    process: subprocess.Popen[bytes]
    url: str
    ready_s: float

    def tree(self) -> list[int]:
        """Its processes, the command itself among them."""
        return descendants(self.process.pid)

    @property
    def megabytes(self) -> float:
        """The proportional set size of all processes."""
        return pss_bytes(self.process.pid) / 2**20

    @property
    def threads(self) -> int:
        """Of all processes."""
        return sum(len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in self.tree())

    def milliseconds(self, path: str) -> float:
        """The median of nine requests."""
        times = []
        with httpx.Client(base_url=self.url, timeout=60) as client:
            for _ in range(9):
                begun = time.perf_counter()
                client.get(path).raise_for_status()
                times.append((time.perf_counter() - begun) * 1e3)
        return sorted(times)[4]

    def metrics(self) -> dict[str, float]:
        """Every series of the frontend with its value."""
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        pairs = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}

    def total(self, name: str) -> float:
        """One metric over all its labels."""
        return sum(value for series, value in self.metrics().items() if series.partition("{")[0] == name)


@contextmanager
def serving(repository: Path, log: Path, *options: str) -> Iterator[Server]:
    """The server, once it is ready; it is gone afterwards."""
    port = free_port()
    command = [sys.executable, "-m", "sie_triton.cli", "serve", "-r", str(repository), "--port", str(port), *options]
    begun = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        while not _is_ready(url):
            if process.poll() is not None or time.monotonic() - begun > _READY_SECONDS:
                raise SystemExit(f"the server is not ready; its log:\n{log.read_text()[-4000:]}")
            time.sleep(0.1)
        yield Server(process, url, time.monotonic() - begun)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@dataclass
class Outcome:
    """What clients got."""

    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        """Seconds of a call."""
        return sorted(self.seconds)[min(len(self.seconds) - 1, int(share * len(self.seconds)))]


def ask(url: str, wanted: Mapping[str, NDArray[np.float32]], *, seconds: float, clients: int, hot: int) -> Outcome:
    """Let clients ask for a while: half of the calls for `hot` models, the others for any."""
    outcome, until, names = Outcome(), time.monotonic() + seconds, list(wanted)

    def client(number: int) -> None:
        from sie_sdk import SIEClient
        from sie_sdk.types import Item

        chance = random.Random(number)
        with SIEClient(url) as sdk:
            while time.monotonic() < until:
                name = chance.choice(names[:hot] if chance.random() < 0.5 else names)
                place = chance.randrange(len(TEXTS))
                begun = time.perf_counter()
                try:
                    vector = sdk.encode(name, Item(text=TEXTS[place]))["dense"]
                except Exception as error:  # whatever it is, it is counted
                    outcome.failed.append(f"{name}: {error!r}")
                    continue
                outcome.seconds.append(time.perf_counter() - begun)
                if float(np.abs(vector - wanted[name][place]).max()) > TOLERANCE:
                    outcome.wrong.append(name)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcome


def copied(built: Path, repository: Path, names: Sequence[str], count: int) -> dict[str, str]:
    """A repository of so many models, each a copy of a built one under its own id; which one, by id.

    Ids are of one length, so that the sizes in the manifest stay true.
    """
    shutil.rmtree(repository, ignore_errors=True)
    manifest = json.loads((built / "manifest.json").read_text(encoding="utf-8"))
    whole = {**manifest, **{part: {} for part, entries in manifest.items() if isinstance(entries, dict)}}
    source = {f"m{number:03}": names[number % len(names)] for number in range(count)}
    for name, original in source.items():
        for folder in built.glob(f"{original}*"):
            target = Path(shutil.copytree(folder, repository / folder.name.replace(original, name)))
            for config in target.rglob("*.pbtxt"):
                config.write_text(config.read_text(encoding="utf-8").replace(original, name), encoding="utf-8")
        for part, entries in manifest.items():
            for key, entry in entries.items() if isinstance(entries, dict) else ():
                if key.startswith(original):
                    text = json.dumps({key: entry}).replace(original, name)
                    whole[part].update(json.loads(text))
    (repository / "manifest.json").write_text(json.dumps(whole), encoding="utf-8")
    return source


def build(folder: Path, count: int) -> tuple[Path, dict[str, Path], float]:
    """The repository, the checkpoints by id, and the seconds that building took; what is there is kept."""
    folders = {f"m{number:03}": folder / "checkpoints" / f"m{number:03}" for number in range(count)}
    for number, path in enumerate(folders.values()):
        if not (path / "model.safetensors").exists():
            write_checkpoint(path, number)
    wanted = folder / "models.txt"
    wanted.write_text("\n".join(map(str, folders.values())), encoding="utf-8")
    repository = folder / "built"
    begun = time.monotonic()
    command = [sys.executable, "-m", "sie_triton.cli", "build", "-m", f"@{wanted}", "-r", str(repository)]
    subprocess.run([*command, "--device", "cpu"], check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    return repository, folders, time.monotonic() - begun


def row(name: str, server: Server, outcome: Outcome, *cells: Any) -> str:
    """A line of the table."""
    found = [
        f"{server.ready_s:.0f}",
        *cells,
        f"{server.milliseconds('/v1/models'):.0f}",
        f"{len(server.metrics())}",
        f"{len(outcome.seconds)}",
        f"{outcome.quantile(0.5) * 1e3:.0f} ms",
        f"{outcome.quantile(0.99):.1f} s",
        f"{max(outcome.seconds):.1f} s",
        f"{server.total('sie_frontend_model_loads_total'):.0f}",
        f"{server.total('sie_frontend_model_unloads_total'):.0f}",
        f"{len(outcome.wrong)}",
        f"{len(outcome.failed)}",
    ]
    return f"| {name} | {' | '.join(map(str, found))} |"


def measured(name: str, server: Server, wanted: Mapping[str, NDArray[np.float32]], given: argparse.Namespace) -> str:
    """Ask a server, and look at it before and afterwards."""
    print(f"{name}: ready after {server.ready_s:.1f} s, {len(server.tree())} processes", file=sys.stderr, flush=True)
    start = server.megabytes
    outcome = ask(server.url, wanted, seconds=given.seconds, clients=given.clients, hot=5)
    for line in (outcome.wrong + outcome.failed)[:10]:
        print(f"{name}: {line}", file=sys.stderr)
    given.bad = given.bad or bool(outcome.wrong or outcome.failed)
    cells = len(server.tree()), server.threads, f"{start:.0f}", f"{server.megabytes:.0f}"
    return row(name, server, outcome, *cells)


_HEAD = (
    "",
    *("ready after, s", "processes", "threads", "MB at start", "MB afterwards", "`/v1/models`, ms", "series"),
    *("calls", "median", "99 %", "longest", "loads", "unloads", "wrong vectors", "failed calls"),
)


def main() -> None:
    """Build, serve twice, print."""
    parser = argparse.ArgumentParser(prog="benchmarks.hundred", description="a hundred models in one repository")
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--distinct", type=int, default=8, help="models that are built; the others are copies")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long clients ask each server")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--budget", default="1GB", help="memory for the models of the second server")
    parser.add_argument("--keep", type=Path, help="a folder for checkpoints and repository, used again")
    parser.add_argument("--only", choices=("start", "demand"), help="one of the two servers")
    given = parser.parse_args()
    given.bad = False
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        built, folders, built_s = build(folder, min(given.distinct, given.models))
        repository = folder / "repository"
        source = copied(built, repository, list(folders), given.models)
        vectors = expected(folders)
        wanted = {name: vectors[original] for name, original in source.items()}
        rows = []
        for name, kind, options in (
            ("all at the start", "start", ()),
            (f"on demand, {given.budget}", "demand", ("--memory-budget", given.budget)),
        ):
            if given.only in (None, kind):
                with serving(repository, folder / f"{kind}.log", *options) as server:
                    rows.append(measured(name, server, wanted, given))
    cpus = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    packages = f"nvidia-pytriton {find_installation().version}, onnxruntime {version('onnxruntime')}"
    print(f"{given.models} models, {given.clients} clients for {given.seconds:g} s; {cpus}, {packages}; ", end="")
    print(f"building {given.distinct} of them took {built_s:.0f} s.\n")
    print(f"| {' | '.join(_HEAD)} |\n|{'---|' * len(_HEAD)}")
    print("\n".join(rows))
    sys.exit(given.bad)


if __name__ == "__main__":
    main()
