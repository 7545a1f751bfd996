"""What a checkpoint is for, by what its files say: which of sentence-transformers' models, or why none."""

from __future__ import annotations

from typing import Literal, NoReturn

from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where
from sie_triton.facts import CheckpointFacts, answers, read_answer
from sie_triton.facts.images import SEEING
from sie_triton.facts.pipeline import PoolingStep, SpladeStep

Kind = Literal["dense", "sparse", "multivector", "score", "bge_m3", "image_text"]

# What sentence-transformers writes as `model_type` of its settings, and PyLate before it.
_SAVED_AS: dict[str, Kind] = {
    "SentenceTransformer": "dense",
    "SparseEncoder": "sparse",
    "MultiVectorEncoder": "multivector",
    "ColBERT": "multivector",
    "CrossEncoder": "score",
}
STANFORD = "HF_ColBERT"
BGE_M3_HEADS = ("sparse_linear", "colbert_linear")
QUERY_TABLES = ("query_token_weights.txt", "idf.json")
_SPARSE_TAGS = frozenset({"splade", "sparse-encoder"})
# Models of transformers that read from left to right and were made for writing, by `model_type`.
_DECODERS = frozenset(
    {
        *("bloom", "cohere", "cohere2", "deepseek_v2", "deepseek_v3", "falcon", "gemma", "gemma2", "gemma3_text"),
        *("glm", "glm4", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_oss", "gptj", "granite", "lfm2", "llama"),
        *("mistral", "mixtral", "mpt", "olmo", "olmo2", "olmo3", "opt", "persimmon", "phi", "phi3", "qwen2"),
        *("qwen2_moe", "qwen3", "qwen3_moe", "smollm3", "stablelm", "starcoder2"),
    }
)
# Ends of transformers' class names whose heads are not served.
_OTHER_TASKS = {
    "ForTokenClassification": "marks tokens of a text",
    "ForQuestionAnswering": "finds answers in a text",
    "ForMultipleChoice": "chooses between texts",
    "ForNextSentencePrediction": "tells whether a sentence follows another",
    "ForConditionalGeneration": "writes text from text",
    "ForImageClassification": "classifies images",
    "ForObjectDetection": "finds things in images",
    "ForSpeechSeq2Seq": "transcribes speech",
    "ForCTC": "transcribes speech",
}


def kind_of(facts: CheckpointFacts) -> Kind:
    """What the checkpoint is for. Raises `DiagnosticError` (`SIE331` and others: the pipeline's; `SIE221`)."""
    if all({f"{head}.pt", f"{head}.safetensors"} & facts.files for head in BGE_M3_HEADS):
        return "bge_m3"
    if facts.model_type in SEEING:
        return "image_text"
    if facts.problems:
        raise DiagnosticError(facts.problems)
    return _listed(facts) if facts.pipeline.listed else _unlisted(facts)


def _listed(facts: CheckpointFacts) -> Kind:
    """`modules.json` is there: the settings' word, else what the modules amount to."""
    saved = facts.settings.model_type
    if saved is not None:
        if saved not in _SAVED_AS:
            refuse(facts, f"sentence-transformers' settings call it a `{saved}`, which is not served", "pick another")
        # Before sentence-transformers knew late interaction, PyLate saved its models as a SentenceTransformer.
        kind = _SAVED_AS[saved]
        return "multivector" if kind == "dense" and _is_late(facts) else kind
    if any(isinstance(step, SpladeStep) for step in facts.pipeline.steps):
        return "sparse"
    return "multivector" if _is_late(facts) else "dense"


def _is_late(facts: CheckpointFacts) -> bool:
    return bool(facts.late) and not any(isinstance(step, PoolingStep) for step in facts.pipeline.steps)


def _unlisted(facts: CheckpointFacts) -> Kind:
    """A plain checkpoint of transformers: its class decides."""
    named = facts.architectures
    first = named[0] if named else ""
    if STANFORD in named or facts.stanford or len(facts.weight_shapes.get("linear.weight", ())) == 2:
        return "multivector"
    if first.endswith("ForSequenceClassification"):
        return "score"
    for end, what in _OTHER_TASKS.items():
        if first.endswith(end):
            refuse(facts, f"`{first}` {what}, and only vectors and scores are served", "pick an encoder or a reranker")
    unanswered = _unanswered(facts) if answers(facts) else ""
    if unanswered is None:
        return "score"
    if first.endswith(("ForCausalLM", "LMHeadModel")) or facts.config.get("is_encoder_decoder"):
        told = f": {unanswered}" if unanswered else ""
        message = f"`{first}` writes text, and nothing says how a vector or a score comes out of it{told}"
        refuse(facts, message, _GENERATES)
    if facts.model_type in _DECODERS or "bidirec" in facts.model_type:
        refuse(facts, f"`{facts.model_type}` is a decoder, and without `modules.json` nothing says its pooling", _POOLS)
    if set(QUERY_TABLES) & facts.files or (first.endswith("ForMaskedLM") and facts.card.tags & _SPARSE_TAGS):
        return "sparse"
    return "dense"


def _unanswered(facts: CheckpointFacts) -> str | None:
    """Why a language model's chat template is no reranker's prompt; None where it is."""
    try:
        read_answer(facts)
    except DiagnosticError as error:
        return error.diagnostics[0].message
    return None


_GENERATES = (
    "for an embedding model, pass a folder with its `modules.json`; for a reranker that answers a prompt, write a "
    "bundle with `Qwen2FlashCrossEncoderAdapter`, its `yes_token` and `no_token`; chat models are not served"
)
_POOLS = (
    "pass a folder with its `modules.json`, as sentence-transformers saves it, or write a bundle whose adapter takes a "
    "`pooling`, such as `Qwen2FlashAdapter` or `PyTorchEmbeddingAdapter`"
)


def refuse(facts: CheckpointFacts, message: str, hint: str, *, code: str = "SIE221", file: str = "") -> NoReturn:
    """Raise `DiagnosticError`: no bundle can be derived. `file` is where what is refused stands."""
    where = Where(facts.folder / (file or "config.json"))
    raise DiagnosticError([Diagnostic(code, f"no bundle can be derived: {message}", where, hint)])
