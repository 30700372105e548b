"""What clusters bring and cost: two processes against one, the scheduler's overhead; plan and memory of large volumes.

    python benchmarks/scale.py speed --job segment [--repeats 1]
    python benchmarks/scale.py speed --job batch [--repeats 3]
    python benchmarks/scale.py overhead
    python benchmarks/scale.py plan
    python benchmarks/scale.py convert
    python benchmarks/scale.py trace

``speed`` runs the same segmentation, or the same cohort of registrations, on one local worker and on two, one thread
each, in turns (one, two, two, one, ...), and compares the bytes. Workers are warm: the ratio is of the work, not of
starting processes. Its machine has to have two processors to itself; CPU seconds of the workers beside the wall time
tell whether it had: ``share`` is the part of a processor that each worker got, ``busy`` the part of the time that it
was in a task. Where ``share`` is less, others had the processor; what ``busy`` lacks, workers waited for the command.
``cpu_ratio`` is what the work took on two against one: above 1 where they share caches and memory. Repeated on one day
it adds rows.
``overhead`` sends tasks that do nothing, as many as 64 and 1024 workers with four tasks each have, and predicts from
their rate and from measured task times how well so many workers would be used.
``plan`` lays out a sparse store of 4096x4096x2048 voxels and processes a region of it.
``convert`` writes TIFFs of 0.27 to 2.1 GB page by page and measures `medwave convert-volume` on each, in a process of
its own: its largest resident memory may not grow with the volume.
``trace`` writes sparse stores of 2048x2048 voxels and 256 to 1024 slices with fibres across all of them, a piece each,
and measures `medwave trace` on each, in a process of its own.
Each prints a table and writes JSON to benchmarks/results.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from _measure import Cost, last_line, machine, run_measured

import medwave
from medwave.core.files import write_json
from medwave.core.geometry import Grid, Volume
from medwave.core.provenance import peak_rss_mb, versions
from medwave.cubes import Box
from medwave.engine import fibres
from medwave.scale import Workers, open_workers
from medwave.volumes import create_ome_zarr, open_stack, read_swc, write_volume
from medwave.workflows.cohort import register_cohort
from medwave.workflows.cohort_items import cohort_pairs
from medwave.workflows.options_cohort import CohortOptions
from medwave.workflows.segment_plan import plan_segmentation

RESULTS = Path(__file__).parent / "results"
TASKS_EACH = 4
LARGE = (2048, 4096, 4096)
PARTS = ("speed", "overhead", "plan", "convert", "trace")
JOBS = ("segment", "batch")
PAGE = (1024, 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--job", choices=JOBS, default="segment", help="of speed")
    parser.add_argument("--repeats", type=int, default=1, help="of speed: runs on one worker and on two")
    parser.add_argument("--task-seconds", type=float, default=300.0, help="of a task, for the prediction of overhead")
    options = parser.parse_args()
    jobs: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "speed": lambda: speed(options.job, options.repeats), "overhead": lambda: overhead(options.task_seconds),
        "plan": plan, "convert": convert, "trace": trace,
    }  # fmt: skip
    rows = jobs[options.part]()
    for row in rows:
        print("  ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                        for name, value in row.items()))  # fmt: skip
    name = f"speed-{options.job}" if options.part == "speed" else options.part
    path = RESULTS / f"scale-{name}-{datetime.date.today()}.json"
    before = json.loads(path.read_text())["rows"] if options.part == "speed" and path.exists() else []
    write_json(path, {
        "machine": machine(), "versions": versions(), "load": os.getloadavg(), "rows": before + rows,
    })  # fmt: skip


def speed(name: str, repeats: int) -> list[dict[str, Any]]:
    """Wall and CPU seconds of a job on one worker and on two, and the median of the paired ratios."""
    from distributed import get_task_stream

    with tempfile.TemporaryDirectory() as place, open_workers("local:1", threads=1) as one, \
            open_workers("local:2", threads=1) as two:  # fmt: skip
        folder = Path(place)
        job = {"segment": _segmentation, "batch": _cohort}[name](folder)
        for workers in (one, two):
            job(workers, folder / f"warm-{workers.slots()}", True)
        wall: dict[int, list[float]] = {1: [], 2: []}
        cpu: dict[int, list[float]] = {1: [], 2: []}
        busy: dict[int, list[float]] = {1: [], 2: []}
        digests = set()
        for turn in range(repeats):
            for workers in (one, two) if turn % 2 == 0 else (two, one):
                spent, count = _cpu_seconds(workers), workers.slots()
                with get_task_stream(client=workers.client) as tasks:
                    began = time.perf_counter()
                    digests.add(job(workers, folder / f"{turn}-{count}", False))
                    wall[count].append(time.perf_counter() - began)
                cpu[count].append(_cpu_seconds(workers) - spent)
                steps = [step for task in tasks.data for step in task["startstops"]]
                busy[count].append(sum(step["stop"] - step["start"] for step in steps))
    ratios = [a / b for a, b in zip(wall[1], wall[2], strict=True)]
    return [{
        "job": name, "ratio": float(np.median(ratios)), "ratios": [round(ratio, 3) for ratio in ratios],
        "same_bytes": len(digests) == 1, "wall_one_s": float(np.mean(wall[1])), "cpu_ratio": sum(cpu[2]) / sum(cpu[1]),
        "share_one": sum(cpu[1]) / sum(wall[1]), "share_two": sum(cpu[2]) / sum(wall[2]) / 2,
        "busy_one": sum(busy[1]) / sum(wall[1]), "busy_two": sum(busy[2]) / sum(wall[2]) / 2,
    }]  # fmt: skip


def _segmentation(folder: Path) -> Callable[[Workers, Path, bool], str]:
    """A volume of 24 shards with fibres everywhere, in cubes of 64 voxels: two minutes on one worker, not the hours of
    one with 24 shards of 512 voxels. The smaller one, to begin with, has two shards."""
    fibres.CUBE_VOXELS = 64**3
    rng = np.random.default_rng(0)
    image = rng.normal(100, 10, (64, 64, 24 * 256))
    image[30:34, 4::19] += 150
    store = create_ome_zarr(folder / "image.ome.zarr", image.shape, np.uint16)
    store.write([slice(None)] * 3, image.clip(0).astype(np.uint16))

    def job(workers: Workers, out: Path, small: bool) -> str:
        region = ":,:,0:512" if small else None
        result = medwave.segment(
            store.path, out, workers=workers, threads=1, overlap=16, shard=256, region=region
        )  # fmt: skip
        return _digest(result.probability, result.mask)

    return job


def _cohort(folder: Path) -> Callable[[Workers, Path, bool], str]:
    """Eight pairs of small heads, registered to the end; to begin with, two of them."""
    grid = Grid((48, 56, 48), np.diag([4.0, 4, 4, 1]))
    names = []
    for number in range(8):
        at = grid.to_mm(np.moveaxis(np.indices(grid.shape), 0, -1)) - (96 + number, 112 - 2 * number, 96)
        shell = 100 / (1 + np.exp((np.linalg.norm(at * (1, 1.1, 0.9), axis=-1) - 70) / 4))
        write_volume(folder / f"b{number}.nii.gz", Volume((shell * (1 + at[..., 0] / 200)).astype(np.float32), grid))
        names.append(f"b{number}.nii.gz")
    rows = [f"{a},{b}" for a, b in zip(names, names[1:] + names[:1], strict=True)]
    (folder / "pairs.csv").write_text("\n".join(["fixed,moving", *rows]) + "\n")
    pairs = cohort_pairs(folder / "pairs.csv")

    def job(workers: Workers, out: Path, small: bool) -> str:
        items = pairs[:2] if small else pairs
        outcomes = register_cohort(items, out, options=CohortOptions(threads=1, preset="fast"), workers=workers)
        if any(outcome.error for outcome in outcomes):
            raise SystemExit(outcomes[0].error)
        return _digest(*(out / "runs" / item.name / "warped.nii.gz" for item in items))

    return job


def _digest(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file():
                digest.update(file.read_bytes())
    return digest.hexdigest()


def _cpu_seconds(workers: Workers) -> float:
    """CPU seconds of all workers so far."""
    return float(sum(workers.client.run(time.process_time).values()))


def nothing(_: int) -> None:
    """The task of ``overhead``."""


def overhead(task_s: float) -> list[dict[str, Any]]:
    """Seconds per empty task, and the use of 64 and 1024 workers that this allows."""
    rows = []
    with open_workers("local:2", threads=1) as workers:
        list(workers.run(nothing, range(100)))
        for count in (64, 1024):
            tasks = count * TASKS_EACH
            cpu, began = time.process_time(), time.perf_counter()
            done = sum(1 for _ in workers.run(nothing, range(tasks)))
            wall, cpu = time.perf_counter() - began, time.process_time() - cpu
            each = cpu / tasks
            rows.append({
                "workers": count, "tasks": done, "wall_s": wall, "cpu_s": cpu, "cpu_ms_per_task": 1e3 * each,
                "task_s": task_s, "tasks_per_s_wanted": count / task_s, "tasks_per_s_possible": 1 / each,
                "efficiency": min(1.0, task_s / (count * each)) * task_s / (task_s + each),
            })  # fmt: skip
    return rows


def plan() -> list[dict[str, Any]]:
    """The large store: how long to make and plan, how much memory, and a region of it done."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.perf_counter()
        store = create_ome_zarr(folder / "large.ome.zarr", LARGE, np.uint16)
        rng = np.random.default_rng(0)
        for z, y, x in itertools.product(range(768, 1280, 64), range(1792, 2304, 64), range(1792, 2304, 64)):
            block = rng.normal(100, 10, (64, 64, 64))
            block[30:34, 30:34] += 150
            box = Box((z, y, x), (z + 64, y + 64, x + 64))
            store.write(box.slices, block.clip(0).astype(np.uint16))
        made, before, cpu, began = time.perf_counter() - began, peak_rss_mb(), time.process_time(), time.perf_counter()
        found = plan_segmentation(store.path)
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
        row = {
            "shape": LARGE, "made_s": made, "plan_wall_s": wall, "plan_cpu_s": cpu, "tasks": found.tasks,
            "blocks": found.blocks, "cubes": found.cubes, "rss_before_mb": before, "rss_after_mb": peak_rss_mb(),
            "hours": found.hours,
        }  # fmt: skip
        cpu = time.process_time()
        result = medwave.segment(store.path, folder / "out", region="1020:1060,2060:2100,2050:2170", threads=1)
        row |= {
            "region_cpu_s": time.process_time() - cpu, "region_fibre_voxels": result.fibre_voxels,
            "region_cubes": result.cubes.predicted, "rss_end_mb": peak_rss_mb(),
        }  # fmt: skip
    return [row]


def convert(pages: Sequence[int] = (128, 256, 512, 1024), shard: int = 128) -> list[dict[str, Any]]:
    """Memory of `medwave convert-volume` by the size of a TIFF and its packing."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for packed, count in itertools.product((None, "zlib"), pages):
            source, store = folder / "volume.tif", folder / f"{packed}-{count}.ome.zarr"
            _write_pages(source, count, packed)
            cost = _measured(folder, "convert-volume", str(source), "-o", str(store), "--shard", str(shard))
            with open_stack(store) as made, open_stack(source) as given:
                box = (slice(count - 3, count), slice(500, 700), slice(500, 700))
                same = bool((made.read(box) == given.read(box)).all())
            shutil.rmtree(store)
            rows.append({
                "tiff": packed or "plain", "volume_mb": 2 * count * PAGE[0] * PAGE[1] / 1e6,
                "shard_mb": 2 * shard**3 / 1e6, "peak_rss_mb": cost.peak_rss_mb, "cpu_s": cost.cpu_s, "same": same,
            })  # fmt: skip
    return rows


def _write_pages(path: Path, count: int, packed: str | None) -> None:
    rng = np.random.default_rng(0)
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for _ in range(count):
            page = rng.integers(90, 120, PAGE, dtype=np.uint16)
            how = {"compression": packed, "compressionargs": {"level": 1}} if packed else {"contiguous": True}
            file.write(page, metadata=None, **how)


def trace(depths: Sequence[int] = (256, 512, 1024)) -> list[dict[str, Any]]:
    """Memory of `medwave trace` by the size of a sparse store."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for depth in depths:
            store = folder / f"{depth}.ome.zarr"
            chunks, bright = _write_fibres(store, (depth, 2048, 2048), count=depth // 16)
            cost = _measured(folder, "trace", str(store), "-o", str(folder / "tree.swc"), "--bridge-distance", "0")
            tree = read_swc(folder / "tree.swc")
            rows.append({
                "volume_mb": depth * 2048 * 2048 / 1e6, "stored_chunks": chunks, "bright_voxels": bright,
                "trees": len(tree.roots), "fibres": depth // 16, "length": tree.length,
                "peak_rss_mb": cost.peak_rss_mb, "cpu_s": cost.cpu_s,
            })  # fmt: skip
    return rows


def _write_fibres(path: Path, shape: tuple[int, int, int], count: int, side: int = 64) -> tuple[int, int]:
    """A store with fibres of 5x5 voxels from face to face along y; returns how many chunks and voxels are written."""
    rng = np.random.default_rng(0)
    store = create_ome_zarr(path, shape, np.uint8, chunks=(side,) * 3)
    columns = np.array([(z, x) for z in range(8, shape[0] - 8, 32) for x in range(8, shape[2] - 8, 32)])
    y = np.arange(shape[1])
    parts = []
    for z, x in columns[rng.permutation(len(columns))[:count]]:
        sway = np.rint(6 * np.sin(y / 40)).astype(np.int64)
        at = np.stack([np.full_like(y, z), y, x + sway], axis=1)
        cross = np.array([(dz, 0, dx) for dz in range(-2, 3) for dx in range(-2, 3)])
        parts.append((at[:, None] + cross).reshape(-1, 3))
    voxels = np.concatenate(parts)
    chunk = voxels // side
    order = np.lexsort(chunk.T[::-1])
    pieces = np.split(order, np.flatnonzero((np.diff(chunk[order], axis=0) != 0).any(axis=1)) + 1)
    for piece in pieces:
        corner = chunk[piece[0]] * side
        block = np.zeros((side,) * 3, np.uint8)
        block[tuple((voxels[piece] - corner).T)] = rng.integers(120, 200, len(piece))
        store.write(tuple(slice(a, a + side) for a in corner), block)
    return len(pieces), len(np.unique(voxels, axis=0))


def _measured(folder: Path, *words: str) -> Cost:
    """A medwave command in a process of its own.

    Raises:
        SystemExit: when it fails.
    """
    log = folder / "log.txt"
    cost = run_measured([sys.executable, "-m", "medwave", *words], threads=1, log=log)
    if cost.exit_code:
        raise SystemExit(f"medwave {words[0]}: exit code {cost.exit_code}: {last_line(log)}")
    return cost


if __name__ == "__main__":
    main()
