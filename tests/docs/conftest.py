"""What readers share: one repository, and one server for the pages that start none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from e2e.processes import Serving


@pytest.fixture(scope="session")
def bge_checkpoint(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights that take as many tokens as a page says of bge-small."""
    from compiler import tiny

    return tiny.write_checkpoint(tmp_path_factory.mktemp("bge"), tokenizer_from=minilm, width=384, positions=512)


@pytest.fixture(scope="session")
def shared_port(built_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], int]]:
    """The port of a server that is started when first asked for."""
    started: list[Serving] = []

    def port() -> int:
        if not started:
            started.append(Serving(built_repository, tmp_path_factory.mktemp("docs_serving")))
            started[0].wait_ready()
        return started[0].port

    yield port
    for serving in started:
        serving.stop()
