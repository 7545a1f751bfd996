"""SIE's adapters that are not compiled, each with its reason: what they do is not one of the families'."""

from __future__ import annotations

from sie_triton.planning.recipe import Refusal


def _extracts(what: str) -> Refusal:
    return Refusal(f"{what}; extraction is not served, only encode and score")


def _generates(what: str = "generates text token by token with a KV cache") -> Refusal:
    return Refusal(f"{what}; generation is not served, only encode and score")


def _sees(what: str) -> Refusal:
    return Refusal(f"{what}; its vision tower and image preprocessing are not compiled")


ADAPTERS: dict[str, Refusal] = {
    # Image-text
    "ColQwen3Adapter": _sees("matches text queries with page images (Qwen3-VL)"),
    "NemoColEmbedAdapter": _sees("matches text queries with page images through the checkpoint's own modelling code"),
    "TopkEmbedAdapter": _sees("embeds text and page images token by token (Qwen3.5)"),
    "SparseEncoderVisionAdapter": _sees("encodes text and images sparsely through the checkpoint's own modelling code"),
    # Encode or score with parts that no checkpoint format describes
    "GLiFormerAdapter": Refusal(
        "encodes with the `gliformer` package's own modelling code, which transformers does not have"
    ),
    "StablebridgePrunerAdapter": Refusal(
        "scores with a head that only the adapter's code describes, kept in a file beside the checkpoint "
        "(`pruning_head_file`)"
    ),
    "FakeAdapter": Refusal("is SIE's test double: it loads no weights and computes no embedding"),
    # Extraction
    "GLiClassAdapter": _extracts("classifies text against labels given with the request"),
    "GLiNERAdapter": _extracts("finds entities of labels given with the request"),
    "GLiNERBiAdapter": _extracts("finds entities, encoding their labels separately"),
    "GLiNERUnionAdapter": _extracts("finds entities by joining the spans of several models"),
    "GLiNER2Adapter": _extracts("finds entities and fills schemas given with the request"),
    "GLiNER2ClassificationAdapter": _extracts("classifies text against labels given with the request"),
    "GLiNER2DecideAdapter": _extracts("takes typed decisions about a text"),
    "GLiNER2EntitiesAdapter": _extracts("finds entities of labels given with the request"),
    "GLiRELAdapter": _extracts("finds relations between entities"),
    "LayaAdapter": _extracts("takes decisions about a text"),
    "NLIClassificationAdapter": _extracts("classifies text by entailment of a hypothesis per label"),
    "NLIClassificationFlashAdapter": _extracts("classifies text by entailment of a hypothesis per label"),
    "PrivacyFilterAdapter": _extracts("marks personal data in a text"),
    "DoclingAdapter": _extracts("parses documents into structured text"),
    "DonutAdapter": _extracts("reads document images"),
    "Florence2Adapter": _extracts("captions, reads and locates things in images"),
    "GlmOcrAdapter": _extracts("reads document images"),
    "LightOnOCRAdapter": _extracts("reads document images"),
    "MinerUVLAdapter": _extracts("parses document images"),
    "PaddleOCRVLAdapter": _extracts("parses document images"),
    "SGLangVisionExtractAdapter": _extracts("turns images into text through a generation engine"),
    "GroundingDINOAdapter": _extracts("locates labelled objects in images"),
    "Owlv2Adapter": _extracts("locates labelled objects in images"),
    "Sam3Adapter": _extracts("locates labelled objects in images"),
    "ParakeetTDTAdapter": _extracts("transcribes speech"),
    "WhisperAdapter": _extracts("transcribes speech"),
    # Generation
    "SGLangGenerationAdapter": _generates(),
    "SGLangGemmaAdapter": _generates(),
    "SGLangCuda13Adapter": _generates(),
    "SGLangStrictThinkingAdapter": _generates(),
    "CTranslate2GenerationAdapter": _generates("translates or generates text with CTranslate2"),
    "MLXGenerationAdapter": _generates("generates text on Apple silicon"),
    "TensorRTLLMGenerationAdapter": _generates("generates text with TensorRT-LLM"),
    # Remote
    "OpenAIUpstreamAdapter": Refusal("forwards requests to another server; there are no weights to compile"),
    "SieUpstreamAdapter": Refusal("forwards requests to another server; there are no weights to compile"),
}
