"""Somebody who follows a page: an empty home, a checkout to stand in, and the commands of the page, in their order.

A `sh` block is run by bash; a `console` block has a `$` before each command and then what it prints; a `python` block
is a program of its own. A `text` block behind one of them is what that prints. In either, `…` stands for anything and
lines may be left out. A server is started in the background and stopped at the end of the page.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
from e2e.processes import alive, descendants

from benchmarks.waiting import eventually
from sie_triton.embedded.ports import free_port
from sie_triton.pages.command_line import command_of, commands, parameters

from .exceptions import NOT_HERE, PENDING
from .markdown import ROOT, Block, Page

EXECUTED = ("sh", "console", "python")
SERVERS = ("sie-triton serve", "sie-triton up", "sie-triton triton", "make up")
_ALONE = "sie-triton triton"
# What a page may touch by its name; the rest of the checkout is not there.
_CHECKOUT = ("Makefile", "examples", "model_bundles", "pyproject.toml", "frontend", "sdk", "constraints.txt")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")


class Surprise(AssertionError):
    """The page said something else than what happened."""


class Reader:
    """One reader of one page, in `folder`; `checkpoints` are folders that the page supposes under the home."""

    def __init__(
        self, folder: Path, repository: Path, weights: Path, checkpoints: dict[str, Path], shared: Callable[[], int]
    ) -> None:
        self.home = folder / "home"
        self.place = folder / "sie-triton"
        self.log = folder / "servers.txt"
        self._shared = shared
        self._ports = {"8080": free_port(), "8000": free_port(), "8002": free_port()}
        self._servers: dict[str, subprocess.Popen[bytes]] = {}
        self._left: set[int] = set()
        self.skipped: list[str] = []
        (self.home / ".cache" / "sie-triton").mkdir(parents=True)
        (self.home / ".cache" / "sie-triton" / "weights").symlink_to(weights)
        for name, checkpoint in checkpoints.items():
            (self.home / name).parent.mkdir(parents=True, exist_ok=True)
            (self.home / name).symlink_to(checkpoint)
        self.place.mkdir()
        for name in _CHECKOUT:
            (self.place / name).symlink_to(ROOT / name)
        # Hard links, as a build makes them: nothing in a repository is ever written to.
        shutil.copytree(repository, self.place / "model_repository", copy_function=os.link)
        for name in ("requirements-dev.txt", "requirements-test.txt"):
            (self.place / name).touch()
        self._environment = self._install(self.place / ".venv" / "bin")

    def _install(self, programs: Path) -> dict[str, str]:
        """The programs that an installation has, and the environment in which they are found."""
        programs.mkdir(parents=True)
        for name, line in {
            "python": f'exec {shlex.quote(sys.executable)} "$@"',
            "sie-triton": f'exec {shlex.quote(sys.executable)} -m sie_triton.cli "$@"',
        }.items():
            (programs / name).write_text(f"#!/bin/sh\n{line}\n")
            (programs / name).chmod(0o755)
        (programs.parent / ".installed").touch()
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("SIE_", "HF_", "XDG_"))}
        return {
            **kept,
            "HOME": str(self.home),
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "sdk", ROOT / "frontend", ROOT))),
            # What is fetched must be what the package cache has, on a machine with a hub as on one without.
            "HF_HUB_OFFLINE": "1",
            "PORT": str(self._ports["8080"]),
            "TMPDIR": str(self.home),
        }

    def read(self, page: Page) -> None:
        """Run the page. Raises `Surprise` with the place."""
        for block, after in zip(page.blocks, (*page.blocks[1:], None), strict=True):
            if block.language not in EXECUTED:
                continue
            expected = after.text if after and after.language == "text" else ""
            try:
                self._run(block, expected)
            except Surprise as surprise:
                raise Surprise(f"{page.name}:{block.line}: {surprise}") from None

    def _run(self, block: Block, expected: str) -> None:
        if block.language == "python":
            self._check(self._output(["python", "-c", self._with_ports(block.text)]), expected)
        elif block.language == "console":
            for command, printed in session(block.text):
                self._shell([command], printed)
        else:
            self._shell(logical_lines(block.text), expected)

    def _shell(self, lines: Sequence[str], expected: str) -> None:
        wanted = [line for line in lines if not self._is_left_out(line)]
        servers = [line for line in wanted if line.startswith(SERVERS)]
        if servers and servers != wanted[-1:]:
            raise Surprise("a server is started before the end of its block")
        foreground = [line for line in wanted if line not in servers]
        output = ""
        if any(line.strip() and not line.startswith("#") for line in foreground):
            script = self._with_ports("\n".join(foreground))
            output = self._output(["bash", "-euo", "pipefail", "-c", script])
        for line in servers:
            output += self._start(line)
        if wanted:
            self._check(output, expected)

    def _is_left_out(self, line: str) -> bool:
        reason = left_out(line)
        if reason:
            self.skipped.append(f"{line}: {reason}")
        return bool(reason)

    def _with_ports(self, text: str) -> str:
        """The text with free ports in place of the usual ones; a shared server where the page has started none."""
        ports = dict(self._ports)
        if "8080" in text and not any(not line.startswith(_ALONE) for line in self._servers):
            ports["8080"] = self._shared()
        for usual, free in ports.items():
            text = re.sub(rf"\b{usual}\b", str(free), text)
        return text

    def _output(self, command: Sequence[str]) -> str:
        environment = self._environment
        done = subprocess.run(
            command,
            cwd=self.place,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode:
            raise Surprise(f"ended with {done.returncode}:\n{command[-1]}\n{done.stdout[-3000:]}")
        return done.stdout

    def _start(self, line: str) -> str:
        alone = line.startswith(_ALONE)
        if not alone:
            self._stop([other for other in self._servers if not other.startswith(_ALONE)])
        # Before the new one counts as the page's own, 8080 would be the shared one's.
        self._servers[line] = self._spawn(line, alone=alone)
        port = self._ports["8000" if alone else "8080"]
        path = "v2/health/ready" if alone else "readyz"
        process = self._servers[line]
        ready = eventually(lambda: process.poll() is not None or _answers(f"http://127.0.0.1:{port}/{path}"), 180)
        if not ready or process.poll() is not None:
            raise Surprise(f"`{line}` never became ready:\n{self.log.read_text()[-3000:]}")
        return self.log.read_text()

    def _spawn(self, line: str, *, alone: bool) -> subprocess.Popen[bytes]:
        text = line
        if line.startswith("sie-triton") and not alone and "--port" not in line:
            text += " --port 8080"
        if alone and "--http-port" not in line:
            text += " --http-port 8000 --metrics-port 8002"
        for usual, free in self._ports.items():
            text = re.sub(rf"\b{usual}\b", str(free), text)
        with self.log.open("wb") as log:
            return subprocess.Popen(
                ["bash", "-c", f"exec {text}"],
                cwd=self.place,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _check(self, output: str, expected: str) -> None:
        position = 0
        for line in filter(str.strip, self._with_ports(expected).splitlines()):
            pattern = "^ *" + ".*".join(re.escape(part) for part in line.strip().split("…")) + "$"
            found = re.compile(pattern, re.MULTILINE).search(output, position)
            if found is None:
                raise Surprise(f"nothing printed is like `{line.strip()}`:\n{output[-3000:]}")
            position = found.end()

    def stop(self) -> list[str]:
        """Stop what runs, as Ctrl-C does; returns the command lines of processes that stayed."""
        self._stop(list(self._servers))
        eventually(lambda: not any(map(alive, self._left)), 60)
        return [str(pid) for pid in self._left if alive(pid)]

    def _stop(self, lines: Sequence[str]) -> None:
        for line in lines:
            process = self._servers.pop(line)
            self._left |= descendants(process.pid) | {process.pid}
            if process.poll() is None:
                # A terminal's Ctrl-C reaches every process in the foreground.
                os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, verify=False).status_code == 200
    except httpx.TransportError:
        return False


def logical_lines(script: str) -> list[str]:
    """The lines of a script with continued ones joined; a here-document stays one with its command."""
    lines: list[str] = []
    end = ""
    for line in script.splitlines():
        if end:
            lines[-1] += "\n" + line
            end = "" if line == end else end
        elif lines and lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1] + line.strip()
        else:
            lines.append(line)
        if not end and (begun := re.search(r"<<'?(\w+)'?$", line)):
            end = begun[1]
    return lines


def session(text: str) -> list[tuple[str, str]]:
    """The commands of a `console` block, each with what it prints."""
    pairs: list[tuple[str, str]] = []
    for line in logical_lines(text):
        if line.startswith("$ "):
            pairs.append((line[2:], ""))
        elif pairs:
            pairs[-1] = (pairs[-1][0], pairs[-1][1] + line + "\n")
    return pairs


def left_out(line: str) -> str:
    """Why a command is not run here; empty where it is."""
    words = _words(line)
    while words and _ASSIGNMENT.match(words[0]):
        words.pop(0)
    command = " ".join(words)
    for beginning, reason in NOT_HERE.items():
        if command == beginning or command.startswith(f"{beginning} "):
            return reason
    pending = [word for word in not_yet(words) if word in PENDING]
    return f"{pending[0]} has not landed" if pending else ""


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError:  # a quote within a here-document
        return line.split()


def not_yet(words: Sequence[str]) -> list[str]:
    """The command and the options of a `sie-triton` call that the command line does not have."""
    if words[:1] != ["sie-triton"] or len(words) < 2:
        return []
    if words[1].startswith("-"):
        return [word for word in words[1:2] if word not in ("--version", "--verbose", "--help", "-v", "-h")]
    found = command_of(words[1:])
    if found is None:
        return [words[1]]
    command, rest = found
    known = {spelling for parameter in parameters(commands()[command]) for spelling in parameter.spellings}
    options = [word.split("=")[0] for word in rest if re.fullmatch(r"--?[a-z].*", word)]
    return [option for option in options if option not in known | {"--help", "-h"}]
