"""Recognition heads on real pictures: the same network and budget for each, with and without wavelets, over seeds.

    pip install "medwave[train]"
    python benchmarks/recognition_runs.py --data FOLDER

Omniglot (trained on small background set 1, verified on the characters of set 2, ten drawings of each), ORL (trained on
30 people, verified on the other 10) and a subset of CIFAR-10 (trained and classified; USS has no scores of classes and
is left out). The last weights are scored: nothing is chosen by the scored pictures. ``_recognition_sets.py`` says what
FOLDER holds, ``benchmarks/README.md`` what the columns mean. A finished run is a row of the output file at once;
started again the program goes on with the next. ``--minutes`` begins no run after so many, ``--table`` only prints the
tables of a file.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import tempfile
import time
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from _measure import machine
from _recognition_sets import DRAWINGS, ORL_TRAINED, classification, load, verification
from _results import BenchmarkError, save, versions

from medwave.data import FaceItems
from medwave.engine.fit import FitOptions, fit
from medwave.workflows.recognition_options import TrainRecogniseOptions, picture_size
from medwave.workflows.train_recognise import face_network, head_loss, recognition_head

HERE = Path(__file__).resolve().parent
HEADS = ("softmax", "cosface", "bce", "uss", "unitsface", "epl")
NO_CLASSES = ("uss",)
WAVELETS = (None, "haar")
NETWORK: dict[str, Any] = {"depth": 18, "width": 8, "dimension": 64, "dropout": 0.4, "scale": 64.0}
SETTINGS: dict[str, dict[str, Any]] = {
    "omniglot": {"size": "32", "channels": 1, "mirror": False, "shift": 2, "epochs": 6, "batch": 64},
    "orl": {"size": "32", "channels": 1, "mirror": True, "shift": 2, "epochs": 16, "batch": 30},
    "cifar": {"size": "32", "channels": 3, "mirror": True, "shift": 3, "epochs": 6, "batch": 90},
}
FIT: dict[str, Any] = {
    "optimiser": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "schedule": "cosine", "warm_up": 1,
    "gradient_norm": 10.0, "average": 0.0,
}  # fmt: skip
MEASURES = {
    "omniglot": {"eer": "EER, %", "tar_at_far_1e-3": "TAR at FAR 1e-3, %", "auroc": "AUROC, %"},
    "orl": {"eer": "EER, %", "tar_at_far_1e-3": "TAR at FAR 1e-3, %", "auroc": "AUROC, %"},
    "cifar": {"a_sw": "A_SW, %", "a_cw": "A_CW, %", "a_uni": "A_Uni, %", "threshold": "t*", "learned": "b"},
}
_IN_PERCENT = ("eer", "tar_at_far_1e-3", "auroc", "a_sw", "a_cw", "a_uni")
_STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""97.5 % point of Student's distribution for so many runs."""


def main() -> None:
    options = parse()
    try:
        results = read(options.output) if options.table else run(options)
    except BenchmarkError as error:
        raise SystemExit(f"recognition benchmark: {error}") from None
    print(markdown(results))


def parse() -> argparse.Namespace:
    today = datetime.date.today().isoformat()
    parser = argparse.ArgumentParser(description="Compare recognition heads on real pictures.")
    parser.add_argument("--data", type=Path, help="folder of the three sets")
    parser.add_argument("--sets", default=",".join(SETTINGS), help="(default: %(default)s)")
    parser.add_argument("--heads", default=",".join(HEADS), help="(default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ... (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after so many")
    parser.add_argument("--table", action="store_true", help="print the tables of the output file, train nothing")
    default = HERE / "results" / f"recognition_runs-{today}.json"
    parser.add_argument("-o", "--output", type=Path, default=default, help="JSON (default: %(default)s)")
    options = parser.parse_args()
    if options.data is None and not options.table:
        parser.error("name the folder of the sets with --data")
    return options


def read(path: Path) -> dict[str, Any]:
    """Earlier results.

    Raises:
        BenchmarkError: when there are none, or they have other settings.
    """
    if not path.is_file():
        raise BenchmarkError(f"{path}: no such results")
    results = json.loads(path.read_text(encoding="utf-8"))
    if results["settings"] != settings():
        raise BenchmarkError(f"{path} holds runs with other settings; choose another -o")
    return results


def settings() -> dict[str, Any]:
    limits = {"drawings": DRAWINGS, "orl_trained": ORL_TRAINED}
    return {"network": NETWORK, "fit": FIT, "sets": SETTINGS, "limits": limits}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Train what is missing, seed by seed; results are on disk after every run."""
    began = time.monotonic()
    torch.set_num_threads(1)
    results: dict[str, Any] = {
        "benchmark": "recognition_runs", "date": datetime.date.today().isoformat(), "settings": settings(),
        "machine": machine(), "versions": versions(("medwave", "torch", "monai", "numpy")), "runs": [],
    }  # fmt: skip
    if options.output.is_file():
        results["runs"] = read(options.output)["runs"]
    for name, head, wavelet, seed in plan(options):
        key = {"set": name, "head": head, "wavelet": wavelet, "seed": seed}
        if any(key.items() <= row.items() for row in results["runs"]):
            continue
        if time.monotonic() - began > 60 * options.minutes:
            break
        row = key | train(name, head, wavelet, seed, options.data)
        results["runs"].append(row)
        save(options.output, results)
        print(json.dumps(row), flush=True)
    return results


def plan(options: argparse.Namespace) -> list[tuple[str, str, str | None, int]]:
    """All runs in their order: verification first; seed by seed, so that an early end has all heads."""
    sets, heads = options.sets.split(","), options.heads.split(",")
    wanted = [
        (name, head, wavelet, seed)
        for task in ([s for s in sets if s != "cifar"], [s for s in sets if s == "cifar"])
        for seed, name, head, wavelet in itertools.product(range(options.seeds), task, heads, WAVELETS)
    ]
    return [each for each in wanted if not (each[0] == "cifar" and each[1] in NO_CLASSES)]


def train(name: str, head_name: str, wavelet: str | None, seed: int, data: Path) -> dict[str, Any]:
    """One run: its scores and its cost."""
    options = TrainRecogniseOptions(
        head=head_name, wavelet=wavelet, seed=seed, **NETWORK, **SETTINGS[name],
        **FIT,
    )  # fmt: skip
    sets = load(name, data, options)
    began = time.process_time()
    torch.manual_seed(seed)
    network = face_network(options).to(memory_format=torch.channels_last)
    head = recognition_head(options, len(sets.training.names))
    steps = len(sets.training) // options.batch
    items = FaceItems(
        sets.training, options.epochs * steps * options.batch, picture_size(options.size), channels=options.channels,
        mirror=options.mirror, shift=options.shift, seed=seed,
    )  # fmt: skip
    losses: list[float] = []
    last = itertools.count()  # a later epoch is a better one: the last weights are kept
    with tempfile.TemporaryDirectory() as folder:
        fit(
            network, items, head_loss(head), lambda model: float(next(last)), folder,
            options=FitOptions(epochs=options.epochs, steps=steps, batch=options.batch, seed=seed, **FIT), head=head,
            after_update=network.hold_slopes, report=lambda epoch, loss, score: losses.append(loss),
        )  # fmt: skip
    cpu_s = time.process_time() - began
    network.eval()
    head.eval()
    if name == "cifar":
        scores: dict[str, Any] = classification(network, head, sets.scored, options)
    else:
        scores = verification(network, sets.scored, options)
    parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return {"parameters": parameters, "train_cpu_s": round(cpu_s, 2), "losses": losses, **scores}


def markdown(results: dict[str, Any]) -> str:
    """The tables with their context."""
    about = results["machine"]
    lines = [
        f"- {results['date']}; {about['cpu']}, {about['cores']} cores, {about['system']}, Python {about['python']}; "
        "one thread",
        "- " + ", ".join(f"{name} {version}" for name, version in results["versions"].items()),
    ]
    for name, measures in MEASURES.items():
        rows = [row for row in results["runs"] if row["set"] == name]
        if rows:
            heading = ["head", "wavelet", "seeds", *measures.values(), "train CPU s"]
            lines += ["", f"{name}:", "", *_table(heading, [_row(group, measures) for group in _groups(rows)])]
            lines += ["", *_differences(rows, next(iter(measures)))]
    return "\n".join(lines)


def _groups(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    keys = dict.fromkeys((row["head"], row["wavelet"]) for row in rows)
    return [[row for row in rows if (row["head"], row["wavelet"]) == key] for key in keys]


def _row(group: list[dict[str, Any]], measures: dict[str, str]) -> list[str]:
    values = [_interval([row[m] for row in group], 100 if m in _IN_PERCENT else 1) for m in measures]
    cost = f"{fmean(row['train_cpu_s'] for row in group):.0f}"
    return [group[0]["head"], group[0]["wavelet"] or "none", str(len(group)), *values, cost]


def _interval(values: list[float | None], factor: float) -> str:
    """Mean and half the width of its 95 % confidence interval (Student); the value alone for one run."""
    known = [factor * v for v in values if v is not None]
    if len(known) < len(values) or not known:
        return ""
    digits = 2 if factor == 100 else 3
    if len(known) == 1:
        return f"{known[0]:.{digits}f}"
    half = _STUDENT[len(known)] * stdev(known) / len(known) ** 0.5
    return f"{fmean(known):.{digits}f} ± {half:.{digits}f}"


def _differences(rows: list[dict[str, Any]], measure: str) -> list[str]:
    """Run by run, each seed against the same seed: heads against softmax, wavelets against none."""
    by_key = {(row["head"], row["wavelet"], row["seed"]): row[measure] for row in rows}
    found = []
    for head in dict.fromkeys(row["head"] for row in rows):
        for title, one, other in (
            [(f"{head} - softmax, wavelet {w or 'none'}", (head, w), ("softmax", w)) for w in WAVELETS]
            if head != "softmax"
            else []
        ) + [(f"{head}: haar - none", (head, "haar"), (head, None))]:
            seeds = [s for s in range(max(_STUDENT)) if (*one, s) in by_key and (*other, s) in by_key]
            if seeds:
                gaps = [by_key[*one, s] - by_key[*other, s] for s in seeds]
                each = ", ".join(f"{100 * gap:+.2f}" for gap in gaps)
                found.append(f"- {title}: {_interval(list(gaps), 100)} ({each})")
    return [f"Differences of {measure} in percent points, seed by seed:", "", *found]


def _table(heading: list[str], rows: list[list[str]]) -> list[str]:
    rule = ["---", "---", *["---:"] * (len(heading) - 2)]
    return [f"| {' | '.join(line)} |" for line in (heading, rule, *rows)]


if __name__ == "__main__":
    main()
