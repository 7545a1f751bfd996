"""`python -m official.openai_driver URL`: ask `/v1/embeddings` through OpenAI's own client.

Prints JSON: the outcome by call, `{"returned": …}` or `{"raised": …}`.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping
from typing import Any

from .calls import BGE_M3, DIMS, MISSPELT, TEXTS

openai: Any = importlib.import_module("openai")  # only the environment that runs this file has it


def _outcome(client: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    try:
        answer = client.embeddings.create(**arguments)
    except openai.APIStatusError as error:
        return {
            "raised": {
                "kind": type(error).__name__,
                "status": error.status_code,
                "type": error.type,
                "code": error.code,
                "param": error.param,
                "message": error.message,
            }
        }
    return {"returned": answer.model_dump()}


def main(url: str) -> None:
    """Print the outcome of each call by its name."""
    wanted = {"model": BGE_M3, "input": list(TEXTS)}
    calls: dict[str, dict[str, Any]] = {
        "default": wanted,
        "float": {**wanted, "encoding_format": "float"},
        "single": {**wanted, "input": TEXTS[0]},
        "native dimensions": {**wanted, "dimensions": DIMS},
        "wrong dimensions": {**wanted, "dimensions": DIMS + 1},
        "unknown model": {**wanted, "model": MISSPELT},
        "no input": {**wanted, "input": []},
    }
    with openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as client:
        outcomes = {name: _outcome(client, arguments) for name, arguments in calls.items()}
        outcomes["models"] = {"returned": [model.id for model in client.models.list()]}
        json.dump(outcomes, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
