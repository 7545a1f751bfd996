"""Makes the environment of a checkout: what `make install` runs, with the standard library alone.

    python3 tools/install.py .venv                 # PyTorch for the CPU where there is no GPU
    python3 tools/install.py .venv --torch usual   # PyTorch as the usual index has it

Each step prints a line with its seconds and how many megabytes the environment grew by. What pip writes is shown only
if a step fails for good.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
"""PyTorch's own index of the builds that have no CUDA: a tenth of what the usual index has for Linux."""
TRITONSERVER = "nvidia-pytriton"
"""What carries tritonserver. It asks for numpy<2, so that it lies in the environment beside the packages."""
_GPU_PLACES = (Path("/proc/driver/nvidia/gpus"), Path("/dev/nvidia0"), Path("/dev/dxg"))
_CONNECT_SECONDS = "10"
_SHOWN_LINES = 20
_MEGABYTES = {"cpu": 2300, "usual": 6100}
"""What an environment takes, by its PyTorch."""


class StepFailed(Exception):
    """A step did not succeed; the message holds what its program wrote."""


@dataclass(frozen=True, slots=True)
class Step:
    """One line of progress. `run` returns what there is to say of it, "" for nothing."""

    name: str
    run: Callable[[], str]


def has_gpu(places: Sequence[Path] = _GPU_PLACES) -> bool:
    """Whether an NVIDIA driver shows a GPU: its folder in `/proc`, the device of a container, or that of WSL."""
    return any(any(place.iterdir()) if place.is_dir() else place.exists() for place in places)


def wished(torch: str) -> str:
    """The build of PyTorch that `--torch` asks for: `cpu` or `usual`."""
    return ("usual" if has_gpu() else "cpu") if torch == "auto" else torch


def pip_install(python: Path, *arguments: str | Path) -> str:
    """Run `pip install` of an environment; "". Raises `StepFailed` with the last lines that it wrote."""
    # What is imported is compiled then; to compile all of torch and transformers takes half a minute.
    quiet = ("--disable-pip-version-check", "--no-input", "--no-compile")
    command = [python, "-m", "pip", "install", *quiet, *arguments]
    _run(*command)
    return ""


def install_rest(python: Path, *arguments: str | Path) -> str:
    """Install by uv, in a quarter of pip's time; what pip's settings alone can find, pip installs.

    Returns what there is to say. Raises `StepFailed` with pip's last lines if neither can.
    """
    try:
        _run(python.with_name("uv"), "pip", "install", "--quiet", "--python", python, *arguments)
    except StepFailed:
        pip_install(python, *arguments)
        return "by pip, since uv could not"
    return ""


def install_torch(python: Path, constraints: Path, wish: str, index: str = CPU_INDEX) -> str:
    """Install PyTorch and return what was taken, for instance `2.13.0+cpu`.

    `wish` is `cpu` (the CPU index; where it cannot be reached or has no such version, the usual one) or `usual`.
    Raises `StepFailed` if neither has it.
    """
    if wish == "cpu":
        # What it needs comes with the next step: the CPU index has those packages in other versions.
        once = ("--index-url", index, "--no-deps", "--retries", "0", "--timeout", _CONNECT_SECONDS)
        try:
            pip_install(python, *once, "--constraint", constraints, "torch")
        except StepFailed:
            pip_install(python, "--constraint", constraints, "torch")
            return f"{_torch_version(python)} of the usual index, since {index} gave none"
        return _torch_version(python)
    pip_install(python, "--constraint", constraints, "torch")
    return f"{_torch_version(python)} of the usual index"


def install_tritonserver(python: Path) -> str:
    """Put tritonserver's wheel into the environment, where `pip check` does not count it; "".

    Until 0.1.0 it was a package there. Raises `StepFailed` if it cannot be fetched.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"none for {platform.system()} {platform.machine()}"
    _run(python, "-m", "pip", "uninstall", "--quiet", "--yes", TRITONSERVER)
    _run(python, "-m", "sie_triton.embedded.fetching")
    return ""


def _torch_version(python: Path) -> str:
    return _run(python, "-I", "-c", "from importlib.metadata import version; print(version('torch'))").strip()


def steps(folder: Path, torch: str) -> list[Step]:
    """All that an environment of the checkout needs, in the order in which it is installed. `torch`: as `--torch`."""
    python, wish = folder / "bin" / "python", wished(torch)
    rest = ("-e", ROOT / "sdk", "-e", ROOT / "frontend", "-e", f"{ROOT}[export]", "onnxruntime")

    def pip(*arguments: str | Path) -> Callable[[], str]:
        return partial(pip_install, python, *arguments)

    constraints = ("--constraint", CONSTRAINTS)
    return [
        Step("environment", partial(_run, sys.executable, "-m", "venv", folder)),
        Step("pip and uv", pip("--upgrade", *constraints, "pip", "uv")),
        Step("PyTorch", partial(install_torch, python, CONSTRAINTS, wish)),
        Step("the rest", partial(install_rest, python, *constraints, *rest, "-r", ROOT / "requirements-dev.txt")),
        Step("tritonserver", partial(install_tritonserver, python)),
    ]


def measured(folder: Path) -> int:
    """The bytes of all files below a folder; 0 where there is none."""
    return sum((Path(place) / name).lstat().st_size for place, _, names in os.walk(folder) for name in names)


def shortage(folder: Path, torch: str) -> str | None:
    """What is said where the disk has no room for the environment; None where it has."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    needed, free = _MEGABYTES[torch] * 1e6 - measured(folder), shutil.disk_usage(place).free
    if needed <= free:
        return None
    hint = "free some space" + (", or take `--torch cpu` (`make TORCH=cpu`)" if torch == "usual" else "")
    return f"`{place}` needs about {needed / 1e6:,.0f} MB and has {free / 1e6:,.0f} MB left: {hint}"


def carry_out(todo: Sequence[Step], folder: Path) -> None:
    """Run every step, and print how long each took and what it added. Raises `StepFailed` at the first failure."""
    before = measured(folder)
    for number, step in enumerate(todo, start=1):
        print(f"[{number}/{len(todo)}] {step.name} … ", end="", flush=True)
        begun = time.monotonic()
        try:
            said = step.run()
        except StepFailed:
            print("failed", flush=True)
            raise
        after = measured(folder)
        words = [said] if said else []
        print(*words, f"{time.monotonic() - begun:.0f} s, {max(0, after - before) / 1e6:,.0f} MB", sep=", ", flush=True)
        before = after


def _run(*command: str | Path) -> str:
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    except OSError as error:
        raise StepFailed(f"{command[0]}: {error.strerror}") from error
    if done.returncode:
        lines = done.stdout.strip().splitlines()[-_SHOWN_LINES:]
        raise StepFailed("\n".join([" ".join(map(str, command)), *lines]))
    return done.stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Make or complete an environment; the exit code."""
    parser = argparse.ArgumentParser(prog="tools/install.py", description="make the environment of a checkout")
    parser.add_argument("folder", type=Path, help="where the environment is, or is to be")
    parser.add_argument(
        "--torch",
        choices=("auto", "cpu", "usual"),
        default="auto",
        help="which build of PyTorch; `auto`: for the CPU where there is no GPU",
    )
    options = parser.parse_args(arguments)
    if short := shortage(options.folder, wished(options.torch)):
        print(f"error: {short}", file=sys.stderr)
        return 1
    try:
        carry_out(steps(options.folder, options.torch), options.folder)
    except StepFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
