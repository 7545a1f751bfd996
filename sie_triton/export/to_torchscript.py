"""Placeholder until merged."""

from typing import Any


def export_torchscript(*args: Any, **kwargs: Any) -> None:
    raise NotImplementedError
