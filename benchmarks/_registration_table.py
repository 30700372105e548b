"""Results of the registration benchmark as rows, for a terminal and for a Markdown page.

A figure of a method is its mean over the pairs that both it and greedy have finished, so that ratios compare like
with like. Costs of repeated runs are their median. Both ratios of CPU seconds have greedy's deformable part below
the line: reading, writing, start-up and affine of the others are held against greedy's bare optimisation. "Dice" is
over the common structures, "Dice all" over those that either map holds; folds are voxels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

from _registration_methods import SETTINGS
from _tables import Grid

REFERENCE = "greedy"
HEADINGS = (
    "method", "pairs x runs", "CPU s", "/ greedy", "whole CPU s", "/ greedy", "RSS GB", "Dice", "- greedy", "Dice all",
    "folds", "SD log J",
)  # fmt: skip
PAIR_HEADINGS = (
    "pair", "method", "CPU s", "/ greedy", "whole CPU s", "/ greedy", "Dice", "- greedy", "folds", "SD log J",
)  # fmt: skip

_COSTS = ("deformable_cpu_s", "cpu_s", "peak_rss_mb")
_QUALITIES = ("dice_common", "dice_present", "folds", "sd_log_jacobian")


def cell(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The repeated runs of one method on one pair as one: median of costs, mean of qualities."""
    costs = {name: median(run[name] for run in runs) for name in _COSTS}
    return costs | {name: fmean(run[name] for run in runs) for name in _QUALITIES} | {"runs": len(runs)}


def cells(results: Mapping[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Method -> pair -> figures, of all runs that succeeded."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, pair in results["pairs"].items():
        for method, runs in pair["runs"].items():
            good = [run for run in runs if "error" not in run]
            if good:
                found.setdefault(method, {})[name] = cell(good)
    return {method: found[method] for method in SETTINGS if method in found}


def compare(figures: Mapping[str, Mapping[str, float]], reference: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Means of a method over pairs, and how they stand to the reference on those pairs that both have."""
    shared = [name for name in figures if name in reference]
    names = shared or list(figures)
    mean = {key: fmean(figures[name][key] for name in names) for key in (*_COSTS, *_QUALITIES)}
    mean["pairs"], mean["runs"] = len(names), min(figures[name]["runs"] for name in names)
    if shared:
        base = {key: fmean(reference[name][key] for name in shared) for key in (*_COSTS, *_QUALITIES)}
        mean["deformable_ratio"] = mean["deformable_cpu_s"] / base["deformable_cpu_s"]
        mean["process_ratio"] = mean["cpu_s"] / base["deformable_cpu_s"]
        mean["dice_gain"] = mean["dice_common"] - base["dice_common"]
    return mean


def mean_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """One row per method, after one for the affine alone."""
    found = cells(results)
    reference = found.get(REFERENCE, {})
    starts = [pair["affine"] for pair in results["pairs"].values()]
    kind = results["setup"]["affine"]
    affine = [fmean(start[key] for start in starts) for key in ("cpu_s", "peak_rss_mb", "dice_common", "dice_present")]
    rows = [[
        f"affine only ({kind})", str(len(starts)), "", "", f"{affine[0]:.1f}", "", f"{affine[1] / 1e3:.2f}",
        f"{affine[2]:.4f}", "", f"{affine[3]:.4f}", "", "",
    ]]  # fmt: skip
    for method, figures in found.items():
        m = compare(figures, reference)
        rows.append([
            method, f"{m['pairs']} x {m['runs']}",
            f"{m['deformable_cpu_s']:.1f}", _optional(m, "deformable_ratio", ".2f"),
            f"{m['cpu_s']:.1f}", _optional(m, "process_ratio", ".2f"), f"{m['peak_rss_mb'] / 1e3:.2f}",
            f"{m['dice_common']:.4f}", _optional(m, "dice_gain", "+.4f"), f"{m['dice_present']:.4f}",
            f"{m['folds']:.1f}", f"{m['sd_log_jacobian']:.3f}",
        ])  # fmt: skip
    return rows


def pair_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """One row per pair and method."""
    found = cells(results)
    reference = found.get(REFERENCE, {})
    rows = []
    for name in results["pairs"]:
        for method, figures in found.items():
            if name not in figures:
                continue
            m = compare({name: figures[name]}, reference)
            rows.append([
                name, method, f"{m['deformable_cpu_s']:.1f}", _optional(m, "deformable_ratio", ".2f"),
                f"{m['cpu_s']:.1f}", _optional(m, "process_ratio", ".2f"), f"{m['dice_common']:.4f}",
                _optional(m, "dice_gain", "+.4f"), f"{m['folds']:.0f}", f"{m['sd_log_jacobian']:.3f}",
            ])  # fmt: skip
    return rows


def context_lines(results: Mapping[str, Any]) -> list[str]:
    """Date, machine and versions in words."""
    machine, setup = results["machine"], results["setup"]
    runs = [run for pair in results["pairs"].values() for each in pair["runs"].values() for run in each]
    measured = sorted({f"{run['package']} {run['version']}" for run in runs})
    below = [f"{name} {results['versions'][name]}" for name in ("torch", "numba") if name in results["versions"]]
    return [
        f"{results['date']}; {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, "
        f"{machine['system']}, Python {machine['python']}; {setup['threads']} thread(s)",
        ", ".join([*measured, *below]),
        f"{len(results['structures'])} common structures; pairs are moving:fixed",
    ]


def grids(results: Mapping[str, Any]) -> list[Grid]:
    """Title, headings and rows of each table."""
    means, pairs = mean_rows(results), pair_rows(results)
    return [("Mean over pairs", HEADINGS, means), ("Pair by pair", PAIR_HEADINGS, pairs)]


def _optional(values: Mapping[str, float], key: str, form: str) -> str:
    return format(values[key], form) if key in values else ""
