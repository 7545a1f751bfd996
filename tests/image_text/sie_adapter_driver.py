"""`PYTHON -m image_text.sie_adapter_driver ADAPTER CHECKPOINT ITEMS`: SIE's own adapter, in an interpreter that has it.

ADAPTER is `module:Class`, ITEMS a JSON file: a list of `{"text"?, "images"?: [base64]}`. Prints JSON: the vectors, in
float32 on the CPU, and the token counts that it bills.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any


def main(adapter: str, checkpoint: str, items: str) -> None:
    """Print what the adapter makes of the items, all in one call."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print
    module, _, name = adapter.partition(":")
    kind: Any = importlib.import_module("sie_server.types.inputs").Item
    given = [
        kind(
            text=one.get("text"),
            images=[{"data": base64.b64decode(data), "format": "png"} for data in one.get("images", ())] or None,
        )
        for one in json.loads(Path(items).read_text(encoding="utf-8"))
    ]
    made = getattr(importlib.import_module(module), name)(checkpoint, compute_precision="float32")
    made.load("cpu")
    output = made.encode(given, ["dense"])
    found = {"dense": output.dense.tolist(), "tokens": output.extra.get("input_token_counts")}
    json.dump(found, answers)
    answers.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
