"""Whether the models of a repository would take more cores than this process may use."""

from __future__ import annotations

from sie_frontend.manifest import Manifest

from sie_triton.resources import available_cores


def crowded(manifest: Manifest, cores: int | None = None) -> str | None:
    """What to tell of models that compute in bulk by more threads than there are cores; None where there is none.

    They were built for another machine, or for this one without its container's limits. An express run comes on top of
    its cores on purpose.
    """
    cores = available_cores() if cores is None else cores
    inputs = [entry for model in manifest.models.values() for entry in model.inputs.values()]
    batchings = {entry.triton_model: entry.batching["cpu"] for entry in inputs if "cpu" in entry.batching}
    wanted = {name: batching.streams * batching.threads for name, batching in batchings.items()}
    beyond = {name: count for name, count in wanted.items() if count > cores}
    if not beyond:
        return None
    most = max(beyond, key=beyond.__getitem__)
    others = f" (and {len(beyond) - 1} more)" if len(beyond) > 1 else ""
    return (
        f"`{most}`{others} is built for {beyond[most]} cores, and this process may use {cores}: its threads will wait "
        f"for each other; `sie-triton build --cores {cores}`, or `sie-triton tune` here"
    )
