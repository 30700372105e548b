"""Wavelet backbones beside their vanilla twins: inference time, and a comparison on small images with seeds.

    python benchmarks/backbones.py overhead                     # time of a forward pass, interleaved pairs
    python benchmarks/backbones.py cifar --data FILE.npz        # train, evaluate; a JSON row for each run; resumable
    python benchmarks/backbones.py table                        # the table and its intervals, from the rows

``cifar`` trains a ResNet-18 for small images and its wavelet versions with one recipe, for each seed, and measures
clean accuracy, errors under 15 corruptions by group, shift consistency, and accuracy under FGSM and PGD. Rows are
appended to a file of JSON lines whose runs have a name; a run that is there already is passed over, so that the program
can be stopped and repeated at any time. Differences are of pairs with the same seed; intervals are Student's, 95 %.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from _measure import machine
from _results import versions

HERE = Path(__file__).parent
ROWS = HERE / "results" / "backbones_cifar.jsonl"
WAVELETS = ("none", "haar", "ch2.2", "ch3.3", "db2")
PAIRS = ("resnet18", "resnet50", "densenet121", "mobilenet_v2")
PACKAGES = ("medwave", "torch", "monai", "numpy", "scipy")


def main() -> None:
    """Run one of the three parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    overhead = parts.add_parser("overhead", help="time of a forward pass")
    overhead.add_argument("--networks", nargs="+", default=PAIRS)
    overhead.add_argument("--wavelets", nargs="+", default=WAVELETS[1:])
    overhead.add_argument("--size", type=int, default=224)
    overhead.add_argument("--rounds", type=int, default=7)
    overhead.add_argument("--output", type=Path, default=HERE / "results" / f"backbones-{_now()}.json")
    cifar = parts.add_parser("cifar", help="train and evaluate")
    cifar.add_argument("--data", type=Path, required=True, help="an .npz file of train and test images")
    cifar.add_argument("--work", type=Path, default=Path("backbones-work"), help="folder for weights and caches")
    cifar.add_argument("--rows", type=Path, default=ROWS)
    cifar.add_argument("--wavelets", nargs="+", default=WAVELETS)
    cifar.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    cifar.add_argument("--epochs", type=int, default=30)
    cifar.add_argument("--width", type=float, default=0.25)
    cifar.add_argument("--images", type=int, default=500, help="test images for corruptions and shifts")
    cifar.add_argument("--attacks", type=int, default=200, help="test images to attack")
    table = parts.add_parser("table", help="the table from the rows")
    table.add_argument("--rows", type=Path, default=ROWS)
    arguments = parser.parse_args()
    {"overhead": measure_overhead, "cifar": compare, "table": show}[arguments.part](arguments)


def measure_overhead(arguments: argparse.Namespace) -> None:
    """CPU time of a forward pass against the vanilla twin, and against it with the convolutions of the rule added.

    The second twin is the vanilla network whose strided blocks run their convolution at stride 1 and then drop samples:
    what the papers' rule costs before any wavelet. Passes alternate; ratios are medians over rounds.
    """
    import torch

    from medwave.models import build

    torch.set_num_threads(1)
    image = torch.randn(1, 3, arguments.size, arguments.size)
    rows = []
    for name in arguments.networks:
        with torch.inference_mode():
            twin = build(name).eval()
            networks = {"vanilla": twin, "vanilla, stride 1": _unstrided(name)}
            networks |= {w: build(f"wave_{name}", wavelet=w).eval() for w in arguments.wavelets}
            times = _interleaved(networks, image, arguments.rounds)
        for wavelet in arguments.wavelets:
            row = {
                "network": name, "wavelet": wavelet, "vanilla_s": float(np.median(times["vanilla"])),
                "to_vanilla": float(np.median(times[wavelet] / times["vanilla"])),
                "to_stride_1": float(np.median(times[wavelet] / times["vanilla, stride 1"])),
            }  # fmt: skip
            rows.append(row)
            print(f"{name:14} {wavelet:6} {row['to_vanilla']:6.3f} x vanilla {row['to_stride_1']:6.3f} x stride 1")
    result = {"date": _now(), "machine": machine(), "versions": versions(PACKAGES), "threads": 1,
              "size": arguments.size, "rounds": arguments.rounds, "rows": rows}  # fmt: skip
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _unstrided(name: str) -> Any:
    """The wavelet version whose low bands are replaced by dropping samples."""
    from torch import nn

    from medwave.models import build
    from medwave.wavelets import WaveletPool

    class Every(nn.Module):
        def forward(self, x: Any) -> Any:
            return x[..., ::2, ::2]

    network = build(f"wave_{name}").eval()
    for parent in list(network.modules()):
        for key, child in list(parent._modules.items()):
            if isinstance(child, WaveletPool):
                parent._modules[key] = Every()
    return network


def _interleaved(networks: dict[str, Any], image: Any, rounds: int) -> dict[str, np.ndarray]:
    for network in networks.values():
        network(image)  # compiles and warms up
    times: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(rounds):
        for name, network in networks.items():
            start = time.process_time()
            network(image)
            times[name].append(time.process_time() - start)
    return {name: np.array(values) for name, values in times.items()}


def compare(arguments: argparse.Namespace) -> None:
    """Train and evaluate what has no row yet, seed by seed, so that all networks of a seed come before the next."""
    import torch

    from medwave.data import read_classified
    from medwave.workflows.classifier_measures import spread
    from medwave.workflows.image_answers import pictures

    torch.set_num_threads(1)
    test = read_classified(arguments.data, "test")
    images, truth = pictures(test, 0)
    some = spread(len(images), arguments.images)
    sets = Corrupted([images[i] for i in some], arguments.work / f"corrupted-{len(some)}")
    done = {row["run"] for row in read_rows(arguments.rows)}
    for seed in arguments.seeds:
        for wavelet in arguments.wavelets:
            run = f"resnet18 {wavelet} width {arguments.width:g} epochs {arguments.epochs} seed {seed}"
            if run in done:
                continue
            row = {"run": run, "wavelet": wavelet, "seed": seed, "width": arguments.width, "epochs": arguments.epochs}
            row |= _one_run(arguments, wavelet, seed, images, truth, some, sets)
            row |= {"date": _now(), "machine": machine(), "versions": versions(PACKAGES)}
            append_row(arguments.rows, row)
            print(f"{run}: clean {row['clean']:.4f}, PGD {row['pgd_1']:.4f}", flush=True)


def _one_run(
    arguments: argparse.Namespace, wavelet: str, seed: int, images: list[Any], truth: np.ndarray, some: np.ndarray,
    sets: Corrupted,
) -> dict[str, Any]:  # fmt: skip
    from medwave.workflows.classifier_measures import attacked, consistency, spread
    from medwave.workflows.image_answers import OfUnit, answers, open_image_network
    from medwave.workflows.train_images import train_classifier

    start = time.process_time()
    name = "resnet18" if wavelet == "none" else "wave_resnet18"
    folder = arguments.work / f"{wavelet}-{arguments.width:g}-{arguments.epochs}-{seed}"
    options = {"network": name, "width": arguments.width, "small_images": True, "epochs": arguments.epochs,
               "batch": 64, "learning_rate": 0.05, "seed": seed}  # fmt: skip
    if wavelet != "none":
        options["wavelet"] = wavelet
    trained = train_classifier(arguments.data, folder, **options)
    network = OfUnit(open_image_network(trained.weights, range(10), segments=False)).eval()
    how = {"batch": 100, "device": "cpu"}
    errors = sets.errors(lambda part: answers(network, part, **how), truth[some])
    few = spread(len(images), arguments.attacks)
    under = attacked(
        network, [images[i] for i in few], truth[few], steps=10, seed=0, kinds=("fgsm", "pgd"), epsilons=(1, 2), **how
    )
    return {
        "clean": float(np.mean(answers(network, images, **how) == truth)),
        "clean_some": float(np.mean(answers(network, [images[i] for i in some], **how) == truth[some])),
        "errors": errors,
        "consistency": consistency(network, [images[i] for i in some], passes=2, seed=0, **how),
        **{f"{a.kind}_{a.epsilon}": a.accuracy for a in under},
        "validation": trained.best_score,
        "cpu_s": round(time.process_time() - start, 1),
    }


class Corrupted:
    """Corrupted images, made once and kept in a file for each kind."""

    def __init__(self, images: list[Any], folder: Path) -> None:
        self.images, self.folder = images, folder

    def errors(self, answer: Any, truth: np.ndarray) -> dict[str, list[float]]:
        """Share of wrong answers by kind, one for each severity."""
        from medwave.transforms.corruptions import CORRUPTIONS
        from medwave.workflows.classifier_measures import corrupted

        self.folder.mkdir(parents=True, exist_ok=True)
        found = {}
        for kind in CORRUPTIONS:
            path = self.folder / f"{kind}.npy"
            if not path.exists():
                made = np.stack([np.stack(part) for _, _, part in corrupted(self.images, 0, (kind,))])
                partial = path.with_suffix(".partial.npy")
                np.save(partial, made)
                partial.replace(path)
            found[kind] = [float(np.mean(answer(list(part)) != truth)) for part in np.load(path)]
        return found


def show(arguments: argparse.Namespace) -> None:
    """Print a table for each setting that has rows."""
    print("\n".join(tables(read_rows(arguments.rows))))


def tables(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of Markdown for each setting: means over seeds, and differences to the twin with intervals."""
    lines = []
    for width, epochs in sorted({(row["width"], row["epochs"]) for row in rows}):
        chosen = [row for row in rows if (row["width"], row["epochs"]) == (width, epochs)]
        lines += [f"ResNet-18, width {width:g}, {epochs} epochs", "", *table(chosen), ""]
    return lines


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of Markdown for the rows of one setting."""
    names = list(measures(rows[0], rows[0]))
    twins = {row["seed"]: row for row in rows if row["wavelet"] == "none"}
    lines = [f"| | seeds | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for wavelet in dict.fromkeys(row["wavelet"] for row in rows):
        paired = [row for row in rows if row["wavelet"] == wavelet and row["seed"] in twins]
        if not paired:
            continue
        values = np.array([list(measures(row, twins[row["seed"]]).values()) for row in paired])
        base = np.array([list(measures(twins[r["seed"]], twins[r["seed"]]).values()) for r in paired])
        cells = []
        for column in range(len(names)):
            text = f"{values[:, column].mean():.1f}"
            if wavelet != "none":
                mean, half = interval(values[:, column] - base[:, column])
                text += f" ({mean:+.1f} ± {half:.1f})" if np.isfinite(half) else f" ({mean:+.1f})"
            cells.append(text)
        lines.append(f"| {wavelet} | {len(paired)} | {' | '.join(cells)} |")
    return lines


def measures(row: dict[str, Any], twin: dict[str, Any]) -> dict[str, float]:
    """What a row says, in per cent: accuracies, and corruption errors against the twin of the same seed."""
    from medwave.metrics import corruption_errors
    from medwave.transforms.corruptions import GROUPS

    ce = corruption_errors(row["errors"], twin["errors"], GROUPS)
    return {
        "clean": 100 * row["clean"], "mCE": ce.mce, **{f"{group} CE": value for group, value in ce.by_group.items()},
        "shift consistency": 100 * row["consistency"], "FGSM 1/255": 100 * row["fgsm_1"],
        "PGD 1/255": 100 * row["pgd_1"], "PGD 2/255": 100 * row["pgd_2"],
    }  # fmt: skip


def interval(differences: np.ndarray) -> tuple[float, float]:
    """Mean and half-width of Student's 95 % interval; NaN from one pair."""
    from scipy import stats

    count = len(differences)
    if count < 2:
        return float(differences.mean()), float("nan")
    half = stats.t.ppf(0.975, count - 1) * differences.std(ddof=1) / np.sqrt(count)
    return float(differences.mean()), float(half)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All runs of a file of JSON lines; none when it is not there."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add a run, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text(encoding="utf-8") if path.exists() else ""
    partial = path.with_suffix(".partial")
    partial.write_text(lines + json.dumps(row) + "\n", encoding="utf-8")
    partial.replace(path)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")


if __name__ == "__main__":
    sys.exit(main())
