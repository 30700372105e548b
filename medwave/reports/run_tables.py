"""Tables that every page ends with: what a run cost, wrote, was told, and ran on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from medwave.reports.page import Cell, Table, number


class Stage(NamedTuple):
    """Cost of one step: CPU and wall-clock seconds, largest resident memory in MB so far (None: not measured)."""

    name: str
    cpu_s: float
    wall_s: float
    peak_rss_mb: float | None = None


class OutputFile(NamedTuple):
    """A file of the run: path relative to the report's folder, and what it is."""

    path: str
    description: str = ""


def record_tables(
    stages: Sequence[Stage],
    files: Mapping[str, OutputFile],
    options: Mapping[str, object],
    versions: Mapping[str, str],
) -> list[Table]:
    """Cost of the stages, files, options and versions: those that are given."""
    tables = [_stage_table(stages)] if stages else []
    if files:
        rows = [[Cell(name), Cell(f.path, file=f.path), Cell(f.description, tone="muted")] for name, f in files.items()]
        tables.append(Table("Files", ("File", "Path", "What it is"), rows))
    if options:
        rows = [[Cell(str(name)), Cell(plain(value))] for name, value in options.items()]
        tables.append(Table("Options", ("Option", "Value"), rows))
    if versions:
        rows = [[Cell(name), Cell(version)] for name, version in versions.items()]
        tables.append(Table("Versions", ("Package", "Version"), rows))
    return tables


def _stage_table(stages: Sequence[Stage]) -> Table:
    total = sum(stage.cpu_s for stage in stages) or 1.0
    rows = [
        [
            Cell(s.name),
            Cell(number(s.cpu_s), bar=s.cpu_s / total),
            Cell(number(s.wall_s)),
            Cell(_megabytes(s.peak_rss_mb)),
        ]
        for s in stages
    ]
    if len(rows) > 1:
        peaks = [s.peak_rss_mb for s in stages if s.peak_rss_mb is not None]
        wall = sum(s.wall_s for s in stages)
        peak = _megabytes(max(peaks, default=None))
        rows.append([Cell("All"), Cell(number(total)), Cell(number(wall)), Cell(peak)])
    return Table("Cost", ("Stage", "CPU (s)", "Clock (s)", "Peak (MB)"), rows, numeric=frozenset({1, 2, 3}))


def _megabytes(value: float | None) -> str:
    return number(None if value is None else round(value))


def plain(value: object) -> str:
    """The value of an option as people write it: ``none``, ``yes`` and ``no``, lists with commas."""
    if value is None or (isinstance(value, Mapping | list | tuple) and not value):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {plain(each)}" for name, each in value.items())
    if isinstance(value, list | tuple):
        inner = [f"({plain(each)})" if isinstance(each, list | tuple) else plain(each) for each in value]
        return ", ".join(inner)
    return str(value)
