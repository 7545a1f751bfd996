"""Reference arithmetic of every recipe, written from the models' own documentation and `wire-contract.md` section 7.

Float32, one unpadded item at a time, nothing of the product imported. Tokens come from `tokenizer.json` as it lies, as
SIE reads it; transformers 5 changes some of those files while loading them.
"""

from __future__ import annotations

import math
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from .bodies import is_flash_xlm_roberta, load_body, load_causal, load_classifier, load_mlm, read_json

Vector = NDArray[np.float32]
"""`[dim]`, or `[tokens, dim]` for a multivector."""

MXBAI_PREFIX = (
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n"
)
MXBAI_TASK = (
    "You are a search relevance expert who evaluates how well documents match search queries. For each query-document "
    "pair, carefully analyze the semantic relationship between them, then provide your binary relevance judgment "
    "(0 for not relevant, 1 for relevant).\nRelevance:"
)
MXBAI_SUFFIX = "<|im_end|>\n<|im_start|>assistant\n"
QWEN3_PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
QWEN3_SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
QWEN3_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
ZERANK_TOKEN = 9454

_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "mpnet")
_SANE_LENGTH = 1_000_000


class TooLongError(ValueError):
    """The pair does not fit, and the recipe does not cut it."""


@dataclass(frozen=True)
class Sparse:
    """Token ids and their weights, in the order in which the recipe gives them."""

    ids: list[int]
    weights: Vector


# --- tokens -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def tokenizer(folder: Path) -> Tokenizer:
    """The checkpoint's `tokenizer.json`."""
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def tokenize(
    folder: Path, text: str, pair: str | None = None, *, max_length: int | None, specials: bool = True
) -> tuple[list[int], list[int]]:
    """Token ids and type ids, truncated on the right (of a pair, the longer part first); specials are never cut."""
    words = tokenizer(folder)
    words.no_padding()
    if max_length is None:
        words.no_truncation()
    else:
        words.enable_truncation(max_length, strategy="longest_first")
    encoding = words.encode(text, pair, add_special_tokens=specials)
    return list(encoding.ids), list(encoding.type_ids)


def token_limit(folder: Path, declared: int | None) -> int | None:
    """The least of the bundle's `max_sequence_length`, the tokenizer's limit and the positions (section 6.6)."""
    config = read_json(folder / "config.json")
    own = (read_json(folder / "tokenizer_config.json") or {}).get("model_max_length")
    positions = config.get("max_position_embeddings", config.get("n_positions"))
    if positions is not None and config["model_type"] in _OFFSET_POSITIONS and not _counts_from_zero(config):
        positions -= int(config.get("pad_token_id", 1)) + 1
    known = [value for value in (declared, own, positions) if value is not None and value < _SANE_LENGTH]
    return min(known, default=None)


def _counts_from_zero(config: Mapping[str, Any]) -> bool:
    return is_flash_xlm_roberta(config) and config.get("position_embedding_type") == "rotary"


def special_ids(folder: Path, names: Iterable[str]) -> set[int]:
    """The ids of the tokenizer's `cls_token` and so on, those that it has."""
    config = read_json(folder / "tokenizer_config.json")
    found = (tokenizer(folder).token_to_id(config[name]) for name in names if config.get(name))
    return {token for token in found if token is not None}


# --- dense ------------------------------------------------------------------------------------------------------------


def pool(states: Tensor, how: str) -> Tensor:
    """`[tokens, width]` -> `[width]`: the first token, the mean of all (specials included), or the last."""
    if how == "cls":
        return states[0]
    return states.mean(0) if how == "mean" else states[-1]


def unit(values: Tensor) -> Tensor:
    """Rows over their L2 norms, with torch's epsilon of 1e-12."""
    return functional.normalize(values, dim=-1)


def apply_dense(values: Tensor, folder: Path) -> Tensor:
    """A Dense module of sentence-transformers or PyLate: `activation(x W^T + b)`, plus the residual if it has one."""
    config, tensors = read_json(folder / "config.json"), load_file(folder / "model.safetensors")
    name = str(config.get("activation_function", "Identity")).rpartition(".")[2]
    if name not in ("Identity", "Tanh"):
        raise NotImplementedError(f"the activation `{name}`")
    linear: Tensor = functional.linear(values, tensors["linear.weight"], tensors.get("linear.bias"))
    projected = torch.tanh(linear) if name == "Tanh" else linear
    if not config.get("use_residual"):
        return projected
    own = functional.linear(values, tensors["residual.weight"]) if "residual.weight" in tensors else values
    return projected + own


def dense(
    folder: Path,
    text: str,
    *,
    pooling: str,
    normalize: bool = True,
    max_length: int | None = None,
    bidirectional: bool = False,
    projection: str | None = None,
) -> Vector:
    """One vector by an explicit pooling; `projection` is the sub-folder of a Linear applied before normalizing."""
    ids, _ = tokenize(folder, text, max_length=token_limit(folder, max_length))
    vector = pool(load_body(folder, bidirectional=bidirectional)(ids, None), pooling)
    if projection is not None:
        vector = apply_dense(vector, folder / projection)
    return _numpy(unit(vector) if normalize else vector)


def sentence_transformer(
    folder: Path, text: str, *, prompt: str = "", normalize: bool = False, max_length: int | None = None
) -> Vector:
    """What `SentenceTransformer.encode` does: prompt, body, then the modules that the repository lists.

    `normalize` adds to a Normalize module and does not replace it. A bundle's `max_length` replaces the repository's.
    """
    if max_length is None:
        max_length = (read_json(folder / "sentence_bert_config.json") or {}).get("max_seq_length")
    ids, _ = tokenize(folder, prompt + text, max_length=token_limit(folder, max_length))
    states = load_body(folder)(ids, None)
    modules = read_json(folder / "modules.json")
    kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    settings = read_json(folder / modules[kinds.index("Pooling")]["path"] / "config.json")
    modes = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean", "pooling_mode_lasttoken": "last"}
    vector = pool(states, next(how for key, how in modes.items() if settings.get(key)))
    for kind, module in zip(kinds, modules, strict=True):
        if kind == "Dense":
            vector = apply_dense(vector, folder / module["path"])
        elif kind == "Normalize":
            vector = unit(vector)
    return _numpy(unit(vector) if normalize else vector)


# --- sparse -----------------------------------------------------------------------------------------------------------


def splade(
    folder: Path,
    text: str,
    *,
    max_length: int | None = None,
    double_log: bool = False,
    without_specials: bool = False,
) -> Sparse:
    """log(1 + relu(max over tokens of the MLM logits)), the special tokens of the text included as positions.

    `double_log` applies log1p twice; `without_specials` gives special tokens of the vocabulary no weight.
    """
    ids, _ = tokenize(folder, text, max_length=token_limit(folder, max_length))
    weights = torch.log1p(torch.relu(load_mlm(folder)(ids, None).amax(0)))
    if double_log:
        weights = torch.log1p(weights)
    if without_specials:
        weights[sorted(all_special_ids(folder))] = 0
    kept = torch.nonzero(weights > 0).flatten()
    return Sparse(kept.tolist(), _numpy(weights[kept]))


def all_special_ids(folder: Path) -> set[int]:
    """Every token that the tokenizer's file calls special, as the tokenizer's configuration names them."""
    names = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
    return special_ids(folder, [f"{name}_token" for name in names])


def read_query_table(folder: Path) -> dict[int, float] | None:
    """Weights of query tokens by id: `query_token_weights.txt` if it can be read, else `idf.json`; None without one.

    A table without a positive weight for a token of the vocabulary does not count.
    """
    for read in (_read_weights_text, _read_idf):
        table = read(folder)
        by_id = {tokenizer(folder).token_to_id(token): weight for token, weight in (table or {}).items()}
        known = {token: weight for token, weight in by_id.items() if token is not None}
        if any(weight > 0 for weight in known.values()):
            return known
    return None


def _read_weights_text(folder: Path) -> dict[str, float] | None:
    path = folder / "query_token_weights.txt"
    if not path.is_file():
        return None
    table: dict[str, float] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        token, _, weight = line.partition("\t")
        try:
            table[token] = float(weight)
        except ValueError:
            return None
    return table


def _read_idf(folder: Path) -> dict[str, float] | None:
    table: dict[str, float] | None = read_json(folder / "idf.json")
    return table


def table_query(
    folder: Path, text: str, table: Mapping[int, float], *, max_length: int | None, without_specials: bool = False
) -> Sparse:
    """An inference-free query: the unique token ids with a positive weight in the table, ascending."""
    ids, _ = tokenize(folder, text, max_length=token_limit(folder, max_length))
    unwanted = all_special_ids(folder) if without_specials else set()
    kept = [token for token in sorted(set(ids)) if table.get(token, 0) > 0 and token not in unwanted]
    return Sparse(kept, np.array([table[token] for token in kept], dtype=np.float32))


def sparse_dot(query: Sparse, document: Sparse) -> float:
    """The sum over shared tokens of the product of their weights."""
    other = dict(zip(document.ids, document.weights.tolist(), strict=True))
    return float(
        sum(weight * other.get(token, 0.0) for token, weight in zip(query.ids, query.weights.tolist(), strict=True))
    )


# --- BGE-M3 -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BgeM3:
    """The three outputs of one text."""

    dense: Vector
    sparse: Sparse
    multivector: Vector


def bge_m3(folder: Path, text: str, *, normalize: bool = True, max_length: int | None = None) -> BgeM3:
    """Dense: CLS, L2. Sparse: relu of a linear, per token id the maximum, in the order of first occurrence, without
    cls, eos, pad, unk. Multivector: a linear on all tokens but the first, rows L2.

    `normalize=False` leaves out both L2.
    """
    ids, _ = tokenize(folder, text, max_length=token_limit(folder, max_length))
    states = load_body(folder)(ids, None)
    lexical, colbert = (load_file(folder / f"{name}_linear.safetensors") for name in ("sparse", "colbert"))
    weights = torch.relu(functional.linear(states, lexical["weight"], lexical["bias"])).flatten().tolist()
    unwanted = special_ids(folder, ("cls_token", "eos_token", "pad_token", "unk_token"))
    best: dict[int, float] = {}
    for token, weight in zip(ids, weights, strict=True):
        if token not in unwanted and weight > 0:
            best[token] = max(best.get(token, 0.0), weight)
    rows = functional.linear(states[1:], colbert["weight"], colbert["bias"])
    return BgeM3(
        dense=_numpy(unit(states[0]) if normalize else states[0]),
        sparse=Sparse(list(best), np.array(list(best.values()), dtype=np.float32)),
        multivector=_numpy(unit(rows) if normalize else rows),
    )


def bge_m3_score(
    query: BgeM3, document: BgeM3, *, mode: str = "dense", weights: Sequence[float] | None = None
) -> float:
    """`dense` cosine, `sparse` shared weights, `colbert` MaxSim per query token, `hybrid` their weighted sum."""
    parts = {
        "dense": float(np.dot(_unit(query.dense), _unit(document.dense))),
        "sparse": sparse_dot(query.sparse, document.sparse),
        "colbert": maxsim(query.multivector, document.multivector) / len(query.multivector),
    }
    if mode == "hybrid":
        shares = weights if weights is not None else (0.4, 0.2, 0.4)
        return sum(share * part for share, part in zip(shares, parts.values(), strict=True))
    return parts[mode]


def _unit(vector: Vector) -> Vector:
    scaled: Vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
    return scaled


# --- late interaction -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ColbertOptions:
    """What the load-time and run-time options of a ColBERT bundle come to."""

    token_dim: int
    query_length: int | None = 32
    document_length: int | None = None
    query_prefix: str = ""
    doc_prefix: str = ""
    query_expansion: bool = True
    expansion_attended: bool = False
    inserts_markers: bool = True
    skip_special_tokens: bool = True
    punctuation_skiplist: bool = False
    normalize: bool = True


def colbert(folder: Path, text: str, *, is_query: bool, options: ColbertOptions) -> Vector:
    """One row per kept token: marker, tokens, body, projection, removals, L2 (section 7.5)."""
    length = options.query_length if is_query else options.document_length
    limit = token_limit(folder, length)
    prefix = options.query_prefix if is_query else options.doc_prefix
    marker = _marker(folder, prefix) if options.inserts_markers else None
    if marker is None:
        ids, _ = tokenize(folder, prefix + text, max_length=limit)
    else:
        ids, _ = tokenize(folder, text, max_length=None if limit is None else limit - 1)
        ids.insert(1, marker)
    visible = [1] * len(ids)
    if is_query and options.query_expansion and limit is not None:
        (mask,) = special_ids(folder, ("mask_token",))
        missing = max(0, limit - len(ids))
        ids += [mask] * missing
        visible += [int(options.expansion_attended)] * missing
    rows = project(folder, load_body(folder)(ids, visible if 0 in visible else None), options.token_dim)
    dropped = set(_punctuation(folder)) if options.punctuation_skiplist and not is_query else set()
    if options.skip_special_tokens:
        names = ("cls", "sep", "pad") if options.inserts_markers else ("cls", "sep", "pad", "bos", "eos")
        dropped |= special_ids(folder, [f"{name}_token" for name in names])
    rows = rows[[index for index, token in enumerate(ids) if token not in dropped]]
    return _numpy(unit(rows) if options.normalize else rows)


def _marker(folder: Path, prefix: str) -> int | None:
    """The vocabulary's token that the prefix is, exactly or without its blanks."""
    words = tokenizer(folder)
    for candidate in (prefix, prefix.strip()):
        found = words.token_to_id(candidate) if candidate else None
        if found is not None:
            return int(found)
    return None


def _punctuation(folder: Path) -> list[int]:
    found = (tokenizer(folder).token_to_id(character) for character in string.punctuation)
    return [token for token in found if token is not None and token not in special_ids(folder, ("unk_token",))]


def project(folder: Path, states: Tensor, token_dim: int) -> Tensor:
    """PyLate's Dense chain, else `colbert_linear.weight`, else `linear.weight` of the checkpoint; then cut to size."""
    modules = read_json(folder / "modules.json") or []
    chain = [module["path"] for module in modules if str(module["type"]).endswith(".Dense")]
    for path in chain:
        states = apply_dense(states, folder / path)
    if not chain:
        tensors = load_file(folder / "model.safetensors")
        name = next((name for name in ("colbert_linear", "linear") if f"{name}.weight" in tensors), None)
        if name is not None:
            states = functional.linear(states, tensors[f"{name}.weight"], tensors.get(f"{name}.bias"))
    return states[:, :token_dim]


def maxsim(query: Vector, document: Vector) -> float:
    """The sum over query rows of the best dot product with a document row; minus infinity without document rows."""
    if not len(document):
        return -math.inf
    return float((query.astype(np.float64) @ document.astype(np.float64).T).max(axis=1).sum())


# --- rerankers --------------------------------------------------------------------------------------------------------


def cross_encoder(
    folder: Path, query: str, document: str, *, max_length: int | None, sigmoid: bool | None = None
) -> float:
    """The classifier's logit and its activation: as the checkpoint's config says, or `sigmoid` where it is given."""
    ids, type_ids = tokenize(folder, query, document, max_length=token_limit(folder, max_length))
    config = read_json(folder / "config.json")
    inputs = (read_json(folder / "tokenizer_config.json") or {}).get("model_input_names", [])
    logits = load_classifier(folder)(ids, type_ids if "token_type_ids" in inputs else None)
    apply_sigmoid = configured_sigmoid(config, labels=len(logits)) if sigmoid is None else sigmoid
    return float(torch.sigmoid(logits[0]) if apply_sigmoid else logits[0])


def configured_sigmoid(config: Mapping[str, Any], *, labels: int) -> bool:
    """Whether the config's function is a sigmoid; without one, whether there is a single label (section 5.2)."""
    named = (config.get("sentence_transformers") or {}).get("activation_fn")
    named = named or config.get("sbert_ce_default_activation_function")
    return "Sigmoid" in str(named) if named else labels == 1


def causal_reranker(
    folder: Path,
    query: str,
    document: str,
    *,
    prompt: str = "mxbai",
    tokens: tuple[str, str] = ("1", "0"),
    probability: bool = False,
    instruction: str | None = None,
    max_length: int | None = None,
) -> float:
    """A prompted causal model: logit(yes) - logit(no), or with `probability` P(yes) of the two.

    The pieces of the prompt are tokenized apart; only the document's is cut. Raises `TooLongError` when the rest alone
    leaves no room, and `ValueError` for blank texts.
    """
    if not query.strip() or not document.strip():
        raise ValueError("a blank query or document")
    if prompt == "mxbai":
        head = [MXBAI_PREFIX, f"query: {query}", "\n"]
        body = f"document: {document}"
        tail = ["\n", MXBAI_TASK, MXBAI_SUFFIX]
    else:
        head = [QWEN3_PREFIX, f"<Instruct>: {instruction or QWEN3_INSTRUCTION}\n<Query>: {query}\n<Document>: "]
        body, tail = document, [QWEN3_SUFFIX]
    before, after = (_pieces(folder, pieces) for pieces in (head, tail))
    limit = token_limit(folder, max_length)
    middle = _pieces(folder, [body])
    if limit is not None:
        room = limit - len(before) - len(after)
        if room <= 0:
            raise TooLongError("the query and its prompt leave no room for a document")
        middle = middle[:room]
    logits = load_causal(folder)([*before, *middle, *after])
    yes, no = (logits[tokenizer(folder).token_to_id(token)] for token in tokens)
    return float(torch.softmax(torch.stack([no, yes]), 0)[1] if probability else yes - no)


def _pieces(folder: Path, texts: Sequence[str]) -> list[int]:
    return [token for text in texts for token in tokenize(folder, text, max_length=None, specials=False)[0]]


def zerank(folder: Path, query: str, document: str, *, max_length: int | None = None) -> float:
    """zerank-2: the query as system, the document as user; the logit of token 9454 after the assistant's opening."""
    text = f"<|im_start|>system\n{query}<|im_end|>\n<|im_start|>user\n{document}<|im_end|>\n<|im_start|>assistant\n"
    ids, _ = tokenize(folder, text, max_length=None)
    limit = token_limit(folder, max_length)
    if limit is not None and len(ids) > limit:
        raise TooLongError(f"the pair has {len(ids)} tokens, and {limit} are allowed")
    return float(load_causal(folder)(ids)[ZERANK_TOKEN])


def _numpy(values: Tensor) -> Vector:
    array: Vector = values.detach().numpy().astype(np.float32)
    return array
