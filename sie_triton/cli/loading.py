"""The options that say when models are loaded and unloaded, for the commands that serve."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any

import typer
from sie_frontend.setting_values import as_size


class LoadName(str, Enum):
    """When models are loaded."""

    start = "start"
    on_demand = "on-demand"


Load = Annotated[
    LoadName | None,
    typer.Option(
        "--load",
        envvar="SIE_TRITON_LOAD",
        help="When models are loaded: all at the start, which is the default, or each when it is first asked for.",
    ),
]
MemoryBudget = Annotated[
    str | None,
    typer.Option(
        "--memory-budget",
        envvar="SIE_TRITON_MEMORY_BUDGET",
        help="What loaded models may take together, such as `8GB`: models are loaded on demand, and those used longest "
        "ago make room.",
    ),
]
Preload = Annotated[
    list[str],
    typer.Option(
        "--preload", envvar="SIE_TRITON_PRELOAD", help="Model id to load at the start, on demand or not. Repeatable."
    ),
]
Pin = Annotated[
    list[str],
    typer.Option("--pin", envvar="SIE_TRITON_PIN", help="Model id to load at the start and to keep. Repeatable."),
]
IdleEvict = Annotated[
    float | None,
    typer.Option(
        "--idle-evict-s",
        envvar="SIE_TRITON_IDLE_EVICT_S",
        min=0,
        help="Seconds without a request after which a model that was loaded on demand is unloaded. Default: never.",
    ),
]


def loading_settings(
    load: LoadName | None, budget: str | None, preload: list[str], pin: list[str], idle_evict_s: float | None
) -> dict[str, Any]:
    """What the options of loading on demand mean as settings of the frontend. Raises `typer.BadParameter`."""
    try:
        size = None if budget is None else as_size(budget)
    except ValueError as error:
        raise typer.BadParameter(f"must be {error}, not {budget!r}", param_hint="--memory-budget") from None
    return {
        "load": load.value if load else None,
        "memory_budget": size,
        "preload": ",".join(preload) or None,
        "pin": ",".join(pin) or None,
        "idle_evict_s": idle_evict_s,
    }
