"""What one random checkpoint is made of: plain data, drawn from a seed, that can be made simpler field by field."""

from __future__ import annotations

import dataclasses
import random
import string
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

Kind = Literal["dense", "sparse", "cross", "multi", "foreign"]
T = TypeVar("T")

WIDTH = 32
POSITIONS = 64
"""Tokens that every tiny encoder takes."""


@dataclass(frozen=True)
class Recipe:
    """One checkpoint and the bundle that serves it. A field that has its default adds nothing to the checkpoint.

    `modules` follow the transformer, in order: `pool:MODES`, `dense:WIDTH:ACTIVATION:BIAS:RESIDUAL`, `normalize`,
    `layernorm`, `dropout`. `edits` are the names of what a publisher does to the saved folder afterwards. `max_length`
    is the tokenizer's limit, `bundle_limit` the bundle's. `normalize` is the bundle's runtime option.
    """

    seed: int
    kind: Kind
    backbone: str = "bert"
    modules: tuple[str, ...] = ("pool:mean",)
    include_prompt: bool = True
    prompts: tuple[tuple[str, str], ...] = ()
    default_prompt: str | None = None
    similarity: str | None = None
    truncate_dim: int | None = None
    max_length: int | None = None
    do_lower_case: bool = False
    chat_template: bool = False
    truncation_side: str | None = None
    padding_side: str | None = None
    added: tuple[str, ...] = ()
    resize: bool = True
    file_truncation: int | None = None
    file_padding: int | None = None
    dtype: str = "float32"
    bundle_limit: int | None = None
    normalize: bool = False
    # Sparse encoders
    strategy: str = "max"
    activation: str = "relu"
    max_active: int | None = None
    # Cross-encoders
    labels: int = 1
    score_activation: str = "Sigmoid"
    adapter: str = "CrossEncoderAdapter"
    # Late interaction
    query_length: int | None = None
    document_length: int | None = None
    expansion: str | None = None
    skiplist: tuple[str, ...] = ()
    # What no text encoder of ours can be
    foreign: str | None = None
    edits: tuple[str, ...] = field(default=())

    def traits(self) -> dict[str, Any]:
        """The fields that differ from their defaults: what makes this checkpoint special."""
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name not in ("seed", "kind") and getattr(self, f.name) != f.default
        }

    @property
    def asks_normalized(self) -> bool:
        """The bundle's `normalize`. To ask for raw vectors of what normalises them itself is the user's mistake."""
        last = next((module for module in reversed(self.modules) if module != "dropout"), "")
        return self.normalize or (last == "normalize" and self.truncate_dim is None)

    def simpler(self) -> list[Recipe]:
        """The recipes with one trait less: a field at its default, one module or one edit left out."""
        found = []
        for name, value in self.traits().items():
            if name == "foreign":
                continue
            default = next(f.default for f in fields(self) if f.name == name)
            if name in ("modules", "edits", "prompts", "added", "skiplist") and len(value) > 1:
                found += [self._having({name: value[:i] + value[i + 1 :]}) for i in range(len(value))]
            elif name != "modules":
                found.append(self._having({name: default}))
        return [recipe for recipe in found if recipe.sound()]

    def _having(self, changes: dict[str, Any]) -> Recipe:
        return dataclasses.replace(self, **changes)

    def sound(self) -> bool:
        """Whether the modules can follow one another: a dense encoder pools before anything else."""
        if self.kind == "dense":
            return bool(self.modules) and self.modules[0].startswith("pool:")
        return True


ENCODERS = ("bert", "roberta", "xlmr", "distilbert", "mpnet", "modernbert")
DECODERS = ("qwen2", "qwen3", "gemma")
POOLINGS = ("cls", "mean", "lasttoken", "max", "mean_sqrt_len_tokens", "weightedmean")
ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "Sigmoid", "SiLU", "LeakyReLU", "ELU", "Softplus", "Mish")
SCORE_ACTIVATIONS = ("Sigmoid", "Identity", "Tanh", "ReLU", "Softplus")
ADDED = ("special", "plain", "normalized", "lstrip", "rstrip", "single_word")
PROMPTS = (
    (("query", "query: "), ("document", "passage: ")),
    (("query", "Represent this sentence for search: "),),
    (("query", "Search: "), ("passage", "Text: ")),
    (("query", ""), ("document", "document ")),
    (("clustering", "cluster: "), ("retrieval", "find the passage: ")),
    (("document", "The Passage "),),
)
FOREIGN = ("static", "bow", "cnn", "lstm", "word_weights", "sparse_static", "csr", "router", "token_pooling")
EDITS = (
    "v4_tokenizer",
    "added_tokens_json",
    "sharded",
    "st5_pooling",
    "st5_types",
    "st5_limit",
    "no_modules_json",
    "peft_beside",
    "special_tokens_map",
    "unknown_module_key",
    "no_model_max_length",
    "pickled_beside",
    "text_max_length",
    "left_truncation",
)
NOT_LATE = ("no_modules_json", "st5_limit", "text_max_length", "left_truncation")


def draw(seed: int) -> Recipe:
    """The recipe of a seed. Equal seeds give equal recipes, whatever ran before."""
    rng = random.Random(seed)
    kind: Kind = rng.choices(("dense", "sparse", "cross", "multi", "foreign"), weights=(52, 17, 15, 11, 5))[0]
    make = {"dense": _dense, "sparse": _sparse, "cross": _cross, "multi": _multi, "foreign": _foreign}[kind]
    recipe = make(rng, seed)
    if kind == "foreign":
        return recipe
    return dataclasses.replace(recipe, **_common(rng, recipe))


def _maybe(rng: random.Random, chance: float, options: Sequence[T], default: T) -> T:
    return rng.choice(options) if rng.random() < chance else default


def _common(rng: random.Random, recipe: Recipe) -> dict[str, Any]:
    """What every kind of encoder can have: prompts, limits, sides, tokens, precision, edits."""
    prompts = () if recipe.kind in ("multi",) else _maybe(rng, 0.4, PROMPTS, ())
    changes: dict[str, Any] = {
        "prompts": recipe.prompts or prompts,
        "default_prompt": rng.choice(prompts)[0] if prompts and rng.random() < 0.3 else None,
        "max_length": _maybe(rng, 0.35, (12, 16, 24, 40, 48), None),
        "bundle_limit": _maybe(rng, 0.15, (10, 20, 32), None),
        "do_lower_case": rng.random() < 0.08,
        "truncation_side": _maybe(rng, 0.15, ("left", "right"), None),
        "padding_side": _maybe(rng, 0.12, ("left", "right"), None),
        "file_truncation": _maybe(rng, 0.08, (8, 30), None),
        "file_padding": _maybe(rng, 0.08, (20, 64), None),
        "dtype": _maybe(rng, 0.12, ("bfloat16", "float16"), "float32"),
        "similarity": _maybe(rng, 0.2, ("dot", "euclidean", "cosine"), None) if recipe.kind == "dense" else None,
    }
    if recipe.backbone in DECODERS:
        changes["chat_template"] = rng.random() < 0.15
    if recipe.kind in ("cross", "multi"):
        changes |= {"bundle_limit": None, "do_lower_case": False}
    if recipe.kind == "multi":  # the adapters' lengths stay below the tokenizer's, sentence-transformers' do not
        changes["max_length"] = _maybe(rng, 0.35, (40, 48), None)
    if rng.random() < 0.22:
        changes["added"] = tuple(rng.sample(ADDED, rng.choice((1, 1, 2))))
        changes["resize"] = rng.random() < 0.85
    if rng.random() < 0.3:
        changes["edits"] = tuple(rng.sample(EDITS, rng.choice((1, 1, 2))))
        if recipe.kind == "multi":  # no modules: a random projection; other limits: the bundle has the last word
            changes["edits"] = tuple(edit for edit in changes["edits"] if edit not in NOT_LATE)
    return changes


def _dense(rng: random.Random, seed: int) -> Recipe:
    modes = [rng.choice(POOLINGS[:3]) if rng.random() < 0.65 else rng.choice(POOLINGS)]
    if rng.random() < 0.08:
        modes = rng.sample(POOLINGS, 2)
    modules = ["pool:" + "+".join(modes)]
    for _ in range(rng.choice((0, 0, 1, 1, 2, 3, 4))):
        modules.append(
            rng.choice(("normalize", "dropout", "layernorm", "dense", "dense"))
            if rng.random() < 0.9
            else rng.choice(("dense", "normalize"))
        )
        if modules[-1] == "dense":
            width, bias = rng.choice((8, 24, 32, 48)), rng.choice((1, 1, 0))
            residual = int(rng.random() < 0.12)
            modules[-1] = f"dense:{width}:{rng.choice(ACTIVATIONS)}:{bias}:{residual}"
    if rng.random() < 0.4:
        modules.append("normalize")
    return Recipe(
        seed,
        "dense",
        rng.choice((*ENCODERS, *ENCODERS, *DECODERS)),
        tuple(modules),
        include_prompt=rng.random() > 0.12,
        truncate_dim=_maybe(rng, 0.12, (4, 8, 16), None),
        normalize=rng.random() < 0.5,
    )


def _sparse(rng: random.Random, seed: int) -> Recipe:
    return Recipe(
        seed,
        "sparse",
        rng.choice(("bert", "distilbert", "roberta", "xlmr", "mpnet", "modernbert")),
        (),
        strategy=rng.choice(("max", "max", "sum")),
        activation=rng.choice(("relu", "relu", "log1p_relu")),
        max_active=_maybe(rng, 0.3, (4, 16, 1000), None),
    )


def _cross(rng: random.Random, seed: int) -> Recipe:
    return Recipe(
        seed,
        "cross",
        rng.choice(("bert", "roberta", "xlmr", "distilbert", "modernbert")),
        (),
        labels=_maybe(rng, 0.1, (2, 3), 1),
        score_activation=_maybe(rng, 0.65, SCORE_ACTIVATIONS, "Sigmoid"),
        adapter=_maybe(rng, 0.3, ("BertFlashCrossEncoderAdapter",), "CrossEncoderAdapter"),
    )


def _multi(rng: random.Random, seed: int) -> Recipe:
    modules = [f"dense:{rng.choice((16, 24))}:Identity:{rng.choice((0, 0, 1))}:0"]
    if rng.random() < 0.35:
        modules.insert(0, f"dense:{rng.choice((24, 48))}:{rng.choice(ACTIVATIONS[:4])}:0:{rng.choice((0, 1))}")
    modules.append("mask")
    if rng.random() < 0.75:
        modules.append("normalize")
    backbone = rng.choice(("bert", "modernbert"))
    return Recipe(
        seed,
        "multi",
        backbone,
        tuple(modules),
        prompts=_maybe(rng, 0.6, ((("query", "[Q] "), ("document", "[D] ")),), ()),
        query_length=_maybe(rng, 0.5, (16, 24), None),
        document_length=_maybe(rng, 0.5, (20, 40), None),
        # SIE's adapters know no other expansion and no other skip-list; ModernBERT's expands nothing.
        expansion="fixed" if backbone == "bert" and rng.random() < 0.4 else None,
        skiplist=tuple(string.punctuation) if rng.random() < 0.4 else (),
    )


def _foreign(rng: random.Random, seed: int) -> Recipe:
    return Recipe(seed, "foreign", foreign=rng.choice(FOREIGN))
