"""`install`: this package under the name `fastembed`, for programs that import that name themselves."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys

_NAME = "fastembed"
_OWN = __package__ or "sie_triton_fastembed"


def install() -> None:
    """Let every later `import fastembed`, in this process, find this package; qdrant-client's inference then works.

    Call it before anything imports `fastembed` or `qdrant_client`, with a server running: qdrant-client lists the
    models while it is imported. A second call does nothing. Fastembed itself may be installed; it is not imported.

    Raises `RuntimeError` when it comes too late or qdrant-client is older than 1.14, and `ServerUnreachableError`.
    """
    if getattr(sys.modules.get(_NAME), "__name__", None) == _OWN:
        return
    for module in (_NAME, "qdrant_client"):
        if module in sys.modules:
            raise RuntimeError(
                f"`{module}` is imported already and keeps the classes that it found: call "
                "`sie_triton_fastembed.install()` before the first import of it"
            )
    before = set(sys.modules)
    try:
        _register()
        if importlib.util.find_spec("qdrant_client") is not None:
            _tell_qdrant_client()
    except BaseException:
        # As if it had not been called, so that it can be called again.
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in (_NAME, "qdrant_client"):
                del sys.modules[name]
        raise


def _register() -> None:
    own = importlib.import_module(_OWN)
    sys.modules[_NAME] = own
    for found in pkgutil.walk_packages(own.__path__, prefix=f"{_OWN}."):
        sys.modules[_NAME + found.name.removeprefix(_OWN)] = importlib.import_module(found.name)


def _tell_qdrant_client() -> None:
    """It takes Fastembed for broken unless every kind of model, images too, has one; this says that it is there."""
    try:
        misc = importlib.import_module("qdrant_client.fastembed_common").FastEmbedMisc
        misc.IS_INSTALLED  # noqa: B018 - missing before 1.14
    except (ModuleNotFoundError, AttributeError) as error:
        raise RuntimeError(
            "qdrant-client is too old for its inference to work here: 1.14 or newer is needed"
        ) from error
    misc.IS_INSTALLED = True
