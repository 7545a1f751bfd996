"""What writes a whole repository: functions of a `RepositoryBuilder`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx

from .builders import (
    ENCODER,
    ENSEMBLE,
    POOLING,
    RepositoryBuilder,
    encoder_graph,
    identity_config,
    identity_graph,
    pooling_graph,
    replaced,
    script_file,
    weighted_graph,
)

Build = Callable[[RepositoryBuilder], object]


def copies(config: str, graph: onnx.ModelProto | None = None) -> Build:
    return lambda repository: repository.add("copy", config, graph or identity_graph())


def foreign(config: str, file: str) -> Build:
    """A model of another backend, with an empty model file; TorchScript is a whole one."""
    content = script_file() if file == "model.pt" else b""
    return lambda repository: repository.add("copy", config, files={f"1/{file}": content})


def variant(config: str, other: str, **files: str | bytes) -> Build:
    """A model with the two configurations `config.pbtxt` and `configs/cuda.pbtxt`; `__` in a name is a `/`."""
    named = {name.replace("__", "/"): content for name, content in files.items()}
    return lambda r: r.add("copy", config, identity_graph(), files={"configs/cuda.pbtxt": other, **named})


def two_files(config: str, other: str) -> Build:
    """A float32 and a float16 graph in one version."""
    raw = weighted_graph().SerializeToString()
    return lambda r: r.add(
        "copy", config, weighted_graph(), files={"configs/cuda.pbtxt": other, "1/model.float16.onnx": raw}
    )


def two_models(config: str, other: str, graph: onnx.ModelProto | None = None) -> Build:
    """The models `copy` and `other`."""

    def build(repository: RepositoryBuilder) -> None:
        repository.add("copy", config, graph or identity_graph())
        repository.add("other", replaced(other, '"copy"', '"other"'), graph or identity_graph())

    return build


def two_scripts(ours: str, theirs: str) -> Build:
    def build(repository: RepositoryBuilder) -> None:
        repository.add("copy", ours, files={"1/model.pt": script_file()})
        repository.add("other", replaced(theirs, '"copy"', '"other"'), files={"1/model.pt": script_file()})

    return build


def script_versions(config: str, *contents: bytes) -> Build:
    """A TorchScript model with one version for each content; both of two are served."""
    more = "version_policy { all { } }\n" if len(contents) > 1 else ""
    files: dict[str, str | bytes] = {f"{number}/model.pt": content for number, content in enumerate(contents, 1)}
    return lambda r: r.add("copy", config + more, files=files)


def variant_ensemble(*, pooling: bool) -> Build:
    """The reference ensemble with a variant, which the pooling head has or lacks."""

    def build(repository: RepositoryBuilder) -> None:
        repository.add("model", ENSEMBLE, files={"configs/cuda.pbtxt": ENSEMBLE})
        repository.add("encoder", ENCODER, encoder_graph(), files={"configs/cuda.pbtxt": ENCODER})
        more = {"configs/cuda.pbtxt": POOLING} if pooling else {}
        repository.add("pooling", POOLING, pooling_graph(), files=dict(more))

    return build


def link(target: Callable[[Path], Path | str]) -> Build:
    """`copy/1/extra` is a link."""

    def build(repository: RepositoryBuilder) -> None:
        folder = repository.add("copy", identity_config(), identity_graph(), files={"here.txt": "here"})
        (repository.path.parent / "outside.txt").write_text("outside")
        (folder / "1/extra").symlink_to(target(folder))

    return build


def plain(**files: str | bytes) -> Build:
    """A correct model with more files; `__` in a name is a folder's `/`."""
    named = {name.replace("__", "/"): content for name, content in files.items()}
    return lambda repository: repository.add("copy", identity_config(), identity_graph(), files=named)


def torchscript(x: str, y: str, more: str = "") -> Build:
    text = replaced(
        replaced(identity_config(backend='backend: "pytorch"', more=more), '"x"', f'"{x}"'), '"y"', f'"{y}"'
    )
    return foreign(text, "model.pt")
