"""Results of the wavelet benchmark as tables for a terminal and a Markdown page, and as a figure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from _tables import Grid

PASSES = {"forward": "forward", "both": "forward + backward", "inverse": "inverse"}
TITLES = {**PASSES, "peak": "peak memory of forward / forward + backward, in sizes of the input"}
COLOURS = {
    "medwave": (214, 64, 42), "medwave torch": (238, 164, 120), "ptwt": (60, 110, 180),
    "pytorch_wavelets": (60, 160, 120), "PyWavelets": (130, 100, 170), "dense": (120, 120, 120),
    "dense per call": (180, 180, 180),
}  # fmt: skip


def grids(results: Mapping[str, Any]) -> list[Grid]:
    """Title, headings and rows of each table: one per setting and pass, cells down, methods across."""
    found: list[Grid] = []
    for setting, cells in results.get("cells", {}).items():
        methods = list(dict.fromkeys(name for cell in cells.values() for name in cell))
        for kind, title in TITLES.items():
            rows = [[cell, *[_entry(by_method.get(m, {}), kind) for m in methods]] for cell, by_method in cells.items()]
            used = [k for k in range(len(methods) + 1) if any(row[k] for row in rows)]
            if len(used) > 1:
                headings = ["cell", *methods]
                found.append(
                    (f"{title} ({setting})", [headings[k] for k in used], [[r[k] for k in used] for r in rows])
                )
    networks = results.get("networks", {})
    if networks:
        headings = ["network", "after / before", "quartiles", "CPU ms before", "CPU ms after"]
        rows = [
            [
                name,
                f"{f['ratio']:.3f}",
                f"{f['low']:.3f} to {f['high']:.3f}",
                f"{f['before_ms']:.1f}",
                f"{f['after_ms']:.1f}",
            ]
            for name, f in networks.items()
        ]
        found.append(("networks, one thread, float32", headings, rows))
    return found


def _entry(figures: Mapping[str, Any], kind: str) -> str:
    """One cell: median and quartiles of medwave's own ratio, the median of the others'; peaks of two passes."""
    if kind == "peak":
        peaks = [figures.get(name, {}).get("peak") for name in ("forward", "both")]
        return " / ".join(f"{peak:.2f}" for peak in peaks if peak is not None)
    if kind not in figures:
        return ""
    f = figures[kind]
    return f"{f['ratio']:.2f} ({f['low']:.2f}-{f['high']:.2f})" if f["ratio"] < 10 else f"{f['ratio']:.1f}"


def context_lines(results: Mapping[str, Any]) -> list[str]:
    """Date, machine, versions, and what was left out."""
    m = results["machine"]
    skipped = {
        f"{name}: {figures['skipped']}"
        for cells in results.get("cells", {}).values() for cell in cells.values()
        for name, figures in cell.items() if "skipped" in figures
    }  # fmt: skip
    return [
        f"{results['date']}; {m['cpu']}, {m['cores']} cores, {m['memory_gb']} GB, {m['system']}, Python {m['python']}",
        ", ".join(f"{name} {version}" for name, version in results["versions"].items()),
        "median of the ratio to clone of the input (quartiles)",
        *sorted(skipped),
    ]


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Dots on a logarithmic axis: the ratio to clone of each method; forward left, with backward right."""
    from PIL import Image, ImageDraw, ImageFont

    setting, cells = next(iter(results["cells"].items()))
    row, label, panel, gap, top = 30, 300, 520, 40, 96
    size = (label + 2 * panel + gap + 30, top + row * len(cells) + 86)
    picture = Image.new("RGB", size, "white")
    pen, font, small = ImageDraw.Draw(picture), ImageFont.load_default(18), ImageFont.load_default(15)
    pen.text(
        (14, 12),
        f"One level of the DWT: time / time of tensor.clone()   ({setting})",
        "black",
        ImageFont.load_default(22),
    )
    highest = max(f[k]["ratio"] for c in cells.values() for f in c.values() for k in ("forward", "both") if k in f)
    span = math.log(1.15 * highest / 0.8)
    for number, kind in enumerate(("forward", "both")):
        left = label + number * (panel + gap)
        pen.text((left, 50), PASSES[kind], "black", font)
        for tick in (1, 2, 5, 10, 20, 50, 100, 200):
            if tick <= highest:
                x = left + panel * math.log(tick / 0.8) / span
                pen.line((x, top - 4, x, top + row * len(cells)), (205, 205, 205) if tick > 1 else (110, 110, 110))
                pen.text((x, top - 6), str(tick), (90, 90, 90), small, anchor="mb")
        for line, by_method in enumerate(cells.values()):
            y = top + row * line + row // 2
            for name in reversed(COLOURS):
                if kind in by_method.get(name, {}):
                    x = left + panel * math.log(by_method[name][kind]["ratio"] / 0.8) / span
                    pen.ellipse((x - 6, y - 6, x + 6, y + 6), COLOURS[name])
    for line, cell in enumerate(cells):
        pen.text((label - 12, top + row * line + row // 2), cell, "black", small, anchor="rm")
    x, y = 14, top + row * len(cells) + 22
    measured = {name for cell in cells.values() for name, figures in cell.items() if "skipped" not in figures}
    for name, colour in ((name, colour) for name, colour in COLOURS.items() if name in measured):
        pen.ellipse((x, y, x + 12, y + 12), colour)
        pen.text((x + 18, y + 6), name, "black", small, anchor="lm")
        x += 44 + pen.textlength(name, font=small)
    machine = results["machine"]
    pen.text((14, size[1] - 26), f"{results['date']}, {machine['cpu']}; benchmarks/wavelets.py", (120, 120, 120), small)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, optimize=True)
