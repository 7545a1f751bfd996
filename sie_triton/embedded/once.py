"""What may be set once in a process of NVIDIA's server, watched over processes of their own; standard library only.

There all models of a backend live in one process; here each instance has its own. A folder that lasts as long as the
server remembers for all of them.
"""

from __future__ import annotations

import os
from pathlib import Path

FOLDER_VARIABLE = "SIE_EMBEDDED_SERVER_FOLDER"
"""Environment variable with the folder of the running server; without it nothing is watched."""


def already_set(setting: str, model: str, version: str, instance: str) -> str | None:
    """Note that an instance of a model sets `setting`; return who has set it before, None if nobody has.

    The instances of one version are one model and set it together. An instance that comes a second time belongs to a
    model that was unloaded and loaded again, which is a second time.
    """
    if not (server := os.environ.get(FOLDER_VARIABLE)):
        return None
    folder = Path(server) / "once" / setting
    folder.mkdir(parents=True, exist_ok=True)
    owner = f"{model}/{version}"
    holder = _first(folder / "owner", owner)
    if holder != owner:
        return f"`{holder.rpartition('/')[0]}`"
    instances = folder / "instances"
    instances.mkdir(exist_ok=True)
    try:
        (instances / instance).touch(exist_ok=False)
    except FileExistsError:
        return "an earlier load of it"
    return None


def _first(file: Path, content: str) -> str:
    """Write `content` unless somebody was first; return what stands there. Complete at once, or not there."""
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    draft.write_text(content)
    try:
        os.link(draft, file)
    except FileExistsError:
        return file.read_text()
    finally:
        draft.unlink()
    return content
