"""medwave's wavelet layers against other libraries, as ratios to ``tensor.clone()`` of the same input.

    python benchmarks/wavelets.py                          # every cell on the CPU
    python benchmarks/wavelets.py --device cuda            # the same on a GPU
    python benchmarks/wavelets.py --networks --before DIR  # whole networks, against another checkout of medwave

One process per cell and setting takes all methods in turn; ``benchmarks/README.md`` says what is timed. What the output
file holds is kept, so a run that is started again, or with more methods, continues.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _measure import machine
from _results import BenchmarkError, save, versions
from _tables import markdown, print_tables
from _wavelet_table import context_lines, draw, grids
from rich.console import Console

HERE = Path(__file__).resolve().parent
SHAPES = ((1, 3, 1024, 1024), (8, 64, 112, 112), (1, 1, 160, 192, 224), (2, 32, 64, 64, 64))
WAVELETS = "haar,db2,bior2.2,bior3.3"
METHODS = "medwave,medwave zero,medwave torch,ptwt,pytorch_wavelets,PyWavelets,dense,dense per call"
PACKAGES = ("medwave", "ptwt", "pytorch_wavelets", "pywavelets", "torch", "numba", "numpy")

BUFFERS = {
    "fresh": {"MALLOC_MMAP_THRESHOLD_": "131072"},
    "reused": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(1 << 28)},
}
"""What glibc is told: every large tensor on new pages of the system, or memory that was used before is used again."""


def main() -> None:
    options = parse()
    try:
        run(options, Console() if sys.stdout.isatty() else Console(width=160))
    except BenchmarkError as error:
        raise SystemExit(f"wavelet benchmark: {error}") from None


def run(options: argparse.Namespace, console: Console) -> None:
    """Measure what was asked for, and show all that the output file holds."""
    if options.networks:
        from _wavelet_networks import compare

        results = load(options, "networks")
        results["networks"] = compare(options.before, options.rounds)
        save(options.output, results)
    elif not options.show:
        measure(options, load(options, "cells"), console)
    results = json.loads(options.output.read_text(encoding="utf-8"))
    if options.figure:
        draw(results, options.figure)
    if options.markdown:
        print(markdown(grids(results), context_lines(results)))
    else:
        print_tables(grids(results), context_lines(results), console)


def parse() -> argparse.Namespace:
    today = datetime.date.today().isoformat()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", default="1,2", help="of the CPU, separated by commas (default: %(default)s)")
    parser.add_argument("--buffers", default="fresh,reused", help="of %(default)s (CPU only)")
    parser.add_argument("--wavelets", default=WAVELETS, help="separated by commas (default: %(default)s)")
    parser.add_argument("--methods", default=METHODS, help="separated by commas (default: %(default)s)")
    parser.add_argument("--passes", default="forward,both,inverse", help="of %(default)s")
    parser.add_argument("--rounds", type=int, default=25, help="calls of each method (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.5, help="of a method and pass (default: %(default)s)")
    parser.add_argument("--networks", action="store_true", help="time WiNet and WaveUNet in place of the layers")
    parser.add_argument("--before", type=lambda p: Path(p).resolve(), help="checkout to compare the networks with")
    parser.add_argument("--show", action="store_true", help="measure nothing, show the output file")
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    parser.add_argument("--figure", type=Path, help="also draw the first setting to this PNG")
    default = HERE / "results" / f"wavelets-{today}.json"
    parser.add_argument("-o", "--output", type=Path, default=default, help="JSON (default: %(default)s)")
    options = parser.parse_args()
    if options.networks and options.before is None:
        parser.error("--networks needs --before CHECKOUT")
    return options


def settings(options: argparse.Namespace) -> Iterator[tuple[str, int, str]]:
    """Name, threads and buffers of each setting."""
    if options.device != "cpu":
        yield options.device, 1, ""
        return
    for threads in map(int, options.threads.split(",")):
        for buffers in options.buffers.split(","):
            yield f"cpu, {threads} thread{'s' if threads > 1 else ''}, {buffers} buffers", threads, buffers


def measure(options: argparse.Namespace, results: dict[str, Any], console: Console) -> None:
    """The missing methods of every cell under every setting; the file is written after each cell."""
    for name, threads, buffers in settings(options):
        cells = results["cells"].setdefault(name, {})
        for shape, wavelet in itertools.product(SHAPES, options.wavelets.split(",")):
            cell = cells.setdefault(f"{shape} {wavelet}", {})
            missing = [method for method in options.methods.split(",") if method not in cell]
            if not missing:
                continue
            request = {
                "shape": shape, "wavelets": [wavelet], "methods": missing, "device": options.device,
                "threads": threads, "rounds": options.rounds, "seconds": options.seconds,
                "passes": options.passes.split(","), "memory": threads == 1 and buffers != "reused",
            }  # fmt: skip
            command = [sys.executable, str(HERE / "_wavelet_run.py"), json.dumps(request)]
            environment = {**os.environ, "OMP_NUM_THREADS": str(threads), **BUFFERS.get(buffers, {})}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
                raise BenchmarkError(f"{name}, {shape} {wavelet}: {reason}")
            cell |= json.loads(done.stdout)[wavelet]
            save(options.output, results)
            console.print(f"{name}: {shape} {wavelet} done", highlight=False)


def load(options: argparse.Namespace, part: str) -> dict[str, Any]:
    """The output file so far, or a new one."""
    if options.output.is_file():
        results = json.loads(options.output.read_text(encoding="utf-8"))
    else:
        results = {"benchmark": "wavelets", "date": datetime.date.today().isoformat(), "machine": machine()}
        results |= {"versions": versions(PACKAGES)}
    results.setdefault(part, {})
    return results


if __name__ == "__main__":
    main()
