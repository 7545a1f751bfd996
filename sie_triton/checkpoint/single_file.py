"""One file where the folder of a checkpoint was asked for: what it is, and what to name instead."""

from __future__ import annotations

from pathlib import Path

from sie_triton.checkpoint.files import PICKLE_SUFFIXES, SINGLE
from sie_triton.checkpoint.tensors import PICKLE_REASON
from sie_triton.diagnostics import Diagnostic, Where

_CONVERTED = {".gguf": "GGUF", ".ggml": "GGML", ".onnx": "ONNX", ".tflite": "TFLite", ".engine": "TensorRT"}
_OTHERS = {".h5": "TensorFlow", ".msgpack": "Flax", ".keras": "Keras"}
_PACKED = (".zip", ".tar", ".gz", ".tgz", ".xz", ".bz2", ".7z")
_BUNDLES = (".yaml", ".yml")
_SAVE = "save the model with `save_pretrained` and name that folder"
CONVERTED_HINT = (
    "name the repository that it was converted from, which its model card or its name tells; `--weights FOLDER` "
    "takes a copy of it"
)


def file_for_folder(path: Path, origin: str) -> Diagnostic:
    """What is said of a file that `origin`, an option or a key, names as a checkpoint."""
    kind = path.suffix.casefold()
    if kind in _CONVERTED:
        form = _CONVERTED[kind]
        message = f"the weights are a file of {form}, converted from a checkpoint; graphs are compiled from safetensors"
        return Diagnostic("SIE327", message, Where(path), CONVERTED_HINT)
    if kind in (*PICKLE_SUFFIXES, ".pt"):
        hint = f"name the model's folder if it has safetensors; else, where you trust the file, {_SAVE}"
        return Diagnostic("SIE305", f"the weights are one pickled file, refused: {PICKLE_REASON}", Where(path), hint)
    what, hint = _said(path, kind, origin)
    return Diagnostic("SIE302", f"the weights folder is a file, not a folder: {what}", Where(path), hint)


def _said(path: Path, kind: str, origin: str) -> tuple[str, str]:
    """What the file is, and what to do."""
    if (path.parent / "config.json").is_file() and (kind == ".safetensors" or path.name == "config.json"):
        return "one of the files of a checkpoint", f"name the folder that it lies in, `{path.parent}`"
    if kind == ".safetensors":
        hint = "put `config.json` and the tokenizer's files of the same model beside it, and name the folder"
        return "weights alone, which do not say of which model", hint
    if kind in _OTHERS:
        return f"weights of {_OTHERS[kind]}", f"load it there with transformers, `from_tf` or `from_flax`, then {_SAVE}"
    known = {
        **dict.fromkeys(_PACKED, ("an archive", "unpack it and name the folder")),
        **dict.fromkeys(_BUNDLES, ("a bundle, perhaps", f"write `-m ID --bundles {path.parent}`, with its `sie_id`")),
        ".txt": ("a list, perhaps", f"write `-m @{path}` for the models that it names"),
    }
    hint = f"`{origin}` wants the folder that holds `config.json`, `{SINGLE}` and the tokenizer"
    return known.get(kind, ("no checkpoint", hint))
