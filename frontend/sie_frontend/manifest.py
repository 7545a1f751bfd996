"""`manifest.json`: the one document that the compiler writes and the frontend reads.

Its schema lives with its reader, so that the frontend needs nothing of the compiler. Everything that serving
depends on is in it or beside it in the repository: no hub, no bundle and no torch at run time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from sie_frontend.modalities import MODALITIES
from sie_frontend.outputs.table import Head, OutputType
from sie_frontend.text.entry import TextInput

SCHEMA_VERSION = 4
MANIFEST_NAME = "manifest.json"


class ManifestError(Exception):
    """The repository cannot be served: the manifest is absent, unreadable or of another schema."""


class TensorSpec(msgspec.Struct, frozen=True):
    """A tensor of a Triton model. `dims` excludes the batch axis; -1 is a dynamic axis."""

    name: str
    datatype: str
    dims: tuple[int, ...]


class Measured(msgspec.Struct, frozen=True):
    """What `sie-triton tune` found: the machine, and tokens a second by setting."""

    machine: str
    tokens_per_second: dict[str, int]


class Batching(msgspec.Struct, frozen=True):
    """For one kind of machine: how many rows and tokens one Triton request may hold, how many run side by side.

    `run_tokens` is the token budget of one run: cache-sized on CPU, large on GPU. `express` runs may join the `streams`
    ones for as long as they are small: a query does not wait for bulk runs that were there first. `padding_cost` is set
    where padding is computed only in part: what a padded position costs, as a share of a token for each position of its
    row; without it, it costs what a token costs. `measured` is set where the numbers were tuned on a machine. `threads`
    compute each of the `streams` runs.
    """

    max_batch_size: int
    run_tokens: int
    streams: int
    express: int = 0
    padding_cost: float | None = None
    measured: Measured | None = None
    threads: int = 1


class ModelInput(msgspec.Struct, frozen=True):
    """One way into a model: a modality, and the public Triton model that computes its rows, with a queue of its own.

    `reads` is the modality's entry: how items become rows.
    """

    triton_model: str
    reads: Any
    batching: dict[str, Batching]


class Model(msgspec.Struct, frozen=True):
    """One routable model id and everything the frontend must know to serve it.

    `inputs` has an entry for each modality that is served, and a request item uses one of them; they all give the
    tensors that `heads` name. `declared_inputs` is what the bundle says of its model. `lora` is the id of the adapter
    that is merged into its weights, as its profile names it.
    """

    adapter: str
    declared_inputs: tuple[str, ...]
    outputs: tuple[OutputType, ...]
    dims: dict[str, int | None]
    max_sequence_length: int | None
    revision: str | None
    profiles: dict[str, dict[str, Any]]
    inputs: dict[str, ModelInput]
    heads: dict[OutputType, Head]
    loadtime: dict[str, Any] = {}
    lora: str | None = None

    @property
    def triton_models(self) -> tuple[str, ...]:
        """The public Triton models that serve it, the one of its first input in front."""
        return tuple(entry.triton_model for entry in self.inputs.values())

    @property
    def text(self) -> TextInput:
        """How its text becomes rows; raises `KeyError` for a model that takes no text."""
        found = self.inputs["text"].reads
        assert isinstance(found, TextInput)
        return found


class TritonModel(msgspec.Struct, frozen=True):
    """One directory of the repository. `depends_on` names the composing models of an ensemble.

    `files` are digests and `sizes` bytes, by relative path; repositories of older releases have no sizes.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    files: dict[str, str]
    depends_on: tuple[str, ...] = ()
    sizes: dict[str, int] = {}


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


class Nearest(msgspec.Struct, frozen=True):
    """What a precision does to the answers of an index, over `texts` of which `queries` were asked for.

    `alike` is the share of float32's ten nearest that stay among the ten where index and queries are both in the
    precision, `mixed` where a float32 index is asked in it. `comparison` is what nearness is: cosine, dot product of
    sparse vectors, or MaxSim of token vectors. `min_cosine` is the worst of a text to itself in float32; of token
    vectors, all of a text at once. `corpus` says what the texts are, `digest` is their SHA-256.
    """

    texts: int
    queries: int
    alike: float
    mixed: float
    min_cosine: float
    corpus: str
    digest: str
    comparison: str = "cosine"


class Reranked(msgspec.Struct, frozen=True):
    """What a precision does to the order that scores of pairs give `candidates` texts for each of `queries`.

    `kept` is the share of float32's ten first that stay among the ten first, `tau` the mean of Kendall's tau-b over the
    queries, `max_abs` the largest difference of a score. The candidates are those that BM25 finds among the texts.
    `corpus` says what the texts are, `digest` is their SHA-256.
    """

    queries: int
    candidates: int
    kept: float
    tau: float
    max_abs: float
    corpus: str
    digest: str


class Built(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a public Triton model came from and how close it is; `key` recognises an unchanged build.

    `precisions` says what its graphs compute in on each kind of device (`cpu`, `cuda`), `configs` with which
    `--model-config-name` each kind of machine (`cpu`, `cuda`, `cuda-tensorrt`) starts Triton (empty: with none).
    `parity` holds, per precision, one `Distance` for each output, measured on a CPU. For precisions that a CPU serves
    below float32, `nearest` holds what they do to an index, and `reranked` to the order of pairs' scores, for each
    output, `written` how the graph was made, and `accepted` by name what was asked less of than usual. `engine` is what
    computes ONNX graphs on a CPU. `suffix` is what the names of its
    Triton models end with, where another build had the plain names already.
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
    suffix: str = ""
    nearest: dict[str, dict[str, Nearest]] = {}
    written: dict[str, str] = {}
    accepted: dict[str, float] = {}
    reranked: dict[str, dict[str, Reranked]] = {}
    engine: str = "onnxruntime"


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True):
    """The whole document. `models` and `previous` are keyed by model id, the other two by Triton model name.

    `previous` holds what an id was before it was replaced or removed. It is not served; `triton_models` and `built`
    name what it needs too, and its files lie in the repository, so that going back is a change of this document.
    """

    schema_version: int
    models: dict[str, Model]
    triton_models: dict[str, TritonModel]
    built: dict[str, Built]
    previous: dict[str, Model] = {}

    def parts(self, model: Model) -> tuple[str, ...]:
        """The Triton models that a model needs; what an ensemble is composed of stands before it."""
        found: dict[str, None] = {}
        for name in model.triton_models:
            entry = self.triton_models.get(name)
            found |= dict.fromkeys(entry.depends_on if entry else ())
            found[name] = None
        return tuple(found)

    def served(self) -> Manifest:
        """The document without `previous` and what only that needs."""
        if not self.previous:
            return self
        needed = {part for model in self.models.values() for part in self.parts(model)}
        return msgspec.structs.replace(
            self,
            previous={},
            triton_models={name: model for name, model in self.triton_models.items() if name in needed},
            built={name: built for name, built in self.built.items() if name in needed},
        )


def read_manifest(repository: Path) -> Manifest:
    """Read `repository/manifest.json`; raises `ManifestError` with the cause and what to do."""
    path = repository / MANIFEST_NAME
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ManifestError(f"no `{MANIFEST_NAME}` in `{repository}`; build one with `sie-triton build`") from None
    except OSError as error:
        raise ManifestError(f"cannot read `{path}`: {error.strerror}") from None
    return parse_manifest(data, str(path))


def parse_manifest(data: bytes, origin: str) -> Manifest:
    """The manifest in `data`, which was read from `origin`; raises `ManifestError` with the cause and what to do."""
    try:
        version = msgspec.json.decode(data, type=dict[str, Any]).get("schema_version")
        if version != SCHEMA_VERSION:
            raise ManifestError(
                f"`{origin}` has schema version {version!r}, this program reads {SCHEMA_VERSION}; "
                "rebuild with `sie-triton build --force -m ID`"
            )
        return _with_entries(msgspec.json.decode(data, type=Manifest))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(
            f"`{origin}` is not a valid manifest: {error}; rebuild with `sie-triton build --force -m ID`"
        ) from None


def _with_entries(manifest: Manifest) -> Manifest:
    """The manifest with the entry of each input in its modality's own type. Raises `msgspec.ValidationError`."""
    return msgspec.structs.replace(
        manifest, models=_typed_models(manifest.models), previous=_typed_models(manifest.previous)
    )


def _typed_models(models: dict[str, Model]) -> dict[str, Model]:
    return {
        model_id: msgspec.structs.replace(model, inputs={name: _typed(name, i) for name, i in model.inputs.items()})
        for model_id, model in models.items()
    }


def _typed(name: str, entry: ModelInput) -> ModelInput:
    if name not in MODALITIES:
        raise msgspec.ValidationError(f"it has an input of the unknown modality `{name}`")
    return msgspec.structs.replace(entry, reads=msgspec.convert(entry.reads, MODALITIES[name].entry))


def dump_manifest(manifest: Manifest) -> bytes:
    """The manifest as indented JSON. Maps keep their order: clients see the profiles in the bundle's."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
