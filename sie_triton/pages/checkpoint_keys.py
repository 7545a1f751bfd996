"""`docs/checkpoints.md`: what is done with each file, module and key of a checkpoint, from the reader's own table."""

from __future__ import annotations

from collections.abc import Mapping

from sie_triton.facts.known_keys import FILES, MODULES, Key
from sie_triton.pages.markdown import table

_PAGE = """\
# Checkpoints

Generated from the code by `python -m sie_triton.pages`; do not edit.

A build reads the files by which sentence-transformers and transformers describe a checkpoint. Each key is *honoured*
(compiled or served), *harmless* (it cannot change a vector or a score), or *refused* where its value says something:
the build ends with the key, its file and a hint. A key, a module or a value that is not on this page is refused as
well.

Which files an adapter follows is SIE's contract. `SentenceTransformerDenseAdapter`, `SentenceTransformerSparseAdapter`,
`CrossEncoderAdapter` and `NativeCausalCrossEncoderAdapter` run the checkpoint as sentence-transformers does; the
late-interaction adapters take its layers and leave lengths, markers and lists of words to the bundle; all others load
the transformer alone and pool as the bundle says. Then the files of sentence-transformers decide nothing, and the
certificate says so.

## The certificate

The reference of a build is an implementation that loads the checkpoint by itself: sentence-transformers for dense
vectors, sparse vectors, token vectors, cross-encoders and rerankers that bring a prompt of their own, transformers'
causal models for rerankers whose prompt SIE's adapter has. It tokenises the texts, cuts them at its own limit and
computes what the graphs are compared with. The manifest keeps what it said under `built.NAME.certificate`,
`sie-triton verify` prints it, and `GET /v1/models/{{model}}` has it in short:

| Field | Says |
|---|---|
| `implementation` | which class of which version computed the reference |
| `texts`, `cases` | the SHA-256 of the texts and how many they are |
| `compared` | what the implementation said by itself |
| `not_compared` | what it was told, and by what |
| `departures` | where SIE's contract decides against the checkpoint, or `tokenizer.json` against transformers |
| `warnings` | what the bundle asks for without effect, and tokens that the model has no embedding for |

## Modules

{modules}

{files}"""


def render() -> str:
    """The whole page."""
    files = "\n".join(f"## `{name}`\n\n{_keys(keys)}\n" for name, keys in FILES.items())
    return _PAGE.format(modules=_keys(MODULES, "Module"), files=files)


def _keys(keys: Mapping[str, Key], first: str = "Key") -> str:
    rows = [(f"`{name}`", key.outcome, key.why) for name, key in sorted(keys.items())]
    return table((first, "Outcome", "Why"), rows)
