"""ONNX Runtime 1.19.2, which is in Triton 24.10, reads our graphs and gives the reference, as the newest does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sie_frontend
from environments import Unavailable, environment
from recipes.built import SERVED, BuiltFamilies
from recipes.factory import FAMILIES

import sie_triton
from sie_triton.backends.releases import OLDEST, onnx_runtime

pytestmark = pytest.mark.e2e

OLDEST_VERSION = "1.19.2"
_TESTS = Path(__file__).resolve().parent.parent
# The code under test, wherever it was imported from.
_CODE = (_TESTS, *(Path(str(package.__file__)).parents[1] for package in (sie_triton, sie_frontend)))


@pytest.fixture(scope="session")
def oldest() -> Path:
    """An interpreter with the oldest ONNX Runtime."""
    try:
        return environment(f"onnxruntime-{OLDEST_VERSION}", Path(sys.executable))
    except Unavailable as reason:
        pytest.skip(str(reason))


class Measurements:
    """What the driver said of each group, by interpreter; asked once."""

    def __init__(self, built: BuiltFamilies) -> None:
        self._built = built
        self._outcomes: dict[tuple[Path, int], dict[str, Any]] = {}

    def of(self, family: str, interpreter: Path) -> dict[str, Any]:
        """The outcome for the repository that holds the family."""
        key = (interpreter, self._built.group(family))
        if key not in self._outcomes:
            self._outcomes[key] = _measure(interpreter, self._built.repository(key[1]))
        return self._outcomes[key]


def _measure(interpreter: Path, repository: Path) -> dict[str, Any]:
    surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, _CODE))}
    done = subprocess.run(
        [interpreter, "-s", "-m", "oldest.measure_driver", repository],
        env=surroundings,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


@pytest.fixture(scope="module")
def measurements(built_families: BuiltFamilies) -> Measurements:
    return Measurements(built_families)


def test_the_linter_knows_the_oldest_runtime() -> None:
    assert onnx_runtime(OLDEST).version == OLDEST_VERSION


def test_the_environment_holds_what_it_should(oldest: Path, measurements: Measurements) -> None:
    assert measurements.of(SERVED[0], oldest)["version"] == OLDEST_VERSION


# The newest one serves them all in the recipes' tests.
@pytest.mark.parametrize("family", SERVED)
def test_graphs_open_and_give_the_stored_reference(family: str, oldest: Path, measurements: Measurements) -> None:
    outcome = measurements.of(family, oldest)
    name = FAMILIES[family].sie_id.replace("/", "__")
    graphs = {path: said for path, said in outcome["graphs"].items() if path.startswith((f"{name}.", f"{name}/"))}
    assert graphs
    assert not {path: said for path, said in graphs.items() if said}
    assert outcome["models"][name] == []
