"""schemathesis against a running frontend: requests that its OpenAPI document calls good, and bad ones.

    PYTHONPATH=tests python -m gate.schema_fuzz --examples 300 --seed 7

It fails for a 5xx, for an answer that is not as the document says (status, headers, content type, body), for a good
request that is refused and for a bad one that is not, but for what `schema_hooks` lists with reasons. `--coverage` adds
schemathesis' own walk along every edge of every field.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from frontend.key_help import SECRET, key
from sie_frontend.access.keyfile import VERBS

from gate.served import frontend_process

EVERYTHING = ",".join(VERBS)


def fuzz(url: str, folder: Path, *, seed: int, examples: int, coverage: bool = False) -> dict[str, Any]:
    """schemathesis' own report, with what it printed as `printed`."""
    report = folder / "report.json"
    command: list[str | Path] = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"]
    command += ["--checks", "all", "--seed", str(seed), "--max-examples", str(examples), "--no-color", "--no-shrink"]
    command += ["--phases", "examples,coverage,fuzzing" if coverage else "examples,fuzzing"]
    command += ["--request-timeout", "20", "--continue-on-failure", "--report", "json", "--report-json-path", report]
    # Cohere's own fields are taken from its clients, who say who they are.
    command += ["--header", f"Authorization: Bearer {SECRET}", "--header", "X-Fern-SDK-Name: cohere"]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "gate.schema_hooks", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    # Its exit code is no use: the interpreter may crash at its end, when the report is written.
    assert report.exists(), done.stdout + done.stderr
    return {**json.loads(report.read_text(encoding="utf-8")), "printed": done.stdout}


def main() -> None:
    """Fuzz, print what was found, and end with 1 if anything was."""
    parser = argparse.ArgumentParser(prog="gate.schema_fuzz", description=__doc__)
    parser.add_argument("--examples", type=int, default=300, help="requests for each operation")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--coverage", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with frontend_process(folder, SIE_TRITON_API_KEYS=key(verbs=EVERYTHING).line) as frontend:
            report = fuzz(frontend.url, folder, seed=given.seed, examples=given.examples, coverage=given.coverage)
        print(report["printed"])
        faults = "Traceback" in frontend.log
    sys.exit(bool(report["failures"] or report["errors"] or faults or not report["complete"]))


if __name__ == "__main__":
    main()
