"""Until the models answer: what is waited for, why it takes so long, and what to look at."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from typing import Final

import uvicorn
from sie_frontend.manifest import Manifest
from sie_frontend.triton.reach import obstacle

from sie_triton.serving.restarts import Announce

# The embedded server starts within a few seconds; a user who waits longer wants to know why, and then again.
PATIENCE_S: Final = 10.0
# One that is said to run already answers at once, or something is wrong.
REMOTE_PATIENCE_S: Final = 3.0

SNIPPET: Final = """\
from sie_sdk import SIEClient
from sie_sdk.types import Item

client = SIEClient("{url}"{key})
result = client.encode("{model}", Item(text="The mitochondrion is the powerhouse of the cell."))
print(result["dense"].shape)"""


def announce_ready(
    server: uvicorn.Server, manifest: Manifest, begun: float, announce: Announce, *, remote: bool = False
) -> None:
    """Wait until the models answer, then announce the address, the time it took, and an example to paste.

    Meanwhile it is told what is waited for; `remote`: also why, since a Triton that runs elsewhere may have another
    address, or serve something else.
    """
    frontend = server.config.app.state.frontend  # type: ignore[union-attr]
    triton_url, names = frontend.settings.triton_url, tuple(manifest.triton_models)
    told_at = begun + (REMOTE_PATIENCE_S if remote else PATIENCE_S)
    while not (server.started and frontend.ready):
        if server.should_exit:
            return
        if time.monotonic() >= told_at:
            reason = f": {obstacle(triton_url, names)}" if remote else ""
            if frontend.ready:
                continue  # it became so while it was asked
            waited = time.monotonic() - begun
            announce(f"waiting for Triton at {triton_url} to serve {', '.join(names)}, for {waited:.0f} s now{reason}")
            told_at = time.monotonic() + PATIENCE_S
        time.sleep(0.05)
    url = f"{'https' if server.config.is_ssl else 'http'}://{server.config.host}:{server.config.port}"
    announce(f"ready after {time.monotonic() - begun:.1f} s: {url} serves {', '.join(manifest.models)}")
    key = ', api_key="KEY"' if frontend.settings.keyed else ""
    snippet = SNIPPET.format(url=url, key=key, model=next(iter(manifest.models)))
    # Unindented: what is pasted into an interpreter must begin where the line begins.
    announce(f"try it in another terminal{_interpreter()}:\n\n{snippet}\n")


def _interpreter() -> str:
    """Which Python has the SDK, as one would type it here; "" where this one has not."""
    if importlib.util.find_spec("sie_sdk") is None:
        return ""
    beside = os.path.relpath(sys.executable)
    return f", in `{sys.executable if beside.startswith(os.pardir) else beside}`"
