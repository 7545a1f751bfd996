"""The results as one JSON file, one Markdown page with ratios, and one plot (SVG, written by hand)."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.load import percentile
from benchmarks.scenarios import Beside, Measurement, Soak

LIMIT, RUNG = "limit", "rung"
OURS = "ours"
_MB = 1e6


@dataclass
class Report:
    """Everything that one run found out."""

    machine: dict[str, Any]
    corpora: dict[str, dict[str, Any]]
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    installed_bytes: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    start_s: dict[str, float] = field(default_factory=dict)
    min_cosine: dict[str, float] = field(default_factory=dict)
    measurements: list[Measurement] = field(default_factory=list)
    beside: list[Beside] = field(default_factory=list)
    linearity: dict[int, float] = field(default_factory=dict)
    soak: Soak | None = None

    def write(self, folder: Path) -> Path:
        """Write `benchmark.json`, `benchmark.md` and `benchmark.svg`; returns the Markdown's path."""
        folder.mkdir(parents=True, exist_ok=True)
        content = asdict(self)
        for measurement, entry in zip(self.measurements, content["measurements"], strict=True):
            entry["tokens_per_s"] = measurement.sample.tokens_per_s
            entry["sample"]["latencies"] = _percentiles(measurement.sample.latencies)
        (folder / "benchmark.json").write_text(json.dumps(content, indent=1) + "\n")
        (folder / "benchmark.svg").write_text(plot(self))
        page = folder / "benchmark.md"
        page.write_text(self.markdown())
        return page

    def markdown(self) -> str:
        """The page."""
        machine = ", ".join(f"{key} {value}" for key, value in self.machine.items())
        lines = ["# Benchmark", "", machine, ""]
        lines += [
            f"- corpus {name}: {c['texts']} texts, mean {c['mean_tokens']:.0f} tokens, longest {c['max_tokens']}, "
            f"sha256 {c['sha256'][:12]}"
            for name, c in self.corpora.items()
        ]
        lines += [f"- not measured: {name}: {reason}" for name, reason in self.skipped.items()]
        lines += [
            "",
            "Medians over the rounds; in brackets the spread, (max - min) / median. Tokens are real tokens.",
            "",
        ]
        lines += self._bulk() + self._online() + self._costs() + self._rest()
        lines += ["## Versions", ""]
        lines += [
            f"- {name}: " + ", ".join(f"{package} {version}" for package, version in found.items())
            for name, found in self.versions.items()
        ]
        return "\n".join(lines) + "\n"

    def select(self, scenario: str, contestant: str, corpus: str, clients: int) -> list[Measurement]:
        """The measurements of one cell, one for each round."""
        wanted = (scenario, contestant, corpus, clients)
        return [m for m in self.measurements if (m.scenario, m.contestant, m.corpus, m.clients) == wanted]

    def keys(self, scenario: str) -> list[tuple[str, int]]:
        """Contestants with their numbers of clients, in the order in which they were measured."""
        return list(dict.fromkeys((m.contestant, m.clients) for m in self.measurements if m.scenario == scenario))

    def speed(self, scenario: str, contestant: str, corpus: str, clients: int) -> float | None:
        """The median of tokens per second; None where nothing was measured."""
        found = [m.sample.tokens_per_s for m in self.select(scenario, contestant, corpus, clients)]
        return statistics.median(found) if found else None

    def limit(self, contestant: str, corpus: str) -> float | None:
        """The in-process limit of what serves an engine and a precision of its own; else float32's fastest budget."""
        own = f"{RUNG} ({contestant.removeprefix(f'{OURS}-').replace('-', ' ')})"
        names = [own] if (own, 1) in self.keys("bulk") else [n for n, _ in self.keys("bulk") if n.startswith(LIMIT)]
        speeds = [self.speed("bulk", name, corpus, 1) for name in names]
        return max((speed for speed in speeds if speed), default=None)

    def _bulk(self) -> list[str]:
        names = list(self.corpora)
        header = [f"{name}: tokens/s | of the limit | ours / this | CPU s per 1k tokens" for name in names]
        lines = ["## Bulk, 64 texts a request", "", "| | clients | " + " | ".join(header) + " | min cosine |"]
        lines += ["|---|---|" + "---|" * (4 * len(names) + 1)]
        best = max((clients for name, clients in self.keys("bulk") if name == OURS), default=1)
        for contestant, clients in self.keys("bulk"):
            cells = []
            for corpus in names:
                found = self.select("bulk", contestant, corpus, clients)
                speeds = [m.sample.tokens_per_s for m in found]
                speed = statistics.median(speeds)
                ours = self.speed("bulk", OURS, corpus, best)
                cost = statistics.median(m.sample.cpu_s_per_1k_tokens for m in found)
                cells += [
                    _spread(speeds, "{:.0f}"),
                    _ratio(speed, self.limit(contestant, corpus)),
                    _ratio(ours, speed),
                    f"{cost:.3f}",
                ]
            lines.append(_row(contestant, clients, *cells, self._cosine(contestant)))
        return [*lines, ""]

    def _online(self) -> list[str]:
        header = "| | clients | p50 ms | p95 ms | p99 ms | texts/s | tokens/s | of the limit | CPU s per 1k tokens |"
        lines = ["## Online, one short text a request", "", header, "|---|---|---|---|---|---|---|---|---|"]
        for contestant, clients in sorted(self.keys("online"), key=lambda key: key[0]):
            found = self.select("online", contestant, "short", clients)
            cells = []
            for percent in (50, 95, 99):
                cells.append(_spread([percentile(m.sample.latencies, percent) * 1e3 for m in found], "{:.1f}"))
            speed = statistics.median(m.sample.tokens_per_s for m in found)
            rate = statistics.median(m.sample.texts / m.sample.wall_s for m in found)
            cost = statistics.median(m.sample.cpu_s_per_1k_tokens for m in found)
            cells += [f"{rate:.0f}", f"{speed:.0f}", _ratio(speed, self.limit(contestant, "short")), f"{cost:.3f}"]
            lines.append(_row(contestant, clients, *cells))
        return [*lines, ""]

    def _costs(self) -> list[str]:
        lines = ["## Memory, start, installation", "", "| | peak PSS MB | first answer after s | installed MB |"]
        lines += ["|---|---|---|---|"]
        for contestant, seconds in self.start_s.items():
            peak = max((m.sample.peak_pss for m in self.measurements if m.contestant == contestant), default=0)
            size = self.installed_bytes.get(contestant)
            lines.append(_row(contestant, f"{peak / _MB:.0f}", f"{seconds:.1f}", f"{size / _MB:.0f}" if size else ""))
        return [*lines, ""]

    def _rest(self) -> list[str]:
        lines = []
        for beside in self.beside:
            lines.append(
                f"- {beside.contestant}: query p95 {beside.idle_p95_s * 1e3:.1f} ms idle, "
                f"{beside.busy_p95_s * 1e3:.1f} ms beside a bulk job ({beside.busy_p95_s / beside.idle_p95_s:.1f} x)"
            )
        if self.linearity:
            speeds = ", ".join(f"{count} texts {speed:.0f}" for count, speed in self.linearity.items())
            lines.append(f"- ours, tokens/s over the size of the job: {speeds}")
        if self.soak:
            growth = self.soak.late_pss / self.soak.early_pss - 1
            lines.append(
                f"- ours, memory between request {self.soak.requests // 10} and {self.soak.requests}: "
                f"{self.soak.early_pss / _MB:.0f} to {self.soak.late_pss / _MB:.0f} MB ({growth:+.1%})"
            )
        return ["## Side by side, size, endurance", "", *lines, ""] if lines else []

    def _cosine(self, contestant: str) -> str:
        cosine = self.min_cosine.get(contestant)
        return "" if cosine is None else f"{cosine:.6f}"


def plot(report: Report) -> str:
    """Throughput and median latency of single texts over the number of clients, one line for each server."""
    series: dict[str, list[tuple[int, float, float]]] = {}
    for contestant, clients in report.keys("online"):
        found = report.select("online", contestant, "short", clients)
        rate = statistics.median(m.sample.texts / m.sample.wall_s for m in found)
        p50 = statistics.median(percentile(m.sample.latencies, 50) * 1e3 for m in found)
        series.setdefault(contestant, []).append((clients, rate, p50))
    series = {name: sorted(points) for name, points in series.items() if len(points) > 1}
    panels = _panel(series, 0, 1, "texts per second") + _panel(series, 460, 2, "p50, milliseconds")
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 920 360" font-family="sans-serif" font-size="12">'
        f'<rect width="920" height="360" fill="white"/>{panels}</svg>\n'
    )


_COLORS = ("#1b6ca8", "#c0392b", "#27864a", "#8e44ad", "#b9770e", "#566573")


def _panel(series: dict[str, list[tuple[int, float, float]]], left: int, column: int, title: str) -> str:
    """One chart, 460 by 360, its clients in equal steps from left to right."""
    steps = sorted({point[0] for points in series.values() for point in points})
    top = max((point[column] for points in series.values() for point in points), default=1.0)
    x = {clients: left + 60 + 340 * index / max(1, len(steps) - 1) for index, clients in enumerate(steps)}
    parts = [f'<text x="{left + 60}" y="20" font-weight="bold">{title}, over clients</text>']
    parts += [f'<text x="{x[c]}" y="298" text-anchor="middle">{c}</text>' for c in steps]
    for part in range(5):
        y = 280 - 240 * part / 4
        parts.append(f'<line x1="{left + 60}" x2="{left + 400}" y1="{y}" y2="{y}" stroke="#ddd"/>')
        parts.append(f'<text x="{left + 54}" y="{y + 4}" text-anchor="end">{top * part / 4:.3g}</text>')
    for index, (name, points) in enumerate(series.items()):
        color = _COLORS[index % len(_COLORS)]
        path = " ".join(f"{x[point[0]]:.1f},{280 - 240 * point[column] / top:.1f}" for point in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts.append(
            f'<text x="{left + 60 + 110 * (index % 3)}" y="{322 + 16 * (index // 3)}" fill="{color}">{name}</text>'
        )
    return "".join(parts)


def _percentiles(latencies: Sequence[float]) -> dict[str, float]:
    return {f"p{percent}": percentile(latencies, percent) for percent in (50, 95, 99)} if latencies else {}


def _spread(values: Sequence[float], form: str) -> str:
    median = statistics.median(values)
    return f"{form.format(median)} ({(max(values) - min(values)) / median:.0%})"


def _ratio(value: float | None, base: float | None) -> str:
    return f"{value / base:.2f}" if value and base else ""


def _row(*cells: Any) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"
