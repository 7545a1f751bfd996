"""Whether the models of a repository would take more cores than this process may use."""

from __future__ import annotations

from pathlib import Path

from sie_frontend.manifest import Manifest

from sie_triton.backends.embedded import CONFIG_NAME, STREAMS
from sie_triton.resources import available_cores
from sie_triton.verify.model_runner import config_path, read_model_config
from sie_triton.verify.public_model import input_of, served_by

# In the words of ONNX Runtime's backend, and of PyTorch's.
_THREADS = ("intra_op_thread_count", "INTRA_OP_THREAD_COUNT")


def crowded(repository: Path, manifest: Manifest, config_name: str | None, cores: int | None = None) -> str | None:
    """What to tell of models that compute by more threads than there are cores; None where there is none.

    They were built for another machine, or for this one without its container's limits.
    """
    cores = available_cores() if cores is None else cores
    wanted = {name: _cores_of(repository, manifest, name, config_name or CONFIG_NAME) for name in manifest.built}
    beyond = {name: count for name, count in wanted.items() if count > cores}
    if not beyond:
        return None
    most = max(beyond, key=beyond.__getitem__)
    others = f" (and {len(beyond) - 1} more)" if len(beyond) > 1 else ""
    return (
        f"`{most}`{others} is built for {beyond[most]} cores, and this process may use {cores}: its threads will wait "
        f"for each other; `sie-triton build --cores {cores}`, or `sie-triton tune` here"
    )


def _cores_of(repository: Path, manifest: Manifest, name: str, config_name: str) -> int:
    """How many threads compute the runs of a model in bulk; an express run comes on top of them, on purpose."""
    _, entry = input_of(next(iter(served_by(manifest, name).values())), name)
    heavy, *_ = manifest.built[name].triton_models
    parameters = read_model_config(config_path(repository / heavy, config_name)).parameters
    threads = next((int(parameters[key].string_value) for key in _THREADS if key in parameters), 1)
    streams = entry.batching["cpu"].streams
    # On the embedded server streams share the threads of one session; instances have threads of their own.
    return max(streams, threads) if STREAMS in parameters else streams * threads
