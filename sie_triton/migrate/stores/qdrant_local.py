"""A folder of qdrant-client's local mode. Its points are pickles, which only a program of their owner's may read."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from sie_triton.diagnostics import DiagnosticError
from sie_triton.migrate.stores import fail, pick
from sie_triton.migrate.stores.qdrant import METRICS, choose_vector, spaces_of

_META: Final = "meta.json"
_PROGRAM: Final = """\
import json
from qdrant_client import QdrantClient

client, offset = QdrantClient(path={folder!r}), None
with open({target!r}, "w", encoding="utf-8") as lines:
    while True:
        points, offset = client.scroll({collection!r}, limit=256, offset=offset, with_vectors=True)
        for point in points:
            entry = {{**(point.payload or {{}}), "vector": point.vector{vector}}}
            lines.write(json.dumps(entry, default=str) + "\\n")
        if offset is None:
            break
client.close()
"""


def refuse_local_mode(
    folder: Path, collection: str | None, *, model: str, url: str, vector: str | None = None
) -> DiagnosticError:
    """`SIE906`: why the folder is not read, with the program that reads it and the check of what that writes.

    Which collections and vectors there are is known from a file of JSON: `SIE904` and `SIE905` for names that do not
    fit, `SIE903` for a server's folder.
    """
    collections = _collections(folder)
    name = pick("collection", collection, list(collections), (), "--collection")
    spaces = spaces_of(name, collections[name])
    # The widths of the model are unknown without a server, which this needs not to ask.
    chosen = choose_vector(vector, spaces, model, None)
    target = f"{name}.jsonl"
    program = _PROGRAM.format(
        folder=str(folder.absolute()), target=target, collection=name, vector=f"[{chosen!r}]" if chosen else ""
    )
    metric = METRICS.get(str(spaces[chosen].get("distance")).casefold(), "cosine")
    check = (
        f"sie-triton migrate check -m {shlex.quote(model)} --url {url} --file {shlex.quote(target)} --metric {metric}"
    )
    return fail(
        "SIE906",
        f"`{folder}` is of qdrant-client's local mode, which keeps points as pickles: reading them can run any code",
        "where qdrant-client is installed and nothing else has the folder open, run this program, which writes "
        f"`{target}`:\n\n{program}\nthen: {check}",
    )


def _collections(folder: Path) -> Mapping[str, Any]:
    """The settings of each collection. Raises `DiagnosticError` (`SIE903`, `SIE906`)."""
    if (folder / "raft_state.json").is_file() or (folder / "collections").is_dir():
        hint = "start the server on it, and name its address with `--qdrant`"
        raise fail("SIE903", f"`{folder}` is the storage of a Qdrant server", hint)
    try:
        found = json.loads((folder / _META).read_text(encoding="utf-8"))["collections"]
    except (OSError, ValueError, KeyError, TypeError):
        found = None
    if not isinstance(found, dict):
        hint = "name the folder that was given to `QdrantClient(path=...)`"
        message = f"`{folder}` has no `{_META}` of qdrant-client's local mode, which keeps points as pickles"
        raise fail("SIE906", message, hint)
    return found
