"""Rows of ``registration_gpu.py`` that need no state: one refinement, its levels and steps, FireANTs, the table."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from medwave.engine.loops import Level, Loops
from medwave.engine.refine import CompositiveRun, refine
from medwave.workflows.pair import WorkingPair

FIREANTS = {
    "CUMC12": {"iterations": [200, 100, 25], "cc_kernel_size": 5, "smooth_grad_sigma": 1.0},
    "LPBA40": {"iterations": [200, 100, 50], "cc_kernel_size": 7, "smooth_grad_sigma": 2.0},
}
"""What its authors take for two sets of labelled brains, in their own scripts."""
FLOOR_VOLUMES = 42
"""Float32 volumes that an iteration with local correlation reads and writes at least: see medwave.engine.gpu_loops."""


def refined(pair: WorkingPair, levels: Sequence[Level], loops: Loops, metric: str) -> np.ndarray:
    """The field of the refinement as ``medwave register`` runs it, in memory of the host."""
    found = refine(
        pair.fixed, pair.moving, tuple(levels), metric=metric, weight=pair.weight, excluded=pair.excluded, loops=loops
    )
    return found.displacement_voxels


def bandwidth(device: torch.device) -> dict[str, float]:
    """What memory does: copies within the device, and a field to the host."""
    if device.type != "cuda":
        return {}
    a = torch.empty(256 * 2**20, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    milliseconds = _timed(lambda: b.copy_(a))
    pinned = torch.empty(a.shape, dtype=torch.uint8, pin_memory=True)
    return {
        "copy_gb_s": 2e-6 * a.numel() / milliseconds,
        "to_host_gb_s": 1e-6 * a.numel() / _timed(lambda: pinned.copy_(a)),
    }


def _timed(step: Callable[[], object], count: int = 20) -> float:
    """Milliseconds of a step that is queued ``count`` times, after two of warm-up."""
    for _ in range(2):
        step()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(count):
        step()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / count


def _run(pair: WorkingPair, level: Level, loops: Any, iterations: int) -> tuple[CompositiveRun, Any]:
    """The iterations of a scale on a pair, and a field to start from."""
    images = [loops.coarsen(loops.upload(a), level.factor) for a in (pair.fixed, pair.moving, pair.weight)]
    run = CompositiveRun(loops, replace(level, iterations=iterations), "lncc", 2, 0.5, *images)
    return run, loops.upload(np.zeros((3, *images[0].shape), dtype=np.float32))


def levels(pair: WorkingPair, loops: Any, of: Sequence[Level], synchronise: Callable[[], None]) -> dict[str, Any]:
    """Milliseconds per iteration at each scale, and the megabytes that one must move."""
    found: dict[str, Any] = {}
    for level in of:
        run, field = _run(pair, level, loops, level.iterations)
        synchronise()
        began = time.perf_counter()
        _, history = run(field, lambda *_: None)
        synchronise()
        shape = tuple(run.warped.shape)
        found[f"1/{level.factor}"] = {
            "shape": list(shape), "iterations": len(history), "asked": level.iterations,
            "ms": 1e3 * (time.perf_counter() - began) / len(history),
            "floor_mb": 4e-6 * FLOOR_VOLUMES * float(np.prod(shape)),
        }  # fmt: skip
    return found


def steps(pair: WorkingPair, loops: Any) -> dict[str, float]:
    """Milliseconds of each step of an iteration at full resolution."""
    run, field = _run(pair, Level(1, 24, 1.0, 0.37), loops, 24)
    run(field, lambda *_: None)
    update = run.update
    found = {
        "warp": _timed(lambda: loops.warp(run.moving, field, run.warped)),
        "force": _timed(lambda: run.similarity.enqueue(run.warped, update)),
        "compose": _timed(lambda: loops.compose(field, run.smoothed, 0.1, update)),
    }
    for sigma in (0.37, 0.7, 1.0, 1.2, 1.5):
        found[f"smooth {sigma}"] = _timed(lambda s=sigma: loops.smooth(update, s, run.smoothed))
    images = [loops.upload(a) for a in (pair.fixed, pair.moving, pair.weight)]
    found["coarsen by 2"] = _timed(lambda: loops.coarsen(images[0], 2), 3)
    found["unfold"] = _timed(lambda: loops.unfold(field), 3)
    found["upload 3"] = _timed(lambda: [loops.upload(a) for a in (pair.fixed, pair.moving, pair.weight)], 3)
    found["download"] = _timed(lambda: loops.download(field), 3)
    return {name: round(value, 4) for name, value in found.items()}


def tuning(pair: WorkingPair, loops: Any, synchronise: Callable[[], None]) -> dict[str, Any]:
    """Milliseconds of the force and two smoothings at full resolution for other tiles, marches and passes."""
    from medwave.engine import gpu_loops

    kept = gpu_loops.FUSED_RADIUS, gpu_loops.TILE, gpu_loops.PROGRAMS, gpu_loops._WARPS
    trials = [
        (2, (8, 32), 1056, 4), (0, (8, 32), 1056, 4), (2, (8, 32), 2112, 4), (2, (8, 32), 528, 4),
        (2, (4, 32), 2112, 4), (2, (4, 64), 1056, 4), (2, (8, 64), 1056, 4), (0, (4, 64), 1056, 4),
        (0, (8, 32), 2112, 4), (4, (8, 32), 1056, 4), (2, (16, 32), 1056, 8), (0, (8, 32), 4224, 4),
    ]  # fmt: skip
    found = {}
    try:
        for fused, tile, programs, warps in trials:
            gpu_loops.FUSED_RADIUS, gpu_loops.TILE, gpu_loops.PROGRAMS, gpu_loops._WARPS = fused, tile, programs, warps
            run, field = _run(pair, Level(1, 24, 1.0, 0.37), loops, 8)
            run(field, lambda *_: None)
            synchronise()
            found[f"fused {fused}, tile {tile[0]}x{tile[1]}, {programs} programs, {warps} warps"] = [
                round(_timed(lambda r=run: r.similarity.enqueue(r.warped, r.update), 10), 3),
                *(round(_timed(lambda r=run, s=s: loops.smooth(r.update, s, r.smoothed), 10), 3) for s in (0.37, 1.0)),
            ]
    finally:
        gpu_loops.FUSED_RADIUS, gpu_loops.TILE, gpu_loops.PROGRAMS, gpu_loops._WARPS = kept
    return found


def fireants(
    cases: Sequence[Any], device: torch.device, synchronise: Callable[[], None], settings: dict[str, Any]
) -> dict[str, Any]:
    """FireANTs' greedy registration on the same images; its field in voxels, scored as ours is."""
    logging.disable(logging.WARNING)  # it tells each scale of each pair
    import SimpleITK as sitk
    from fireants.io.image import BatchedImages, Image
    from fireants.registration.greedy import GreedyRegistration

    def registered(pair: WorkingPair) -> np.ndarray:
        fixed, moving = (
            BatchedImages([Image(sitk.GetImageFromArray(a), device=str(device))]) for a in (pair.fixed, pair.moving)
        )
        job = GreedyRegistration(
            fixed_images=fixed, moving_images=moving, loss_type="cc", deformation_type="compositive", optimizer="Adam",
            optimizer_lr=0.5, progress_bar=False, scales=[4, 2, 1], smooth_warp_sigma=0.5, **settings,
        )  # fmt: skip
        job.optimize()
        grid = job.get_warp_parameters(fixed, moving)["grid"].detach()[0]  # (D, H, W, 3), x first, in half boxes
        half = [(n - 1) / 2 for n in pair.fixed.shape]
        return np.stack([(grid[..., 2 - axis] * half[axis]).float().cpu().numpy() for axis in range(3)])

    registered(cases[0].pair)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    seconds, scores = [], []
    for case in cases:
        synchronise()
        began = time.perf_counter()
        field = registered(case.pair)
        seconds.append(time.perf_counter() - began)
        scores.append(case.score(field))
    found: dict[str, Any] = {"seconds": float(np.median(seconds)), "settings": str(settings)}
    if device.type == "cuda":
        found["peak_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
    return found | {k: float(np.mean([s[k] for s in scores])) for k in scores[0]} | {"first_dice": scores[0]["dice"]}


def brief(found: dict[str, Any]) -> str:
    """A row in one line."""
    parts = []
    for name, value in found.items():
        if isinstance(value, float):
            value = f"{value:.4g}"
        parts.append(f"{name} {value}")
    return ", ".join(parts)


def markdown(results: dict[str, Any]) -> str:
    """The rows as tables: the deformable part, its scales, the whole command by stage, and several pairs at once."""
    rows, parts = results["rows"], [f"GPU: {results['gpu']}. {results.get('note', '')}".strip()]
    scored = [
        [name, f"{row['seconds']:.3f}", f"{row['peak_gb']:.2f}" if row.get("peak_gb", 0) > 0.01 else "",
         f"{row['first_dice']:.4f}", f"{row['dice']:.4f}",
         f"{row['apart_mean_voxels']:.5f} / {row['apart_max_voxels']:.3f}" if "apart_mean_voxels" in row else "",
         f"{row['folds']:.0f}"]
        for name, row in rows.items() if "dice" in row
    ]  # fmt: skip
    heads = ["deformable part", "s", "GPU memory, GB", "Dice, first pair", "Dice, all its pairs",
             "from the CPU's field, mean / largest, voxels", "folds"]  # fmt: skip
    parts.append(_table(heads, scored))
    per_ms = rows.get("transfer", {}).get("copy_gb_s", 0)
    scales = [
        [name, "x".join(map(str, row["shape"])), row["iterations"], f"{row['ms']:.3f}",
         f"{row['floor_mb'] / per_ms:.3f}" if per_ms else ""]
        for name, row in rows.get("levels", {}).items() if isinstance(row, dict)
    ]  # fmt: skip
    parts.append(_table(["scale", "voxels", "iterations", "ms each", "floor, ms"], scales))
    whole = {device: row for device, row in rows.get("whole", {}).items() if isinstance(row, dict)}
    stages = [[device, *(f"{seconds:.2f}" for seconds in row.values())] for device, row in whole.items()]
    if stages:
        parts.append(_table(["medwave.register, s", *next(iter(whole.values()))], stages))
    many = [
        [name, f"{row['pairs_per_s']:.2f}", row["pairs"], f"{row['seconds']:.2f}"]
        for name, row in rows.items() if "pairs_per_s" in row
    ]  # fmt: skip
    parts.append(_table(["several pairs", "pairs per s", "pairs", "s"], many))
    return "\n\n".join(part for part in parts if part)


def _table(heads: list[str], lines: list[list[Any]]) -> str:
    if not lines:
        return ""
    marks = ["---", *["---:"] * (len(heads) - 1)]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in (heads, marks, *lines))
