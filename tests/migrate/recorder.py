"""Runs one program with stand-ins for the packages of embedders, and prints what they were called with.

Python itself follows the names here, so that what is read from a syntax tree can be compared with what happens.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import inspect
import json
import runpy
import sys
import types
from collections.abc import Sequence
from typing import Any

PROGRAM = sys.argv[1]
PACKAGES = {
    "chromadb",
    "fastembed",
    "haystack",
    "haystack_integrations",
    "langchain_community",
    "langchain_huggingface",
    "langchain_openai",
    "llama_index",
    "openai",
    "qdrant_client",
    "sentence_transformers",
}
KEYWORDS = ("model_name_or_path", "model_name", "model", "engine", "embedding_model_name")
calls: list[tuple[int, str]] = []


def record(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    """Every line of the program that is on the way to this call, with the model that it gives."""
    model = next((keywords[name] for name in KEYWORDS if name in keywords), None)
    model = model if model is not None else next((a for a in arguments if isinstance(a, str)), None)
    frame = inspect.currentframe()
    while frame is not None and isinstance(model, str):
        if frame.f_code.co_filename == PROGRAM:
            calls.append((frame.f_lineno, model))
            break
        frame = frame.f_back


class Kind(type):
    """Its classes have functions of every name."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()


class Anything(metaclass=Kind):
    """Stands for every class, object and function of these packages."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        record(arguments, keywords)

    def __call__(self, *arguments: Any, **keywords: Any) -> Anything:
        record(arguments, keywords)
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()


class Module(types.ModuleType):
    """Has a class of every name, and an object of every name in small letters."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything() if name.islower() else Kind(name, (Anything,), {})


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds every module of these packages."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> Any:
        if name.partition(".")[0] in PACKAGES:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> types.ModuleType:
        return Module(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


sys.meta_path.insert(0, Finder())
runpy.run_path(PROGRAM)
print(json.dumps(sorted(set(calls))))
