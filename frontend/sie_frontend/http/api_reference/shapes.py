"""Bodies that no decoder and no encoder of ours has a type for: they are written and read by hand, for speed or order.

Nothing is built from these types. They are what the OpenAPI document says, and the tests hold recorded bodies and ours
against it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import UNSET, Meta, Struct, UnsetType

from sie_frontend.contract.dtypes import OutputDtype
from sie_frontend.contract.responses import ScoreEntry, Timing


def _means(text: str) -> Meta:
    return Meta(description=text)


# Options of encode and score

Truth: TypeAlias = Any
Length: TypeAlias = int | float | str | None


class SharedOptions(Struct):
    """Options of both tasks. Those that a model does not know are ignored; a null replaces what its profile says."""

    profile: Annotated[str | None, _means("whose options stand below these; `default` where it is null")] = None
    instruction: Annotated[str | None, _means("as the parameter of that name, which comes first")] = None
    max_seq_length: Annotated[Length, _means("tokens to cut each text at, where the adapter lets a request say so")] = (
        None
    )
    query_max_length: Annotated[Length, _means("the same for the queries of late-interaction models")] = None
    overflow_policy: Annotated[
        Literal["default", "error", "truncate_text"] | None,
        _means("checked, and without effect: a text that is too long is cut"),
    ] = None
    lora_id: Annotated[
        str | None,
        _means("the adapter of another profile of the model, if that was built; null and the empty string: none"),
    ] = None


class EncodeOptions(SharedOptions):
    """What `params.options` may hold."""

    output_types: Annotated[
        list[Literal["dense", "sparse", "multivector"]] | UnsetType,
        _means("as the parameter of that name; this one comes first"),
    ] = UNSET
    output_dtype: Annotated[
        OutputDtype | Literal[""] | None, _means("as the parameter of that name, which comes first")
    ] = None
    is_query: Annotated[Truth, _means("whether the texts are queries; every value that Python calls true counts")] = (
        False
    )
    normalize: Annotated[Truth, _means("whether vectors get length 1, where the adapter lets a request say so")] = None
    pooling: Annotated[Any, _means("`cls`, `mean`, `last_token` and so on, in the words of the model's adapter")] = None
    query_template: Annotated[
        str | None, _means("what surrounds a query: `{text}` and `{instruction}` stand in it")
    ] = None
    doc_template: Annotated[str | None, _means("the same for a document")] = None
    default_instruction: Annotated[str | None, _means("the instruction of queries that come without one")] = None
    image_orientation: Annotated[
        Literal["stored", "exif"] | None, _means("`exif` turns images the way that their EXIF says; `stored` does not")
    ] = None
    image_alpha: Annotated[
        Literal["drop", "white"] | None, _means("`white` puts images with alpha on white; `drop` leaves alpha out")
    ] = None
    muvera: Annotated[Any, _means("anything but null: `dense` is made of the token vectors, by MUVERA")] = None
    smve: Annotated[Any, _means("anything but null: `sparse` is made of the token vectors")] = None


class ScoreOptions(SharedOptions):
    """What `options` of a score call may hold."""

    score_mode: Annotated[
        Literal["dense", "sparse", "colbert", "hybrid"], _means("what BGE-M3 scores by; other models do not read it")
    ] = "dense"
    score_weights: Annotated[
        dict[str, float] | None, _means("weights of `dense`, `sparse` and `colbert` in the mode `hybrid`, from 0 up")
    ] = None


# Answers of encode and score


class NumpyArray(Struct):
    """An array in msgpack: a map of five pairs in this order, whose keys are binary. Nothing of it occurs in JSON."""

    nd: Annotated[Literal[True], _means("false for a scalar, which has no `kind` and no `shape`")]
    type: Annotated[str, _means("the dtype in numpy's spelling, as `<f4`")]
    kind: Annotated[bytes, _means("empty")]
    shape: list[int]
    data: Annotated[bytes, _means("the numbers in C order: as many as `shape` says, in little-endian order")]


Label: TypeAlias = Literal["float32", "float16", "int8", "uint8", "binary"]
Numbers: TypeAlias = list[float] | NumpyArray


class Dense(Struct):
    """One vector of an item."""

    dims: Annotated[int, _means("the declared dims of the model; packed bits have fewer bytes than that")]
    dtype: Label
    values: Numbers


class Sparse(Struct):
    """Weights of tokens: `indices[i]` has the weight `values[i]`, and every other token 0."""

    dims: Annotated[int | None, _means("the size of the vocabulary; null for a vector made by SMVE")]
    dtype: Label
    indices: Numbers
    values: Numbers


class MultiVector(Struct):
    """One vector for each kept token of an item."""

    token_dims: int
    num_tokens: int
    dtype: Label
    values: list[list[float]] | NumpyArray


class EncodedItem(Struct):
    """One item's outputs: those that were asked for. `id` is there where the request had one."""

    id: str | UnsetType = UNSET
    dense: Dense | UnsetType = UNSET
    sparse: Sparse | UnsetType = UNSET
    multivector: MultiVector | UnsetType = UNSET


class TokenDetails(Struct):
    """What the tokens are made of."""

    content_tokens: int


class UsageAnswer(Struct):
    """What was processed; what is not known is left out, and all of it where there are images alone."""

    input_tokens: Annotated[int, _means("token ids with the special ones, after cutting; images have none")]
    images: int | UnsetType = UNSET
    input_tokens_details: TokenDetails | UnsetType = UNSET


class EncodeAnswer(Struct):
    """The items' outputs in the order of the request."""

    model: Annotated[str, _means("the id as it was asked for")]
    items: list[EncodedItem]
    timing: Timing
    usage: UsageAnswer | UnsetType = UNSET


class ScoreAnswer(Struct):
    """The ranking, best first; equal scores keep the order of the request."""

    model: str
    query_id: Annotated[str | None, _means("the query's own id")]
    scores: list[ScoreEntry]
    usage: UsageAnswer | UnsetType = UNSET


# OpenAI's and the rerankers' routes


class EmbeddingsBody(Struct):
    """OpenAI's request. Further fields are ignored; token numbers in place of texts are refused."""

    model: str
    input: Annotated[
        str | list[str], _means("texts; to a model that reads images, `data:image/…;base64,…` is an image")
    ]
    encoding_format: Annotated[Literal["float", "base64"] | None, _means("`float` where it is null")] = None
    dimensions: Annotated[int | float | str | None, _means("the model's own, or a width it may be cut to")] = None


class Embedding(Struct):
    """The vector of one text."""

    object: Literal["embedding"]
    embedding: Annotated[list[float] | str, _means("numbers, or little-endian float32 in base64")]
    index: int


class EmbeddingsUsage(Struct):
    """`sie_token_source` says whether the tokens were counted (`worker`) or guessed from the characters."""

    prompt_tokens: int
    total_tokens: int
    sie_token_source: Literal["worker", "character_estimate"]


class EmbeddingsAnswer(Struct):
    """One vector for each text, in their order."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingsUsage


class RerankBody(Struct, forbid_unknown_fields=True):
    """SIE's request to rank documents, which Jina's clients send too. A field that is not listed is refused by name.

    `rank_fields` and `max_chunks_per_doc` are taken from Cohere's own packages and from LiteLLM only.
    """

    model: str
    query: str
    documents: Annotated[list[str | dict[str, Any]], _means("texts, or objects with a `text`")]
    top_n: Annotated[int | None, _means("how many results to return; all where it is null")] = None
    return_documents: Annotated[bool | None, _means("whether each result repeats its document")] = False
    options: Annotated[ScoreOptions | None, _means("as those of a score call")] = None
    rank_fields: Annotated[list[str] | None, _means("the fields of a document that are read, a line each")] = None
    max_chunks_per_doc: Annotated[int | None, _means("an upper limit; a document is one chunk")] = None


class RerankV2Body(RerankBody, forbid_unknown_fields=True):
    """Cohere's request of its second version."""

    max_tokens_per_doc: Annotated[int | None, _means("tokens to cut each document at")] = None
    priority: Annotated[int | None, _means("checked, and without effect: queueing is fair")] = None
    relevant_spans: Annotated[dict[str, Any] | None, _means("refused, but for null and the mode `disabled`")] = None


class Ranked(Struct):
    """One document; `document` is there where it was asked for."""

    index: Annotated[int, _means("its place in the request")]
    relevance_score: float
    document: dict[str, Any] | UnsetType = UNSET


class RerankAnswer(Struct):
    """The best documents first."""

    model: str
    results: list[Ranked]
    usage: UsageAnswer


class RerankV2Answer(Struct):
    """The best documents first, as Cohere answers."""

    id: str
    results: list[Ranked]
    meta: Annotated[dict[str, Any], _means("`api_version` and `tokens`")]


# The list of models


class ProfileInfo(Struct):
    """One profile of a model. Three fields are null: they are of servers that route elsewhere."""

    is_default: bool
    identity: None
    remote_contract_sha256: None
    remote_execution_sha256: None
    runtime_instance_id: str


class ModelInfo(Struct):
    """What an id takes and gives, and whether it can be asked now."""

    name: str
    inputs: list[str]
    outputs: Annotated[list[str], _means("of `dense`, `sparse`, `multivector` and `score`")]
    dims: Annotated[dict[str, int], _means("by output, where an output has dims")]
    loaded: bool
    state: Annotated[str, _means("`loaded`, or `loading` while no Triton answers for it")]
    last_error: Annotated[dict[str, Any] | None, _means("null here: a model that was built does not fail to load")]
    max_sequence_length: int | None
    profiles: dict[str, ProfileInfo]
    revision: Annotated[str | None, _means("of the checkpoint that it was built from")]
    capabilities: None
    routing: dict[str, Any]


class ListedModel(Struct):
    """One id in OpenAI's words."""

    id: str
    object: Literal["model"]
    created: Annotated[int, _means("when the repository was built, in seconds since 1970")]
    owned_by: str


class ModelsAnswer(Struct):
    """Every id twice: SIE's list is `models`, OpenAI's is `data`."""

    models: list[ModelInfo]
    object: Literal["list"]
    data: list[ListedModel]


class ModelAnswer(ModelInfo):
    """One id, and what its vectors were compared with when it was built."""

    certificate: Annotated[dict[str, Any] | None, _means("null for what was not compared")]


# Refusals


class Detail(Struct):
    """Why a request was refused; some codes bring further fields."""

    code: str
    message: str


class Refused(Struct):
    """The refusals of SIE's routes."""

    detail: Detail


class Leaving(Struct):
    """This process ends: another instance may answer."""

    error: str
    detail: str


class Mistake(Struct):
    """What does not fit the schema, and where."""

    type: str
    loc: list[str | int]
    msg: str
    input: Any


class Unprocessable(Struct):
    """Every mistake in a body of OpenAI's route."""

    detail: list[Mistake]


class OpenAIDetail(Struct):
    """Why a request was refused, in OpenAI's words."""

    message: str
    type: str
    param: str | None
    code: str


class OpenAIRefused(Struct):
    """The refusals of OpenAI's route and of `/v1/rerank`."""

    error: OpenAIDetail


class CohereRefused(Struct):
    """The refusals of Cohere's route: the message stands where its clients look for it."""

    message: str
    error: OpenAIDetail
