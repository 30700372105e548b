"""medwave against other registration tools on pairs of labelled brains, from the same affine.

    pip install "medwave[bench]"
    python benchmarks/registration.py --images FOLDER

FOLDER holds ``ID_T1_brain.nii.gz`` (skull stripped) and ``ID_labels.nii.gz`` of each brain. Every method starts from
the same affine and runs in a process of its own, pair by pair, the order of the methods turning by one from pair to
pair. ``benchmarks/README.md`` says what the columns mean. Finished runs are kept in the output file; a run that is
started again continues there.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from _measure import Cost, last_line, machine, run_measured
from _registration_methods import PACKAGES, SETTINGS
from _registration_table import context_lines, grids
from _results import BenchmarkError, save, versions, write_request
from _tables import markdown, print_tables
from rich.console import Console

HERE = Path(__file__).resolve().parent
PAIRS = (
    "1003:1009,1000:1017,1107:1036,1119:1001,1009:1003,1017:1000,1036:1107,1001:1119,"
    "1001:1003,1017:1107,1009:1119,1036:1000"
)
METHODS = "medwave,medwave-command,medwave-command-fast,medwave-command-accurate,greedy,demons,elastix"
COMMAND = "medwave-command"
_MORE_PACKAGES = ("torch", "numba", "numpy")


def main() -> None:
    options = parse()
    console = Console() if sys.stdout.isatty() else Console(width=140)
    try:
        results = Benchmark(options, console).run()
    except BenchmarkError as error:
        raise SystemExit(f"registration benchmark: {error}") from None
    if options.markdown:
        print(markdown(grids(results), context_lines(results)))
    else:
        print_tables(grids(results), context_lines(results), console)


def parse() -> argparse.Namespace:
    today = datetime.date.today().isoformat()
    parser = argparse.ArgumentParser(description="Compare medwave with other registration tools.")
    parser.add_argument(
        "--images",
        type=lambda path: Path(path).resolve(),
        required=True,
        help="folder of *_T1_brain.nii.gz and *_labels.nii.gz",
    )
    parser.add_argument("--pairs", default=PAIRS, help="moving:fixed, separated by commas (default: %(default)s)")
    parser.add_argument("--methods", default=METHODS, help=f"of {', '.join(SETTINGS)} (default: %(default)s)")
    parser.add_argument("--affine", choices=("medwave", "ants"), default="medwave", help="who makes the affine")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1, help="runs of each method on each pair")
    parser.add_argument("--fresh", action="store_true", help="measure the chosen methods and pairs again")
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    default = HERE / "results" / f"registration-{today}.json"
    parser.add_argument("-o", "--output", type=Path, default=default, help="JSON (default: %(default)s)")
    return parser.parse_args()


class Benchmark:
    """The runs, and the file that keeps them."""

    def __init__(self, options: argparse.Namespace, console: Console) -> None:
        self.options, self.console = options, console
        self.methods = options.methods.split(",")
        self.pairs = [tuple(pair.split(":")) for pair in options.pairs.split(",")]
        self.files = self._check()
        self.versions = versions((*PACKAGES.values(), *_MORE_PACKAGES))
        self.results = self._load()

    def run(self) -> dict[str, Any]:
        """Measure what is missing; the results are on disk after every run."""
        if "structures" not in self.results:
            found = self._score({"all_labels": sorted(map(str, self.options.images.glob("*_labels.nii.gz")))})
            self.results["structures"] = found["structures"]
        todo = self._todo()
        if any(PACKAGES[method] == "medwave" for _, _, method in todo):
            self.console.print("warming up: compiled loops are cached on disk by an untimed run")
            with tempfile.TemporaryDirectory() as folder:
                self._measure(COMMAND, self.pairs[0], Path(folder))
        for pair in self.pairs:
            self._start(pair)
        for repeat, pair, method in todo:
            self._cell(repeat, pair, method)
        return self.results

    def _check(self) -> dict[str, tuple[Path, Path]]:
        """Id -> image and label map of every brain that is needed."""
        for method in self.methods:
            if method not in SETTINGS:
                raise BenchmarkError(f"unknown method {method!r}; there are {', '.join(SETTINGS)}")
        for package in {PACKAGES[name] for name in (*self.methods, self.options.affine)}:
            try:
                metadata.version(package)
            except metadata.PackageNotFoundError:
                raise BenchmarkError(f"{package} is missing: pip install 'medwave[bench]'") from None
        if any(len(pair) != 2 for pair in self.pairs):
            raise BenchmarkError(f"pairs are written moving:fixed,moving:fixed, got {self.options.pairs!r}")
        if min(self.options.threads, self.options.repeats) < 1:
            raise BenchmarkError("--threads and --repeats are 1 or more")
        names = {name for pair in self.pairs for name in pair}
        folder = self.options.images
        files = {name: (folder / f"{name}_T1_brain.nii.gz", folder / f"{name}_labels.nii.gz") for name in names}
        for path in (path for both in files.values() for path in both):
            if not path.is_file():
                raise BenchmarkError(f"{path}: no such file; --images names the folder, --pairs the brains in it")
        return files

    def _load(self) -> dict[str, Any]:
        options = self.options
        setup = {"affine": options.affine, "threads": options.threads}
        results = {
            "benchmark": "registration", "date": datetime.date.today().isoformat(), "setup": setup,
            "machine": machine(), "versions": self.versions, "settings": SETTINGS, "pairs": {},
        }  # fmt: skip
        if not options.output.is_file():
            return results
        older = json.loads(options.output.read_text(encoding="utf-8"))
        if older["setup"] != setup or older["machine"] != results["machine"]:
            raise BenchmarkError(
                f"{options.output} holds runs with another affine, threads or machine; choose another -o"
            )
        if options.fresh:
            for pair in (older["pairs"].get(":".join(pair)) for pair in self.pairs):
                for method in self.methods if pair else ():
                    pair["runs"].pop(method, None)
            older["pairs"] = {name: pair for name, pair in older["pairs"].items() if pair["runs"]}
        return {**results, "structures": older["structures"], "pairs": older["pairs"]}

    def _todo(self) -> list[tuple[int, tuple[str, str], str]]:
        """Runs that are missing, pair by pair, the methods in turning order."""
        todo = []
        for repeat in range(self.options.repeats):
            for number, pair in enumerate(self.pairs):
                turn = (number + repeat) % len(self.methods)
                for method in self.methods[turn:] + self.methods[:turn]:
                    if not self._finished(repeat, pair, method):
                        todo.append((repeat, pair, method))
        return todo

    def _finished(self, repeat: int, pair: tuple[str, str], method: str) -> bool:
        runs = self.results["pairs"].get(":".join(pair), {"runs": {}})["runs"].get(method, [])
        if repeat >= len(runs) or "error" in runs[repeat]:
            return False
        same_settings = runs[repeat]["settings"] == json.loads(json.dumps(SETTINGS[method]))
        return same_settings and runs[repeat]["version"] == self.versions[PACKAGES[method]]

    def _start(self, pair: tuple[str, str]) -> None:
        """The affine that all methods of a pair share."""
        name = ":".join(pair)
        if name in self.results["pairs"]:
            return
        with tempfile.TemporaryDirectory() as folder:
            cost = self._measure(f"affine-{self.options.affine}", pair, Path(folder))
            matrix = json.loads((Path(folder) / "affine.json").read_text(encoding="utf-8"))
        score = self._score(self._score_request(pair, matrix))
        package = PACKAGES[self.options.affine]
        made_by = {"package": package, "version": self.versions[package]}
        affine = {"matrix": matrix, **made_by, **_costs(cost), **score}
        self.results["pairs"][name] = {"affine": affine, "runs": {}}
        self.console.print(f"{name} affine: {cost.cpu_s:.1f} CPU s, Dice {score['dice_common']:.4f}", highlight=False)
        save(self.options.output, self.results)

    def _cell(self, repeat: int, pair: tuple[str, str], method: str) -> None:
        name = ":".join(pair)
        run: dict[str, Any] = {
            "date": datetime.datetime.now().isoformat(timespec="seconds"),
            "package": PACKAGES[method],
            "version": self.versions[PACKAGES[method]],
            "settings": SETTINGS[method],
        }
        try:
            with tempfile.TemporaryDirectory() as folder:
                run |= self._run(pair, method, Path(folder))
            said = f"{run['deformable_cpu_s']:.1f} CPU s ({run['cpu_s']:.1f} in all), Dice {run['dice_common']:.4f}"
        except BenchmarkError as error:
            run["error"] = said = str(error)
        runs = self.results["pairs"][name]["runs"].setdefault(method, [])
        runs[repeat : repeat + 1] = [run]
        self.console.print(f"{name} {method}: {said}", highlight=False, markup=False)
        save(self.options.output, self.results)

    def _run(self, pair: tuple[str, str], method: str, folder: Path) -> dict[str, Any]:
        cost = self._measure(method, pair, folder)
        matrix = self.results["pairs"][":".join(pair)]["affine"]["matrix"]
        request = self._score_request(pair, matrix)
        if method.startswith(COMMAND):
            done = json.loads((folder / "result" / "run.json").read_text(encoding="utf-8"))
            stages = {stage["name"]: stage["cpu_s"] for stage in done["stages"]}
            more = {"deformable_cpu_s": stages["prepare"] + stages["refine"], "stages_cpu_s": stages}
            request["result"] = str(folder / "result")
        else:
            more = json.loads((folder / "method.json").read_text(encoding="utf-8"))
            request["field"] = str(folder / "field.npy")
        return {**_costs(cost), **more, **self._score(request)}

    def _measure(self, method: str, pair: tuple[str, str], folder: Path) -> Cost:
        """One method in its own process.

        Raises:
            BenchmarkError: when it fails, with the last line that it printed.
        """
        moving, fixed = (str(self.files[name][0]) for name in pair)
        if method.startswith(COMMAND):
            preset = method.removeprefix(COMMAND).removeprefix("-")
            command = [_medwave(), "register", fixed, moving, "-o", str(folder / "result")]
            command += ["--preset", preset] if preset else []
        else:
            known = self.results["pairs"].get(":".join(pair))
            request = {"fixed": fixed, "moving": moving, "threads": self.options.threads, "folder": str(folder)}
            request["affine"] = known["affine"]["matrix"] if known else None
            command = [sys.executable, str(HERE / "_registration_methods.py"), method, write_request(folder, request)]
        cost = run_measured(command, threads=self.options.threads, log=folder / "log.txt")
        if cost.exit_code != 0:
            raise BenchmarkError(f"{method} ended with {cost.exit_code}: {last_line(folder / 'log.txt')}")
        return cost

    def _score_request(self, pair: tuple[str, str], matrix: list[list[float]]) -> dict[str, Any]:
        (_, moving_labels), (fixed, fixed_labels) = (self.files[name] for name in pair)
        paths = {"fixed": fixed, "fixed_labels": fixed_labels, "moving_labels": moving_labels}
        structures = self.results["structures"]
        return {role: str(path) for role, path in paths.items()} | {"affine": matrix, "structures": structures}

    def _score(self, request: dict[str, Any]) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, str(HERE / "_registration_score.py"), write_request(Path(folder), request)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BenchmarkError(f"scoring failed: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
        return json.loads(done.stdout)


def _medwave() -> str:
    """The command that belongs to this Python."""
    command = shutil.which("medwave", path=str(Path(sys.executable).parent)) or shutil.which("medwave")
    if command is None:
        raise BenchmarkError("the command medwave is missing: pip install 'medwave[bench]'")
    return command


def _costs(cost: Cost) -> dict[str, float]:
    return {"cpu_s": cost.cpu_s, "wall_s": cost.wall_s, "peak_rss_mb": cost.peak_rss_mb}


if __name__ == "__main__":
    main()
