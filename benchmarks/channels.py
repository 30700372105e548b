"""Channels that explain themselves: faces of ORL with the ECLoss-style loss of medwave and without, over seeds.

    pip install "medwave[train]"
    python benchmarks/channels.py train --data FOLDER     # a JSON row for each run; resumable
    python benchmarks/channels.py table                   # means, and differences with intervals
    python benchmarks/channels.py figure                  # maps of both for strangers' faces

One network and one budget: IR-ResNet-18 of width 8 on 64 x 64 pixels under CosFace, trained on 30 people; the other ten
are scored, and the last weights are. The loss works on the 32 maps of 8 x 8 before the last stage.

Verification is of all pairs of the strangers' pictures, each picture moved by as many pixels as are named along each
axis at random, the border repeated. Instability of a channel is how far its peak wanders from eyes, nose and mouth.
ORL has no landmarks: these stand where they are in the mean face, the same for all pictures, so that the turning of
heads counts as wandering for both networks; where pictures were moved, they were moved along.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from _measure import machine
from _results import versions
from backbones import append_row, interval, read_rows

HERE = Path(__file__).parent
ROWS = HERE / "results" / "channels_orl.jsonl"
FIGURE = HERE.parent / "docs" / "images" / "channels.png"
SIDE = 64
SHIFTS = (0, 4, 8)
"""Pixels that pictures are moved by at most along each axis; in training it is 4."""

LANDMARKS = ((0.46, 0.32), (0.46, 0.66), (0.60, 0.50), (0.75, 0.49))
"""Eyes, nose and mouth of the mean face, as shares of its height and width."""

SHOWN = ((0, 4), (6, 7), (9, 1))
"""Strangers and which of their pictures the figure shows the maps of."""


def main() -> None:
    """Run one of the three parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    train = parts.add_parser("train", help="train and score")
    train.add_argument("--data", type=Path, required=True, help="folder that holds orl_faces/orl_faces.npz")
    train.add_argument(
        "--weights", nargs="+", type=float, default=[0.0, 1.0], help="of the loss on channels; 0 is none"
    )
    train.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    train.add_argument("--epochs", type=int, default=8)
    table = parts.add_parser("table", help="the table from the rows")
    figure = parts.add_parser("figure", help="the picture from what a seed left")
    figure.add_argument("--seed", type=int, default=0)
    figure.add_argument("--output", type=Path, default=FIGURE)
    for part in (train, figure):
        part.add_argument(
            "--work", type=Path, default=Path("explained-work"), help="folder for maps of the faces shown"
        )
    for part in (train, table):
        part.add_argument("--rows", type=Path, default=ROWS)
    arguments = parser.parse_args()
    {"train": compare, "table": show, "figure": draw}[arguments.part](arguments)


def compare(arguments: argparse.Namespace) -> None:
    """Train and score what has no row yet, seed by seed."""
    import torch

    torch.set_num_threads(1)
    for seed in arguments.seeds:
        for weight in arguments.weights:
            run = f"weight {weight:g} epochs {arguments.epochs} seed {seed}"
            if run in {row["run"] for row in read_rows(arguments.rows)}:
                continue
            row = {"run": run, "weight": weight, "seed": seed, "epochs": arguments.epochs}
            row |= one_run(arguments, weight, seed)
            row |= {"date": datetime.now(UTC).strftime("%Y-%m-%d"), "machine": machine(),
                    "versions": versions(("medwave", "torch", "monai", "numpy"))}  # fmt: skip
            append_row(arguments.rows, row)
            print(f"{run}: {measures(row)}", flush=True)


def one_run(arguments: argparse.Namespace, weight: float, seed: int) -> dict[str, Any]:
    """A network trained, and what its maps and features say of strangers."""
    import torch
    from _recognition_sets import load
    from recognition_runs import FIT, NETWORK, SETTINGS

    from medwave.data import FaceItems
    from medwave.engine.fit import FitOptions, fit
    from medwave.workflows.recognition_options import TrainRecogniseOptions
    from medwave.workflows.train_recognise import face_network, head_and_loss

    set_up = SETTINGS["orl"] | {"size": str(SIDE), "shift": 4, "epochs": arguments.epochs}
    options = TrainRecogniseOptions(head="cosface", explain=weight, seed=seed, **NETWORK, **set_up, **FIT)
    sets = load("orl", arguments.data, options)
    start = time.process_time()
    torch.manual_seed(seed)
    network = face_network(options)
    head, loss = head_and_loss(network, options, len(sets.training.names))
    steps = len(sets.training) // options.batch
    items = FaceItems(
        sets.training, options.epochs * steps * options.batch, (SIDE, SIDE), channels=options.channels,
        mirror=options.mirror, shift=options.shift, seed=seed,
    )  # fmt: skip
    scored = iter(range(options.epochs))  # a later epoch is a better one: the last weights are kept
    with tempfile.TemporaryDirectory() as folder:
        fitting = FitOptions(epochs=options.epochs, steps=steps, batch=options.batch, seed=seed, **FIT)
        fit(network, items, loss, lambda model: float(next(scored)), folder, options=fitting, head=head,
            after_update=network.hold_slopes)  # fmt: skip
    taken = time.process_time() - start
    network.eval()
    found: dict[str, Any] = {"train_cpu_s": round(taken, 1)}
    for shift in SHIFTS:
        found |= {f"{name}_{shift}": value for name, value in _of_strangers(network, sets.scored, shift).items()}
    _keep_maps(network, sets.scored, arguments.work / f"{weight:g}-{seed}.npz")
    return found


def _of_strangers(network: Any, scored: Any, shift: int) -> dict[str, float]:
    """Equal error rate, and what the maps do, on pictures moved by chance, in the same way for all networks."""
    import torch

    from medwave.metrics import VerificationScores, channel_peaks, equal_error_rate, location_instability
    from medwave.transforms.faces import normalise, shifted

    moves = np.random.default_rng((shift, 5)).integers(-shift, shift, (len(scored), 2), endpoint=True)
    moved = [shifted(scored.picture(n), *moves[n]) for n in range(len(scored))]
    with torch.inference_mode():
        features, maps = network.with_maps(torch.stack([normalise(picture) for picture in moved]))
    pairs = VerificationScores()
    pairs.update_all_pairs(features.numpy(), scored.labels)
    peaks = channel_peaks(maps.numpy(), (SIDE, SIDE))
    places = SIDE * np.array(LANDMARKS) - 0.5 + moves[:, None]
    return {
        "eer": equal_error_rate(*pairs.arrays()).rate,
        "instability": float(np.nanmean(location_instability(peaks, places))),
        "concentration": float(np.nanmean(peaks.concentration)),
        "entropy": float(np.nanmean(peaks.entropy)),
        "silent": float(np.mean(peaks.heights == 0)),
    }


def _keep_maps(network: Any, scored: Any, path: Path) -> None:
    import torch

    from medwave.transforms.faces import normalise

    labels = np.asarray(scored.labels)
    people = np.unique(labels)
    numbers = [np.flatnonzero(labels == people[who])[which] for who, which in SHOWN]
    faces = np.stack([scored.picture(n) for n in numbers])
    with torch.inference_mode():
        maps = network.with_maps(torch.stack([normalise(face) for face in faces]))[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, maps=maps.clamp(min=0).numpy())


def measures(row: dict[str, Any]) -> dict[str, float]:
    """What the table shows of a row: rates and shares in per cent, instability in per cent of the diagonal."""
    found = {f"EER, % (moved by {shift})": 100 * row[f"eer_{shift}"] for shift in SHIFTS}
    found |= {f"instability, % (moved by {shift})": 100 * row[f"instability_{shift}"] for shift in SHIFTS}
    return found | {
        "energy at the peak, %": 100 * row["concentration_0"], "entropy, nats": row["entropy_0"],
        "maps that are silent, %": 100 * row["silent_0"], "train CPU s": row["train_cpu_s"],
    }  # fmt: skip


def show(arguments: argparse.Namespace) -> None:
    """Print the table."""
    print("\n".join(tables(read_rows(arguments.rows))))


def tables(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of Markdown: a row per measure, means over the seeds that both have, and differences with intervals."""
    weights = sorted({row["weight"] for row in rows} - {0.0})
    plain = {row["seed"]: measures(row) for row in rows if row["weight"] == 0}
    lines = ["| | without | with | difference | seeds |", "|---|---:|---:|---:|---:|"]
    for weight in weights:
        pairs = [(plain[r["seed"]], measures(r)) for r in rows if r["weight"] == weight and r["seed"] in plain]
        lines += [f"| **weight {weight:g}** | | | | |"] if len(weights) > 1 else []
        for name in pairs[0][0] if pairs else ():
            before, after = (np.array([pair[side][name] for pair in pairs]) for side in (0, 1))
            mean, half = interval(after - before)
            told = f"{mean:+.2f} ± {half:.2f}" if np.isfinite(half) else f"{mean:+.2f}"
            lines.append(f"| {name} | {before.mean():.2f} | {after.mean():.2f} | {told} | {len(pairs)} |")
    return lines


def draw(arguments: argparse.Namespace) -> None:
    """Maps of every fourth channel, above without the loss on channels and below with it, without the faces."""
    from PIL import Image, ImageDraw, ImageFont

    files = sorted(arguments.work.glob(f"*-{arguments.seed}.npz"), key=lambda path: float(path.stem.rsplit("-", 1)[0]))
    blocks = [(float(path.stem.rsplit("-", 1)[0]), *_block(path)) for path in (files[0], files[-1])]
    height, width = blocks[0][1].shape[:2]
    sheet = Image.new("RGB", (width, 2 * height + 60), (16, 18, 20))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=15)
    for place, (weight, picture, channels) in enumerate(blocks):
        top = place * (height + 30)
        said = "without the loss on channels" if weight == 0 else f"with the loss on channels, weight {weight:g}"
        numbers = ", ".join(map(str, channels))
        pen.text((8, top + 6), f"CosFace {said}; channels {numbers}", font=font, fill=(226, 230, 234))
        sheet.paste(Image.fromarray(picture), (0, top + 30))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(128).save(arguments.output, optimize=True)
    print(f"{arguments.output}: {sheet.width} x {sheet.height}, {arguments.output.stat().st_size // 1000} kB")


def _block(path: Path, channels: int = 8, zoom: int = 2) -> tuple[np.ndarray, list[int]]:
    """A row for each face: the maps of so many channels, evenly spread and so not chosen by their looks."""
    from medwave.reports import colours

    with np.load(path) as content:
        maps = content["maps"]
    shown = np.arange(0, maps.shape[1], maps.shape[1] // channels)
    side, rows = zoom * SIDE, []
    for own in maps:
        tiles = []
        for channel in shown:
            size = (side // own.shape[1], side // own.shape[2])
            level = np.kron(own[channel] / max(own[channel].max(), 1e-12), np.ones(size))[..., None]
            tile = (32 + level * (np.array(colours.ORANGE) - 32)).astype(np.uint8)
            for down, right in LANDMARKS:
                at = round(down * side), round(right * side)
                tile[at[0] - 1 : at[0] + 2, at[1] - 1 : at[1] + 2] = 255
            tiles.append(tile)
        gap = np.zeros((side, 4, 3), np.uint8)
        rows.append(np.concatenate([part for tile in tiles for part in (tile, gap)][:-1], axis=1))
    gap = np.zeros((4, rows[0].shape[1], 3), np.uint8)
    return np.concatenate([part for row in rows for part in (row, gap)][:-1]), shown.tolist()


if __name__ == "__main__":
    sys.exit(main())
