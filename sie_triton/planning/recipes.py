"""Resolved profiles and the checkpoint's facts -> `TritonPlan`s: what each recipe adds on top of its encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sie_frontend.manifest import (
    BgeM3Score,
    CausalHead,
    CrossEncoderHead,
    DenseHead,
    Head,
    MaxSimScore,
    MultiVectorHead,
    OutputType,
    Pooled,
    Prompting,
    SparseHead,
    TextSide,
    TokenWeightsHead,
)

from sie_triton.bundle import Bundle, ResolvedProfile
from sie_triton.diagnostics import Diagnostic, DiagnosticError
from sie_triton.facts import (
    CheckpointFacts,
    DenseChain,
    DenseLayer,
    Layer,
    Pooling,
    dense_chain,
    sparse_chain,
    token_chain,
)
from sie_triton.facts.checkpoint import activation
from sie_triton.facts.pipeline import unsupported
from sie_triton.formats import FORMATS, Device, Format, Precision
from sie_triton.planning.catalogue import Recipe
from sie_triton.planning.effects import check_effects
from sie_triton.planning.plan import (
    ATTENTION_MASK,
    HIDDEN,
    INPUT_IDS,
    SPARSE_IDS,
    SPARSE_WEIGHTS,
    TOKEN_TYPE_IDS,
    Axis,
    Classifier,
    DensePooling,
    Encoder,
    Fused,
    GraphOptions,
    GraphPlan,
    HeadModule,
    LastTokenLogits,
    Layout,
    ServedPlan,
    SparseMax,
    Step,
    Tensor,
    TokenVectors,
    TokenWeights,
    TritonPlan,
    bucket_lengths,
    triton_model_name,
)

# Tried in this order; the first that the checkpoint has is used (SIE does the same).
QUERY_WEIGHT_FILES = ("query_token_weights.txt", "idf.json")
QUERY_WEIGHTS_NAME = "query_weights.npy"
BGE_M3_FILES = ("colbert_linear.pt", "sparse_linear.pt")
# ColBERT checkpoints keep their projection under one of these names, if it is not a module of its own.
PROJECTION_NAMES = ("colbert_linear", "linear", "projection", "dense")
# The last layer of a classification head, by the names that transformers' architectures give it.
CLASSIFIER_WEIGHTS = ("classifier.weight", "classifier.out_proj.weight", "score.weight")
# Recipes whose adapters run the checkpoint with sentence-transformers, so that its own settings hold.
FOLLOWS_MODULES = frozenset({"sentence_transformer_dense", "sentence_transformer_sparse", "cross_encoder"})
# zerank scores a pair by the logit of this token.
ZERANK_TOKEN = "Yes"


@dataclass(frozen=True, slots=True)
class _DenseNeed:
    """What one profile asks of the dense head; profiles that agree on all but the poolings share it.

    `unit`: every vector leaves with unit length, so that nothing is left to choose.
    """

    own: Pooling
    poolings: tuple[Pooling, ...]
    layers: tuple[Layer, ...]
    dim: Axis
    token_layers: tuple[Layer, ...] = ()
    keep: int | None = None
    unit: bool = False

    @property
    def chain(self) -> object:
        """What must be equal for two profiles to share the head."""
        return (self.layers, self.token_layers, self.keep)


@dataclass(frozen=True, slots=True)
class _Need:
    """What one profile asks for. Profiles that agree on all but `dense`, `profile` and `heads` share a Triton model."""

    profile: ResolvedProfile
    recipe: Recipe
    encoder: Encoder
    dense: _DenseNeed | None
    others: tuple[HeadModule, ...]
    heads: dict[OutputType, Head]
    max_length: int
    warnings: tuple[str, ...] = ()

    def shared(self, options: GraphOptions) -> object:
        """What must be equal for two profiles to share their graphs."""
        chain = self.dense.chain if self.dense else None
        precisions = tuple(precisions_for(self.profile, options).items())
        return (self.encoder, self.others, chain, self.max_length, self.profile.max_batch_tokens, precisions)


def make_plans(
    bundle: Bundle,
    profiles: Sequence[tuple[ResolvedProfile, Recipe]],
    facts: CheckpointFacts | None,
    options: GraphOptions | None = None,
) -> tuple[TritonPlan, ...]:
    """Plan the profiles of one bundle; those that need the same graphs share one Triton model, one copy of the weights.

    `facts` is None while the checkpoint is not at hand: widths are then named axes and limits the bundle's.
    Raises `DiagnosticError` for what cannot be planned.
    """
    options = options or GraphOptions()
    groups: dict[object, list[_Need]] = {}
    for profile, recipe in profiles:
        need = _NEEDS[recipe.name](bundle, profile, recipe, facts)
        need = replace(need, warnings=_warnings(bundle, need, facts))
        groups.setdefault(need.shared(options), []).append(need)
    return tuple(_plan(members, facts, options) for members in groups.values())


def _warnings(bundle: Bundle, need: _Need, facts: CheckpointFacts | None) -> tuple[str, ...]:
    """What the bundle asks for without effect; raises `DiagnosticError` where something else would come out."""
    known = need.dense if facts or need.recipe.name != "sentence_transformer_dense" else None
    found, problems = check_effects(
        bundle,
        need.profile,
        need.recipe,
        pooling=known.own if known else None,
        unit=known.unit if known else None,
    )
    if problems:
        raise DiagnosticError(problems)
    declared = need.profile.token_limit
    if declared and declared > need.max_length:
        cut = f"texts of `{need.profile.model_id}` are cut at {need.max_length} tokens, not at {declared}"
        found = (*found, f"{cut}: the checkpoint reads no more")
    if facts and need.recipe.name in FOLLOWS_MODULES:
        unread = (
            f"`{name}` has no effect: sentence-transformers reads it beside `modules.json` only"
            for name in facts.unread
        )
        found = (*found, *unread)
    return found


def precisions_for(profile: ResolvedProfile, options: GraphOptions) -> dict[Device, Precision]:
    """What the graphs compute in on each device: the build's choice, else the bundle's, else SIE's default.

    The bundle's choice is about CUDA; a CPU computes in float32, where SIE's fallbacks do too, unless the build says
    otherwise. Raises `DiagnosticError` for a choice of the build that the format cannot carry.
    """
    carried = FORMATS[options.format].precisions
    if options.precision and options.precision not in carried:
        raise _mistake(
            "SIE215",
            f"{options.format} graphs cannot be verified in {options.precision}: their runtime has no kernels for it "
            "on a CPU",
            f"choose {' or '.join(carried)}, or `--format torchscript`",
        )
    chosen: dict[Device, Precision] = {}
    for device in options.devices:
        wanted: Precision = "float32" if device == "cpu" else profile.compute_precision or "float16"
        wanted = options.precision or wanted
        # What was trained in bfloat16 runs in float16 where that is close enough: verification decides.
        chosen[device] = wanted if wanted in carried else "float16"
    return chosen


def _plan(members: Sequence[_Need], facts: CheckpointFacts | None, options: GraphOptions) -> TritonPlan:
    first = members[0]
    name = triton_model_name(first.profile.model_id)
    graphs, layout = _graphs(members, facts, options)
    tables = query_weight_files(facts) if isinstance(first.heads.get("sparse"), SparseHead) else ()
    # A graph that has the public model's own name needs no ensemble around it.
    steps = () if graphs[0].triton_model == name else tuple(_step(graph, options.format) for graph in graphs)
    return TritonPlan(
        name=name,
        inputs=graphs[0].inputs,
        outputs=tuple(tensor for graph in graphs for tensor in graph.outputs if tensor.name != HIDDEN),
        graphs=graphs,
        steps=steps,
        max_length=first.max_length,
        buckets=bucket_lengths(first.max_length),
        max_batch_tokens=first.profile.max_batch_tokens,
        served=tuple(ServedPlan(n.profile, n.recipe, _prompting(n, facts), _heads(n, first)) for n in members),
        query_weights=tables,
        format=options.format,
        layout=layout,
        precisions=precisions_for(first.profile, options),
        packing=options.packing and not any(_reads_padding(need) for need in members),
        truncation_side=facts.truncation_side if facts else "right",
        warnings=tuple(dict.fromkeys(text for need in members for text in need.warnings)),
        lowercase=bool(facts and first.recipe.name in FOLLOWS_MODULES and facts.pipeline.do_lower_case),
    )


def _reads_padding(need: _Need) -> bool:
    """Whether outputs count at positions that the mask hides: a ColBERT query is expanded with such tokens."""
    heads = [head for head in need.heads.values() if isinstance(head, MultiVectorHead)]
    sides = [side for head in heads for side in (head.query, head.document) if side is not None]
    return any(side.expand and not side.attend_expansion for side in sides)


def _graphs(
    members: Sequence[_Need], facts: CheckpointFacts | None, options: GraphOptions
) -> tuple[tuple[GraphPlan, ...], Layout]:
    """The graphs and their layout. With one head there is nothing to prune: an ensemble would only cost its hop."""
    first = members[0]
    model_id = first.profile.model_id
    hidden: Axis = (facts.hidden_size if facts else None) or "hidden"
    names = (INPUT_IDS, ATTENTION_MASK, *([TOKEN_TYPE_IDS] if first.encoder.token_types else []))
    inputs = tuple(Tensor(name, "INT64", ("batch", "sequence")) for name in names)
    heads = (*_dense_modules(members), *first.others)
    layout: Layout = options.layout or ("fused" if len(heads) == 1 else "ensemble")
    if layout == "fused":
        outputs = tuple(tensor for head in heads for tensor in _outputs(head, first))
        part = "fused" if FORMATS[options.format].indexed_names else None
        return (GraphPlan(triton_model_name(model_id, part), Fused(first.encoder, heads), inputs, outputs),), layout
    states = Tensor(HIDDEN, "FP32", ("batch", "sequence", hidden))
    encoder = GraphPlan(triton_model_name(model_id, "encoder"), first.encoder, inputs, (states,))
    return (
        encoder,
        *(
            GraphPlan(
                triton_model_name(model_id, head.kind),
                head,
                (states, *_mask_if_read(head, inputs)),
                _outputs(head, first),
            )
            for head in heads
        ),
    ), layout


def _step(graph: GraphPlan, graph_format: Format) -> Step:
    """The graph in the ensemble, under the names that its backend knows its tensors by."""
    called = FORMATS[graph_format].tensor_name
    return Step(
        graph.triton_model,
        {called(tensor.name, index): tensor.name for index, tensor in enumerate(graph.inputs)},
        {called(tensor.name, index): tensor.name for index, tensor in enumerate(graph.outputs)},
    )


def _mask_if_read(module: HeadModule, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """An input that a graph does not read would not be in the exported graph."""
    reads = isinstance(module, DensePooling | SparseMax | LastTokenLogits | Classifier)
    return inputs[1:2] if reads else ()


def _dense_modules(members: Sequence[_Need]) -> list[HeadModule]:
    wanted = [need.dense for need in members if need.dense]
    poolings = tuple(dict.fromkeys(p for dense in wanted for p in dense.poolings))
    if not wanted:
        return []
    first = wanted[0]
    return [DensePooling(poolings, first.layers, first.token_layers, first.keep)]


def _dense_names(pooling: str, first: _Need) -> tuple[str, str]:
    """The tensors of a pooling; the first profile's own pooling gets the plain names."""
    assert first.dense is not None
    suffix = "" if pooling == first.dense.own else f"_{pooling.replace('+', '_')}"
    return f"dense{suffix}", f"dense{suffix}_unnormalized"


def _outputs(module: HeadModule, first: _Need) -> tuple[Tensor, ...]:
    if isinstance(module, DensePooling):
        assert first.dense is not None
        names = [name for pooling in module.poolings for name in _dense_names(pooling, first)]
        return tuple(Tensor(name, "FP32", ("batch", first.dense.dim)) for name in names)
    if isinstance(module, SparseMax):
        return (Tensor(SPARSE_IDS, "INT64", ("batch", "terms")), Tensor(SPARSE_WEIGHTS, "FP32", ("batch", "terms")))
    if isinstance(module, TokenWeights):
        return (Tensor("token_weights", "FP32", ("batch", "sequence")),)
    if isinstance(module, TokenVectors):
        return (Tensor("multivector", "FP32", ("batch", "sequence", module.dim)),)
    return (Tensor("score", "FP32", ("batch", 1)),)


def _heads(need: _Need, first: _Need) -> dict[OutputType, Head]:
    heads: dict[OutputType, Head] = {}
    if need.dense:
        heads["dense"] = _dense_head(need, first)
    heads.update(need.heads)
    return heads


def _dense_head(need: _Need, first: _Need) -> DenseHead:
    dense, recipe = need.dense, need.recipe
    assert dense is not None
    # What a call's options do not say is the adapter's default, not that of another profile.
    default = bool(need.profile.loadtime.get("normalize", recipe.default_normalize))
    normalize = default if recipe.honours_normalize else need.profile.runtime.get("normalize", default) is not False
    spellings: dict[str, str] = {}
    if recipe.pooling_otherwise and len(dense.poolings) > 1:
        spellings = {**recipe.pooling_override, "*": recipe.pooling_otherwise}
    return DenseHead(
        pooling=dense.own,
        pooling_names=spellings,
        poolings={pooling: Pooled(*_dense_names(pooling, first)) for pooling in dense.poolings},
        normalize=dense.unit or normalize,
        honours_normalize=recipe.honours_normalize and not dense.unit,
        blank_is_zero=recipe.blank_text_is_zero,
        unsaid=recipe.default_pooling if spellings else None,
    )


def _prompting(need: _Need, facts: CheckpointFacts | None) -> Prompting:
    recipe = need.recipe
    followed = facts if facts and recipe.prompting.startswith("sentence_transformer") else None
    return Prompting(
        style=recipe.prompting,
        # The bundle's templates are among the runtime options of its profiles, which every call starts from.
        query_template=recipe.default_query_template,
        doc_template=recipe.default_doc_template,
        prompts=dict(followed.settings.prompts) if followed else {},
        default_prompt=followed.settings.default_prompt if followed else None,
        suffix=_end_of_sequence(facts) if recipe.append_eos else "",
    )


def _end_of_sequence(facts: CheckpointFacts | None) -> str:
    """The text of the tokenizer's end-of-sequence token, which its configuration gives plain or as a map."""
    token = facts.tokenizer_config.get("eos_token") if facts else None
    return str(token["content"] if isinstance(token, Mapping) else token or "")


def token_limit(profile: ResolvedProfile, recipe: Recipe, facts: CheckpointFacts | None) -> int:
    """Where text is truncated, special tokens included: the least of what bundle, tokenizer and positions allow.

    sentence-transformers sets its own limit from the bundle alone; without one the repository's setting holds.
    """
    limits: list[int] = []
    declared = profile.token_limit
    if declared:
        limits.append(int(declared))
    if facts:
        if recipe.name.startswith("sentence_transformer"):
            if not declared and facts.sentence_limit:
                limits.append(facts.sentence_limit)
        elif recipe.name == "cross_encoder" and facts.sentence_limit:
            limits.append(facts.sentence_limit)
        elif facts.tokenizer_max_length:
            limits.append(facts.tokenizer_max_length)
        if facts.max_positions:
            limits.append(facts.max_positions)
    if not limits:
        raise _mistake(
            "SIE212", f"nothing says how many tokens `{profile.model_id}` takes", "add `max_sequence_length`"
        )
    return min(limits)


def query_weight_files(facts: CheckpointFacts | None) -> tuple[str, ...]:
    """The checkpoint's tables of query token weights, in the order in which they are tried."""
    return tuple(name for name in QUERY_WEIGHT_FILES if facts and name in facts.files)


def extra_files(recipe: Recipe) -> tuple[str, ...]:
    """Files beside the weights that the recipe cannot do without."""
    return BGE_M3_FILES if recipe.name == "bge_m3" else ()


def _mistake(code: str, message: str, hint: str) -> DiagnosticError:
    return DiagnosticError([Diagnostic(code, message, hint=hint)])


# The needs of each recipe


def _dense(bundle: Bundle, profile: ResolvedProfile, recipe: Recipe, facts: CheckpointFacts | None) -> _Need:
    # Decoders that were trained as encoders attend to both sides unless their bundle says `causal`.
    forward = profile.loadtime.get("forward_kwargs") or {}
    bidirectional = forward.get("is_causal") is False or (
        profile.adapter_class == "Qwen2FlashAdapter" and profile.loadtime.get("causal") is not True
    )
    return _Need(
        profile=profile,
        recipe=recipe,
        encoder=Encoder(bidirectional=bidirectional),
        dense=_dense_need(bundle, profile, recipe, facts),
        others=(),
        heads={},
        max_length=token_limit(profile, recipe, facts),
    )


def _dense_need(bundle: Bundle, profile: ResolvedProfile, recipe: Recipe, facts: CheckpointFacts | None) -> _DenseNeed:
    if recipe.name == "sentence_transformer_dense":
        need = _followed_need(facts)
    else:
        own: Pooling = recipe.pooling_for(profile.runtime.get("pooling")) or "mean"
        layers = _projection_layers(bundle, profile, facts)
        dim: Axis = layers[-1].out_features if layers else (facts.hidden_size if facts else None) or "hidden"
        need = _DenseNeed(own, tuple(dict.fromkeys((own, *_request_poolings(recipe)))), layers, dim)
    declared = bundle.dims.get("dense")
    if isinstance(need.dim, int) and declared is not None and declared != need.dim:
        kept = f", of which its `truncate_dim` keeps {need.dim}" if need.keep else ""
        raise DiagnosticError(
            [
                Diagnostic(
                    "SIE211",
                    f"`{profile.model_id}` declares {declared} dense dimensions, the checkpoint gives "
                    f"{facts.hidden_size if facts and kept else need.dim}{kept}",
                    bundle.positions.get("tasks.encode.dense.dim"),
                    f"set `tasks.encode.dense.dim: {need.dim}`, or name the checkpoint that the bundle means",
                )
            ]
        )
    return need if isinstance(need.dim, int) or declared is None else replace(need, dim=declared)


def _followed_need(facts: CheckpointFacts | None) -> _DenseNeed:
    """What the checkpoint's own modules say: on this adapter they decide, and the bundle's `pooling` has no effect."""
    if facts is None:
        return _DenseNeed("mean", ("mean",), (), "hidden")
    pipeline = facts.followed("SentenceTransformer")
    if pipeline.listed:
        chain = dense_chain(pipeline, facts.folder)
    else:
        # Without `modules.json` sentence-transformers pools the last token of a model that was made for writing text.
        chain = DenseChain("last_token" if facts.generates else "mean", include_prompt=True, token_layers=(), layers=())
    if not chain.include_prompt and facts.settings.prompts:
        raise DiagnosticError(
            [unsupported(facts.folder / "modules.json", "a Pooling that leaves out the prompt's tokens")]
        )
    width = chain.width(facts.hidden_size)
    keep = facts.settings.truncate_dim
    keep = keep if keep and (width is None or keep < width) else None
    unit = chain.normalizes and keep is None
    return _DenseNeed(
        own=chain.pooling,
        poolings=(chain.pooling,),
        # A graph gives every vector at unit length and as pooled: so profiles that do not normalise share it.
        layers=chain.before_normalizing if unit else chain.layers,
        dim=keep or width or "hidden",
        token_layers=chain.token_layers,
        keep=keep,
        unit=unit,
    )


def _projection_layers(
    bundle: Bundle, profile: ResolvedProfile, facts: CheckpointFacts | None
) -> tuple[DenseLayer, ...]:
    """`dense_projection_path`: a folder of the checkpoint with a Linear that follows the pooling."""
    path = profile.loadtime.get("dense_projection_path")
    if not path or facts is None:
        return ()
    dim = bundle.dims.get("dense")
    if facts.hidden_size is None or dim is None:
        raise _mistake(
            "SIE213", f"`{profile.model_id}` projects its vectors to an unknown width", "add `tasks.encode.dense.dim`"
        )
    return (DenseLayer(str(path), facts.hidden_size, dim, bias=True, activation="Identity"),)


def _request_poolings(recipe: Recipe) -> tuple[Pooling, ...]:
    """The poolings that a request's `pooling` option can choose for this adapter."""
    if recipe.pooling_otherwise is None or not recipe.pooling_by_request:
        return ()
    return tuple(dict.fromkeys((*recipe.pooling_override.values(), recipe.pooling_otherwise)))


def _sparse(bundle: Bundle, profile: ResolvedProfile, recipe: Recipe, facts: CheckpointFacts | None) -> _Need:
    special = recipe.name == "gte_sparse"
    table = query_weight_files(facts)
    # SIE doubles the logarithm for this adapter's v3 checkpoints, told by their name.
    head = SparseMax(double_log=special and "v3" in (bundle.hf_id or str(bundle.weights_path)))
    if recipe.name == "sentence_transformer_sparse" and facts:
        head = _followed_sparse(facts)
    return _Need(
        profile=profile,
        recipe=recipe,
        encoder=Encoder("masked_lm"),
        dense=None,
        others=(head,),
        heads={
            "sparse": SparseHead(
                SPARSE_IDS,
                SPARSE_WEIGHTS,
                drop_special=special,
                query_weights=f"{triton_model_name(profile.model_id)}/1/{QUERY_WEIGHTS_NAME}" if table else None,
            )
        },
        max_length=token_limit(profile, recipe, facts),
    )


def _followed_sparse(facts: CheckpointFacts) -> SparseMax:
    """What the checkpoint's own modules say; without `modules.json`, sentence-transformers' default."""
    pipeline = facts.followed("SparseEncoder")
    terms = facts.settings.max_active_dims
    if not pipeline.listed:
        return SparseMax(max_terms=terms)
    step = sparse_chain(pipeline, facts.folder)
    return SparseMax(double_log=step.double_log, pooling=step.pooling, max_terms=terms)


def _bge_m3(bundle: Bundle, profile: ResolvedProfile, recipe: Recipe, facts: CheckpointFacts | None) -> _Need:
    dense = _dense_need(bundle, profile, replace(recipe, pooling_otherwise=None), facts)
    dim = bundle.dims.get("multivector") or (facts.hidden_size if facts else None) or 0
    heads: dict[OutputType, Head] = {
        "sparse": TokenWeightsHead("token_weights", ("cls", "sep", "eos", "bos", "pad", "unk")),
        # Unnormalised in the graph: a call may ask for it so.
        "multivector": MultiVectorHead(
            "multivector", skip_first=1, normalize=True, honours_normalize=recipe.honours_normalize
        ),
    }
    if "score" in bundle.outputs:
        heads["score"] = BgeM3Score()
    return _Need(
        profile=profile,
        recipe=recipe,
        encoder=Encoder(),
        dense=replace(dense, own="cls", poolings=("cls",)),
        others=(TokenWeights("sparse_linear"), TokenVectors(dim, file="colbert_linear", normalize=False)),
        heads=heads,
        max_length=token_limit(profile, recipe, facts),
    )


def _colbert(bundle: Bundle, profile: ResolvedProfile, recipe: Recipe, facts: CheckpointFacts | None) -> _Need:
    loadtime = profile.loadtime
    modern = recipe.name == "colbert_modernbert"
    limit = token_limit(profile, recipe, facts)
    specials = ("cls", "sep", "pad", "bos", "eos") if modern else ("cls", "sep", "pad")
    drop = specials if loadtime.get("skip_special_tokens", True) else (() if modern else ("pad",))
    expand = not modern and loadtime.get("query_expansion", True) is not False

    def side(name: str, length: int, *, expand: bool = False, punctuation: bool = False) -> TextSide:
        return TextSide(
            max_length=min(limit, length),
            marker=str(loadtime.get(f"{name}_prefix") or ""),
            marker_is_token=not modern,
            expand=expand,
            attend_expansion=recipe.name == "colbert_rotary",
            drop=drop,
            drop_punctuation=punctuation,
        )

    heads: dict[OutputType, Head] = {
        "multivector": MultiVectorHead(
            "multivector",
            query=side("query", int(loadtime.get("query_max_length", 32)), expand=expand),
            document=side(
                "doc",
                int(loadtime.get("doc_max_length", limit)),
                punctuation=bool(loadtime.get("doc_punctuation_skiplist", not modern)),
            ),
        )
    }
    if "score" in bundle.outputs:
        heads["score"] = MaxSimScore()
    return _Need(
        profile=profile,
        recipe=recipe,
        encoder=Encoder(),
        dense=None,
        others=(_token_vectors(bundle, profile, recipe, facts),),
        heads=heads,
        max_length=limit,
    )


def _token_vectors(
    bundle: Bundle, profile: ResolvedProfile, recipe: Recipe, facts: CheckpointFacts | None
) -> TokenVectors:
    """Where the projection is: a PyLate chain, a tensor of the checkpoint, or nothing but a cut."""
    dim = profile.loadtime.get("token_dim") or bundle.dims.get("multivector")
    if not isinstance(dim, int):
        raise _mistake(
            "SIE213", f"`{profile.model_id}` names no width for its token vectors", "add `loadtime.token_dim`"
        )
    plain = TokenVectors(dim, normalize=profile.loadtime.get("normalize", True) is not False)
    if facts is None:
        return plain
    if recipe.name != "colbert_rotary":
        chain = token_chain(facts.followed("MultiVectorEncoder", "ColBERT", "SentenceTransformer"), facts.folder)
        if chain.layers:
            return replace(plain, layers=chain.layers)
    names = ("linear",) if recipe.name == "colbert_rotary" else PROJECTION_NAMES
    weights = [f"{name}.weight" for name in names] + [
        name for name in facts.weight_shapes if "colbert" in name and name.endswith(".weight")
    ]
    weight = next((w for w in weights if len(facts.weight_shapes.get(w, ())) == 2), None)
    if weight is None and recipe.name == "colbert_rotary":
        raise _mistake("SIE404", f"`{profile.model_id}` has no root `linear.weight`", "use the checkpoint that has it")
    return replace(plain, weight=weight)


def _cross_encoder(bundle: Bundle, profile: ResolvedProfile, recipe: Recipe, facts: CheckpointFacts | None) -> _Need:
    config = facts.config if facts else {}
    labels = _label_count(facts) if facts else 1
    if labels != 1:
        raise _mistake(
            "SIE214",
            f"`{profile.model_id}` has {labels} labels; a score needs exactly one",
            "use a reranker checkpoint",
        )
    return _Need(
        profile=profile,
        recipe=recipe,
        encoder=Encoder("sequence_classification", token_types=int(config.get("type_vocab_size") or 0) > 1),
        dense=None,
        others=(Classifier(_activation(recipe, facts)),),
        heads={"score": CrossEncoderHead("score")},
        max_length=token_limit(profile, recipe, facts),
    )


def _label_count(facts: CheckpointFacts) -> int:
    """How many scores the head gives: what the configuration says, else the rows of its last layer."""
    config = facts.config
    if isinstance(config.get("num_labels"), int):
        return int(config["num_labels"])
    if labels := config.get("id2label"):
        return len(labels)
    shapes = (facts.weight_shapes.get(name, ()) for name in CLASSIFIER_WEIGHTS)
    return next((shape[0] for shape in shapes if len(shape) == 2), 1)


def _activation(recipe: Recipe, facts: CheckpointFacts | None) -> str:
    """What follows the logit: the checkpoint's function, unless the adapter takes a sigmoid whatever that says."""
    if recipe.score_activation == "sigmoid" or facts is None:
        return "Sigmoid"
    pipeline = facts.followed("CrossEncoder")
    odd = f"the modules {pipeline} behind a reranker's transformer" if pipeline.steps else None
    if pipeline.listed and pipeline.task != "sequence-classification":
        odd = f"a transformer for `{pipeline.task}`, where a reranker needs `sequence-classification`"
    if facts.settings.default_prompt:
        odd = f"the prompt `{facts.settings.default_prompt}` in front of every pair"
    if odd:
        raise DiagnosticError([unsupported(facts.folder / "modules.json", odd)])
    return activation(facts)


def _causal(bundle: Bundle, profile: ResolvedProfile, recipe: Recipe, facts: CheckpointFacts | None) -> _Need:
    loadtime = profile.loadtime
    if recipe.name == "native_causal_cross_encoder":
        head, module = CausalHead("score", "zerank"), LastTokenLogits(ZERANK_TOKEN, None, "logit")
    else:
        prompt: Literal["qwen3", "mxbai"] = "qwen3" if loadtime.get("input_format") == "qwen3" else "mxbai"
        mode: Literal["probability", "difference"] = (
            "probability" if loadtime.get("score_mode") == "log_softmax" else "difference"
        )
        head = CausalHead("score", prompt, loadtime.get("default_instruction"))
        module = LastTokenLogits(str(loadtime.get("yes_token", "1")), str(loadtime.get("no_token", "0")), mode)
    return _Need(
        profile=profile,
        recipe=recipe,
        encoder=Encoder("causal_lm"),
        dense=None,
        others=(module,),
        heads={"score": head},
        max_length=token_limit(profile, recipe, facts),
    )


_NEEDS = {
    "dense": _dense,
    "sentence_transformer_dense": _dense,
    "splade": _sparse,
    "gte_sparse": _sparse,
    "sentence_transformer_sparse": _sparse,
    "bge_m3": _bge_m3,
    "colbert": _colbert,
    "colbert_modernbert": _colbert,
    "colbert_rotary": _colbert,
    "cross_encoder": _cross_encoder,
    "causal_cross_encoder": _causal,
    "native_causal_cross_encoder": _causal,
}
