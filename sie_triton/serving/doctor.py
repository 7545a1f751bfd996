"""Checks of this machine: what it has, and what `build` and `serve` would use."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sie_triton.diagnostics import DiagnosticError
from sie_triton.embedded.fetching import MEGABYTES, check_fetchable
from sie_triton.embedded.installation import fetched_folder, find_installation, find_wheel
from sie_triton.embedded.ports import port_problem
from sie_triton.formats import FORMATS
from sie_triton.repository.config import cpu_shape
from sie_triton.repository.processor import INSTRUCTIONS, instructions, multiplies_bfloat16, multiplies_int8
from sie_triton.resources import available_cores, available_memory, memory_sizes
from sie_triton.serving.gpus import gpu_names, gpu_obstacle

Verdict = Literal["ok", "note", "problem"]

GRAPHS = ("transformers", "onnx", "safetensors")
# Without them, only what a reference is carried for is built.
WITNESS = ("torch", "sentence-transformers", "onnxscript")
_BUILDS = "`pip install 'sie-triton[cpu]'`, or `[gpu]`"
RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
SHARED_MEMORY_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report. A problem has a `hint`, a note may have one."""

    verdict: Verdict
    subject: str
    message: str
    hint: str | None = None


def examine(port: int = 8080) -> Iterator[Check]:
    """Check everything that decides whether a build and a server work here. Starts nothing, downloads nothing."""
    yield Check("ok", "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield from _cores()
    yield from _memory()
    yield from _packages()
    yield from _tritonserver()
    yield from _gpus()
    yield from _checkpoints()
    yield from _access()
    problem = port_problem(port, "frontend")
    if problem:
        yield Check("problem", "port", problem.message, problem.hint)
    else:
        yield Check("ok", "port", f"{port} is free")


def _cores() -> Iterator[Check]:
    cores = available_cores()
    shape = cpu_shape(cores, 0)
    yield Check(
        "ok",
        "cores",
        f"{cores} of {os.cpu_count()} may be used; a small model gets {shape.instances} instances "
        f"with {shape.threads} thread each",
    )
    yield from _processor()


def _processor() -> Iterator[Check]:
    """What the precisions of a CPU gain by."""
    found = instructions()
    if found is not None:
        missing = [name for name in INSTRUCTIONS if name not in found]
        said = f"has {', '.join(found) or 'none of them'}" + (f"; not {', '.join(missing)}" if missing else "")
        yield Check("ok", "processor", said)
    if multiplies_bfloat16():
        said = "this CPU multiplies it: with `--format torchscript` or `--engine openvino`, it is faster than float32"
    else:
        said = "this CPU does not multiply it: float32 is faster here"
    yield Check("ok", "bfloat16", said)
    if multiplies_int8():
        yield Check("ok", "int8", "this CPU multiplies it: `--precision int8` is faster than float32")
    else:
        yield Check("ok", "int8", "this CPU does not multiply it: `--precision int8` saves memory here, and is slower")


def _memory() -> Iterator[Check]:
    available = available_memory()
    if available is None:
        return
    total = memory_sizes().get("MemTotal", available)
    yield Check("ok", "memory", f"{available / 2**30:.1f} GiB available of {total / 2**30:.1f}")
    shared = Path("/dev/shm")
    if shared.is_dir():
        free = shutil.disk_usage(shared).free
        if free < SHARED_MEMORY_BYTES:
            yield Check(
                "problem",
                "/dev/shm",
                f"{free / 2**20:.0f} MiB free",
                "give the container more, as with `--shm-size=256m`",
            )
        else:
            yield Check("ok", "/dev/shm", f"{free / 2**20:.0f} MiB free")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _packages() -> Iterator[Check]:
    missing = [name for name in GRAPHS if _version(name) is None]
    without = [name for name in WITNESS if _version(name) is None]
    if missing:
        yield Check("note", "export", f"`build` needs {', '.join([*without, *missing])}", _BUILDS)
    elif without:
        message = f"`build` builds the models whose reference is carried; for all others it needs {', '.join(without)}"
        yield Check("note", "export", message, _BUILDS)
    else:
        yield Check("ok", "export", ", ".join(f"{name} {_version(name)}" for name in (*WITNESS, *GRAPHS)))
    found = [name for name in RUNTIMES if _version(name)]
    if len(found) == len(RUNTIMES):
        yield Check(
            "problem",
            "onnxruntime",
            "both `onnxruntime` and `onnxruntime-gpu` are installed and overwrite each other's files",
            "`pip uninstall -y onnxruntime onnxruntime-gpu`, then `pip install 'sie-triton[cpu]'`, or `[gpu]`",
        )
    elif found:
        yield Check("ok", "onnxruntime", f"{found[0]} {_version(found[0])}")
    else:
        yield Check("problem", "onnxruntime", "not installed", "`pip install 'sie-triton[cpu]'`, or `[gpu]`")


def _tritonserver() -> Iterator[Check]:
    try:
        if find_wheel() is None:
            check_fetchable()
            where = f"not here yet; `up` and `serve` fetch it, {MEGABYTES} MB, into `{fetched_folder()}`"
            yield Check("note", "tritonserver", where)
            return
        installation = find_installation()
    except DiagnosticError as error:
        for diagnostic in error.diagnostics:
            yield Check("problem", "tritonserver", diagnostic.message, diagnostic.hint)
        return
    yield Check("ok", "tritonserver", str(installation.binary))


_SPELLED = {"onnx": "ONNX", "torchscript": "TorchScript"}


def _gpus() -> Iterator[Check]:
    names = gpu_names()
    obstacles = {name: gpu_obstacle("cuda", [name]) for name in FORMATS}
    able = " and ".join(_SPELLED[name] for name, obstacle in obstacles.items() if obstacle is None)
    if not names and not able:
        yield Check("ok", "gpu", "none; the embedded server computes on the CPU")
        return
    models = ", ".join(names) or "a driver, and no GPU that it names"
    if not able:
        yield Check(
            "note",
            "gpu",
            f"{models}; the embedded server computes on the CPU all the same: {obstacles['onnx']}",
            "put `sie-triton[gpu]` in place of `[cpu]` and serve with `--device cuda`, or serve with NVIDIA's Triton "
            "image and `--triton-url`",
        )
    else:
        yield Check(
            "ok",
            "gpu",
            f"{models}; `serve --device cuda` computes {able} graphs there, `--device auto` computes on the CPU",
        )


def _access() -> Iterator[Check]:
    """Who may ask the frontend that this environment configures."""
    from sie_frontend.http.gate import make_gate
    from sie_frontend.http.tls import tls_files
    from sie_frontend.settings import Settings, SettingsError

    try:
        settings = Settings.from_environment()
        gate = make_gate(settings)
        tls = tls_files(settings)
    except SettingsError as error:
        yield Check("problem", "keys", str(error), "change the variable or the file; docs/keys.md has both")
        return
    reach = f"`SIE_TRITON_HOST` {settings.host} lets other machines ask" if settings.beyond_loopback else "on loopback"
    if gate is not None:
        yield Check("ok", "keys", f"{len(gate.ring)} may ask")
    elif settings.beyond_loopback:
        hint = "`sie-triton keys new`, and `SIE_TRITON_API_KEYS_FILE`; docs/keys.md says how"
        yield Check("note", "keys", f"{reach}, and no key is asked for", hint)
    else:
        yield Check("ok", "keys", "no key is asked for, and only this machine may ask")
    if tls is not None:
        yield Check("ok", "tls", f"certificate `{tls.certificate}`")
    elif settings.beyond_loopback:
        hint = "`SIE_TRITON_TLS_CERTIFICATE` and `SIE_TRITON_TLS_KEY`, or a proxy in front"
        yield Check("note", "tls", f"{reach}, and what they send, keys too, is not encrypted", hint)


def _checkpoints() -> Iterator[Check]:
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    endpoint = os.environ.get("HF_ENDPOINT") or "the default hub"
    offline = os.environ.get("HF_HUB_OFFLINE", "") in ("1", "true", "True", "YES", "yes", "on", "ON")
    free = shutil.disk_usage(home if home.exists() else Path.home()).free
    where = "the cache alone (HF_HUB_OFFLINE)" if offline else f"the cache, then {endpoint}"
    yield Check("ok", "checkpoints", f"from {where}; cache `{home}`, {free / 2**30:.0f} GiB free")
