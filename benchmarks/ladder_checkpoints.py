"""Checkpoints for `benchmarks.ladder` whose weights are real as far as they can be had without a hub.

    python -m benchmarks.ladder_checkpoints --minilm FOLDER --splade FOLDER /tmp/made
    sie-triton build -m ladder/colbert --bundles /tmp/made --device cpu -r /tmp/repository

`--minilm` is a folder with all-MiniLM-L6-v2, `--splade` one with a BERT for SPLADE. Writes three models and their
bundles:

- `ladder/splade`: the SPLADE as it is.
- `ladder/colbert`: MiniLM's body, and token vectors projected to 128 by orthonormal directions drawn at random, which
  keep the products of MiniLM's own token vectors as far as 128 numbers can.
- `ladder/reranker`: MiniLM's body, and a classifier over its pooled state that ridge regression fits to what MiniLM
  itself says of pairs of sentences that BM25 finds: the cosine of both, as a logit. It prints the share of the variance
  that this explains for other pairs, since a score without meaning would order nothing.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sie_frontend.rows import Array
from transformers import AutoModel, AutoTokenizer, BertConfig, BertForSequenceClassification

from sie_triton.answers.candidates import candidates
from sie_triton.answers.corpus import documentation

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
TOKEN_WIDTH = 128
FITTED_PAIRS, RIDGE, SPREAD = 1500, 1e-2, 2.0
BUNDLE = """\
sie_id: ladder/{name}
weights_path: {folder}
inputs: {{text: true}}
tasks: {tasks}
max_sequence_length: 512
profiles:
  default:
    max_batch_tokens: 16384
    adapter_path: sie_server.adapters.{adapter}
"""
COLBERT_OPTIONS = """\
    adapter_options:
      loadtime: {token_dim: 128, query_max_length: 32, query_prefix: '[unused0]', doc_prefix: '[unused1]'}
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.ladder_checkpoints", description=__doc__.splitlines()[0])
    parser.add_argument("--minilm", type=Path, required=True)
    parser.add_argument("--splade", type=Path, required=True)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    root: Path = options.folder.resolve()
    root.mkdir(parents=True, exist_ok=True)
    shutil.copytree(options.splade, root / "splade", dirs_exist_ok=True)
    write_bundle(root, "splade", "splade_flash.adapter:SPLADEFlashAdapter", "{encode: {sparse: {dim: 30522}}}")
    write_colbert(options.minilm, root / "colbert")
    tasks = "{encode: {multivector: {dim: 128}}, score: {}}"
    write_bundle(root, "colbert", "colbert:ColBERTAdapter", tasks, COLBERT_OPTIONS)
    write_reranker(options.minilm, root / "reranker")
    write_bundle(root, "reranker", "bert_flash_cross_encoder:BertFlashCrossEncoderAdapter", "{score: {}}")


def write_bundle(root: Path, name: str, adapter: str, tasks: str, more: str = "") -> None:
    """The bundle of a checkpoint in `root`."""
    text = BUNDLE.format(name=name, folder=root / name, tasks=tasks, adapter=adapter) + more
    (root / f"{name}.yaml").write_text(text, encoding="utf-8")


def write_colbert(source: Path, folder: Path) -> None:
    """A checkpoint in the layout of Stanford's: the body under `bert.`, and a root `linear.weight`."""
    _start(source, folder)
    body = load_file(source / "model.safetensors")
    config = BertConfig.from_pretrained(source, architectures=["HF_ColBERT"])
    config.save_pretrained(folder)
    drawn = torch.randn(config.hidden_size, TOKEN_WIDTH, generator=torch.Generator().manual_seed(11))
    directions, _ = torch.linalg.qr(drawn)
    tensors = {f"bert.{name}": tensor for name, tensor in body.items() if not name.startswith("pooler")}
    save_file({**tensors, "linear.weight": directions.T.contiguous()}, folder / "model.safetensors")


def write_reranker(source: Path, folder: Path) -> None:
    """A cross-encoder over pairs of sentences."""
    _start(source, folder)
    texts = documentation(5000)
    queries = range(0, len(texts), 100)
    found = candidates(texts, queries, FITTED_PAIRS // len(queries))
    pairs = [(texts[q], texts[place]) for q, line in zip(queries, found, strict=True) for place in line]
    tokenizer: Any = AutoTokenizer.from_pretrained(source, local_files_only=True)
    body = AutoModel.from_pretrained(source, local_files_only=True).eval()
    ones = _states(body, tokenizer, [(text,) for text in dict.fromkeys(text for pair in pairs for text in pair)])
    vectors = {text[0]: mean / np.linalg.norm(mean) for text, (_, mean) in ones.items()}
    cosines = np.asarray([vectors[a] @ vectors[b] for a, b in pairs])
    states = _states(body, tokenizer, pairs)
    pooled = np.stack([states[pair][0] for pair in pairs])
    logits = SPREAD * (cosines - cosines.mean()) / cosines.std()
    fitted = np.arange(len(pairs)) % 5 != 0
    weight, bias = _ridge(pooled[fitted], logits[fitted])
    missed = logits[~fitted] - (pooled[~fitted] @ weight + bias)
    print(f"the classifier explains {1 - missed.var() / logits[~fitted].var():.0%} of the variance of other pairs")
    config = BertConfig.from_pretrained(source, num_labels=1, architectures=["BertForSequenceClassification"])
    model = BertForSequenceClassification(config)
    model.bert.load_state_dict(body.state_dict(), strict=False)
    with torch.no_grad():
        model.classifier.weight.copy_(torch.from_numpy(weight[None]))
        model.classifier.bias.fill_(float(bias))
    model.save_pretrained(folder)


def _start(source: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copyfile(source / name, folder / name)


def _states(body: Any, tokenizer: Any, items: list[Any]) -> dict[Any, tuple[Array, Array]]:
    """Of each tuple of one or two texts, the pooled state of the first token and the mean of all states."""
    made = {}
    items = sorted(items, key=lambda item: sum(map(len, item)))
    for start in range(0, len(items), 32):
        some = items[start : start + 32]
        columns = [list(column) for column in zip(*some, strict=True)]
        batch = tokenizer(*columns, padding=True, truncation=True, max_length=256, return_tensors="pt")
        with torch.inference_mode():
            out = body(**batch)
        mask = batch["attention_mask"][..., None]
        means = (out.last_hidden_state * mask).sum(1) / mask.sum(1)
        made.update(
            {
                item: (pooled.numpy(), mean.numpy())
                for item, pooled, mean in zip(some, out.pooler_output, means, strict=True)
            }
        )
    return made


def _ridge(states: Array, targets: Array) -> tuple[Array, float]:
    """Weights and bias of the linear function that is nearest to `targets`, with small weights."""
    middle, shift = states.mean(0), targets.mean()
    centred = states - middle
    square = centred.T @ centred + RIDGE * len(states) * np.eye(states.shape[1]) * centred.var()
    weight = np.linalg.solve(square, centred.T @ (targets - shift)).astype(np.float32)
    return weight, float(shift - middle @ weight)


if __name__ == "__main__":
    main()
