"""One full-resolution iteration of the registration's refinement beside its floor: the memory that it has to move.

    python benchmarks/refinement_iteration.py

Each step is timed alone on a noisy ellipsoid that fills 30 % of its grid, as brains do, and set against copying as many
bytes as the step reads and writes. CPU seconds of one thread, the fastest of five calls after the first.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from medwave.core.threads import limited_threads
from medwave.engine.loops import CpuLoops

SHAPE = (160, 192, 160)
SHARE = 0.3
VOLUMES = {  # float32 volumes that a step reads and writes
    "warp": 5,
    "force: sums, coefficients, gradient": 16,
    "smooth the update": 6,
    "longest vector": 3,
    "compose": 9,
    "smooth the field": 6,
}


def fastest(step: Callable[[], object]) -> float:
    """CPU seconds of the fastest of five calls; the first, which may compile, does not count."""
    step()
    seconds = []
    for _ in range(5):
        began = time.process_time()
        step()
        seconds.append(time.process_time() - began)
    return min(seconds)


def main() -> None:
    random = np.random.default_rng(0)
    places = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij"))
    inside = (places**2).sum(axis=0) < (SHARE * 6 / np.pi) ** (2 / 3)
    fixed, moving = (np.where(inside, random.uniform(0.2, 1, SHAPE), 0).astype(np.float32) for _ in range(2))
    field = np.full((3, *SHAPE), 0.3, dtype=np.float32)
    loops = CpuLoops()
    similarity = loops.similarity("lncc", fixed, np.ones_like(fixed), 2)
    warped, update, smoothed = np.empty_like(fixed), np.empty_like(field), np.empty_like(field)
    steps: dict[str, Callable[[], object]] = {
        "warp": lambda: loops.warp(moving, field, warped),
        "force: sums, coefficients, gradient": lambda: similarity.force(warped, update),
        "smooth the update": lambda: loops.smooth(update, 1.0, smoothed),
        "longest vector": lambda: loops.largest_length(smoothed),
        "compose": lambda: loops.compose(field, smoothed, 1e-3, update),
        "smooth the field": lambda: loops.smooth(update, 0.4, field),
    }
    with limited_threads(1):
        per_volume = fastest(lambda: np.copyto(update, smoothed)) / 6
        spent = {name: fastest(step) for name, step in steps.items()}
    print(f"grid {SHAPE}, {inside.mean():.2f} of it subject; a copy moves {4e-9 * fixed.size / per_volume:.1f} GB/s")
    for name, seconds in (*spent.items(), ("all", sum(spent.values()))):
        volumes = VOLUMES.get(name, sum(VOLUMES.values()))
        print(f"{name:36s} {1e3 * seconds:6.1f} ms   floor {1e3 * volumes * per_volume:5.1f} ms ({volumes} volumes)")


if __name__ == "__main__":
    main()
