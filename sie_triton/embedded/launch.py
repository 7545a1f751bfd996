"""Prepares a start of tritonserver: its backend directory, its environment, a path that it can read."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

from sie_triton.embedded.installation import Installation

_BACKENDS = Path(__file__).parent / "backends"
# What a stub loads as a backend. From Python 3.12 on the stub's interpreter ignores PYTHONPATH, so the folders where
# this process finds its packages are written down.
_SHIM = """\
import sys

sys.path[:0] = [entry for entry in {path!r} if entry not in sys.path]
from sie_triton.embedded.backends.{backend}.model import TritonPythonModel
"""


def assemble_backends(installation: Installation, folder: Path) -> None:
    """Lay out `folder` as tritonserver wants a backend directory: Triton's `python`, our `onnxruntime` and `pytorch`.

    Copies, 3 MB in all: tritonserver refuses a library whose real path is elsewhere.
    """
    packages = [entry for entry in sys.path if entry and Path(entry).is_absolute()]
    python = folder / "python"
    shutil.copytree(installation.python_backend, python, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(installation.stub, python)
    for model in _BACKENDS.glob("*/model.py"):
        backend = folder / model.parent.name
        backend.mkdir()
        (backend / "model.py").write_text(_SHIM.format(path=packages, backend=backend.name))


def shell_safe_path(repository: Path, scratch: Path) -> Path:
    """A path to the repository that needs no quoting in a shell; a link in `scratch` if its own does.

    tritonserver starts its stubs through a shell and quotes nothing: with a space in the path every stub dies, and
    the server waits for them forever.
    """
    if re.fullmatch(r"[\w./:+@%-]+", str(repository), re.ASCII):
        return repository
    link = scratch / "repository"
    link.symlink_to(repository)
    return link


def child_environment(installation: Installation, *, gpu: bool) -> dict[str, str]:
    """The child's environment: the stubs must find this interpreter and its library."""
    environment = dict(os.environ)
    libraries = [str(installation.libraries)]
    if installation.libpython:
        libraries.append(str(installation.libpython))
    environment["LD_LIBRARY_PATH"] = _path_list(libraries, os.environ.get("LD_LIBRARY_PATH"))
    environment["PATH"] = _path_list([str(Path(sys.executable).parent)], os.environ.get("PATH"))
    if not gpu:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    # ONNX Runtime would write an id of this machine below HOME and look up the host that collects its telemetry.
    environment["ORT_DISABLE_TELEMETRY"] = "1"
    # numpy's BLAS would start a thread a core in each stub; the stubs never call it.
    environment["OPENBLAS_NUM_THREADS"] = "1"
    # Weights on huge pages, if the system gives them on request: one text takes 9 % less time, a full run 3 %.
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if "glibc.malloc.hugetlb" not in tunables:
        environment["GLIBC_TUNABLES"] = ":".join(filter(None, (tunables, "glibc.malloc.hugetlb=1")))
    return environment


def _path_list(first: list[str], rest: str | None) -> str:
    return os.pathsep.join([*first, rest] if rest else first)
