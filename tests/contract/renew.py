"""Writes this folder's recordings and facts anew, from the folder that holds the recordings of a reference server.

Run as `PYTHONPATH=tests python -m contract.renew FOLDER`. Only what a test reads is taken over; a file without a place
here ends the program, so that no recording is left behind unnoticed.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from base64 import b64encode
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from contract.recorded import HERE, spelling
from sie_triton.pages.public_bundles import facts_of

SAMPLES: Final = "wire-samples"

TAKEN: Final[Mapping[str, str | None]] = {
    "catalog_resolved_0.10.1.json": "resolved",
    "errors/*.body.hex.txt": None,
    "errors/*": "sdk_answers",
    "golden/SUMMARY*.json": None,
    "golden/muvera_cases.json": "facts",
    "golden/muvera_quant_golden.npz": "arrays",
    "golden/yaml_validation.json": "facts",
    "golden/get_*": "exchanges",
    "golden/models_*": "exchanges",
    "golden/encode_*": "exchanges",
    "golden/oai_*": "exchanges",
    "golden/score_*": "exchanges",
    "requests/*.body.repr.txt": None,
    "requests/*": "sdk_requests",
    "responses/*.body.hex.txt": None,
    "responses/*": "sdk_answers",
    "sdk_outcomes.json": "sdk_answers",
}
"""Where the recordings go that the first fitting pattern names. None: they spell others out for people."""

# The entries of the differential run whose refusals are compared with ours.
_REFUSALS: Final = ("2a", "2d", "8a", "8b", "8c", "8d", "9", "16")

# They name a machine, a port or a library's version.
_HEADERS_OF_A_RUN: Final = frozenset({"host", "user-agent", "connection"})

_LINE: Final = 200

_BODY_LINE: Final = re.compile(r"^[<>] body(?:\(\d+\))?: (?P<literal>.*)$")


def renewed(outside: Path) -> dict[str, str]:
    """The text of every file of this folder, by its name. Raises `ValueError` for a recording without a place."""
    if stray := strays(outside / SAMPLES):
        raise ValueError(f"no place for {', '.join(stray)}: give it one in `TAKEN`, and a test that reads it")
    samples = outside / SAMPLES
    files: dict[str, Mapping[str, Any]] = {
        "exchanges": _exchanges(samples / "golden"),
        "sdk_requests": _sdk_requests(samples / "requests"),
        "sdk_answers": _sdk_answers(samples),
        "arrays": _arrays(samples / "golden" / "muvera_quant_golden.npz"),
        "facts": _facts(outside),
        "resolved": _resolved(samples / "catalog_resolved_0.10.1.json"),
        "bundles": _bundles(outside / "sie-models"),
    }
    return {f"{name}.json": _written(content) for name, content in files.items()}


def strays(samples: Path) -> list[str]:
    """Recordings that no pattern names."""
    found = (path.relative_to(samples).as_posix() for path in samples.rglob("*") if path.is_file())
    return sorted(name for name in found if not any(fnmatch(name, pattern) for pattern in TAKEN))


def exchange_names(golden: Path) -> set[str]:
    """Every exchange with the real server in the folder."""
    return {path.stem for path in golden.glob("*.txt") if not path.name.endswith(".resp.txt")}


def _exchanges(golden: Path) -> dict[str, Any]:
    return {name: _exchange(golden, name) for name in sorted(exchange_names(golden))}


def _exchange(golden: Path, name: str) -> list[dict[str, Any]]:
    """Request and answer. The text says which of the files beside it is the answer; a stale one may lie there too."""
    lines = (golden / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    _, method, path = lines[0].split(" ")
    status = next(int(line[2:]) for line in lines if re.fullmatch(r"< \d{3}", line))
    headers = _headers(lines, "< ")
    content_type = headers.get("content-type", "")
    suffix = "msgpack" if "msgpack" in content_type else "json" if "json" in content_type else "txt"
    sent, answered = golden / f"{name}.req.bin", golden / f"{name}.resp.{suffix}"
    request = sent.read_bytes() if sent.exists() else _literal(lines, "> ")
    response = answered.read_bytes() if answered.exists() else _literal(lines, "< ")
    return [
        {"method": method, "path": path, "headers": _headers(lines, "> "), "body": spelling(request)},
        {"status": status, "headers": headers, "body": spelling(response)},
    ]


def _headers(lines: list[str], mark: str) -> dict[str, str]:
    pairs = (line[2:].split(": ", 1) for line in lines[1:] if line.startswith(mark) and ": " in line)
    return {name: value for name, value in pairs if not re.match(r"body|hex", name)}


def _literal(lines: list[str], mark: str) -> bytes:
    for line in lines:
        if line.startswith(mark) and (match := _BODY_LINE.match(line)):
            value = ast.literal_eval(match["literal"])
            assert isinstance(value, bytes)
            return value
    return b""


def _sdk_requests(folder: Path) -> dict[str, Any]:
    requests = {}
    for name in _recorded_names(folder):
        first, headers = _head(folder, name)
        method, path, _ = first.split()
        kept = {key.lower(): value for key, value in headers.items() if key.lower() not in _HEADERS_OF_A_RUN}
        requests[name] = {"method": method, "path": path, "headers": kept, "body": _body(folder, name)}
    paths = json.loads((folder / "path_encoding.json").read_text(encoding="utf-8"))
    return {"requests": requests, "paths": paths}


def _sdk_answers(samples: Path) -> dict[str, Any]:
    outcomes = json.loads((samples / "sdk_outcomes.json").read_text(encoding="utf-8"))
    answers = {name: _answer(samples / "responses", name) for name in _recorded_names(samples / "responses")}
    failures = samples / "errors"
    answers |= {f"ERR {name}": _answer(failures, name) for name in _recorded_names(failures)}
    if unknown := answers.keys() - outcomes.keys():
        raise ValueError(f"answers without an outcome: {sorted(unknown)}")
    return {name: {"answer": answers.get(name), "outcome": outcome} for name, outcome in outcomes.items()}


def _answer(folder: Path, name: str) -> dict[str, Any]:
    first, headers = _head(folder, name)
    return {"status": int(first.split()[1]), "headers": headers, "body": _body(folder, name)}


def _recorded_names(folder: Path) -> list[str]:
    return sorted(path.name.removesuffix(".headers.txt") for path in folder.glob("*.headers.txt"))


def _head(folder: Path, name: str) -> tuple[str, dict[str, str]]:
    first, *lines = (folder / f"{name}.headers.txt").read_text(encoding="utf-8").strip().splitlines()
    return first, {key: value for key, _, value in (line.partition(": ") for line in lines)}


def _body(folder: Path, name: str) -> str | Mapping[str, str]:
    spelt_out = (".hex.txt", ".repr.txt")
    paths = [path for path in folder.glob(f"{name}.body.*") if not path.name.endswith(spelt_out)]
    return spelling(paths[0].read_bytes()) if paths else ""


def _arrays(path: Path) -> dict[str, Any]:
    arrays = np.load(path, allow_pickle=False)
    return {
        name: {
            "type": arrays[name].dtype.str,
            "shape": arrays[name].shape,
            "data": b64encode(arrays[name].tobytes()).decode(),
        }
        for name in arrays.files
    }


def _facts(outside: Path) -> dict[str, Any]:
    contract = (outside / "wire-contract.md").read_text(encoding="utf-8")
    golden = outside / SAMPLES / "golden"
    return {
        "muvera_cases": json.loads((golden / "muvera_cases.json").read_text(encoding="utf-8")),
        "bundle_verdicts": _verdicts(golden / "yaml_validation.json"),
        "refusals": dict(_refusals(outside / "cases" / "differential.txt")),
        "adapter_classes": _adapter_classes(contract),
        "missing_text_messages": sorted(set(re.findall(r"`(\w[\w ]* requires text input)`", contract))),
        "option_keys": _option_keys(contract),
        "promised_call": _promised_call((outside / "design.md").read_text(encoding="utf-8")),
    }


def _verdicts(path: Path) -> dict[str, Any]:
    verdicts: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return {
        name: json.loads(verdict.removeprefix("OK ")) if verdict.startswith("OK ") else None
        for name, verdict in verdicts.items()
    }


def _refusals(path: Path) -> Iterator[tuple[str, list[Any]]]:
    entry = re.compile(r"^### (\S+) .*?\n  upstream: (.*?)\n", flags=re.DOTALL | re.MULTILINE)
    answers = dict(entry.findall(path.read_text(encoding="utf-8")))
    for number in _REFUSALS:
        status, _, body = answers[number].partition(" ")
        detail = json.loads(body)["detail"]
        yield number, [int(status), detail["code"], detail["message"]]


def _adapter_classes(contract: str) -> list[str]:
    classification = contract[contract.index("\n## 9. ") : contract.index("\n## Appendix A.")]
    return sorted(set(re.findall(r"\b[A-Z]\w+Adapter\b", classification)))


def _option_keys(contract: str) -> dict[str, list[str]]:
    tables = contract[contract.index("**`loadtime` keys**") : contract.index("### 6.8")].split("**`runtime` keys**")
    return {
        side: sorted(set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)))
        for side, table in zip(("loadtime", "runtime"), tables, strict=True)
    }


def _promised_call(brief: str) -> list[str]:
    snippets: list[str] = re.findall(r"```python\n(.*?)```", brief, re.DOTALL)
    (promised,) = (snippet for snippet in snippets if "client.encode" in snippet)
    return promised.splitlines()


def _resolved(path: Path) -> dict[str, Any]:
    models = json.loads(path.read_text(encoding="utf-8"))
    inferred = "architecture_family_inferred"
    return {sie_id: {key: model[key] for key in model if key != inferred} for sie_id, model in models.items()}


def _bundles(folder: Path) -> dict[str, Any]:
    documents = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.yaml")))
    return {document["sie_id"]: facts_of(document) for document in documents}


def _written(content: object) -> str:
    return f"{_indented(content, 0)}\n"


def _indented(value: object, level: int) -> str:
    """JSON in which what fits one line has one of its own, so that a difference shows one entry."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) <= _LINE or not isinstance(value, dict | list):
        return line
    if isinstance(value, dict):
        members = [f"{json.dumps(key)}: {_indented(member, level + 1)}" for key, member in value.items()]
    else:
        members = [_indented(member, level + 1) for member in value]
    inner, outer = "\n" + " " * (level + 1), "\n" + " " * level
    opened, closed = "{}" if isinstance(value, dict) else "[]"
    return f"{opened}{inner}{f',{inner}'.join(members)}{outer}{closed}"


def main(arguments: list[str]) -> int:
    """Write every file of this folder."""
    if len(arguments) != 1:
        print("usage: python -m contract.renew FOLDER", file=sys.stderr)
        return 2
    for name, text in renewed(Path(arguments[0])).items():
        (HERE / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
