"""`tune`: token budgets and streams, measured on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from sie_triton.cli.options import DEFAULT_REPOSITORY, Repository
from sie_triton.cli.printing import out, say
from sie_triton.cli.repositories import built_manifest

if TYPE_CHECKING:
    from sie_triton.tuning.alternatives import Alternative, Alternatives


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
    alternatives: Annotated[
        bool,
        typer.Option(
            "--alternatives",
            help="Measure instead what other engines and precisions would give, and how close they are; write nothing.",
        ),
    ] = False,
) -> None:
    """Measure token budgets and streams on this machine and write the best into the repository.

    Run it where the repository will be served, while nothing else runs. The frontend and Triton read what it writes
    when they start.
    """
    from sie_triton.repository.publish import check_whole
    from sie_triton.resources import available_cores
    from sie_triton.tuning.alternatives import weigh
    from sie_triton.tuning.speeds import Samples
    from sie_triton.tuning.tune import tune_repository

    manifest = built_manifest(repository)
    check_whole(repository, manifest)
    samples = Samples(seconds, rounds, server.value)
    cores = cores or available_cores()
    if alternatives:
        for found in weigh(repository, manifest, cores=cores, samples=samples, announce=say):
            for line in alternative_lines(found):
                out.print(line, markup=False)
        return
    for result in tune_repository(repository, manifest, cores=cores, samples=samples, announce=say):
        for setting, speed in result.speeds.items():
            mark = "  <- chosen" if setting == result.chosen else ""
            shape = f"{setting.run_tokens:5} {result.unit} a run, {setting.streams} streams x {setting.threads} threads"
            out.print(f"{result.triton_model} {shape}: {speed:7.0f} {result.unit}/s{mark}", markup=False)


def alternative_lines(found: Alternatives) -> Iterator[str]:
    """A table of one model, and below it what is not in it, with the reason."""
    yield f"{found.triton_model}{f': {found.nothing}' if found.nothing else ''}"
    if found.nothing:
        return
    yield (
        f"  {'engine':11}  {'precision':9}  {found.unit + '/s':>9}  {'times':>5}  {'a run':>5}  {'streams':>7}  "
        f"{'one ms':>6}  {'cosine':>8}  {'ten kept':>8}  {'MB':>6}  build with"
    )
    measured = [one for one in found.rungs if not one.lacking]
    for one in measured:
        setting = one.chosen
        speed, first = one.speeds[setting], measured[0].speeds[measured[0].chosen]
        cosine = "" if one.min_cosine is None else f"{one.min_cosine:.5f}"
        kept = "" if one.kept is None else f"{one.kept:.1%}"
        yield (
            f"  {one.rung.engine:11}  {one.rung.precision:9}  {speed:9.0f}  {speed / first:5.2f}  "
            f"{setting.run_tokens:5}  {f'{setting.streams} x {setting.threads}':>7}  {one.alone_s * 1e3:6.1f}  "
            f"{cosine:>8}  {kept:>8}  {one.bytes / 1e6:6.0f}  {_how(one, measured[0])}"
        )
    for one in found.rungs:
        if one.lacking:
            yield f"  {one.rung}: {one.lacking}"
        for told in one.answers.told():
            yield f"  {one.rung}: {told}"


def _how(one: Alternative, served: Alternative) -> str:
    if one is served:
        return "(served)"
    if not one.close:
        return "not close enough"
    engine = f"--engine {one.rung.engine} " if one.rung.engine != served.rung.engine else ""
    precision = f"--precision {one.rung.precision} " if one.rung.precision != "float32" else ""
    return f"{engine}{precision}--device cpu"
