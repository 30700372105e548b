"""What the WiNet that comes with medwave gives the refinement as a start: overlap, errors and CPU seconds.

    python benchmarks/learned_start.py --images FOLDER [--contrasts FOLDER]

FOLDER is that of ``registration.py``: pairs of people, Dice of the structures that all label maps have. That of
``--contrasts`` is that of ``contrasts.py``: a T1 against a T2 and a FLAIR under the known transform of that program,
the mean distance of points of the brain from where they belong. All states of a case share one affine: the affine
itself, the prediction on top of it, and the refinement by each preset from the affine and from the prediction. They run
in this process, on one thread, after an untimed run that loads everything. CPU seconds go from both images and the
affine in memory to the field: a prediction with its preparation, a refinement with its preparation and its prediction.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from _measure import machine
from _registration_score import Float32Array, Float64Array, common_structures, score
from _results import BenchmarkError, save, versions
from contrasts import CONTRASTS, distances, moved, random_truth, with_noise

import medwave
from medwave.core.errors import MedwaveError
from medwave.core.geometry import Volume
from medwave.core.threads import limited_threads
from medwave.models import WiNet, open_network
from medwave.volumes import FieldStep, LinearStep, SpatialTransform, read_labels, read_volume
from medwave.workflows.learned_start import predicted_start

WEIGHTS = "brain"
PRESETS = ("fast", "balanced")
PAIRS = "1003:1009,1000:1017,1107:1036,1119:1001"
STEPS = ("prepare", "predict", "refine")

State = tuple[str, Float64Array, Float32Array | None, float]
"""Its name, A (4x4, RAS+ mm, fixed to moving points), u ``(3, D, H, W)`` in voxels of the fixed grid, CPU seconds."""


def main() -> None:
    options = parse()
    cases = itertools.chain(people(options.images, options.pairs), contrasts(options.contrasts, options.subject))
    warmed = False
    results: dict[str, Any] = {
        "date": datetime.date.today().isoformat(), "machine": machine(), "weights": WEIGHTS, "rows": [],
        "versions": versions(("medwave", "torch", "numba", "numpy")),
    }  # fmt: skip
    for case, fixed, moving, measure in cases:
        if not warmed:
            warmed = bool(list(states(fixed, moving, presets=("fast",))))
        for name, matrix, displacement, cpu_s in states(fixed, moving):
            row = {"case": case, "state": name, "cpu_s": cpu_s, **measure(matrix, displacement)}
            results["rows"].append(row)
            print({key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()}, flush=True)
        save(options.output, results)
    print(f"\n{markdown(results)}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = Path(__file__).parent / f"results/learned_start-{datetime.date.today().isoformat()}.json"
    parser.add_argument("--images", type=Path, required=True, help="folder of ID_T1_brain.nii.gz and ID_labels.nii.gz")
    parser.add_argument("--pairs", default=PAIRS, help="moving:fixed, separated by commas (default: %(default)s)")
    parser.add_argument("--contrasts", type=Path, help="folder of ID_T1.nii.gz, ID_T2.nii.gz and ID_FLAIR.nii.gz")
    parser.add_argument("--subject", default="patient07", help="ID in that folder (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, default=default, help="JSON (default: %(default)s)")
    return parser.parse_args()


def states(fixed: Volume, moving: Volume, presets: tuple[str, ...] = PRESETS) -> Iterator[State]:
    """All states of a case, one after the other."""
    linear = medwave.register(fixed, moving, deformable=False, threads=1)
    matrix = linear.matrix
    yield "affine", matrix, None, sum(stage.cpu_s for stage in linear.stages if stage.name == "affine")
    network = open_network(WEIGHTS, WiNet)
    with limited_threads(1):
        began = time.process_time()
        predicted = predicted_start(network, fixed, moving, matrix, fixed.grid, device="cpu")
        yield "prediction", matrix, predicted, time.process_time() - began
    for preset in presets:
        for name, weights in ((preset, None), (f"{preset} from it", WEIGHTS)):
            result = medwave.register(
                fixed, moving, init=matrix, affine="none", preset=preset, weights=weights, threads=1
            )
            spent = sum(stage.cpu_s for stage in result.stages if stage.name in STEPS)
            yield name, result.matrix, result.displacement_voxels, spent


Case = tuple[str, Volume, Volume, Callable[[Float64Array, Float32Array | None], Mapping[str, Any]]]
"""Its name, the fixed and the moving image, and what measures a state of it."""


def people(folder: Path, pairs: str) -> Iterator[Case]:
    """Pairs of labelled brains; a state is measured by the overlap of their structures, and by folds."""
    maps = sorted(folder.glob("*_labels.nii.gz"))
    if not maps:
        raise BenchmarkError(f"{folder}: no ID_labels.nii.gz is there; name the folder of the brains and their labels")
    structures = common_structures(maps)
    for pair in pairs.split(","):
        moving, _, fixed = pair.partition(":")
        images = [read_volume(folder / f"{name}_T1_brain.nii.gz") for name in (fixed, moving)]
        labels = [read_labels(folder / f"{name}_labels.nii.gz") for name in (fixed, moving)]
        yield pair, *images, _overlap(images[0], *labels, structures)


def _overlap(image: Volume, fixed: Volume, moving: Volume, structures: list[int]) -> Callable[..., Mapping[str, Any]]:
    def measure(matrix: Float64Array, displacement: Float32Array | None) -> Mapping[str, Any]:
        found = score(
            displacement, matrix, brain=np.asarray(image.data) > 0, fixed_labels=fixed, moving_labels=moving,
            structures=structures,
        )  # fmt: skip
        return {"dice": found["dice_common"], "folds": found.get("folds", 0)}

    return measure


def contrasts(folder: Path | None, subject: str) -> Iterator[Case]:
    """The other contrasts of a head under a known transform; a state is measured by the mean error in the brain."""
    for name in () if folder is None else CONTRASTS[1:]:
        fixed, image = (read_volume(folder / f"{subject}_{contrast}.nii.gz") for contrast in ("T1", name))
        true, back = random_truth(fixed, seed=0)
        moving = with_noise(moved(image, back), seed=CONTRASTS.index(name))
        yield f"{subject}, T1 to {name}", fixed, moving, _distance(fixed, true)


def _distance(fixed: Volume, true: SpatialTransform) -> Callable[..., Mapping[str, Any]]:
    points = fixed.grid.to_mm(np.argwhere(np.asarray(fixed.data) > 0)[::7])

    def measure(matrix: Float64Array, displacement: Float32Array | None) -> Mapping[str, Any]:
        bend = () if displacement is None else (FieldStep(displacement, fixed.grid),)
        found = SpatialTransform((*bend, LinearStep(matrix))).apply_points_mm(points)
        return {"error_mm": float(distances(found, true.apply_points_mm(points)).mean())}

    return measure


def markdown(results: Mapping[str, Any]) -> str:
    """A table: a row for each case, and means of the pairs of people; another contrast may compile in its first run."""
    cases: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in results["rows"]:
        cases.setdefault(row["case"], {})[row["state"]] = row
    names = list(dict.fromkeys(row["state"] for row in results["rows"]))
    lines = [["", "", *names], ["---", "---", *["---:"] * len(names)]]
    for key, unit, digits in (("dice", "Dice", 4), ("error_mm", "error, mm", 3)):
        found = {case: [row[key] for row in by.values()] for case, by in cases.items() if key in by["affine"]}
        if len(found) > 1 and key == "dice":
            found["mean of pairs of people"] = np.mean(list(found.values()), axis=0).tolist()
        lines += [[case, unit, *(f"{value:.{digits}f}" for value in row)] for case, row in found.items()]
    spent = [float(np.mean([by[name]["cpu_s"] for by in cases.values() if "dice" in by[name]])) for name in names]
    lines.append(["mean of pairs of people", "CPU s", *(f"{value:.2f}" for value in spent)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    try:
        main()
    except (BenchmarkError, MedwaveError) as error:
        raise SystemExit(f"learned start: {error}") from None
