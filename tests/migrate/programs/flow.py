"""A name that comes from elsewhere: defaults, loops, branches, maps, functions, classes."""

import functools
import importlib
from dataclasses import dataclass
from enum import Enum

from sentence_transformers import SentenceTransformer

MODELS = {"small": "BAAI/bge-small-en-v1.5", "mini": "sentence-transformers/all-MiniLM-L6-v2"}
OWNER, NAME = "sentence-transformers", "all-MiniLM-L6-v2"


def load(name: str = "thenlper/gte-base") -> SentenceTransformer:
    return SentenceTransformer(name)


first = load()
second = load("thenlper/gte-large")
joined = SentenceTransformer(f"{OWNER}/{NAME}")
added = SentenceTransformer("sentence-transformers/" + NAME)
chosen = SentenceTransformer(MODELS["small"])
either = SentenceTransformer(NAME if len(OWNER) else MODELS["small"])
all_of_them = [SentenceTransformer(model) for model in ("a/one", "a/two")]
(walrus := SentenceTransformer(model_name_or_path=MODELS.get("mini")))
made = functools.partial(SentenceTransformer, "a/partial", device="cpu")
by_name = getattr(importlib.import_module("sentence_transformers"), "SentenceTransformer")("a/by-name")


class Kind(Enum):
    E5 = "intfloat/e5-large-v2"


@dataclass
class Settings:
    model: str = "a/setting"


class Service:
    model = "a/attribute"

    def __init__(self, settings: Settings) -> None:
        self.kind = Kind.E5
        self.first = SentenceTransformer(self.model)
        self.second = SentenceTransformer(settings.model)
        self.third = SentenceTransformer(Kind.E5.value)


class Mine(SentenceTransformer):
    def __init__(self, name: str = "a/subclass") -> None:
        super().__init__(name)


class Plain(SentenceTransformer):
    pass


mine = Mine()
plain = Plain("a/plain")
