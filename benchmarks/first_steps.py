"""What a new user waits for: from an empty folder to a registered pair and a traced neuron, each command by itself.

    python benchmarks/first_steps.py dist/medwave-*.whl       # prints a table, writes results/first_steps-DATE.json

In a new environment in a temporary folder: torch, the wheel with the extra ``demo``, then the commands of
docs/get-started.md, on the samples that the demos leave. Loops are compiled by the first command that needs them, as
on any new machine. CPU seconds are of user and system together, on all processors. Downloads come through pip as it
is configured. A command that fails ends the program with the last line of what it said.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import sys
import tempfile
from pathlib import Path

from _measure import last_line, machine, run_measured
from _results import save, versions

CONSTRAINTS = Path(__file__).parents[1] / "constraints" / "cpu.txt"
PAIR = "demo/sample/fixed.nii.gz demo/sample/moving.nii.gz"
STEPS = (
    "medwave demo brains -o demo",
    "medwave demo brains -o again",
    f"medwave register {PAIR} -o result",
    "medwave apply result demo/sample/moving.nii.gz -o moved",
    "medwave demo neuron -o demo-neuron",
    "medwave reconstruct demo-neuron/sample/neuron.tif -o neuron",
    "medwave trace demo-neuron/sample/neuron.tif -o tree.swc --report tree.html",
    "medwave score tree.swc demo-neuron/sample/true_tree.swc",
)
"""Commands in their order, after those that install."""


def commands(wheel: Path, home: Path) -> list[tuple[str, list[str]]]:
    """What is shown of each command, and its words."""
    scripts = home / "env" / "bin"
    pip = [str(scripts / "python"), "-m", "pip", "install", "--quiet", "-c", str(CONSTRAINTS)]
    install = [
        ("python3 -m venv env", [sys.executable, "-m", "venv", str(home / "env")]),
        ("pip install torch", [*pip, "torch"]),
        ('pip install "medwave[demo]"', [*pip, f"{wheel.resolve()}[demo]"]),
    ]
    return install + [(text, [str(scripts / "medwave"), *text.split()[1:]]) for text in STEPS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    default = Path(__file__).parent / "results" / f"first_steps-{today}.json"
    parser.add_argument("wheel", type=Path, help="made by: python -m build --wheel")
    parser.add_argument("--threads", type=int, default=2, help="told to all libraries")
    parser.add_argument("-o", "--output", type=Path, default=default, help="JSON file to write")
    options = parser.parse_args()
    rows, output = [], options.output.resolve()
    with tempfile.TemporaryDirectory() as folder:
        planned = commands(options.wheel, Path(folder))
        with contextlib.chdir(folder):
            for text, words in planned:
                cost = run_measured(words, threads=options.threads, log=Path("log.txt"))
                if cost.exit_code:
                    raise SystemExit(f"{text}: exit code {cost.exit_code}: {last_line(Path('log.txt'))}")
                rows.append({
                    "command": text, "cpu_s": round(cost.cpu_s, 1), "wall_s": round(cost.wall_s, 1),
                    "peak_rss_mb": round(cost.peak_rss_mb),
                })  # fmt: skip
                print(f"{cost.cpu_s:7.1f} CPU s  {cost.wall_s:7.1f} s  {text}", flush=True)
    save(
        output,
        {"machine": machine(), "versions": versions(("medwave", "torch")), "threads": options.threads, "steps": rows},
    )


if __name__ == "__main__":
    main()
