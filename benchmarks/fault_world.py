"""What the fault program serves and asks: models of several versions, and what another implementation says of each.

A world is a folder: `repository`; `vectors.npz` with what sentence-transformers says of every text, by model and
version; and `world.json` with the commands that change the repository while it is served. `make_world` makes one; a
test makes one of models that it has built already.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.hundred import write_checkpoint

TEXTS = [
    " ".join([f"{subject} {verb} {thing}"] * length)
    for subject in ("the cell", "a mitochondrion", "nobody")
    for verb in ("builds", "finds")
    for thing in ("the power house", "an answer to every search")
    for length in (1, 4, 12)
]
Vectors = Mapping[str, Mapping[str, NDArray[np.float32]]]
"""By model and version, `[texts, width]`."""

_BUNDLE = """\
sie_id: {model}
hf_id: {model}
inputs: {{text: true}}
tasks: {{encode: {{dense: {{dim: 32}}}}}}
max_sequence_length: {tokens}
profiles:
  default:
    max_batch_tokens: 4096
    adapter_path: sie_server.adapters.bert_flash:BertFlashAdapter
    adapter_options: {{runtime: {{pooling: mean, normalize: true}}}}
"""
_STEADY = ("acme/first", "acme/second", "acme/third")
_FOURTH = "acme/fourth"
_TOKENS = 64


class Change(msgspec.Struct, frozen=True):
    """A model's new version, and the arguments of `sie-triton` that bring it; no version takes the model away."""

    model: str
    version: str | None
    command: tuple[str, ...]


class World(msgspec.Struct, frozen=True):
    """The models that are asked for all along, the version that each model has at first, and what changes."""

    steady: tuple[str, ...]
    versions: dict[str, str]
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Grounds:
    """A folder with a world in it."""

    folder: Path

    @property
    def repository(self) -> Path:
        """What is served."""
        return self.folder / "repository"

    def read(self) -> tuple[World, Vectors]:
        """The world that lies there, and its vectors."""
        world = msgspec.json.decode((self.folder / "world.json").read_bytes(), type=World)
        vectors: dict[str, dict[str, NDArray[np.float32]]] = {}
        with np.load(self.folder / "vectors.npz") as arrays:
            for key in arrays.files:
                model, _, version = key.partition("@")
                vectors.setdefault(model, {})[version] = arrays[key]
        return world, vectors

    def write(self, world: World, checkpoints: Mapping[tuple[str, str], Path], tokens: int) -> None:
        """Let sentence-transformers say what each version of a model gives for the texts, and keep that.

        The checkpoints are pooled by the mean, and cut texts at so many tokens.
        """
        from sentence_transformers import SentenceTransformer

        arrays = {}
        for (model, version), path in checkpoints.items():
            witness = SentenceTransformer(str(path), device="cpu")
            witness.max_seq_length = tokens
            arrays[f"{model}@{version}"] = witness.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)
        np.savez(self.folder / "vectors.npz", **arrays)
        (self.folder / "world.json").write_bytes(msgspec.json.encode(world))


def make_world(grounds: Grounds) -> None:
    """Write checkpoints of random weights, and build the first version of each model as a user does.

    The versions that come later are built while the server runs, by the command that is recorded.
    """
    folder = grounds.folder
    bundles, checkpoints = folder / "bundles", folder / "checkpoints"
    bundles.mkdir(parents=True, exist_ok=True)
    paths: dict[tuple[str, str], Path] = {}
    for seed, (model, version) in enumerate([(m, "1") for m in (*_STEADY, _FOURTH)] + [(_STEADY[0], v) for v in "23"]):
        name = model.partition("/")[2]
        (bundles / f"{name}.yaml").write_text(_BUNDLE.format(model=model, tokens=_TOKENS), encoding="utf-8")
        paths[model, version] = checkpoints / f"{name}-{version}"
        write_checkpoint(paths[model, version], seed)

    def building(*versions: tuple[str, str]) -> tuple[str, ...]:
        named = [("-m", model, "--weights", f"{model}={paths[model, version]}") for model, version in versions]
        return *(word for words in named for word in words), "--bundles", str(bundles), "--device", "cpu"

    first = [key for key in paths if key[1] == "1"]
    run_command("build", *building(*first), "-r", str(grounds.repository))
    changes = (
        Change(_STEADY[0], "2", ("add", *building((_STEADY[0], "2")))),
        Change(_FOURTH, None, ("remove", _FOURTH)),
        Change(_STEADY[0], "3", ("add", *building((_STEADY[0], "3")))),
        Change(_FOURTH, "1", ("rollback", _FOURTH)),
    )
    grounds.write(World(_STEADY, dict(first), changes), paths, _TOKENS)


def run_command(*arguments: str) -> None:
    """`sie-triton` to its end. Raises `CalledProcessError`, with what it said."""
    command: Sequence[str] = [sys.executable, "-m", "sie_triton", *arguments]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.stderr.write(done.stderr)
        done.check_returncode()


def call_command(*arguments: str) -> None:
    """The same in this process, where nothing is built and a process of its own would only cost. Raises
    `DiagnosticError`.
    """
    import typer

    from sie_triton import cli

    typer.main.get_command(cli.app).main(list(arguments), prog_name="sie-triton", standalone_mode=False)
