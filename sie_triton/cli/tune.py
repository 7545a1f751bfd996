"""`tune`: token budgets and streams, measured on this machine."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from sie_triton.cli.options import DEFAULT_REPOSITORY, Repository
from sie_triton.cli.printing import out, say
from sie_triton.cli.repositories import built_manifest


class TunedFor(str, Enum):
    """The server whose sessions `tune` imitates."""

    embedded = "embedded"
    nvidia = "nvidia"


def tune(
    repository: Repository = DEFAULT_REPOSITORY,
    seconds: Annotated[float, typer.Option(help="Length of each sample.", min=0.1)] = 1.0,
    rounds: Annotated[int, typer.Option(help="Samples of each setting; their median counts.", min=1)] = 3,
    cores: Annotated[int | None, typer.Option(help="Cores to use. Default: those of this process.", min=1)] = None,
    server: Annotated[
        TunedFor, typer.Option(help="Who will serve: `embedded`, or `nvidia` for a Triton with NVIDIA's backends.")
    ] = TunedFor.embedded,
) -> None:
    """Measure token budgets and streams on this machine and write the best into the repository.

    Run it where the repository will be served, while nothing else runs. The frontend and Triton read what it writes
    when they start.
    """
    from sie_triton.repository.config import available_cores
    from sie_triton.repository.publish import check_whole
    from sie_triton.serving.tune import tune_repository

    manifest = built_manifest(repository)
    check_whole(repository, manifest)
    tuned = tune_repository(
        repository,
        manifest,
        cores=cores or available_cores(),
        seconds=seconds,
        rounds=rounds,
        announce=say,
        server=server.value,
    )
    for result in tuned:
        for setting, speed in result.speeds.items():
            mark = "  <- chosen" if setting == result.chosen else ""
            shape = f"{setting.run_tokens:5} {result.unit} a run, {setting.streams} streams x {setting.threads} threads"
            out.print(f"{result.triton_model} {shape}: {speed:7.0f} {result.unit}/s{mark}", markup=False)
