"""`python -m official.image_driver URL FOLDER NAMES…`: embed the pictures of a folder through other people's clients.

`sie` is the official SDK, `openai` its own client, `llamaindex` and `langchain` are their classes for embeddings.
Prints JSON: the vectors of each call by its name, or `{"raised": text}`.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .calls import CLIP, QUERY

Calls = dict[str, Callable[[], Any]]
JPEG, PNG, GIF = "photograph.jpg", "noise.png", "colours.gif"


def _module(name: str) -> Any:
    """A package that only the environment which runs this file has."""
    return importlib.import_module(name)


def _sie(url: str, folder: Path) -> Calls:
    image, numpy, sdk = _module("PIL.Image"), _module("numpy"), _module("sie_sdk")
    client = sdk.SIEClient(url)
    png, gif, jpeg = ((folder / name).read_bytes() for name in (PNG, GIF, JPEG))
    opened = image.open(folder / PNG)
    array = numpy.asarray(opened)

    def encode(*items: dict[str, Any]) -> Any:
        return [result["dense"].tolist() for result in client.encode(CLIP, list(items))]

    async def concurrent() -> Any:
        async with sdk.SIEAsyncClient(url) as other:
            return [result["dense"].tolist() for result in await other.encode(CLIP, [{"images": [png]}])]

    return {
        "bytes": lambda: encode(*({"images": [data]} for data in (png, gif, jpeg))),
        "wire form": lambda: encode({"images": [{"data": png, "format": "png"}]}),
        "pillow": lambda: encode({"images": [opened]}),
        "array": lambda: encode({"images": [array]}, {"images": [array[..., 0]]}),
        "path": lambda: encode({"images": [folder / JPEG]}, {"images": [str(folder / JPEG)]}),
        "mixed": lambda: encode({"text": QUERY}, {"images": [png, jpeg]}, {"text": "unread", "images": [gif]}),
        "async": lambda: asyncio.run(concurrent()),
        "no picture": lambda: encode({"images": [{"data": png[:40], "format": "png"}]}),
    }


def _urls(folder: Path) -> list[str]:
    kinds = {PNG: "image/png", GIF: "image/gif", JPEG: "image/jpeg"}
    return [
        f"data:{kind};base64,{base64.b64encode((folder / name).read_bytes()).decode()}" for name, kind in kinds.items()
    ]


def _openai(url: str, folder: Path) -> Calls:
    client = _module("openai").OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0)

    def create(given: list[str], **more: Any) -> Any:
        return [entry.embedding for entry in client.embeddings.create(model=CLIP, input=given, **more).data]

    return {
        "urls": lambda: create(_urls(folder)),
        "floats": lambda: create(_urls(folder), encoding_format="float"),
        "urls and a text": lambda: create([QUERY, *_urls(folder)]),
    }


def _llamaindex(url: str, folder: Path) -> Calls:
    model = _module("sie_llamaindex").SIEMultiModalEmbedding(base_url=url, model_name=CLIP)
    paths = [str(folder / name) for name in (PNG, GIF, JPEG)]
    return {
        "image": lambda: [model.get_image_embedding(paths[2])],
        "stream": lambda: [model.get_image_embedding(io.BytesIO(Path(paths[0]).read_bytes()))],
        "batch": lambda: model.get_image_embedding_batch([io.BytesIO(Path(path).read_bytes()) for path in paths]),
        "async": lambda: [asyncio.run(model.aget_image_embedding(io.BytesIO(Path(paths[0]).read_bytes())))],
        "query": lambda: [model.get_query_embedding(QUERY)],
    }


def _langchain(url: str, folder: Path) -> Calls:
    # It would cut texts into tokens of OpenAI's, which a data URL has many of.
    made = {"base_url": f"{url}/v1", "api_key": "unused", "model": CLIP, "check_embedding_ctx_length": False}
    model = _module("langchain_openai").OpenAIEmbeddings(**made)
    return {
        "urls": lambda: model.embed_documents(_urls(folder)),
        "query": lambda: [model.embed_query(QUERY)],
    }


CLIENTS: dict[str, Callable[[str, Path], Calls]] = {
    "sie": _sie,
    "openai": _openai,
    "llamaindex": _llamaindex,
    "langchain": _langchain,
}


def main(url: str, folder: Path, *names: str) -> None:
    """Print what each call gave."""
    outcomes: dict[str, Any] = {}
    for name in names:
        for call, ask in CLIENTS[name](url, folder).items():
            try:
                outcomes[f"{name} {call}"] = ask()
            except Exception as error:  # whatever a client raises is what its user sees
                outcomes[f"{name} {call}"] = {"raised": f"{type(error).__name__}: {error}"}
    json.dump(outcomes, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
