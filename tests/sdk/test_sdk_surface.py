"""The names that users import, what they cost, and what type checkers make of them."""

from __future__ import annotations

import asyncio
import copy
import importlib
import importlib.metadata
import inspect
import pickle
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sie_sdk
from sie_sdk import SIEAsyncClient, SIEClient, errors, types

ROOT = Path(__file__).resolve().parent.parent.parent


def exceptions() -> list[type[errors.SIEError]]:
    return [kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, errors.SIEError)]


def test_exported_members_exist_and_nothing_else_is_public() -> None:
    public = {
        name for name, value in vars(sie_sdk).items() if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert public - {"annotations"} == set(sie_sdk.__all__)
    assert sie_sdk.__all__ == sorted(sie_sdk.__all__)


def test_every_exception_is_exported_and_drawn() -> None:
    assert {kind.__name__ for kind in exceptions()} <= set(sie_sdk.__all__)
    for kind in exceptions():
        assert kind.__name__ in str(errors.__doc__)
        assert kind.__doc__


def test_what_integrations_import() -> None:
    for module, names in {
        "sie_sdk": ["SIEClient", "SIEAsyncClient", "RequestError"],
        "sie_sdk.types": ["Item", "EncodeResult", "ScoreResult", "ExtractResult", "GenerateResult", "OutputType"],
        "sie_sdk.client": ["SIEClient", "SIEAsyncClient", "RequestError", "JobFailedError"],
        "sie_sdk.client.sync": ["SIEClient"],
        "sie_sdk.client.async_": ["SIEAsyncClient"],
        "sie_sdk.client.errors": ["SIEError", "RequestError", "SIEConnectionError"],
        "sie_sdk.exceptions": ["GatedModelError"],
        "sie_sdk.jobs": ["MalformedChunkError"],
        "sie_sdk.images": ["convert_item_images", "to_jpeg_bytes"],
        "sie_sdk.encoding": ["dense_embedding", "sparse_embedding", "multivector_embedding", "normalize_sparse_vector"],
        "sie_sdk.scoring": ["maxsim", "maxsim_batch"],
    }.items():
        for name in names:
            assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


def test_version_is_the_distributions() -> None:
    assert sie_sdk.__version__ == importlib.metadata.version("sie-triton-sdk")


def test_items_are_dicts() -> None:
    item = types.Item(text="x", id="1")
    assert type(item) is dict
    assert item == {"text": "x", "id": "1"}


def test_the_clients_have_one_surface() -> None:
    def surface(client: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(member).parameters)
            for name, member in vars(client).items()
            if inspect.isfunction(member) and (not name.startswith("_") or name == "__init__")
        }

    synchronous, asynchronous = surface(SIEClient), surface(SIEAsyncClient)
    # As in SIE's own SDK: threads are limited by whoever starts them.
    asynchronous["__init__"].remove("max_concurrency")
    assert synchronous == asynchronous
    for name, member in inspect.getmembers(SIEAsyncClient, inspect.isfunction):
        assert name.startswith("_") or inspect.iscoroutinefunction(member), name


def test_keywords_of_the_overloads_are_those_of_the_method() -> None:
    keywords = {
        name
        for name, parameter in inspect.signature(SIEClient.encode).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    assert keywords == types.EncodeKeywords.__annotations__.keys() | types.CallKeywords.__annotations__.keys()


def filled(kind: type[errors.SIEError]) -> errors.SIEError:
    # The two without fields inherit a constructor that cannot be inspected.
    parameters = inspect.signature(kind).parameters.values() if "__init__" in vars(kind) else ()
    given: dict[str, Any] = {
        parameter.name: {"id": "r"} if parameter.name == "request" else 7
        for parameter in parameters
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name != "results"
    }
    return kind("message", **given)


@pytest.mark.parametrize("kind", exceptions(), ids=lambda kind: str(kind.__name__))
def test_exceptions_survive_pickle_and_copy(kind: type[errors.SIEError]) -> None:
    error = filled(kind)
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is kind
        assert (str(twin), vars(twin)) == ("message", vars(error))


def test_incomplete_batches_name_the_request_and_the_missing() -> None:
    error = filled(errors.IncompleteBatchError)
    assert isinstance(error, errors.IncompleteBatchError)
    assert (error.request_id, error.results, error.status_code) == ("r", [], None)


def test_importing_is_not_heavier_than_it_must() -> None:
    program = (
        "import sys, sie_sdk, sie_sdk.types, sie_sdk.scoring\n"
        "heavy = {'asyncio', 'PIL', 'torch', 'pandas', 'aiohttp', 'httpx'}\n"
        "sie_sdk.SIEClient('http://127.0.0.1:9').close()\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    fresh = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert fresh.stdout.strip() == "[]"


def test_every_module_imports_alone() -> None:
    names = [module.name for module in pkgutil.walk_packages(sie_sdk.__path__, "sie_sdk.")]
    assert len(names) > 10
    for name in names:
        importlib.import_module(name)


def test_each_http_library_is_named_in_one_file() -> None:
    package = Path(str(sie_sdk.__file__)).parent
    for library, file in (("urllib3", "with_urllib3.py"), ("aiohttp", "with_aiohttp.py"), ("httpx", "with_httpx.py")):
        named = re.compile(rf"^ *(?:import|from) {library}", re.MULTILINE)
        users = {path.name for path in package.rglob("*.py") if named.search(path.read_text())}
        # The clients name httpx, for type checkers, where they say what `http_client` is; URLs are urllib3's for all.
        assert users - {"sync.py", "async_.py"} - ({"common.py"} if library == "urllib3" else set()) == {file}
    for name in ("sync.py", "async_.py"):
        assert re.findall(r"^import httpx", (package / "client" / name).read_text(), re.MULTILINE) == []


def test_async_client_needs_no_loop_to_be_made() -> None:
    client = SIEAsyncClient("http://127.0.0.1:9")
    asyncio.run(client.close())


WRONG = """
from sie_sdk import SIEClient
from sie_sdk.types import Item

client = SIEClient("http://localhost:8080")
client.encode("m", [Item(text="x")])["dense"]
client.encode("m", Item(text="x"))[0]
client.encode("m", Item(text=1))
client.encode("m", Item(txt="x"))
client.encode("m", Item(text="x"), output_types=["score"])
client.encode("m", Item(text="x"), is_qeury=True)
client.score("m", "query", [])
"""


def test_type_checkers_see_what_we_mean(tmp_path: Path) -> None:
    """`typing_examples.py` passes, and every line of `WRONG` from the sixth on fails."""
    pytest.importorskip("mypy")
    (tmp_path / "wrong.py").write_text(WRONG)
    examples = Path(__file__).with_name("typing_examples.py")
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--cache-dir", str(tmp_path / "cache")]
    good = subprocess.run([*command, str(examples)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (good.returncode, good.stdout) == (0, "")
    bad = subprocess.run([*command, str(tmp_path / "wrong.py")], cwd=ROOT, capture_output=True, text=True, check=False)
    lines = {int(line.split(":")[1]) for line in bad.stdout.splitlines() if ": error:" in line}
    assert lines == set(range(6, len(WRONG.splitlines()) + 1))
