"""The registration on a CUDA GPU: seconds, memory, overlap and differences beside the CPU's, and FireANTs' beside it.

    python benchmarks/registration_gpu.py --images FOLDER

FOLDER holds ``ID_T1_brain.nii.gz`` (skull stripped) and ``ID_labels.nii.gz`` of each brain; ordered pairs are taken in
the order of their names. Each row is tried for itself: one that fails is noted with its error. ``--device cpu`` tries
the script without a GPU (torch operators in place of Triton kernels). Everything is timed after a first run that
compiles; the deformable part goes from images on the working grid, in memory of the host, to the field there.

FireANTs runs as its authors' scripts for labelled brains run it (greedy, cross-correlation, scales 4, 2, 1) on the same
images from the same affine; without ``fireants_fused_ops``, which has to be compiled, unless it is there.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _registration_gpu_rows as rows
import numpy as np
import torch
from _measure import machine
from _results import save, versions

import medwave
from medwave.core.geometry import Volume
from medwave.engine.affine import align
from medwave.engine.loops import CpuLoops, Level, Loops, loops_for
from medwave.engine.torch_loops import TorchLoops
from medwave.metrics import dice, folding
from medwave.volumes import read_labels, read_volume
from medwave.workflows.cohort import register_cohort
from medwave.workflows.cohort_items import PairItem
from medwave.workflows.options_cohort import CohortOptions
from medwave.workflows.pair import WorkingPair, prepare_pair, resample_labels
from medwave.workflows.presets import levels_for

PRESETS = ("balanced", "fast", "accurate")
JOBS = (1, 2, 4)
WHOLE_JOBS = (1, 4, 8)
_MOST_VOXELS = 12_000_000


@dataclass
class Case:
    """A pair on its working grid, with what is needed to score a field."""

    name: str
    files: tuple[Path, Path]
    pair: WorkingPair
    matrix: np.ndarray
    fixed_labels: np.ndarray
    moving_labels: Volume

    def levels(self, preset: str, metric: str = "lncc") -> tuple[Level, ...]:
        """The scales as ``medwave register`` takes them."""
        return levels_for(preset, metric, self.pair.grid.shape)

    def score(self, field: np.ndarray) -> dict[str, float]:
        """Mean Dice over the labels of both maps on the working grid, and folded voxels."""
        warped = resample_labels(self.moving_labels, self.matrix, self.pair.grid, field)
        overlap = dice(self.fixed_labels, warped)
        held = set(np.unique(self.fixed_labels).tolist()) | set(np.unique(self.moving_labels.data).tolist())
        mean = float(np.mean([overlap.get(label, 0.0) for label in sorted(held - {0})]))
        return {"dice": mean, "folds": int(folding(field).count)}


def prepare(files: tuple[Path, Path]) -> Case:
    """Read a pair, find its affine on the CPU, and bring it to its working grid."""
    fixed, moving = (read_volume(file) for file in files)
    moving = Volume(np.ascontiguousarray(moving.data, dtype=np.float32), moving.grid, moving.name)
    matrix = align(fixed, moving).matrix
    pair = prepare_pair(fixed, moving, matrix, use_fixed=None, use_moving=None, most_voxels=_MOST_VOXELS)
    labels = [read_labels(file.with_name(file.name.replace("_T1_brain", "_labels"))) for file in files]
    name = ":".join(file.name.split("_")[0] for file in files)
    on_grid = resample_labels(labels[0], np.eye(4), pair.grid)
    return Case(name, files, pair, matrix, on_grid, labels[1])


class Bench:
    """Rows of results, each tried for itself, until the time is up."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.began = options, time.perf_counter()
        self.device = torch.device(options.device)
        self.on_gpu = self.device.type == "cuda"
        self.results: dict[str, Any] = {
            "date": datetime.date.today().isoformat(),
            "machine": machine(),
            "gpu": torch.cuda.get_device_name(self.device) if self.on_gpu else "none",
            "versions": versions(("medwave", "torch", "triton", "numba", "numpy", "fireants")),
            "rows": {},
        }
        main = loops_for(options.device) if self.on_gpu else TorchLoops(self.device)
        self.loops: dict[str, Loops] = {type(main).__name__: main}
        if self.on_gpu:
            self.loops["TorchLoops"] = TorchLoops(self.device)
        self.main = type(main).__name__
        self.cpu = CpuLoops()

    def row(self, name: str, job: Callable[[], dict[str, Any]]) -> None:
        """Try a row; what it gives or why it failed is saved at once."""
        spent = time.perf_counter() - self.began
        if spent > self.options.seconds:
            found: dict[str, Any] = {"left_out": f"after {spent:.0f} s"}
        else:
            try:
                found = job()
            except Exception as error:  # one row must not cost the others
                traceback.print_exc()
                found = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
            found["row_s"] = time.perf_counter() - self.began - spent
        self.results["rows"][name] = found
        save(self.options.output, self.results)
        print(f"{time.perf_counter() - self.began:6.1f} s  {name}: {rows.brief(found)}", flush=True)

    def synchronise(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def run(self) -> None:
        cases = self.cases()
        if not cases:
            return
        first, loops = cases[0], self.loops[self.main]
        self.row("transfer", lambda: rows.bandwidth(self.device))
        if self.main == "TritonLoops":
            self.row("with graphs", lambda: self.graphs(first))
        fields: dict[str, np.ndarray] = {}
        self.row("cpu balanced", lambda: self.deformable(self.cpu, "balanced", [first], fields, 1))
        self.row("cpu fast", lambda: self.deformable(self.cpu, "fast", [first], fields, 1))
        for name, chosen in self.loops.items():
            for preset in PRESETS if name == self.main else PRESETS[:1]:
                again = 3 if name == self.main else 1
                use = cases if name == self.main and preset == "balanced" else [first]
                self.row(
                    f"{name} {preset}", lambda c=chosen, p=preset, u=use, a=again: self.deformable(c, p, u, fields, a)
                )
        self.row("curve", lambda: self.deformable(loops, "balanced", [first], fields, 2, metric="curve"))
        for name, settings in rows.FIREANTS.items() if self.options.fireants else ():
            self.row(f"FireANTs as for {name}", lambda s=settings: self.fireants(cases, s))
        self.row("levels", lambda: rows.levels(first.pair, loops, first.levels("balanced"), self.synchronise))
        self.row("whole", lambda: self.whole(cases[:2]))
        for jobs in JOBS:
            self.row(f"deformable, {jobs} at a time", lambda j=jobs: self.together(cases, j, False))
        for jobs in WHOLE_JOBS:
            self.row(f"whole command, {jobs} at a time", lambda j=jobs: self.together(cases, j, True))
        if self.main == "TritonLoops":
            self.row("steps", lambda: rows.steps(first.pair, loops))
        for jobs in self.options.batch:
            self.row(f"medwave batch --jobs {jobs}", lambda j=jobs: self.batch(cases, j))
        if self.main == "TritonLoops" and self.options.tuning:
            self.row("tuning", lambda: rows.tuning(first.pair, loops, self.synchronise))

    def cases(self) -> list[Case]:
        images = sorted(self.options.images.glob("*_T1_brain.nii.gz"))
        pairs = list(itertools.permutations(images, 2))[: self.options.pairs]
        if not pairs:
            raise SystemExit(f"{self.options.images}: no two files ID_T1_brain.nii.gz there")
        cases: list[Case] = []

        def make() -> dict[str, Any]:
            began = time.perf_counter()
            cases.append(prepare(pairs[0]))  # alone, so that loops are compiled once
            compiled = time.perf_counter() - began
            with ThreadPoolExecutor(4) as pool:
                cases.extend(pool.map(prepare, pairs[1:]))
            return {"pairs": [c.name for c in cases], "first_s": compiled, "shape": list(cases[0].pair.fixed.shape)}

        self.row("prepare", make)
        return cases

    def deformable(
        self, loops: Loops, preset: str, cases: list[Case], fields: dict[str, np.ndarray], again: int,
        metric: str = "lncc",
    ) -> dict[str, Any]:  # fmt: skip
        """Seconds from images on the host to the field there; overlap and difference to the CPU's field."""
        key, levels = f"{preset} {metric}", cases[0].levels(preset, metric)
        began = time.perf_counter()
        found = rows.refined(cases[0].pair, levels, loops, metric)
        out: dict[str, Any] = {"first_run_s": time.perf_counter() - began}
        if loops is self.cpu:
            fields[key] = found
        if self.on_gpu:
            torch.cuda.synchronize(self.device)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        seconds, scores = [], []
        for case in cases:
            for _ in range(again):
                began = time.perf_counter()
                found = rows.refined(case.pair, levels, loops, metric)
                seconds.append(time.perf_counter() - began)
            scores.append(case.score(found))
            if key in fields and case is cases[0] and loops is not self.cpu:
                apart = np.linalg.norm(found - fields[key], axis=0)[case.pair.subject]
                out |= {"apart_mean_voxels": float(apart.mean()), "apart_max_voxels": float(apart.max())}
                out |= {"apart_p99_voxels": float(np.quantile(apart, 0.99))}
        if self.on_gpu:
            out["peak_gb"] = torch.cuda.max_memory_allocated(self.device) / 1e9
        out |= {"seconds": float(np.median(seconds)), "slowest_s": max(seconds)}
        return out | {k: float(np.mean([s[k] for s in scores])) for k in scores[0]} | {"first_dice": scores[0]["dice"]}

    def graphs(self, case: Case) -> dict[str, Any]:
        """The deformable part with iterations launched kernel by kernel, and as recorded graphs: the same field."""
        from medwave.engine import gpu_run

        found: dict[str, Any] = {}
        fields, recorded = [], False
        try:
            for gpu_run.GRAPHS in (False, True):
                for _ in range(3):
                    began = time.perf_counter()
                    fields.append(rows.refined(case.pair, case.levels("balanced"), self.loops[self.main], "lncc"))
                    found["graphs_s" if gpu_run.GRAPHS else "kernels_s"] = time.perf_counter() - began
            recorded = True
        finally:
            gpu_run.GRAPHS = recorded  # the rows that follow do without where a graph cannot be recorded
        return found | {"same": bool((fields[0] == fields[-1]).all())}

    def fireants(self, cases: list[Case], settings: dict[str, Any]) -> dict[str, Any]:
        return rows.fireants(cases[: self.options.fireants], self.device, self.synchronise, settings)

    def whole(self, cases: list[Case]) -> dict[str, Any]:
        """medwave.register from files to everything but writing, by stage, on the device and on the CPU."""
        found: dict[str, Any] = {}
        for device in dict.fromkeys((self.options.device, "cpu")):
            for case in cases if device == self.options.device else cases[:1]:
                began = time.perf_counter()
                result = medwave.register(*case.files, device=device)
                seconds = time.perf_counter() - began
            found[device] = {"seconds": seconds, **{s.name: round(s.wall_s, 3) for s in result.stages}}
        return found

    def together(self, cases: list[Case], jobs: int, whole: bool) -> dict[str, Any]:
        """Pairs per second when so many are worked on at once, in threads of this process."""

        def work(case: Case) -> None:
            if whole:
                medwave.register(*case.files, device=self.options.device)
            else:
                rows.refined(case.pair, case.levels("balanced"), self.loops[self.main], "lncc")

        threads = torch.get_num_threads()
        torch.set_num_threads(max(1, threads // jobs))
        began = time.perf_counter()
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(work, cases))
        seconds = time.perf_counter() - began
        torch.set_num_threads(threads)
        return {"seconds": seconds, "pairs": len(cases), "pairs_per_s": len(cases) / seconds}

    def batch(self, cases: list[Case], jobs: int) -> dict[str, Any]:
        """Pairs per second of ``medwave batch``, with everything that it writes and the start of its processes."""
        items = [PairItem(c.name.replace(":", "-"), {"fixed": c.files[0], "moving": c.files[1]}) for c in cases]
        options = CohortOptions(device=self.options.device, jobs=jobs)
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            outcomes = register_cohort(items, folder, options=options)
            seconds = time.perf_counter() - began
        failed = [outcome.error for outcome in outcomes if outcome.error]
        if failed:
            raise RuntimeError(failed[0])
        return {"seconds": seconds, "pairs": len(cases), "pairs_per_s": len(cases) / seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description="Registration on a CUDA GPU beside the CPU.")
    parser.add_argument("--images", type=Path, required=True, help="folder of ID_T1_brain.nii.gz and ID_labels.nii.gz")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--pairs", type=int, default=8, help="ordered pairs, in the order of the names")
    parser.add_argument("--fireants", type=int, default=2, help="pairs that FireANTs registers too")
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 4], help="numbers of --jobs of medwave batch")
    parser.add_argument("--tuning", action="store_true", help="also try other tiles and marches")
    parser.add_argument("--seconds", type=float, default=150.0, help="no row begins later than this")
    today = datetime.date.today().isoformat()
    here = Path(__file__).resolve().parent / "results" / f"registration_gpu-{today}.json"
    parser.add_argument("--output", type=Path, default=here)
    options = parser.parse_args()
    if options.device != "cpu" and not torch.cuda.is_available():
        sys.exit("registration_gpu: torch sees no CUDA device here; --device cpu tries the script without one")
    bench = Bench(options)
    bench.run()
    print(rows.markdown(bench.results))


if __name__ == "__main__":
    main()
