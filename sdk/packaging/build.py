"""What lies in the wheel: `sie_sdk` under another folder's name, the module that names it, stubs of it, and Fastembed's
classes as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NamelessPackageHook(BuildHookInterface):
    """Both packages, `sie_sdk.py`, and `sie_sdk-stubs/`, where type checkers look (PEP 561)."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the files. An editable installation has the folder of the checkout itself and needs none of them."""
        if version == "editable":
            return
        root = Path(self.root)
        package, included = root / "sie_sdk", build_data["force_include"]
        included[str(package)] = "sie_triton_sdk"
        included[str(root / "sie_triton_fastembed")] = "sie_triton_fastembed"
        included[str(root / "packaging" / "sie_sdk.py")] = "sie_sdk.py"
        for module in sorted(package.rglob("*.py")):
            stub = Path("sie_sdk-stubs") / module.relative_to(package).with_suffix(".pyi")
            included[str(module)] = stub.as_posix()
