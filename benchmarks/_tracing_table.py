"""Results of the tracing benchmark as a Markdown page, beside figures that others published or measured elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

HEADINGS = ("case", "method", "CPU s", "whole CPU s", "RSS MB", "F2", "precision", "recall", "ESA", "DSA", "PDS")
QUOTED: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("OP_1 easy", "APP2, C++ core", {"cpu": "1.1", "rss": "296", "f1": ".949", "esa": "0.83"}),
    ("OP_1 easy", "pyNeuTube", {"cpu": "12", "f1": ".950"}),
    ("OP_1 perfect mask", "APP2, C++ core", {"f1": ".997", "esa": "0.51"}),
    ("OP_1 perfect mask", "pyNeuTube", {"f1": ".934"}),
    ("OP_1 hard", "APP2, C++ core", {"cpu": "over 90"}),
    ("OP_1 hard", "pyNeuTube", {"f1": ".509"}),
    ("neuron_a", "APP2, C++ core", {"f1": ".710", "precision": ".985", "recall": ".555", "esa": "4.85"}),
    ("neuron_a", "pyNeuTube", {"cpu": "46 x APP2", "f1": ".902"}),
    ("neuron_b", "APP2, C++ core", {"f1": ".926", "esa": "0.90"}),
    ("neuron_b", "pyNeuTube", {"f1": ".850"}),
)
"""Measured before, side by side on one core of another machine, one run each, times within 20 %; renders of the same
description with another seed. 282 MiB are 296 MB. pyNeuTube's method also made the label of neuron_a."""

_QUOTED_COLUMNS = ("cpu", "whole", "rss", "f1", "precision", "recall", "esa", "dsa", "pds")


def rows(results: Mapping[str, Any]) -> list[list[str]]:
    """One row per case and method, then the quoted ones of the case in italics."""
    found = []
    for case, about in results["cases"].items():
        for method, runs in about["runs"].items():
            found.append([case, method, *_cells(runs)])
        for name, method, figures in QUOTED:
            if name == case:
                found.append([case, f"*{method} (quoted)*", *(str(figures.get(c, "")) for c in _QUOTED_COLUMNS)])
    return found


def _cells(runs: list[Mapping[str, Any]]) -> list[str]:
    good = [run for run in runs if "error" not in run]
    if not good:
        return [runs[-1]["error"], *[""] * 8]
    trace = [run["trace_cpu_s"] for run in good if "trace_cpu_s" in run]
    scores = good[-1]["scores"]
    return [
        f"{median(trace):.1f}" if trace else "",
        f"{median(run['cpu_s'] for run in good):.1f}",
        f"{median(run['peak_rss_mb'] for run in good):.0f}",
        *(f"{scores[name]:.3f}" for name in ("f1", "precision", "recall")),
        *(f"{scores[name]:.2f}" for name in ("esa", "dsa")),
        f"{scores['pds']:.3f}",
    ]


def markdown(results: Mapping[str, Any]) -> str:
    """The table with its context."""
    about = results["machine"]
    lines = [
        f"- {results['date']}; {about['cpu']}, {about['cores']} cores, {about['system']}, Python {about['python']}; "
        "one thread",
        "- " + ", ".join(f"{name} {version}" for name, version in results["versions"].items()),
        "- contrast / sd: "
        + ", ".join(f"{c} {v['about']['contrast_per_sd']:.1f}" for c, v in results["cases"].items()),
        "",
        *(f"| {' | '.join(line)} |" for line in (HEADINGS, ["---", "---", *["---:"] * 9], *rows(results))),
    ]
    return "\n".join(lines)
