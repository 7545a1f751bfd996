"""tritonserver's log: kept over restarts, and read back to say why something failed."""

from __future__ import annotations

import re
import time
from pathlib import Path

_KEPT = 3
_TAIL_BYTES = 256 * 1024
_RECORD = re.compile(r"^([IWEF])\d{4} \d\d:\d\d:\d\d\.\d+ \d+ \S+\] ?")
# The first is said on every machine without a GPU; of the second there is another that names the model.
_SUPERFLUOUS = ("CudaDriverHelper has not been initialized", "ERROR: Failed to create instance")
_LOADED = re.compile(r"successfully loaded '([^']+)'")
# These two are no records: tritonserver's `main` prints the first before it exits, the C++ runtime the second.
_GIVEN_UP = "error: creating server"
_LOCK_EXCEPTION = "boost::interprocess::lock_exception"
# A Python exception's stack: tritonserver writes line breaks within a record as these two characters.
_STACK = re.compile(r"(\\n)+At:\\n.*|(\\n)+$")


def rotate(path: Path) -> None:
    """Move `path` to `path.1`, that to `path.2`, and so on; the oldest of three goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for age in range(_KEPT, 0, -1):
        older = path.with_name(f"{path.name}.{age}")
        newer = path.with_name(f"{path.name}.{age - 1}") if age > 1 else path
        if newer.exists():
            newer.replace(older)


def tail(path: Path, lines: int = 20) -> str:
    """The last lines of the log, empty if there is none."""
    return "\n".join(_read(path).splitlines()[-lines:])


def reasons(path: Path, limit: int = 10) -> list[str]:
    """The log records that tell most about a failure: the errors, each once.

    Without any error record the last lines are all there is to tell.
    """
    found: list[str] = []
    for level, record in _records(_read(path)):
        if level not in "EF" or record.startswith(_SUPERFLUOUS):
            continue
        if not any(record in other or other in record for other in found):
            found.append(record)
    return found[:limit] or [tail(path, 5) or "the log is empty"]


def shows_failed_load(path: Path, model: str | None) -> bool:
    """Whether the log tells that a model, or any if it is None, could not be loaded."""
    return f"failed to load '{model or ''}" in _read(path)


def loaded_models(path: Path) -> set[str]:
    """The models that the log tells to be loaded; a later line about one of them is not looked for."""
    return set(_LOADED.findall(_read(path)))


def shows_given_up(path: Path) -> bool:
    """Whether the log ends with tritonserver's reason to exit before it was ready."""
    return any(line.startswith(_GIVEN_UP) for line in tail(path, 5).splitlines())


def silent_for(path: Path) -> float:
    """For how many seconds nothing was written; 0 if there is no log."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def shows_lock_exception(path: Path) -> bool:
    """Whether the log tells of the exception by which the shared memory between tritonserver and its stubs fails."""
    return _LOCK_EXCEPTION in _read(path)


def _records(text: str) -> list[tuple[str, str]]:
    """(severity, message) of each record; lines between records are tables and a child's own output."""
    records = []
    for line in text.splitlines():
        if head := _RECORD.match(line):
            message = _STACK.sub("", line[head.end() :].strip('"'))
            records.append((head[1], message.replace("\\n", "\n")))
    return records


def _read(path: Path) -> str:
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            return log.read().decode(errors="replace")
    except OSError:
        return ""
