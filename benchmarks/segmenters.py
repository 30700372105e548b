"""U-Net, SegNet and DeepLabV3+ beside their wavelet versions on street scenes: one recipe, a CPU, reduced width.

    python benchmarks/segmenters.py camvid --data FOLDER      # train, evaluate; a JSON row for each run; resumable
    python benchmarks/segmenters.py table                     # the tables and their intervals, from the rows

FOLDER holds CamVid (Brostow et al., doi:10.1016/j.patrec.2008.04.005) as ``train``, ``trainannot``, ``val``, ... All
networks of the first seed come first; the pair with the higher validation score, mean of both twins, then gets the
other seeds. Nothing is chosen by the test images, and these are segmented whole. Rows are appended to a file of JSON
lines, and a run that is there already is passed over, so that the program can be stopped and repeated at any time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from _measure import machine
from _results import versions
from backbones import append_row, interval, read_rows

HERE = Path(__file__).parent
ROWS = HERE / "results" / "segmenters_camvid.jsonl"
PAIRS = {"unet": "U-Net", "segnet": "SegNet", "deeplabv3plus": "DeepLabV3+"}
DEPTH = {"unet": 11, "segnet": 11, "deeplabv3plus": 18}
"""The smallest encoders: VGG-11 and ResNet-18."""

PACKAGES = ("medwave", "torch", "monai", "numpy")


def main() -> None:
    """Run one of the two parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    camvid = parts.add_parser("camvid", help="train and evaluate")
    camvid.add_argument("--data", type=Path, required=True, help="folder of CamVid")
    camvid.add_argument("--work", type=Path, default=Path("segmenters-work"), help="folder for weights")
    camvid.add_argument("--wavelet", default="haar")
    camvid.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    camvid.add_argument("--width", type=float, default=0.125)
    camvid.add_argument("--crop", type=int, default=128, help="pixels of the squares that are trained on")
    camvid.add_argument("--epochs", type=int, default=2, help="after each the validation images are scored")
    camvid.add_argument("--steps", type=int, default=160, help="of an epoch, four crops each")
    camvid.add_argument("--learning-rate", type=float, default=3e-3)
    table = parts.add_parser("table", help="the tables from the rows")
    for part in (camvid, table):
        part.add_argument("--rows", type=Path, default=ROWS)
    arguments = parser.parse_args()
    {"camvid": compare, "table": show}[arguments.part](arguments)


def compare(arguments: argparse.Namespace) -> None:
    """Train and evaluate what has no row yet."""
    import torch

    torch.set_num_threads(1)
    budget = {name: getattr(arguments, name) for name in ("width", "crop", "epochs", "steps", "learning_rate")}
    for network, wavelet, seed in _plan(arguments, budget):
        row = {"run": _run_name(network, wavelet, seed, budget), "network": network, "wavelet": wavelet, "seed": seed,
               **budget}  # fmt: skip
        row |= _one_run(arguments, network, wavelet, seed, budget)
        row |= {"date": datetime.now(UTC).strftime("%Y-%m-%d"), "machine": machine(), "versions": versions(PACKAGES)}
        append_row(arguments.rows, row)
        print(f"{row['run']}: mean IoU {row['mean_iou']:.4f}, {row['train_cpu_s']:.0f} CPU s", flush=True)


def _plan(arguments: argparse.Namespace, budget: dict[str, Any]) -> Iterator[tuple[str, str, int]]:
    """Runs without a row in their order; the rows of the first seed say which pair gets the others."""
    for position, seed in enumerate(arguments.seeds):
        networks = list(PAIRS) if position == 0 else [best_pair(read_rows(arguments.rows), arguments.seeds[0], budget)]
        for network in networks:
            for wavelet in ("none", arguments.wavelet):
                done = {row["run"] for row in read_rows(arguments.rows)}
                if _run_name(network, wavelet, seed, budget) not in done:
                    yield network, wavelet, seed


def best_pair(rows: list[dict[str, Any]], seed: int, budget: dict[str, Any]) -> str:
    """The network whose twins have the highest mean validation score."""
    scores: dict[str, list[float]] = {}
    for row in rows:
        if row["seed"] == seed and budget.items() <= row.items():
            scores.setdefault(row["network"], []).append(row["validation"])
    return max(scores, key=lambda network: float(np.mean(scores[network])))


def _run_name(network: str, wavelet: str, seed: int, budget: dict[str, Any]) -> str:
    about = " ".join(f"{name} {value:g}" for name, value in budget.items())
    return f"{network} {wavelet} {about} seed {seed}"


def _one_run(
    arguments: argparse.Namespace, network: str, wavelet: str, seed: int, budget: dict[str, Any]
) -> dict[str, Any]:
    from medwave.data import read_segmented
    from medwave.metrics import overlap_scores
    from medwave.workflows.image_answers import open_image_network
    from medwave.workflows.train_images import segmenter_confusion, train_segmenter

    start = time.process_time()
    twin = {} if wavelet == "none" else {"wavelet": wavelet}
    trained = train_segmenter(
        arguments.data, arguments.work / _run_name(network, wavelet, seed, budget).replace(" ", "-"),
        network=network if wavelet == "none" else f"wave_{network}", depth=DEPTH[network], augment="crop", batch=4,
        warm_up=0, seed=seed, **budget, **twin,
    )  # fmt: skip
    taken = time.process_time() - start
    test = read_segmented(arguments.data, "test")
    model = open_image_network(trained.weights, test.classes, segments=True).eval()
    scores = overlap_scores(segmenter_confusion(model, test, device="cpu"))
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "validation": trained.best_score,
        "mean_iou": scores.mean_iou,
        "pixel_accuracy": scores.pixel_accuracy,
        "iou": dict(zip(test.classes, scores.iou.tolist(), strict=True)),
        "train_cpu_s": round(taken, 1),
        "test_cpu_s": round(time.process_time() - start - taken, 1),
    }


def show(arguments: argparse.Namespace) -> None:
    """Print the tables of a file of rows."""
    print("\n".join(tables(read_rows(arguments.rows))))


def tables(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of Markdown: summary of each network, then IoU of each class, means over the seeds that both twins have."""
    classes = list(rows[0]["iou"])
    summary = ["parameters", "seeds", *summaries(rows[0]), "train CPU s"]
    lines = [f"| | {' | '.join(summary)} |", "|---" + "|---:" * len(summary) + "|"]
    by_class = [f"| IoU, % | {' | '.join(classes)} |", "|---" + "|---:" * len(classes) + "|"]
    for network in dict.fromkeys(row["network"] for row in rows):
        own = {row["seed"]: row for row in rows if row["network"] == network and row["wavelet"] == "none"}
        for wavelet in dict.fromkeys(row["wavelet"] for row in rows):
            paired = [r for r in rows if (r["network"], r["wavelet"]) == (network, wavelet) and r["seed"] in own]
            if wavelet == "none":  # only seeds whose wavelet run is there too
                both = {r["seed"] for r in rows if r["network"] == network and r["wavelet"] != "none"}
                paired = [r for r in paired if r["seed"] in both]
            if not paired:
                continue
            twins = [own[row["seed"]] for row in paired]
            name = PAIRS[network] if wavelet == "none" else f"{PAIRS[network]}, {wavelet}"
            cells = _cells([summaries(r) for r in paired], [summaries(r) for r in twins], wavelet != "none")
            cost = f"{np.mean([r['train_cpu_s'] for r in paired]):.0f}"
            lines.append(f"| {name} | {paired[0]['parameters']:,} | {len(paired)} | {' | '.join(cells)} | {cost} |")
            in_percent = [{c: 100 * r["iou"][c] for c in classes} for r in (*paired, *twins)]
            each = _cells(in_percent[: len(paired)], in_percent[len(paired) :], wavelet != "none")
            by_class.append(f"| {name} | {' | '.join(each)} |")
    return [*lines, "", *by_class]


def summaries(row: dict[str, Any]) -> dict[str, float]:
    """What a row says in short, in per cent; thin classes are those that ``medwave evaluate-segmenter`` sets apart."""
    from medwave.workflows.evaluate_images import THIN

    thin = [value for name, value in row["iou"].items() if name in THIN]
    wide = [value for name, value in row["iou"].items() if name not in THIN]
    return {
        "mIoU, %": 100 * row["mean_iou"], "thin classes, %": 100 * float(np.mean(thin)),
        "other classes, %": 100 * float(np.mean(wide)), "pixels right, %": 100 * row["pixel_accuracy"],
    }  # fmt: skip


def _cells(values: list[dict[str, float]], twins: list[dict[str, float]], against_twin: bool) -> list[str]:
    """Mean of each measure, with the difference to the twins of the same seeds and its 95 % interval."""
    cells = []
    for name in values[0]:
        mine, theirs = (np.array([row[name] for row in some]) for some in (values, twins))
        text = f"{mine.mean():.1f}"
        if against_twin:
            mean, half = interval(mine - theirs)
            text += f" ({mean:+.1f} ± {half:.1f})" if np.isfinite(half) else f" ({mean:+.1f})"
        cells.append(text)
    return cells


if __name__ == "__main__":
    sys.exit(main())
