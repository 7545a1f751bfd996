"""Three tiny models behind the real server, and what each client had to say about them; all made once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e.processes import sie_triton
from image_text.checkpoints import write_clip
from image_text.test_image_text_graphs import bundle_text
from recipes.made import made
from recipes.serving import serve

from .calls import CLIP
from .environment import Unavailable, official_interpreter

FAMILIES = ("bge_m3", "cross_encoder_bert_identity")
_TESTS = Path(__file__).resolve().parent.parent


def drive(interpreter: str | Path, driver: str, *arguments: str) -> dict[str, Any]:
    """What a driver prints when another interpreter runs it."""
    # `-E`: whatever PYTHONPATH says, the interpreter's own packages are the ones to be tested.
    command = [interpreter, "-E", "-s", "-m", f"official.{driver}", *arguments]
    done = subprocess.run(command, cwd=_TESTS, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    outcomes: dict[str, Any] = json.loads(done.stdout)
    return outcomes


@pytest.fixture(scope="session")
def interpreter() -> Path:
    """The interpreter that has the official clients."""
    try:
        return official_interpreter()
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def clip_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP."""
    folder = tmp_path_factory.mktemp("clip") / "checkpoint"
    write_clip(folder)
    return folder


@pytest.fixture(scope="session")
def url(interpreter: Path, clip_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where all of them are served. Nothing is compiled where there is no client to ask."""
    folder = tmp_path_factory.mktemp("official")
    bundles, repository = folder / "bundles", folder / "repository"
    bundles.mkdir()
    (bundles / "clip.yaml").write_text(bundle_text(clip_checkpoint), encoding="utf-8")
    models = ["-m", CLIP]
    for name in FAMILIES:
        shutil.copy(made(name).bundle_path, bundles)
        models += ["-m", made(name).sie_id]
    done = sie_triton("build", "--bundles", bundles, *models, "--device", "cpu", "-r", repository)
    assert done.returncode == 0, done.stderr
    served = serve(repository)
    yield served.url
    served.stop()


@pytest.fixture(scope="session")
def theirs(interpreter: Path, url: str) -> dict[str, Any]:
    """What the official client returned and raised."""
    return drive(interpreter, "sie_driver", url)


@pytest.fixture(scope="session")
def ours(url: str) -> dict[str, Any]:
    """What our client returned and raised."""
    return drive(sys.executable, "sie_driver", url)


@pytest.fixture(scope="session")
def openai(interpreter: Path, url: str) -> dict[str, Any]:
    """What OpenAI's client returned and raised."""
    return drive(interpreter, "openai_driver", url)
