"""What it costs to begin: ``import medwave``, and ``--help`` of every command and subcommand.

    python benchmarks/start.py                        # prints a table and writes results/start-DATE.json

Commands are found by walking the command line itself, so that none is forgotten. Each call is a process of its own:
CPU seconds of user and system together, the least of three; ``python -c pass`` says what the interpreter takes of it.
Wanted: an import below 0.3 s, any help below 1 s. The exit code is 1 when one is slower.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _measure import last_line, machine, run_measured
from _results import save, versions

LIMITS_S = {"import": 0.3, "help": 1.0}
REPEATS = 3


def commands() -> Iterator[tuple[str, ...]]:
    """Words of every command and group, the program itself first as ``()``."""
    import typer

    from medwave.cli.app import app

    def below(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield words
        for name, child in getattr(command, "commands", {}).items():
            yield from below(child, (*words, name))

    yield from below(typer.main.get_command(app), ())


def least_cpu_s(arguments: list[str], folder: Path) -> float:
    """The least of :data:`REPEATS` runs.

    Raises:
        SystemExit: when a run fails, with the last line of what it said.
    """
    log = folder / "log.txt"
    found = []
    for _ in range(REPEATS):
        cost = run_measured(arguments, threads=1, log=log)
        if cost.exit_code:
            raise SystemExit(f"{' '.join(arguments)}: exit code {cost.exit_code}: {last_line(log)}")
        found.append(cost.cpu_s)
    return min(found)


def measure(chosen: list[tuple[str, ...]]) -> list[dict[str, Any]]:
    """A row per call: what, kind (``python``, ``import`` or ``help``) and CPU seconds."""
    calls = [("python -c pass", "python", ["-c", "pass"]), ("import medwave", "import", ["-c", "import medwave"])]
    calls += [
        (" ".join(("medwave", *words, "--help")), "help", ["-m", "medwave", *words, "--help"]) for words in chosen
    ]
    with tempfile.TemporaryDirectory() as folder:
        return [
            {"what": what, "kind": kind, "cpu_s": round(least_cpu_s([sys.executable, *words], Path(folder)), 3)}
            for what, kind, words in calls
        ]


def too_slow(rows: list[dict[str, Any]]) -> list[str]:
    """What takes as long as its limit, or longer."""
    return [row["what"] for row in rows if row["cpu_s"] >= LIMITS_S.get(row["kind"], float("inf"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    default = Path(__file__).parent / "results" / f"start-{today}.json"
    parser.add_argument("-o", "--output", type=Path, default=default, help="JSON file to write")
    output = parser.parse_args().output
    rows = measure(list(commands()))
    for row in rows:
        print(f"{row['cpu_s']:7.3f} s  {row['what']}")
    slow = too_slow(rows)
    save(
        output,
        {
            "machine": machine(), "versions": versions(("medwave", "typer", "rich")), "repeats": REPEATS,
            "limits_s": LIMITS_S, "calls": rows, "too_slow": slow,
        },
    )  # fmt: skip
    print(f"{len(slow)} over their limit" + (f": {json.dumps(slow)}" if slow else ""))
    raise SystemExit(bool(slow))


if __name__ == "__main__":
    main()
