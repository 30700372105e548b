"""Score a traced neuron against its gold tree, from files. A trace that is missing or empty counts as the worst."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medwave.core.errors import InputError
from medwave.core.files import StrPath
from medwave.core.tree import Tree
from medwave.metrics import TraceScores, score_trace
from medwave.metrics.neuron_matching import ToleranceScore
from medwave.volumes import read_swc, read_swc_units, validate_swc
from medwave.workflows.options import ScoreOptions


@dataclass(frozen=True)
class ScoredFiles:
    """The scores of one trace.

    Attributes:
        trace, gold: the files.
        scores: everything measured; ``scores.failed`` says why there was no trace to measure.
        options: how.
        units: unit of all lengths: ``"um"``, ``"voxels"``, or ``"units of the files"`` where neither file says.
    """

    trace: Path
    gold: Path
    scores: TraceScores
    options: ScoreOptions
    units: str

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, in the layout of the JSON file; distances of a failed trace are NaN."""
        s = self.scores
        return {
            "trace": str(self.trace),
            "gold": str(self.gold),
            "failed": s.failed,
            "units": self.units,
            "tolerance": self.options.tolerance,
            "step": self.options.step,
            "spacing_zyx": self.options.spacing,
            "scores": s.row(),
            "distances": s.distances._asdict(),
            "curve": [_point(point) for point in s.curve],
            "simplified_diadem": s.diadem._asdict(),
            "topology": {
                "gold": s.gold_topology._asdict(),
                "trace": None if s.trace_topology is None else s.trace_topology._asdict(),
            },
        }


def score_file(trace: StrPath, gold: StrPath, *, options: ScoreOptions | None = None, **changes: Any) -> ScoredFiles:
    """Score one SWC file against another.

    Args:
        trace: the trace; a file that is missing or has no node is a failed trace, with the worst scores.
        gold: the true tree.
        options: how; single ones can be given by name: ``score_file(t, g, tolerance=3)``.

    Raises:
        MissingFileError: when the gold tree is missing.
        InputError: when a file is damaged, the gold tree has no length, or the files are in different units.
    """
    options = replace(options or ScoreOptions(), **changes)
    true = read_swc(gold)
    made = _trace(trace)
    units = _units({trace: made, gold: true}, options)
    factors = 1.0 if options.spacing is None else options.spacing[::-1]
    try:
        scores = score_trace(true, made, tolerance=options.tolerance, step=options.step, spacing_xyz=factors)
    except InputError as error:
        raise InputError(f"{trace} against {gold}: {error}") from None
    return ScoredFiles(Path(trace), Path(gold), scores, options, units)


def _trace(path: StrPath) -> Tree | None:
    if not Path(path).exists() or [f.code for f in validate_swc(path)] == ["empty"]:
        return None
    return read_swc(path)


def _units(trees: Mapping[StrPath, Tree | None], options: ScoreOptions) -> str:
    """The unit of lengths.

    Raises:
        InputError: when the files contradict each other, or micrometres would be multiplied by the voxel size.
    """
    said = {path: read_swc_units(path) for path, tree in trees.items() if tree is not None}
    known = [unit for unit in ("voxels", "um") if unit in said.values()]
    if len(known) > 1:
        both = ", ".join(f"{path} is in {unit}" for path, unit in said.items())
        raise InputError(f"{both}; bring both to one unit with medwave swc convert")
    if options.spacing is None:
        return known[0] if known else "units of the files"
    for path, unit in said.items():
        if unit == "um":
            raise InputError(f"{path}: is in um already; leave out --spacing, which is for trees in voxels")
    return "units of the spacing"


def _point(point: ToleranceScore) -> dict[str, Any]:
    return {
        "tolerance": point.tolerance,
        "by_samples": point.by_samples._asdict(),
        "by_length": point.by_length._asdict(),
    }
