"""Builds what a recipe makes, asks the frontend and sentence-transformers the same, and says how they compare."""

from __future__ import annotations

import json
import re
import string
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import yaml

from sie_triton.bundle import load_bundle
from sie_triton.compiler.build import compile_models
from sie_triton.compiler.options import BuildOptions, select
from sie_triton.diagnostics import DiagnosticError
from sie_triton.formats import Format
from sie_triton.planning.plan import GraphOptions

from . import serving
from .generate import generate
from .recipe import POSITIONS, WIDTH, Recipe
from .reference import Reference, output_kind

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
Outcome = Literal["right", "told", "refused", "different", "crashed", "unjudged"]
"""`told`: transformers rebuilds the tokenizer and loses what its file says; the build follows the file, and says so."""

TOLERANCE = 1e-5
"""The largest difference of a component, relative to the largest component where that is above 1."""
MODEL = "fuzz/checkpoint"
QUERY = "Which part of the CELL gives it energy?"
_LONG = (
    "Rivers carry sand to the sea, the sea carries salt to the wind, and the wind carries rain to the hills. "
    "In 1969 two people walked on the moon; in 1972 the last of twelve came home with 110 kilograms of stone."
)
TEXTS = (
    "The mitochondrion is the powerhouse of the cell.",
    "salt",
    "",
    "Die Brücke über den Fluss, 検索 は 向量: naïve café!",
    "Rivers CARRY Sand To The SEA: a query (asks), a document answers it.",
    "near <extra> the KeyWord  of seas <left> x <right>  y cel cell sea",
    "[unused0] wind [MASK] <mask> [Q] salt [D] and </s> rain [SEP]",
    _LONG,
    " ".join([_LONG] * 4),
    "  white space\taround it \n",
)
"""Short, empty, in many scripts, with upper case, with each added token, longer than each limit, in white space."""

_WORD = re.compile(r"[\w.]{3,}")
_FILE = re.compile(r"[\w.-]+\.(?:json|safetensors|txt|model)\b")
_ADAPTERS = {
    "dense": "sie_server.adapters.sentence_transformer:SentenceTransformerDenseAdapter",
    "sparse": "sie_server.adapters.sentence_transformer:SentenceTransformerSparseAdapter",
    "CrossEncoderAdapter": "sie_server.adapters.cross_encoder:CrossEncoderAdapter",
    "BertFlashCrossEncoderAdapter": "sie_server.adapters.bert_flash_cross_encoder:BertFlashCrossEncoderAdapter",
    "bert": "sie_server.adapters.colbert:ColBERTAdapter",
    "modernbert": "sie_server.adapters.colbert_modernbert_flash.adapter:ColBERTModernBERTFlashAdapter",
}


@dataclass(frozen=True)
class Verdict:
    """How one recipe fared. `codes` are those of the diagnostics, `named` whether they name what they refuse."""

    seed: int
    kind: str
    outcome: Outcome
    detail: str = ""
    codes: tuple[str, ...] = ()
    named: bool = True
    difference: float = 0.0
    seconds: float = 0.0
    traits: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data, for a line of the report."""
        return asdict(self)


def judge(recipe: Recipe, work: Path | None = None, graphs: Format = "torchscript") -> Verdict:
    """Generate, build, serve and compare. `work` keeps the checkpoint and the repository.

    Nine tenths of a build go to the exporter of ONNX graphs. What a checkpoint says is read before either exporter
    runs, and both write the same modules: TorchScript judges the reading in a tenth of the time.
    """
    started = time.monotonic()
    if work is not None:
        found = _judge(recipe, work, graphs)
    else:
        with tempfile.TemporaryDirectory(prefix="checkpoint-fuzz-") as temporary:
            found = _judge(recipe, Path(temporary), graphs)
    seconds = round(time.monotonic() - started, 2)
    return Verdict(
        recipe.seed, recipe.kind, seconds=seconds, traits={"backbone": recipe.backbone, **recipe.traits()}, **found
    )


def _judge(recipe: Recipe, work: Path, graphs: Format) -> dict[str, Any]:
    folder, repository = work / "checkpoint", work / "repository"
    try:
        generate(recipe, folder)
    except Exception:  # sentence-transformers refuses to make it: nothing to judge
        return {"outcome": "unjudged", "detail": "not made: " + traceback.format_exc(limit=-3)}
    reference, problem = _reference(recipe, folder)
    bundle = work / "bundle.yaml"
    bundle.write_text(yaml.safe_dump(bundle_of(recipe, folder, reference)), encoding="utf-8")
    try:
        said = _build(bundle, repository, graphs)
    except DiagnosticError as error:
        return _refusal(error, folder)
    except Exception:  # a traceback is an outcome of its own, whatever it is
        return {"outcome": "crashed", "detail": "build: " + traceback.format_exc(limit=-3)}
    if reference is None:
        return {"outcome": "different", "detail": f"built, but sentence-transformers does not load it: {problem}"}
    return _compared(recipe, reference, folder, repository, said)


def _compared(
    recipe: Recipe, reference: Reference, folder: Path, repository: Path, said: Sequence[str]
) -> dict[str, Any]:
    worst, detail, compared = serving.run(compare(recipe, reference, repository))
    if not compared:
        return {"outcome": "unjudged", "detail": "sentence-transformers computes none of the texts"}
    if worst <= TOLERANCE:
        return {"outcome": "right", "difference": worst}
    rule = next((line for line in said if "`tokenizer.json` decides" in line), None)
    if rule is not None:
        reference.read_file(folder / "tokenizer.json")
        worst, detail, _ = serving.run(compare(recipe, reference, repository))
    outcome: Outcome = "told" if worst <= TOLERANCE else "different"
    return {"outcome": outcome, "difference": worst, "detail": rule if outcome == "told" else detail}


def _reference(recipe: Recipe, folder: Path) -> tuple[Reference | None, str]:
    try:
        return Reference(recipe, folder), ""
    except Exception as error:  # whatever the other side raises, it does not load the folder
        return None, f"{type(error).__name__}: {str(error)[:300]}"


def _build(bundle_path: Path, repository: Path, graphs: Format) -> list[str]:
    """What the build says while it works, and where the contract decides against the checkpoint."""
    said: list[str] = []
    bundle, problems = load_bundle(bundle_path)
    if bundle is None:
        raise DiagnosticError(problems)
    chosen = GraphOptions(format=graphs, devices=("cpu",), packing=False)
    options = BuildOptions(repository=repository, graphs=chosen, cores=1, announce=said.append)
    compile_models([select(bundle, [bundle.resolve("default")])], options)
    return said


def _refusal(error: DiagnosticError, folder: Path) -> dict[str, Any]:
    text = "\n".join(str(diagnostic) for diagnostic in error.diagnostics)
    codes = tuple(sorted({diagnostic.code for diagnostic in error.diagnostics}))
    return {"outcome": "refused", "codes": codes, "named": _names_something(error, folder), "detail": text}


def _names_something(error: DiagnosticError, folder: Path) -> bool:
    """Whether a message quotes a file, a key, a module or a value of the checkpoint."""
    known = {path.name for path in folder.rglob("*")}
    for path in folder.rglob("*.json"):
        if path.name not in ("tokenizer.json", "vocab.json"):
            known |= set(_WORD.findall(path.read_text(encoding="utf-8")))
    known |= {word.rsplit(".", 1)[-1] for word in known}
    said = " ".join(f"{d.message} {d.hint or ''} {d.where or ''}" for d in error.diagnostics)
    quoted = re.findall(r"`([^`]+)`|'([^']+)'", said.replace(str(folder), ""))
    words = {word for pair in quoted for span in pair for word in _WORD.findall(span)}
    return bool((words | set(_FILE.findall(said))) & known)


def bundle_of(recipe: Recipe, folder: Path, reference: Reference | None) -> dict[str, Any]:
    """The bundle that a user would write for the checkpoint: the adapter and what the adapter must be told."""
    kind = output_kind(recipe)
    width = reference.width if reference is not None else WIDTH
    adapter, loadtime, runtime = _ADAPTERS.get(kind, ""), {}, {}
    if kind == "dense":
        runtime["normalize"] = recipe.asks_normalized
    elif kind == "cross":
        adapter = _ADAPTERS[recipe.adapter]
    elif kind == "multi":
        adapter, loadtime = _ADAPTERS[recipe.backbone], _late_options(recipe, width)
    output = {"multi": "multivector"}.get(kind, kind)
    encode = {name: {"dim": width} if name == output else None for name in ("dense", "sparse", "multivector")}
    return {
        "sie_id": MODEL,
        "weights_path": str(folder),
        "inputs": {"text": True, "image": False, "audio": False, "video": False},
        "tasks": {
            "encode": None if kind == "cross" else encode,
            "score": {} if kind in ("cross", "multi") else None,
            "extract": None,
        },
        "max_sequence_length": recipe.bundle_limit,
        "profiles": {
            "default": {
                "max_batch_tokens": 16384,
                "compute_precision": None,
                "adapter_path": adapter,
                "adapter_options": {"loadtime": loadtime, "runtime": runtime},
            }
        },
    }


def _late_options(recipe: Recipe, width: int) -> dict[str, Any]:
    """What a late-interaction bundle says, so that it says what the checkpoint says."""
    prompts = dict(recipe.prompts)
    limit = recipe.max_length or POSITIONS
    options = {
        "token_dim": width,
        "normalize": "normalize" in recipe.modules,
        "query_max_length": recipe.query_length or (24 if recipe.expansion else limit),
        "doc_max_length": recipe.document_length or limit,
        "query_prefix": prompts.get("query", ""),
        "doc_prefix": prompts.get("document", ""),
        "skip_special_tokens": False,
        "doc_punctuation_skiplist": recipe.skiplist == tuple(string.punctuation),
    }
    if recipe.backbone == "bert":
        options["query_expansion"] = recipe.expansion is not None
    return options


async def compare(recipe: Recipe, reference: Reference, repository: Path) -> tuple[float, str, int]:
    """The largest difference over all texts, where it is, and how many texts were compared."""
    kind = output_kind(recipe)
    worst, where, compared = 0.0, "", 0
    async with serving.opened(repository) as client:
        answers = serving.Answers(client, MODEL, kind, reference.width)
        for is_query in (True,) if kind == "cross" else (False, True):
            if kind == "cross":
                expected, given = reference.score(QUERY, TEXTS), await answers.score(QUERY, TEXTS)
            else:
                expected = reference.encode(TEXTS, is_query=is_query)
                given = await answers.encode(TEXTS, is_query=is_query)
            side = "query" if is_query else "document"
            for text, right, ours in zip(TEXTS, expected, given, strict=True):
                if right is None:
                    continue
                compared += 1
                apart, why = _apart(right, ours)
                if apart > worst:
                    worst, where = apart, f"{side} {text[:50]!r}: {why}"
    return worst, where, compared


def _apart(right: Array, ours: Array | str) -> tuple[float, str]:
    if isinstance(ours, str):
        return float("inf"), f"answered {ours}"
    if right.shape != ours.shape:
        return float("inf"), f"shape {ours.shape} for {right.shape}"
    scale = max(1.0, float(np.abs(right).max(initial=0.0)))
    apart = float(np.abs(right.astype(np.float64) - ours).max(initial=0.0)) / scale
    return apart, f"{apart:.2e} apart, {_shown(ours)} for {_shown(right)}"


def _shown(values: Array) -> str:
    flat = values.reshape(-1)
    nonzero = int(np.count_nonzero(flat))
    head = ", ".join(f"{value:.4f}" for value in flat[:3])
    return f"[{head}{', ...' if flat.size > 3 else ''}] ({nonzero} not zero)"


def culprits(recipe: Recipe, found: Verdict, *, tries: int = 24, graphs: Format = "torchscript") -> Recipe:
    """A simpler recipe with the same outcome: traits are left out one after the other while it stays what it is."""
    left = tries
    simplest = recipe
    while True:
        for candidate in simplest.simpler():
            if not left:
                return simplest
            left -= 1
            again = judge(candidate, graphs=graphs)
            if again.outcome == found.outcome and again.codes == found.codes:
                simplest = candidate
                break
        else:
            return simplest


def describe(recipe: Recipe) -> str:
    """A recipe's traits in one line."""
    traits = {"backbone": recipe.backbone, **recipe.traits()}
    return json.dumps({"kind": recipe.kind, **traits}, ensure_ascii=False)


def sorted_codes(verdicts: Sequence[Verdict]) -> list[str]:
    """Every code that refused something."""
    return sorted({code for verdict in verdicts for code in verdict.codes})
