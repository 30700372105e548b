"""What is said about each registration of a cohort, and which ones stand out from the others.

Measures come from ``run.json``. A value is an outlier when it lies more than 3.5 robust standard deviations from the
median of the cohort (:mod:`medwave.metrics.outliers`) on the side that is bad; correlations and overlaps near 1 are
spread out first (Fisher's z).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medwave.core.geometry import Float64Array
from medwave.metrics.outliers import LIMIT, robust_scores
from medwave.reports.cohort import CohortRow
from medwave.workflows.batch import FAILED, Outcome
from medwave.workflows.cohort_items import PairItem


def _same(x: float) -> float:
    return x


def _fisher(x: float) -> float:
    return math.atanh(min(max(x, -0.999999), 0.999999))


def _log(x: float) -> float:
    return math.log(max(x, 1e-12))


@dataclass(frozen=True)
class _Rule:
    """A measure in words, the side that is bad (-1 low, 1 high, 0 both), how it is spread, how it is written."""

    name: str
    bad: int
    spread: Callable[[float], float] = _same
    form: str = "{:.3f}"


RULES = {
    "dice": _Rule("Dice", -1, _fisher),
    "similarity_after": _Rule("correlation after", -1, _fisher),
    "folds": _Rule("folded voxels", 1, lambda x: math.log1p(x), "{:.0f}"),
    "largest_mm": _Rule("largest displacement", 1, _log, "{:.1f} mm"),
    "scale": _Rule("scale of the affine", 0, _log),
    "rotation_degrees": _Rule("rotation of the affine", 1, _same, "{:.1f}°"),
}
SUMMARY_COLUMNS = (
    "name", "status", "error", "dice", "dice_affine", "similarity_before", "similarity_after", "folds", "largest_mm",
    "scale", "rotation_degrees",
)  # fmt: skip


def measures(run: dict[str, Any]) -> dict[str, Any]:
    """Key measures of a run from its record; None where one is not known."""
    figures, dice = run.get("figures", {}), list(run.get("dice", {}).values())
    linear = _linear_measures(np.array(run["affine"]["matrix"])) if run.get("affine") else {}
    return {
        "dice": float(np.mean([d["after"] for d in dice])) if dice else None,
        "dice_affine": float(np.mean([d["before"] for d in dice])) if dice else None,
        "similarity_before": figures.get("Correlation in the subject", {}).get("before"),
        "similarity_after": figures.get("Correlation in the subject", {}).get("after"),
        "folds": figures.get("Folded voxels", {}).get("after"),
        "largest_mm": figures.get("Largest displacement", {}).get("after"),
        "scale": None,
        "rotation_degrees": None,
        **linear,
    }


def _linear_measures(matrix: Float64Array) -> dict[str, float]:
    """Mean scale (cube root of the volume change) and angle of the nearest rotation."""
    left, _, right = np.linalg.svd(matrix[:3, :3])
    turn = left @ right * np.sign(np.linalg.det(left @ right))
    angle = math.degrees(math.acos(min(1.0, max(-1.0, (float(np.trace(turn)) - 1) / 2))))
    return {"scale": float(np.cbrt(abs(np.linalg.det(matrix[:3, :3])))), "rotation_degrees": angle}


def summary_row(outcome: Outcome[PairItem]) -> dict[str, Any]:
    """A row of ``summary.csv``; it holds no times, so that a resumed run gives the same table."""
    return {c: "" if value is None else _short(value) for c, value in summary_values(outcome).items()}


def summary_values(outcome: Outcome[PairItem]) -> dict[str, Any]:
    """The same unrounded; None where a measure is not known."""
    known = {
        **measures(outcome.run), "name": outcome.item.name, "error": outcome.error,
        "status": FAILED if outcome.status == FAILED else outcome.run.get("status", ""),
    }  # fmt: skip
    return {c: known.get(c) for c in SUMMARY_COLUMNS}


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def cohort_rows(outcomes: Sequence[Outcome[PairItem]], folder: Path, runs: str, preview: str) -> list[CohortRow]:
    """Rows of the page: failures first, then what stands out, worst first, then the rest, by name."""
    good = [outcome for outcome in outcomes if outcome.status != FAILED]
    values = [measures(outcome.run) for outcome in good]
    reasons, scores = stand_out(values, [outcome.run.get("options", {}).get("metric", "") for outcome in good])
    rows = [
        CohortRow(
            name=o.item.name, report=f"{runs}/{o.item.name}/report.html", preview=folder / runs / o.item.name / preview,
            reasons=(*o.run.get("warnings", ()), *why), severity=score + 1e3 * (o.run.get("status") == "warning"),
            cpu_s=o.run.get("total", {}).get("cpu_s"), **found,
        )
        for o, found, why, score in zip(good, values, reasons, scores, strict=True)
    ]  # fmt: skip
    rows += [
        CohortRow(name=o.item.name, failed=True, reasons=(o.error,), severity=math.inf)
        for o in outcomes if o.status == FAILED
    ]  # fmt: skip
    return sorted(rows, key=lambda row: (-row.severity, row.name))


def stand_out(values: Sequence[dict[str, Any]], metrics: Sequence[str] = ()) -> tuple[list[list[str]], list[float]]:
    """For each registration why it stands out, and by how many robust standard deviations at most (0: it does not).

    Correlations are compared among registrations of the same metric, where it is given: between contrasts they are
    lower, however good the result.
    """
    reasons: list[list[str]] = [[] for _ in values]
    worst = [0.0] * len(values)
    for key, rule in RULES.items():
        kinds = metrics if key == "similarity_after" and metrics else ("all",) * len(values)
        for kind in dict.fromkeys(kinds):
            members = [index for index, own in enumerate(kinds) if own == kind]
            column = [values[index][key] for index in members]
            spread = [math.nan if x is None or not math.isfinite(x) else rule.spread(x) for x in column]
            known = [x for x in column if x is not None and math.isfinite(x)]
            for index, value, score in zip(members, column, robust_scores(spread), strict=True):
                away = abs(score) if rule.bad == 0 else rule.bad * score
                if away > LIMIT:
                    told, middle = (rule.form.format(x) for x in (value, np.median(known)))
                    among = "all" if len(members) == len(values) else f"{len(members)} by {kind}"
                    reasons[index].append(f"{rule.name} {told}, median of {among} {middle}")
                    worst[index] = max(worst[index], float(away))
    return reasons, worst
