"""Put every module into the wheel once more as a stub of `sie_sdk`, which is where type checkers look for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class StubsHook(BuildHookInterface):
    """`sie_sdk-stubs/` with a `.pyi` for each module, as PEP 561 wants it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the stubs; an editable installation has the folder itself and needs none."""
        if version == "editable":
            return
        package = Path(self.root) / "sie_sdk"
        for module in sorted(package.rglob("*.py")):
            stub = Path("sie_sdk-stubs") / module.relative_to(package).with_suffix(".pyi")
            build_data["force_include"][str(module)] = stub.as_posix()
