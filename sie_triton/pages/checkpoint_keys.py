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

## LoRA adapters

A LoRA adapter that PEFT saved is merged when the checkpoint is read, in float32: W + (alpha / r) B A. The written
graphs, torch's exporter and the implementation that a build is compared with then read the same merged weights, so the
certificate lists the merge under `not_compared`; our tests compare it with what `peft` makes of the same files. A build
meets an adapter in three ways:

- A profile names it in its runtime option `lora_id`. The base is the bundle's checkpoint, which lends everything else.
- A checkpoint has `adapter_config.json` beside its weights, which are its base.
- A checkpoint is an adapter and has no weights. The base is the model that `base_model_name_or_path` names, at the hub
  or by `--weights BASE=FOLDER`. It lends its tokenizer if the adapter brings none.

`--weights ADAPTER=FOLDER` names the folder of an adapter. Each set of weights becomes a Triton model of its own.
`model:profile` addresses it; so does the option `lora_id`, or `profile`, of a request to the bare id.

`use_rslora`, `rank_pattern`, `alpha_pattern`, `target_modules`, `exclude_modules`, `layers_to_transform`,
`modules_to_save`, `bias`, `lora_bias`, `use_dora` and adapted embeddings are honoured, and `fan_in_fan_out` as PEFT has
it, which ignores it at ordinary linear layers. Everything else that could change the result is refused (`SIE322`):
other kinds than LoRA, unknown keys, `layer_replication`, QALoRA, activated LoRA, trained token rows, starts like PiSSA
that change the base's weights, pickled adapters, and an adapter of an adapter. So is a tensor of the adapter that has
no place in the base model, a layer that has no tensors where others of its kind have, and a rank that is another than
the settings say. PEFT warns of these, and the base model would answer under the adapter's name.

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
