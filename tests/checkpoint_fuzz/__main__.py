"""`PYTHONPATH=tests python -m checkpoint_fuzz --seeds 0:500 --report fuzz.jsonl`: judge checkpoints, seed by seed.

The report has one JSON object a line and is appended to: seeds that it has are not judged again. At the end a table
says how many were right, refused and different. The exit status is 1 if any is different or crashed.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any


def main() -> int:
    """Judge the seeds that the report lacks, then print the table."""
    parser = argparse.ArgumentParser(prog="checkpoint_fuzz", description=__doc__)
    parser.add_argument("--seeds", default="0:60", help="`first:end`, or single seeds separated by commas")
    parser.add_argument("--report", type=Path, default=Path("checkpoint-fuzz.jsonl"), help="JSON lines, appended to")
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no seed after so many minutes")
    parser.add_argument("--threads", type=int, default=1, help="threads that torch uses")
    parser.add_argument("--keep", type=Path, help="keep the checkpoint and the repository of each seed below this")
    parser.add_argument("--shrink", action="store_true", help="for each one that is different, find the simplest")
    parser.add_argument("--onnx-every", type=int, default=0, help="every so many seeds, build ONNX graphs; 0: none")
    parser.add_argument("--show", action="store_true", help="print the recipes of the seeds and judge nothing")
    given = parser.parse_args()
    seeds = _seeds(given.seeds)
    if given.show:
        return _show(seeds)
    done = _read(given.report)
    deadline = time.monotonic() + 60 * given.minutes
    _quiet(given.threads)
    from sie_triton.formats import Format

    from .judge import culprits, describe, judge
    from .recipe import draw

    for seed in seeds:
        if seed in done:
            continue
        if time.monotonic() > deadline:
            print(f"the {given.minutes:g} minutes are over before seed {seed}", file=sys.stderr)
            break
        recipe = draw(seed)
        graphs: Format = "onnx" if given.onnx_every and seed % given.onnx_every == 0 else "torchscript"
        verdict = judge(recipe, given.keep / str(seed) if given.keep else None, graphs)
        entry = verdict.to_json()
        if given.shrink and verdict.outcome in ("different", "crashed"):
            entry["simplest"] = describe(culprits(recipe, verdict, graphs=graphs))
        done[seed] = entry
        with given.report.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        print(f"{seed:5} {verdict.seconds:6.1f} s  {_line(entry)}", flush=True)
    chosen = [done[seed] for seed in seeds if seed in done]
    print(table(chosen))
    return int(any(entry["outcome"] in ("different", "crashed") for entry in chosen))


def _seeds(text: str) -> list[int]:
    if ":" in text:
        first, end = text.split(":")
        return list(range(int(first), int(end)))
    return [int(part) for part in text.split(",")]


def _show(seeds: list[int]) -> int:
    from .recipe import draw

    for seed in seeds:
        recipe = draw(seed)
        print(seed, recipe.kind, json.dumps({"backbone": recipe.backbone, **recipe.traits()}, ensure_ascii=False))
    return 0


def _read(report: Path) -> dict[int, dict[str, Any]]:
    if not report.is_file():
        return {}
    entries = (json.loads(line) for line in report.read_text(encoding="utf-8").splitlines() if line)
    return {entry["seed"]: entry for entry in entries}


def _quiet(threads: int) -> None:
    """torch, transformers and the exporter have much to say that is about no seed."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    import torch
    import transformers

    torch.set_num_threads(threads)
    transformers.utils.logging.disable_progress_bar()


def _line(entry: dict[str, Any]) -> str:
    traits = json.dumps(entry["traits"], ensure_ascii=False)
    detail = entry["detail"].replace("\n", " ")[-260:] if entry["outcome"] == "crashed" else entry["detail"][:260]
    codes = ",".join(entry["codes"])
    shown = " ".join(detail.split())
    return f"{entry['outcome']:9} {entry['kind']:7} {codes} {shown}\n        {traits}"


def table(entries: list[dict[str, Any]]) -> str:
    """Counts by outcome, refusals by code, and each seed that is different or crashed."""
    outcomes = Counter(entry["outcome"] for entry in entries)
    lines = ["", f"{len(entries)} checkpoints: " + ", ".join(f"{n} {name}" for name, n in outcomes.most_common())]
    for kind in sorted({entry["kind"] for entry in entries}):
        counts = Counter(entry["outcome"] for entry in entries if entry["kind"] == kind)
        lines.append(f"  {kind:8} " + ", ".join(f"{n} {name}" for name, n in counts.most_common()))
    refused = [entry for entry in entries if entry["outcome"] == "refused"]
    for code, count in Counter(",".join(entry["codes"]) for entry in refused).most_common():
        named = sum(entry["named"] for entry in refused if ",".join(entry["codes"]) == code)
        lines.append(f"  refused by {code}: {count}, {named} of them name what they refuse")
    for entry in entries:
        if entry["outcome"] in ("different", "crashed"):
            lines.append(f"  {entry['outcome']} {entry['seed']}: {_line(entry)}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
