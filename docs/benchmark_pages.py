"""Benchmark pages from the JSON files of benchmarks/results: every number comes from a file, none is typed.

Where a benchmark program renders its own results (``markdown`` or ``table``), that is used; the rest is said here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"

Results = Mapping[str, Any]


def pages() -> dict[str, str]:
    """Name of a page -> its text, one for each benchmark that has results, and the index."""
    files: dict[str, list[Path]] = {}
    for path in sorted(RESULTS.glob("*.json"), reverse=True):  # the newest first
        files.setdefault(path.stem[: -len("-2026-01-01")], []).append(path)
    made = {}
    for name in [*(n for n in PAGES if n in files), *sorted(files.keys() - PAGES.keys())]:
        title, about, render = PAGES.get(name) or _plain_page(name)
        parts = [f"# {title}\n\n{about}\n"]
        for path in files[name]:
            results = json.loads(path.read_text(encoding="utf-8"))
            parts.append(f"## Measured {path.stem[-10:]}\n\n{_context(results)}\n\n{render(results)}\n")
            parts.append(f"All runs: `benchmarks/results/{path.name}`.\n")
        made[name] = "\n".join(parts)
    made |= {path.stem: _page_of_rows(path) for path in sorted(RESULTS.glob("*.jsonl"))}
    toctree = "\n".join(made)
    made["index"] = (
        "# Benchmarks\n\nEach page is made from the JSON files in `benchmarks/results` when these pages are built. "
        "Times are CPU seconds of processes on machines that did other work too: trust ratios. What is measured, how, "
        "and what falls short of what was wanted, is said in words in `benchmarks/README.md`.\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n\n{toctree}\n```\n"
    )
    return made


def _page_of_rows(path: Path) -> str:
    """For rows of JSON that a program goes on with, ``PROGRAM_SET.jsonl``: its ``tables`` render them."""
    title, about = ROW_PAGES[path.stem]
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    tables = "\n".join(import_module(path.stem.split("_")[0]).tables(rows))
    return (
        f"# {title}\n\n{about}\n\n## Measured {rows[-1]['date']}\n\n{_context(rows[-1])}\n\n{tables}\n\n"
        f"All runs: `benchmarks/results/{path.name}`.\n"
    )


def _plain_page(name: str) -> tuple[str, str, Callable[[Results], str]]:
    """For results that nothing here knows: what is a row becomes one, under the names that the file has."""
    title = name.replace("_", " ").replace("-", " ").capitalize()
    return (
        title,
        f"What is measured and how stands in `benchmarks/README.md` and at the head of the `{name}` program.",
        _rows,
    )


def _rows(results: Results) -> str:
    tables = []
    for key, value in results.items():
        if key in ("machine", "versions", "settings", "setup"):
            continue
        cells = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        rows = [
            ({} if isinstance(value, list) else {key: which}) | cell for which, cell in cells if isinstance(cell, dict)
        ]
        names = list(dict.fromkeys(n for row in rows for n, v in row.items() if not isinstance(v, dict | list)))
        if rows and names:
            tables.append(_grid(names, [[_shown(row.get(n, "")) for n in names] for row in rows]))
    alone = [[key, _shown(value)] for key, value in results.items() if isinstance(value, str | int | float)]
    return "\n\n".join([*([_grid(["", ""], alone)] if alone else []), *tables])


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")


def _context(results: Results) -> str:
    if "machine" not in results:
        return "The file does not name its machine."
    machine, versions = results["machine"], dict(results.get("versions", {}))
    if "torch" in results:
        versions["torch"] = results["torch"]
    hardware = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}"
    packages = ", ".join(f"{name} {v}" for name, v in versions.items() if name not in ("python", "system"))
    return f"{hardware}, Python {machine['python']}; {packages}."


def _grid(headings: list[str], rows: list[list[Any]]) -> str:
    return str(import_module("_tables").markdown_table(headings, rows))


def _tables_only(text: str) -> str:
    """Without the lines of context, which every page says in one way."""
    lines = text.splitlines()
    while lines and (lines[0].startswith("- ") or not lines[0].strip()):
        lines.pop(0)
    return "\n".join(lines)


def _by_markdown(module: str) -> Callable[[Results], str]:
    return lambda results: _tables_only(import_module(module).markdown(results))


def _by_grids(module: str) -> Callable[[Results], str]:
    return lambda results: import_module("_tables").markdown(import_module(module).grids(results), ()).rstrip("\n")


def _backbones(results: Results) -> str:
    rows = [
        [r["network"], r["wavelet"], f"{r['vanilla_s']:.3f}", f"{r['to_stride_1']:.2f}", f"{r['to_vanilla']:.2f}"]
        for r in results["rows"]
    ]
    return _grid(["network", "wavelet", "vanilla CPU s", "/ stride 1", "/ vanilla"], rows)


def _cohort(results: Results) -> str:
    rows = [
        ["pairs", results["pairs"]],
        ["complete when it was killed", " and ".join(map(str, results["done_at_kills"]))],
        ["files compared", results["files"]],
        ["files that differ", ", ".join(results["different"]) or "none"],
    ]
    return _grid(["", ""], rows)


def _contrasts(results: Results) -> str:
    rows = []
    for row in results["rows"]:
        same = next(r for r in results["rows"] if r["subject"] == row["subject"] and r["moving"] == "T1")
        cells = [row["subject"], f"T1 to {row['moving']}", row["metric"]]
        for key in ("before_mm", "affine_mm", "error_mm", "p95_mm", "ventricles_mm", "apart_mm", "repeated_mm"):
            cells.append(f"{row[key]:.3f}" if key in row else "")
            if key in ("error_mm", "ventricles_mm", "repeated_mm"):
                cells.append(f"{row[key] / same[key]:.2f}" if key in row else "")
        rows.append([*cells, row["folds"], f"{row['cpu_s']:.1f}"])
    heads = ["head", "", "metric", "by headers, mm", "after affine, mm", "error, mm", "/ T1 to T1", "95 %, mm"]
    heads += ["ventricles, mm", "/ T1 to T1", "apart, mm", "repeated, mm", "/ T1 to T1", "folds", "CPU s"]
    return f"Preset `{results['preset']}`.\n\n" + _grid(heads, rows)


def _label_fusion(results: Results) -> str:
    names = list(next(iter(results["targets"].values())))
    rows = [[target, *(f"{found[n]:.4f}" for n in names)] for target, found in results["targets"].items()]
    return _grid(["target", *names], rows)


def _segmentation_grid(results: Results) -> str:
    rows = [
        [
            r["volume"], "x".join(map(str, r["shape"])), str(r["overlap"]), f"{r['fibre_share']:.2%}",
            f"{r['fibre_iou']:.4f}", f"{r['mean_difference']:.4f}",
        ]
        for r in results["rows"]
    ]  # fmt: skip
    return _grid(["volume", "voxels", "overlap", "fibre", "IoU of both fibres", "mean difference"], rows)


def _segmentation_large(results: Results) -> str:
    rows = [
        [
            "x".join(map(str, r["shape"])), f"`{r['region']}`", f"{r['blocks_finished_by_then']} of {r['blocks']}",
            f"{r['chunks_kept_untouched']} of {r['chunks_then']}", "yes" if r["same_bytes_as_never_killed"] else "no",
            r["cubes"]["predicted"], r["cubes"]["empty"], f"{r['peak_rss_mb'] / 1e3:.2f}", f"{r['cpu_s']:.0f}",
        ]
        for r in results["rows"]
    ]  # fmt: skip
    heads = [
        "volume",
        "region",
        "blocks at the kill",
        "chunks kept",
        "same bytes",
        "cubes",
        "empty",
        "peak GB",
        "CPU s",
    ]
    return _grid(heads, rows)


def _axons(results: Results) -> str:
    said = import_module("axons").differences(results)
    return "\n\n".join([_by_markdown("axons")(results), *(f"- {line}" for line in said)])


PAGES: dict[str, tuple[str, str, Callable[[Results], str]]] = {
    "registration": (
        "Registration",
        "Ordered pairs of skull-stripped T1 brains with manual labels, one thread, medwave beside its peers from the "
        "same affine: `python benchmarks/registration.py --images FOLDER`.",
        _by_grids("_registration_table"),
    ),
    "registration_gpu": (
        "Registration on a GPU",
        "The refinement as Triton kernels beside the CPU's loops, torch operators and FireANTs, on the same images "
        "from the same affine, and the whole command with `--device cuda`: `python benchmarks/registration_gpu.py "
        "--images FOLDER`. The floor of an iteration is what it must read and write, at the speed of a copy.",
        _by_markdown("_registration_gpu_rows"),
    ),
    "contrasts": (
        "Registration across contrasts",
        "The T1 of a head against its T1, T2 and FLAIR, and against itself in the contrast of the other two, under a "
        "known transform: `python benchmarks/contrasts.py`. *Apart* is how far points move where no transform was "
        "applied, *repeated* the error beside that.",
        _contrasts,
    ),
    "ventricles": (
        "Ventricles of people across contrasts",
        "The T1 of one person against the T1, T2 and FLAIR of another: how far the outlines of their lateral "
        "ventricles end from each other: `python benchmarks/ventricles.py`.",
        _by_markdown("ventricles"),
    ),
    "learned_start": (
        "Registration from a learned start",
        "What the prediction of the WiNet that comes with medwave reaches, and what the refinement gains from it as a "
        "start, between people and between contrasts: `python benchmarks/learned_start.py --images FOLDER`.",
        _by_markdown("learned_start"),
    ),
    "cohort": (
        "A cohort killed and repeated",
        "`medwave batch` on one cohort, once uninterrupted and once killed at random times and repeated; all files "
        "compared byte by byte: `python benchmarks/cohort.py`.",
        _cohort,
    ),
    "label_fusion": (
        "Label fusion",
        "Leave-one-out over the brains: Dice of single atlases, of majority votes and of joint fusion: `python "
        "benchmarks/label_fusion.py`.",
        _label_fusion,
    ),
    "tracing": (
        "Tracing",
        "From a volume on disk to a tree, beside other tracers: `python benchmarks/tracing.py --neurons FOLDER "
        "--reconstruct`. Rows in italics are quoted from earlier measurements on another machine.",
        _by_markdown("_tracing_table"),
    ),
    "axons": (
        "Segmenting axons",
        "Networks trained on the light-sheet cubes of TRAILMAP and scored on another volume: `python "
        "benchmarks/axons.py`.",
        _axons,
    ),
    "segmentation-grid": (
        "Segmentation: does it matter where cubes lie?",
        "A volume is predicted twice, the second time with all cubes moved by half a stride: `python "
        "benchmarks/segmentation.py grid VOLUME...`.",
        _segmentation_grid,
    ),
    "segmentation-large": (
        "Segmentation: a large volume, and a kill",
        "A region of a volume larger than memory, killed and repeated: `python benchmarks/segmentation.py large`.",
        _segmentation_large,
    ),
    "wavelets": (
        "Wavelet layers",
        "Time of one level as a multiple of `tensor.clone()` of the same input, beside other libraries: `python "
        "benchmarks/wavelets.py`.",
        _by_grids("_wavelet_table"),
    ),
    "wavelets_gpu": (
        "Wavelet layers on a GPU",
        "As above on a CUDA device; these tensors are small for it, so that launches count most: `python "
        "benchmarks/wavelets.py --device cuda`.",
        _by_grids("_wavelet_table"),
    ),
    "winet_forward": (
        "WiNet, one prediction",
        "medwave's WiNet beside a plain torch build with the same weights: `python benchmarks/winet_forward.py`.",
        _by_markdown("winet_forward"),
    ),
    "backbones": (
        "Backbones with wavelets",
        "CPU seconds of a forward pass against the same network without wavelets: `python benchmarks/backbones.py "
        "overhead`.",
        _backbones,
    ),
    "recognition_heads": (
        "Recognition heads with a million classes",
        "One training step of each head, and of a plain linear layer: `python benchmarks/recognition_heads.py`.",
        lambda results: import_module("recognition_heads").table(results["heads"]),
    ),
    "recognition_runs": (
        "Recognition heads on small sets",
        "One small network and the same steps for each head, on Omniglot, ORL, CIFAR-10: `python "
        "benchmarks/recognition_runs.py --data FOLDER`.",
        _by_markdown("recognition_runs"),
    ),
}
"""Prefix of the result files -> title, what is measured, and what renders it. The pages are in this order."""

ROW_PAGES: dict[str, tuple[str, str]] = {
    "backbones_cifar": (
        "Backbones with wavelets on CIFAR-10",
        "A small ResNet-18 and its wavelet versions, one recipe: accuracy, corruption errors (CE) relative to the "
        "network without wavelets of the same seed, consistency under shifts, accuracy under attack. In brackets: "
        "difference to that network, with Student's 95 % interval over seeds. `python benchmarks/backbones.py cifar "
        "--data FILE.npz`.",
    ),
    "channels_orl": (
        "Channels that explain themselves",
        "Faces of ORL under CosFace, with the ECLoss-style loss on channels and without, the same network and budget: "
        "verification of strangers, also with pictures moved at random, and how far and how widely channels fire. "
        "`python benchmarks/channels.py train --data FOLDER`.",
    ),
    "detection_boxes": (
        "Detectors with wavelets on synthetic boxes",
        "MONAI's RetinaNet on the pyramid of a WaveResNet-18 and of its twin, one short recipe at a quarter of the "
        "channels, in images and volumes: average precision at an overlap of 0.5, in per cent. In brackets: difference "
        "to the twin of the same seed, with Student's 95 % interval. `python benchmarks/detection.py boxes`.",
    ),
    "segmenters_camvid": (
        "Segmenters with wavelets on CamVid",
        "Networks that segment and their wavelet versions, one recipe at an eighth of the channels: intersection over "
        "union in per cent. In brackets: difference to the network without wavelets of the same seed, with Student's "
        "95 % interval where there are several. `python benchmarks/segmenters.py camvid --data FOLDER`.",
    ),
}
"""Name of a file of rows -> title, and what is measured."""
