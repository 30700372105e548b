"""WiNet's prediction on a CPU beside a plain torch build of the same network with the same weights.

    python benchmarks/winet_forward.py

``plain`` is what one writes first: float32, contiguous tensors, instance norm, wavelet transforms as strided
convolutions. ``float32`` and ``bfloat16`` are :func:`medwave.engine.predict.predict_displacement`; bfloat16 is left out
where the processor does not multiply it natively. Each run has a process of its own; methods take turns. CPU seconds
are of the prediction alone, after one on a small image; memory is the highest resident size of the whole process.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from _measure import last_line, machine, run_measured
from _results import BenchmarkError, save, versions, write_request

HERE = Path(__file__).resolve().parent
METHODS = ("plain", "float32", "bfloat16")


def main() -> None:
    options = parse()
    try:
        results = measure(options)
    except BenchmarkError as error:
        raise SystemExit(f"winet benchmark: {error}") from None
    print(markdown(results))


def parse() -> argparse.Namespace:
    today = datetime.date.today().isoformat()
    parser = argparse.ArgumentParser(description="Compare WiNet's prediction with a plain torch build.")
    parser.add_argument("--shape", type=lambda text: tuple(map(int, text.split(","))), default=(160, 192, 224))
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2, help="runs of each method")
    default = HERE / "results" / f"winet_forward-{today}.json"
    parser.add_argument("-o", "--output", type=Path, default=default, help="JSON (default: %(default)s)")
    return parser.parse_args()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All runs, and how far each method's field is from the plain one.

    Raises:
        BenchmarkError: when a run fails.
    """
    runs: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(options.repeats):
            for method in METHODS[repeat % 3 :] + METHODS[: repeat % 3]:
                if found := _child(method, options, Path(folder)):
                    runs.setdefault(method, []).append(found)
                    print(f"{method}: {found}", file=sys.stderr, flush=True)
        differences = _differences(Path(folder), list(runs))
    results = {
        "benchmark": "winet_forward", "date": datetime.date.today().isoformat(), "machine": machine(),
        "versions": versions(("medwave", "torch", "numpy")), "runs": runs, "largest_difference_voxels": differences,
        "setup": {"shape": options.shape, "width": options.width, "threads": options.threads},
    }  # fmt: skip
    save(options.output, results)
    return results


def _child(method: str, options: argparse.Namespace, folder: Path) -> dict[str, float] | None:
    request = {
        "method": method, "shape": options.shape, "width": options.width, "threads": options.threads,
        "field": str(folder / f"{method}.npy"), "answer": str(folder / "answer.json"),
    }  # fmt: skip
    command = [sys.executable, str(HERE / "_winet_run.py"), write_request(folder, request)]
    cost = run_measured(command, threads=options.threads, log=folder / "log.txt")
    if cost.exit_code != 0:
        raise BenchmarkError(f"{method} ended with {cost.exit_code}: {last_line(folder / 'log.txt')}")
    answer = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
    if answer is None:
        return None
    return {"cpu_s": answer, "peak_rss_gb": cost.peak_rss_mb / 1e3}


def _differences(folder: Path, methods: list[str]) -> dict[str, float]:
    import numpy as np

    fields = {method: np.load(folder / f"{method}.npy") for method in methods}
    return {method: float(np.abs(fields[method] - fields["plain"]).max()) for method in methods}


def markdown(results: dict[str, Any]) -> str:
    """A row per method: means over its runs, and ratios to the plain build."""
    lines = [
        "| method | CPU s | of plain | peak RSS GB | of plain | largest difference, voxels |",
        "|---|---|---|---|---|---|",
    ]
    means = {
        method: [sum(run[key] for run in runs) / len(runs) for key in ("cpu_s", "peak_rss_gb")]
        for method, runs in results["runs"].items()
    }
    for method in (m for m in METHODS if m in means):
        (cpu, memory), (plain_cpu, plain_memory) = means[method], means["plain"]
        far = results["largest_difference_voxels"][method]
        row = (
            method,
            f"{cpu:.2f}",
            f"{cpu / plain_cpu:.2f}",
            f"{memory:.2f}",
            f"{memory / plain_memory:.2f}",
            f"{far:.1g}",
        )
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
