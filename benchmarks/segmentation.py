"""What segmentation promises, measured: cubes that leave no trace, bounded memory, and resumption after a kill.

    python benchmarks/segmentation.py grid VOLUME... [--weights FILE]
    python benchmarks/segmentation.py large [--weights FILE] [--region z0:z1,y0:y1,x0:x1]

``grid`` predicts a volume twice, the second time with all cubes moved by half a cube, and compares the fibre.
``large`` writes a sparse OME-Zarr of 2048x2048x2048 voxels into a temporary folder, segments a region of it in a
process that is killed (SIGKILL) when a block is finished, repeats the command, and compares the result with that of a
run that nobody killed. Each prints a table and writes JSON to benchmarks/results.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _measure import machine

from medwave.core.files import write_json
from medwave.core.provenance import sha256, versions
from medwave.cubes import Box, CubePlan
from medwave.engine.fibres import OVERLAP, FibrePredictor, blocks_within, fibre_plan, predict_fibres
from medwave.models import FibreNet, open_network, shipped_weights
from medwave.transforms.microscopy import sampled_scale
from medwave.volumes import create_ome_zarr, open_stack
from medwave.workflows.segment import suited_weights

RESULTS = Path(__file__).parent / "results"
SIDE, CHUNK = 2048, 64
REGION = "1060:1150,1030:1150,1060:1660"
MEDWAVE = [sys.executable, "-c", "from medwave.cli.app import main; main()"]


def main() -> None:
    options = parse()
    rows = (
        grid(options.volumes, options.weights, options.overlap)
        if options.part == "grid"
        else large(options.weights or shipped_weights("neuron"), options.region)
    )
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    write_json(RESULTS / f"segmentation-{options.part}-{datetime.date.today()}.json", {
        "machine": machine(), "versions": versions(), "rows": rows,
    })  # fmt: skip


def grid(volumes: list[Path], given: Path | None, overlap: int) -> list[dict[str, Any]]:
    """Fibre IoU between a volume predicted with cubes from 0 and with cubes half a stride earlier."""
    rows = []
    for path in volumes:
        with open_stack(path) as opened:
            volume = opened.read()
        scale = sampled_scale(volume.__getitem__, volume.shape)
        weights = given or suited_weights(scale)
        plan = fibre_plan(volume.shape, overlap=overlap)
        half = tuple(
            step // 32 * 16 if size < length else 0
            for step, size, length in zip(plan.stride, plan.size, plan.shape, strict=True)
        )
        first, second = (_predicted(volume, scale, weights, plan, shift) for shift in ((0, 0, 0), half))
        one, other = first > 0.5, second > 0.5
        both = one | other
        rows.append({
            "volume": path.name, "weights": weights.name, "weights_sha256": sha256(weights), "shape": volume.shape,
            "cubes": len(plan), "overlap": overlap, "shift": half,
            "fibre_iou": float((one & other).sum() / max(1, both.sum())), "fibre_share": float(one.mean()),
            "mean_difference": float(np.abs(first - second)[both].mean()) if both.any() else 0.0,
        })  # fmt: skip
    return rows


def _predicted(volume: np.ndarray, scale: Any, weights: Path, plan: CubePlan, shift: tuple[int, ...]) -> np.ndarray:
    """Probabilities in cubes of a plan that begin ``shift`` voxels before the volume, where it is mirrored."""
    moved = np.pad(volume, [(s, 0) for s in shift], mode="reflect")
    z, y, x = (n + s for n, s in zip(plan.shape, shift, strict=True))
    plan = CubePlan((z, y, x), plan.size, plan.stride, plan.margin)
    predictor = FibrePredictor(open_network(weights, FibreNet), scale)
    whole = Box((0, 0, 0), moved.shape)
    out = np.empty(moved.shape, np.float32)
    for box, values in predict_fibres(
        predictor, plan, blocks_within(moved.shape, whole), read=lambda b: moved[b.slices],
        shape=moved.shape,
    ):  # fmt: skip
        out[box.slices] = values
    return out[tuple(slice(s, None) for s in shift)]


def large(weights: Path, region: str) -> list[dict[str, Any]]:
    """Memory and resumption on a volume that fits in no memory."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        stored = write_sparse(folder / "large.ome.zarr")
        words = [str(folder / "large.ome.zarr"), "--region", region, "--weights", str(weights)]
        killed_after = _kill(words, folder / "killed")
        finished = {p: p.stat().st_mtime_ns for p in _chunks(folder / "killed")}
        blocks = len((folder / "killed" / "segmentation.blocks").read_text().splitlines())
        again = _run(words, folder / "killed")
        kept = sum(p.stat().st_mtime_ns == time_ns for p, time_ns in finished.items())
        whole = _run(words, folder / "whole")
        same = [p.read_bytes() for p in _chunks(folder / "killed")] == [
            p.read_bytes() for p in _chunks(folder / "whole")
        ]
        return [{
            "weights_sha256": sha256(weights), "shape": (SIDE,) * 3,
            "stored_chunks": stored, "region": region, "blocks": again["blocks"]["count"],
            "killed_after_s": round(killed_after, 1), "blocks_finished_by_then": blocks,
            "blocks_found_by_the_next": again["blocks"]["finished_before"], "chunks_then": len(finished),
            "chunks_kept_untouched": kept, "same_bytes_as_never_killed": same, "cubes": whole["cubes"],
            "peak_rss_mb": round(max(stage["peak_rss_mb"] for stage in whole["stages"])),
            "cpu_s": round(sum(stage["cpu_s"] for stage in whole["stages"]), 1),
        }]  # fmt: skip


def write_sparse(path: Path) -> int:
    """A store of 2048^3 voxels, uint16, of which 4x4x8 chunks about the middle hold noise and fibres."""
    image = create_ome_zarr(path, (SIDE,) * 3, np.uint16, chunks=(CHUNK,) * 3, spacing_um=(1, 1, 1), levels=1)
    rng, count = np.random.default_rng(0), 0
    for z in range(960, 1216, CHUNK):
        for y in range(960, 1216, CHUNK):
            for x in range(832, 1344, CHUNK):
                zz, yy, xx = np.ogrid[z : z + CHUNK, y : y + CHUNK, x : x + CHUNK]
                away = np.full((CHUNK,) * 3, np.inf)
                for phase in range(6):
                    line_z, line_y = 1088 + 90 * np.sin(xx / 60 + phase), 1088 + 90 * np.cos(xx / 45 + 2 * phase)
                    away = np.minimum(away, (zz - line_z) ** 2 + (yy - line_y) ** 2)
                block = rng.normal(400, 30, away.shape) + 300 * np.exp(-away / 8)
                image.write((slice(z, z + CHUNK), slice(y, y + CHUNK), slice(x, x + CHUNK)), block.astype(np.uint16))
                count += 1
    return count


def _kill(words: list[str], output: Path) -> float:
    """Start a run, and kill it a second after its first block is finished."""
    began = time.monotonic()
    child = subprocess.Popen([*MEDWAVE, "segment", *words, "-o", str(output)], stderr=subprocess.DEVNULL)
    journal = output / "segmentation.blocks"
    while child.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n")):
        time.sleep(0.2)
    time.sleep(1)
    child.kill()
    if child.wait() != -9:
        raise SystemExit("the run ended before it could be killed; name a larger --region")
    return time.monotonic() - began


def _run(words: list[str], output: Path) -> dict[str, Any]:
    subprocess.run([*MEDWAVE, "segment", *words, "-o", str(output)], check=True, stdout=subprocess.DEVNULL)
    return json.loads((output / "run.json").read_text(encoding="utf-8"))


def _chunks(folder: Path) -> list[Path]:
    return sorted(p for p in (folder / "probability.ome.zarr" / "0").rglob("*") if p.is_file() and p.name[0] != ".")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parts = parser.add_subparsers(dest="part", required=True)
    for name in ("grid", "large"):
        part = parts.add_parser(name)
        part.add_argument("--weights", type=Path, help="weights of a fibre network; those of medwave when left out")
        if name == "grid":
            part.add_argument("volumes", type=Path, nargs="+", help="volumes of microscopy")
            part.add_argument("--overlap", type=int, default=OVERLAP, help="of the cubes (default: %(default)s)")
        else:
            part.add_argument("--region", default=REGION, help="what to segment (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    return options


if __name__ == "__main__":
    main()
