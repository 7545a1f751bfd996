"""`PYTHON -m sie_adapters.driver ADAPTER CHECKPOINT ASKED`: SIE's own adapter, in an interpreter that has it.

ADAPTER is `module:Class`. ASKED is a JSON file with `outputs`, the `settings` that the adapter is made with, and
`calls`. A call has `items`, each `{"text"?, "images"?: [base64]}`, and it may have `query`, an item to score them
against, and `is_query`, `instruction` and `options`. Prints JSON: for each call its `vectors` or `scores`, and the
`usage` that SIE's own code makes of what its pipeline counted, or None. All is computed in float32 on the CPU.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any


def main(adapter: str, checkpoint: str, asked: str) -> None:
    """Print what the adapter makes of each call."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print
    told = json.loads(Path(asked).read_text(encoding="utf-8"))
    module, _, name = adapter.partition(":")
    made = getattr(importlib.import_module(module), name)(checkpoint, compute_precision="float32", **told["settings"])
    made.load("cpu")
    json.dump([_answer(made, call, told["outputs"]) for call in told["calls"]], answers)
    answers.close()


def _answer(adapter: Any, call: dict[str, Any], outputs: list[str]) -> dict[str, Any]:
    items = [_item(one) for one in call["items"]]
    if "query" in call:
        return _scored(adapter, _item(call["query"]), items, call)
    pipeline: Any = importlib.import_module("sie_server.core.encode_pipeline").EncodePipeline
    usage: Any = importlib.import_module("sie_server.api.encode").encode_usage_from_timing
    # The pipeline's way to an adapter that prepares its items itself, of which a registry would tell these few things.
    registry = SimpleNamespace(
        preprocessor_registry=SimpleNamespace(has_preprocessor=lambda *_: False),
        postprocessor_registry=None,
        get=lambda _: adapter,
        touch_lru=lambda _: None,
    )
    config = SimpleNamespace(inputs=None)
    asked = (call.get("instruction"), config, call.get("is_query", False), call.get("options", {}))
    found, timing = asyncio.run(pipeline.run_encode(registry, "model", items, outputs, *asked))
    return {
        "vectors": [[one[output].tolist() for output in outputs] for one in found],
        "usage": usage(timing, len(items)),
    }


def _scored(adapter: Any, query: Any, items: list[Any], call: dict[str, Any]) -> dict[str, Any]:
    usage: Any = importlib.import_module("sie_server.api.score").score_usage_from_output
    found = adapter.score_pairs(
        [query] * len(items), items, instruction=call.get("instruction"), options=call.get("options")
    )
    return {"scores": found.scores.tolist(), "usage": usage(found)}


def _item(one: dict[str, Any]) -> Any:
    kind: Any = importlib.import_module("sie_server.types.inputs").Item
    pictures = [{"data": base64.b64decode(data), "format": "png"} for data in one.get("images", ())]
    return kind(text=one.get("text"), images=pictures or None)


if __name__ == "__main__":
    main(*sys.argv[1:])
