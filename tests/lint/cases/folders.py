"""Rules on folders and files."""

from __future__ import annotations

from lint.builders import RepositoryBuilder, identity_config, identity_graph, replaced
from lint.builds import Build, copies, link, plain, two_files
from lint.configs import group, half

from .case import GPU, Case, texts


def mode(path: str, bits: int) -> Build:
    def build(repository: RepositoryBuilder) -> None:
        (repository.add("copy", identity_config(), identity_graph()) / path).chmod(bits)

    return build


CASES: dict[str, Case] = {
    "L601": Case(lambda r: r.add("copy", identity_config(), version=""), copies(identity_config())),
    "L602": Case(plain(**{"v2__model.onnx": b"", "01__model.onnx": b""}), plain(**{"assets__model.onnx": b""})),
    "L603": Case(lambda r: r.add("copy", identity_config(), files={"1/encoder.onnx": b""}), copies(identity_config())),
    "L604": texts(
        identity_config(more="version_policy { specific { versions: [ 1, 2 ] } }"),
        identity_config(more="version_policy { specific { versions: [ 1 ] } }"),
        line=8,
    ),
    "L605": Case(
        copies(identity_config(more_output='label_filename: "labels.txt"')),
        lambda r: r.add(
            "copy",
            identity_config(more_output='label_filename: "labels.txt"'),
            identity_graph(),
            files={"labels.txt": "a\nb\n"},
        ),
    ),
    "L607": Case(mode("1/model.onnx", 0o640), mode("1/model.onnx", 0o644)),
    "L608": Case(link(lambda folder: folder.parent.parent / "outside.txt"), link(lambda folder: folder / "here.txt")),
    "L611": Case(plain(**{"config.pbtxt.txt": ""}), plain(**{"configs__gpu.pbtxt": identity_config()})),
    "L612": Case(
        lambda r: r.add("copy", None, identity_graph(), files={"configs/cpu.pbtxt": identity_config()}),
        plain(**{"configs__cpu.pbtxt": identity_config()}),
    ),
    "L613": texts(
        identity_config(more="version_policy { specific { versions: [ 2 ] } }"),
        identity_config(more="version_policy { specific { versions: [ 2, 1 ] } }"),
        line=8,
    ),
    "L614": Case(
        two_files(identity_config(), half(group("kind: KIND_GPU"))),
        two_files(replaced(half(identity_config()), "model.float16.onnx", "model.onnx"), half(group("kind: KIND_GPU"))),
        machine=GPU,
    ),
    "L615": Case(
        plain(**{"1__model.float16.onnx": b""}),
        two_files(identity_config(), half(group("kind: KIND_GPU"))),
        machine=GPU,
    ),
}
