"""WaveUNet against a U-Net of the same size on light-sheet axons, trained the same way, over several seeds.

    pip install "medwave[train,neurons]"
    python benchmarks/axons.py --cubes FOLDER

FOLDER holds ``training`` and ``validation`` with ``volume_N.tif`` and ``labels_N.tif`` (TRAILMAP's light-sheet cubes;
those of validation come from another volume). Each network and seed is a process of its own. Crops, their order,
steps, loss and rate are the same for both networks; the seed sets the first weights and the crops. The last weights
are scored, not the best ones. ``benchmarks/README.md`` says what the columns mean. Finished runs are kept in the output
file, epochs of unfinished ones in the work folder; started again it goes on there.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from _measure import last_line, machine, run_measured
from _results import BenchmarkError, save, versions, write_request

HERE = Path(__file__).resolve().parent
NETWORKS = "neuron_wavesnet_v4,neuron_unet_transposed"
SETTINGS: dict[str, Any] = {
    "width": 4,
    "crop": [16, 64, 64],
    "edge": "ignore",
    "loss": "cross-entropy (1, 5) + Dice",
    "fit": {"epochs": 6, "steps": 100, "batch": 2, "learning_rate": 4e-3, "average": 0.98},
}
COLUMNS = ("iou", "precision", "recall", "average_precision", "cl_dice", "cl_precision", "cl_sensitivity")
HEADINGS = ("network", "parameters", "seeds", "fibre IoU", "precision", "recall", "AP", "clDice", "line precision",
            "line recall", "train CPU s", "RSS GB")  # fmt: skip
_PACKAGES = ("medwave", "torch", "monai", "numpy", "scikit-image")


def main() -> None:
    options = parse()
    try:
        results = run(options)
    except BenchmarkError as error:
        raise SystemExit(f"axon benchmark: {error}") from None
    print(markdown(results))


def parse() -> argparse.Namespace:
    today = datetime.date.today().isoformat()
    parser = argparse.ArgumentParser(description="Compare fibre networks on light-sheet axons.")
    parser.add_argument("--cubes", type=lambda path: Path(path).resolve(), required=True, help="folder of the cubes")
    parser.add_argument("--networks", default=NETWORKS, help="names of medwave.models (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ... (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=HERE / "results" / "axons-work", help="for unfinished runs")
    default = HERE / "results" / f"axons-{today}.json"
    parser.add_argument("-o", "--output", type=Path, default=default, help="JSON (default: %(default)s)")
    return parser.parse_args()


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Train what is missing, seed by seed; results are on disk after every run."""
    for part in ("training", "validation"):
        if not list((options.cubes / part).glob("volume_*.tif")):
            raise BenchmarkError(f"{options.cubes / part}: holds no volume_N.tif; --cubes names the folder above it")
    results: dict[str, Any] = {
        "benchmark": "axons", "date": datetime.date.today().isoformat(), "settings": SETTINGS, "machine": machine(),
        "versions": versions(_PACKAGES), "runs": [],
    }  # fmt: skip
    if options.output.is_file():
        older = json.loads(options.output.read_text(encoding="utf-8"))
        if older["settings"] != SETTINGS:
            raise BenchmarkError(f"{options.output} holds runs with other settings; choose another -o")
        results["runs"] = older["runs"]
    for seed in range(options.seeds):
        for network in options.networks.split(","):
            if not any(each["network"] == network and each["seed"] == seed for each in results["runs"]):
                done = train(options, network, seed)
                results["runs"].append(done)
                save(options.output, results)
                print(f"{network}, seed {seed}: IoU {done['iou']:.4f}, clDice {done['cl_dice']:.4f}", flush=True)
    return results


def train(options: argparse.Namespace, network: str, seed: int) -> dict[str, Any]:
    """One network and seed in its own process.

    Raises:
        BenchmarkError: when it fails, with the last line that it printed.
    """
    folder = options.work.resolve() / f"{network}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    request = {
        "cubes": str(options.cubes), "network": network, "seed": seed, "settings": SETTINGS, "folder": str(folder)
    }  # fmt: skip
    began = datetime.datetime.now().isoformat(timespec="seconds")
    command = [sys.executable, str(HERE / "_axons_run.py"), write_request(folder, request)]
    cost = run_measured(command, threads=1, log=folder / "log.txt")
    if cost.exit_code != 0:
        raise BenchmarkError(f"{network}, seed {seed} ended with {cost.exit_code}: {last_line(folder / 'log.txt')}")
    found = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return {"network": network, "seed": seed, "date": began, "peak_rss_mb": cost.peak_rss_mb, **found}


def rows(results: dict[str, Any]) -> list[list[str]]:
    """One row per network: means over the seeds, with the standard deviation between them."""
    found = []
    for network in dict.fromkeys(each["network"] for each in results["runs"]):
        runs = [each for each in results["runs"] if each["network"] == network]
        found.append([
            network, f"{runs[0]['parameters']:,}", str(len(runs)),
            *(spread([each[name] for each in runs]) for name in COLUMNS),
            f"{fmean(each['train_cpu_s'] for each in runs):.0f}",
            f"{max(each['peak_rss_mb'] for each in runs) / 1e3:.2f}",
        ])  # fmt: skip
    return found


def spread(values: list[float]) -> str:
    """Mean and standard deviation, such as ``0.61 ± 0.02``; the mean alone for a single value."""
    return f"{fmean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def differences(results: dict[str, Any]) -> list[str]:
    """First network minus second, seed by seed: both saw the same crops."""
    by_network = {}
    for each in results["runs"]:
        by_network.setdefault(each["network"], {})[each["seed"]] = each
    if len(by_network) != 2:
        return []
    (first, a), (second, b) = by_network.items()
    shared = sorted(set(a) & set(b))
    return [
        f"{first} - {second}, {title}, seed by seed: " + ", ".join(f"{a[s][name] - b[s][name]:+.3f}" for s in shared)
        for name, title in (("iou", "fibre IoU"), ("average_precision", "AP"), ("cl_dice", "clDice"))
    ]


def markdown(results: dict[str, Any]) -> str:
    """The table with its context."""
    about = results["machine"]
    lines = [
        f"- {results['date']}; {about['cpu']}, {about['cores']} cores, {about['system']}, Python {about['python']}; "
        "one thread",
        "- " + ", ".join(f"{name} {version}" for name, version in results["versions"].items()),
        "",
        *(f"| {' | '.join(line)} |" for line in (HEADINGS, ["---", *["---:"] * (len(HEADINGS) - 1)], *rows(results))),
        "",
        *(f"- {line}" for line in differences(results)),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
