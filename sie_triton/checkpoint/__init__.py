"""Where a model's weights are: a folder, the local Hugging Face cache, the hub, or, as a last resort, a Python package.

`resolve_checkpoint` answers with a `Checkpoint`, a folder that is known to be whole: configuration, safetensors
weights, tokenizer, sentence-transformers modules and whatever else the recipe named. Whatever is wrong becomes a
`Diagnostic` (`SIE3xx`). Files are fetched by `huggingface_hub` into its own cache, so other tools share them
and its variables (`HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN`, `HF_HUB_OFFLINE`, the timeouts) mean what they always mean.

Two promises shape the code. A folder that was cut short is never taken for a whole one: small files are fetched first
and weights last, every fetched file is checked against the hub's own digest, and the absence of a file that changes a
model's meaning is remembered, not guessed. And nothing hangs: see `hub.supervise`.

`files` knows names and places, `problems` what is missing, `published` architectures under other names, `open_clip` its
own layout, `view` the folder that loaders see, `asking`, `hub` and `hub_failures` the network, `resolve` the order in
which sources are tried.
"""

from sie_triton.checkpoint.asking import asked_once
from sie_triton.checkpoint.files import wanted_files, weight_paths
from sie_triton.checkpoint.found import Checkpoint, Source
from sie_triton.checkpoint.progress import Progress, rich_progress
from sie_triton.checkpoint.published import FAMILIES
from sie_triton.checkpoint.published_keys import DECLARE_CODE
from sie_triton.checkpoint.resolve import resolve_checkpoint
from sie_triton.checkpoint.tensors import load_tensors

__all__ = [
    "DECLARE_CODE",
    "FAMILIES",
    "Checkpoint",
    "Progress",
    "Source",
    "asked_once",
    "load_tensors",
    "resolve_checkpoint",
    "rich_progress",
    "wanted_files",
    "weight_paths",
]
