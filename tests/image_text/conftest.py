"""One tiny CLIP behind the real server, in float32 and by OpenVINO, for every test of the folder that asks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.processes import Serving

from sie_triton.embedded.openvino_engine import installed

from .precisions import build_halved
from .served import build_clip


@pytest.fixture(scope="session")
def clip_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `checkpoint` and the built `repository`."""
    folder = tmp_path_factory.mktemp("served_clip")
    build_clip(folder)
    if installed():
        build_halved(folder)
    return folder


@pytest.fixture(scope="session")
def clip_serving(clip_root: Path) -> Iterator[Serving]:
    """The server, ready."""
    server = Serving(clip_root / "repository", clip_root / "serving")
    server.wait_ready()
    yield server
    assert server.stop() == 0
