"""`manifest.json`: the one document that the compiler writes and the frontend reads.

Its schema lives with its reader, so that the frontend needs nothing of the compiler. Everything that serving
depends on is in it or beside it in the repository: no hub, no bundle and no torch at run time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

SCHEMA_VERSION = 3
MANIFEST_NAME = "manifest.json"

OutputType = Literal["dense", "sparse", "multivector", "score"]
PromptStyle = Literal[
    "template",
    "sentence_transformer",
    "sentence_transformer_sparse",
    "pytorch_embedding",
    "instruction_prefix",
    "colbert",
    "cross_encoder",
    "causal_cross_encoder",
    "native_causal_cross_encoder",
]


class ManifestError(Exception):
    """The repository cannot be served: the manifest is absent, unreadable or of another schema."""


class TensorSpec(msgspec.Struct, frozen=True):
    """A tensor of a Triton model. `dims` excludes the batch axis; -1 is a dynamic axis."""

    name: str
    datatype: str
    dims: tuple[int, ...]


class Tokenization(msgspec.Struct, frozen=True):
    """How text becomes token ids, right-padded with `pad_id` to a bucket length.

    `path` is relative to the repository. `max_length` counts special tokens. `inputs` are the tensors that the
    Triton model takes, in order; `attention_mask` is derived from lengths, never from `ids != pad_id`.
    `special_ids` maps roles (`cls`, `sep`, `pad`, `mask`, `unk`, `bos`, `eos`) to ids; `all_special_ids` lists every
    special id, roles or not. `truncation_side` is where a text that is too long loses tokens. `vocabulary` is the
    number of rows of the checkpoint's embedding, where the compiler said it: a tokenizer may give ids beyond.
    """

    path: str
    max_length: int
    pad_id: int
    inputs: tuple[str, ...]
    buckets: tuple[int, ...]
    special_ids: dict[str, int] = {}
    all_special_ids: tuple[int, ...] = ()
    truncation_side: Literal["left", "right"] = "right"
    vocabulary: int | None = None


class Prompting(msgspec.Struct, frozen=True):
    """Which rule turns an item's text into the text that is tokenised, and what the rule falls back on.

    `suffix` follows every text: an end-of-sequence token that the tokenizer does not add by itself.
    """

    style: PromptStyle
    query_template: str | None = None
    doc_template: str | None = None
    prompts: dict[str, str] = {}
    default_prompt: str | None = None
    suffix: str = ""


class Pooled(msgspec.Struct, frozen=True):
    """The two outputs of a dense head: L2-normalised, and as pooled."""

    normalized: str
    raw: str


class DenseHead(msgspec.Struct, frozen=True, tag="dense", tag_field="kind"):
    """One vector per item. `pooling` is the profile's own.

    `poolings` maps each pooling that a request may choose to its output tensors; `pooling_names` maps the spellings of
    `options.pooling` to them, "*" standing for any other spelling and for null. It is empty where the adapter ignores
    the option. `unsaid` is the pooling of a call whose options do not name one, if it is not `pooling`.
    `blank_is_zero`: blank text gives a zero vector without running the model.
    """

    pooling: str
    pooling_names: dict[str, str]
    poolings: dict[str, Pooled]
    normalize: bool
    honours_normalize: bool = True
    blank_is_zero: bool = False
    unsaid: str | None = None


class SparseHead(msgspec.Struct, frozen=True, tag="sparse", tag_field="kind"):
    """Vocabulary weights, compact: `ids` and `weights` are `[rows, k]`, positive weights first, zeros behind them.

    `drop_special` removes special tokens. `query_weights` is the path, relative to the repository, of a table of token
    weights that takes the model's place for queries (inference-free retrieval).
    """

    ids: str
    weights: str
    drop_special: bool = False
    query_weights: str | None = None


class TokenWeightsHead(msgspec.Struct, frozen=True, tag="token_weights", tag_field="kind"):
    """One weight per input token, `[rows, sequence]`: the maximum per id counts, `drop` names roles without weight."""

    tensor: str
    drop: tuple[str, ...]


class TextSide(msgspec.Struct, frozen=True):
    """How a late-interaction model reads queries, or documents.

    `marker` goes in front of the text; as one token behind the first if `marker_is_token`. `expand` pads with the mask
    token to `max_length`; `attend_expansion` says whether the model attends to that padding.
    """

    max_length: int
    marker: str = ""
    marker_is_token: bool = False
    expand: bool = False
    attend_expansion: bool = False
    drop: tuple[str, ...] = ()
    drop_punctuation: bool = False


class MultiVectorHead(msgspec.Struct, frozen=True, tag="multivector", tag_field="kind"):
    """One vector per kept token: `[rows, sequence, dim]`. The first `skip_first` tokens never leave.

    `normalize`: the tensor is as projected, and the frontend gives each vector length 1, unless the adapter
    `honours_normalize` and the call says otherwise.
    """

    tensor: str
    skip_first: int = 0
    normalize: bool = False
    honours_normalize: bool = False
    query: TextSide | None = None
    document: TextSide | None = None


class CrossEncoderHead(msgspec.Struct, frozen=True, tag="cross_encoder", tag_field="kind"):
    """`[rows, 1]`: one score per (query, document) pair, the activation applied."""

    tensor: str


class CausalHead(msgspec.Struct, frozen=True, tag="causal", tag_field="kind"):
    """`[rows, 1]`: one score per prompt; `prompt` names the published prompt that the checkpoint was trained on."""

    tensor: str
    prompt: Literal["mxbai", "qwen3", "zerank"]
    default_instruction: str | None = None


class MaxSimScore(msgspec.Struct, frozen=True, tag="maxsim", tag_field="kind"):
    """Scores from the model's own multivectors: the sum over query tokens of the best document token."""


class BgeM3Score(msgspec.Struct, frozen=True, tag="bge_m3", tag_field="kind"):
    """Scores from the three outputs of BGE-M3, by `options.score_mode`."""


Head: TypeAlias = (
    DenseHead
    | SparseHead
    | TokenWeightsHead
    | MultiVectorHead
    | CrossEncoderHead
    | CausalHead
    | MaxSimScore
    | BgeM3Score
)


class Measured(msgspec.Struct, frozen=True):
    """What `sie-triton tune` found: the machine, and tokens a second by setting."""

    machine: str
    tokens_per_second: dict[str, int]


class Batching(msgspec.Struct, frozen=True):
    """For one kind of machine: how many rows and tokens one Triton request may hold, how many run side by side.

    `run_tokens` is the token budget of one run: cache-sized on CPU, large on GPU. `express` runs may join the `streams`
    ones for as long as they are small: a query does not wait for bulk runs that were there first. `padding_cost` is set
    where padding is computed only in part: what a padded position costs, as a share of a token for each position of its
    row; without it, it costs what a token costs. `measured` is set where the numbers were tuned on a machine.
    """

    max_batch_size: int
    run_tokens: int
    streams: int
    express: int = 0
    padding_cost: float | None = None
    measured: Measured | None = None


class Model(msgspec.Struct, frozen=True):
    """One routable model id and everything the frontend must know to serve it.

    `request_limit`: whether a request's `options.max_seq_length` may lower the truncation length. `usage`: whether the
    tokens that are billed are those processed, or those of the bare text.
    """

    triton_model: str
    adapter: str
    requires_text: str
    inputs: tuple[str, ...]
    outputs: tuple[OutputType, ...]
    dims: dict[str, int | None]
    max_sequence_length: int | None
    revision: str | None
    profiles: dict[str, dict[str, Any]]
    prompting: Prompting
    tokenization: Tokenization
    heads: dict[OutputType, Head]
    batching: dict[str, Batching]
    loadtime: dict[str, Any] = {}
    request_limit: bool = False
    usage: Literal["processed", "raw"] = "processed"


class TritonModel(msgspec.Struct, frozen=True):
    """One directory of the repository. `depends_on` names the composing models of an ensemble."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    files: dict[str, str]
    depends_on: tuple[str, ...] = ()


class Distance(msgspec.Struct, frozen=True):
    """How far an output is from the reference: worst cosine and worst absolute difference over `cases` items.

    `min_cosine` is None for scores, which are no vectors. `batch_max_abs` is the worst difference between an item alone
    and the same item in a batch, in units of `largest`: the largest reference value, or 1 where that is more.
    """

    reference: str
    cases: int
    min_cosine: float | None
    max_abs: float
    batch_max_abs: float
    largest: float = 1.0


class Certificate(msgspec.Struct, frozen=True):
    """What a build was compared with, and what that is worth.

    `implementation` loaded the checkpoint itself. `texts` is the SHA-256 of the `cases` texts. `compared` is what it
    said by itself, `not_compared` what it was told; `departures` are where SIE's contract decides against the
    checkpoint or the implementation, and `warnings` what the bundle asks for without effect and what the checkpoint
    lacks.
    """

    implementation: str
    texts: str
    cases: int
    compared: tuple[str, ...]
    not_compared: tuple[str, ...] = ()
    departures: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Built(msgspec.Struct, frozen=True):
    """Where a public Triton model came from and how close it is; `key` recognises an unchanged build.

    `precisions` says what its graphs compute in on each kind of device (`cpu`, `cuda`), `configs` with which
    `--model-config-name` each kind of machine (`cpu`, `cuda`, `cuda-tensorrt`) starts Triton (empty: with none).
    `parity` holds, per precision, one `Distance` for each output, measured on a CPU.
    """

    key: str
    checkpoint: str
    precisions: dict[str, str]
    configs: dict[str, str]
    format: str
    layout: str
    tools: dict[str, str]
    parity: dict[str, dict[str, Distance]]
    triton_models: tuple[str, ...]
    certificate: Certificate


class Manifest(msgspec.Struct, frozen=True):
    """The whole document. `models` is keyed by model id, the other two by Triton model name."""

    schema_version: int
    models: dict[str, Model]
    triton_models: dict[str, TritonModel]
    built: dict[str, Built]


def read_manifest(repository: Path) -> Manifest:
    """Read `repository/manifest.json`; raises `ManifestError` with the cause and the cure."""
    path = repository / MANIFEST_NAME
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ManifestError(f"no `{MANIFEST_NAME}` in `{repository}`; build one with `sie-triton build`") from None
    except OSError as error:
        raise ManifestError(f"cannot read `{path}`: {error.strerror}") from None
    return parse_manifest(data, str(path))


def parse_manifest(data: bytes, origin: str) -> Manifest:
    """The manifest in `data`, which was read from `origin`; raises `ManifestError` with the cause and the cure."""
    try:
        version = msgspec.json.decode(data, type=dict[str, Any]).get("schema_version")
        if version != SCHEMA_VERSION:
            raise ManifestError(
                f"`{origin}` has schema version {version!r}, this program reads {SCHEMA_VERSION}; "
                "rebuild with `sie-triton build --force -m ID`"
            )
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(
            f"`{origin}` is not a valid manifest: {error}; rebuild with `sie-triton build --force -m ID`"
        ) from None


def dump_manifest(manifest: Manifest) -> bytes:
    """The manifest as indented JSON. Maps keep their order: clients see the profiles in the bundle's."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
