"""medwave's tracing against thinning and a spanning tree, and kimimaro where it is installed.

    pip install "medwave[neurons]"
    python benchmarks/tracing.py --neurons FOLDER [--reconstruct [--weights FILE]]

FOLDER holds ``gold_swc/OP_1.swc`` and ``real_traced`` with ``neuron_a`` and ``neuron_b`` (.tif, .swc). Every method
starts from the file and runs in a process of its own, case by case, the order turning by one from case to case.
Thinning has no rule for the threshold: it gets the one of medwave's rule, and in a second run, like kimimaro, the one
that turns out best for it. ``benchmarks/README.md`` says what the columns mean. Finished runs are kept in the output
file; started again it goes on there.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from _measure import last_line, machine, run_measured
from _results import BenchmarkError, save, versions, write_request
from _tracing_methods import PACKAGES, SETTINGS
from _tracing_table import markdown

HERE = Path(__file__).resolve().parent
CASES = "OP_1 easy,OP_1 perfect mask,OP_1 hard,neuron_a,neuron_b"
CPU_LIMIT_S = 90
RECONSTRUCT = "medwave-reconstruct"


def main() -> None:
    options = parse()
    try:
        results = Benchmark(options).run()
    except BenchmarkError as error:
        raise SystemExit(f"tracing benchmark: {error}") from None
    print(markdown(results))


def parse() -> argparse.Namespace:
    today = datetime.date.today().isoformat()
    parser = argparse.ArgumentParser(description="Compare medwave's tracing with other ways from volume to tree.")
    parser.add_argument("--neurons", type=lambda path: Path(path).resolve(), required=True, help="folder of neurons")
    parser.add_argument("--cases", default=CASES, help="separated by commas (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each method on each case")
    parser.add_argument("--reconstruct", action="store_true", help="also run medwave reconstruct with its network")
    parser.add_argument("--weights", type=Path, help="network of --reconstruct in place of medwave's own")
    default = HERE / "results" / f"tracing-{today}.json"
    parser.add_argument("-o", "--output", type=Path, default=default, help="JSON (default: %(default)s)")
    return parser.parse_args()


class Benchmark:
    """The runs, and the file that keeps them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.methods = ["medwave", "skeleton", "skeleton-hindsight"]
        self.methods += ["kimimaro"] if find_spec("kimimaro") else []
        self.methods += [RECONSTRUCT] if options.reconstruct else []
        if not (options.neurons / "gold_swc" / "OP_1.swc").is_file():
            raise BenchmarkError(f"{options.neurons}: holds no gold_swc/OP_1.swc; --neurons names the folder above it")
        self.results: dict[str, Any] = {
            "benchmark": "tracing", "date": datetime.date.today().isoformat(), "machine": machine(),
            "versions": versions([*PACKAGES.values(), "numba", "numpy"]), "settings": SETTINGS, "cases": {},
        }  # fmt: skip
        if options.output.is_file():
            older = json.loads(options.output.read_text(encoding="utf-8"))
            now = json.loads(json.dumps(SETTINGS))
            changed = any(now.get(method) != setting for method, setting in older["settings"].items())
            if changed or older["machine"] != self.results["machine"]:
                raise BenchmarkError(f"{options.output} holds runs of another machine or settings; choose another -o")
            self.results["cases"] = older["cases"]

    def run(self) -> dict[str, Any]:
        """Measure what is missing; results are on disk after every run."""
        warm = False
        for number, case in enumerate(self.options.cases.split(",")):
            with tempfile.TemporaryDirectory() as place:
                folder = Path(place)
                about = self._ask("make", folder, {"neurons": str(self.options.neurons), "case": case})
                known = self.results["cases"].setdefault(case, {"runs": {}})
                known["about"], runs = about, known["runs"]
                turn = number % len(self.methods)
                for repeat in range(self.options.repeats):
                    for method in self.methods[turn:] + self.methods[:turn]:
                        done = runs.setdefault(method, [])
                        if len(done) > repeat or (done and "error" in done[0]) or not self._suits(method, about):
                            continue
                        if not warm:  # compiled loops are cached on disk by an untimed run
                            self._run("medwave", folder, about)
                            warm = True
                        done.append(self._run(method, folder, about))
                        save(self.options.output, self.results)
                        print(f"{case}, {method}: {said(done[-1])}", flush=True)
        for each in self.results["cases"].values():
            each["runs"] = {method: runs for method, runs in each["runs"].items() if runs}
        save(self.options.output, self.results)
        return self.results

    def _suits(self, method: str, about: dict[str, Any]) -> bool:
        return method != RECONSTRUCT or about["kind"] == "image"

    def _run(self, method: str, folder: Path, about: dict[str, Any]) -> dict[str, Any]:
        """One method in its own process, and its scores; a failure is kept with its reason and the worst scores."""
        place = folder / "run"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        request = {**about, "volume": str(folder / "volume.tif"), "folder": str(place), "cpu_limit_s": CPU_LIMIT_S}
        if method == RECONSTRUCT:
            weights = [] if self.options.weights is None else ["--weights", str(self.options.weights.resolve())]
            command = [*_medwave(), "reconstruct", request["volume"], "-o", str(place / "result"), *weights]
            tree = place / "result" / "tree.swc"
        else:
            command = [sys.executable, str(HERE / "_tracing_methods.py"), method, write_request(place, request)]
            tree = place / ("tree.swc" if method == "medwave" else "tree.npz")
        cost = run_measured(command, threads=1, log=place / "log.txt")
        run: dict[str, Any] = {
            "date": datetime.datetime.now().isoformat(timespec="seconds"), "version": self._version(method),
            "cpu_s": cost.cpu_s, "wall_s": cost.wall_s, "peak_rss_mb": cost.peak_rss_mb,
        }  # fmt: skip
        if cost.exit_code in (-9, -24):
            run["error"] = f"not finished in {CPU_LIMIT_S} s"
        elif cost.exit_code != 0:
            run["error"] = last_line(place / "log.txt")
        elif method == RECONSTRUCT:
            done = json.loads((place / "result" / "run.json").read_text(encoding="utf-8"))
            run["network"] = {key: done["weights"][key] for key in ("model", "sha256")}
        else:
            run |= json.loads((place / "method.json").read_text(encoding="utf-8"))
        asked = {"gold": str(folder / "gold.swc"), "shape": about["shape"]}
        run["scores"] = self._ask("score", place, asked if "error" in run else {**asked, "tree": str(tree)})
        return run

    def _version(self, method: str) -> str:
        return self.results["versions"].get(PACKAGES[method], "")

    def _ask(self, what: str, folder: Path, request: dict[str, Any]) -> dict[str, Any]:
        command = [sys.executable, str(HERE / "_tracing_cases.py"), what]
        command.append(write_request(folder, {**request, "folder": str(folder)}))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BenchmarkError(f"{what} failed: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
        return json.loads(done.stdout)


def said(run: dict[str, Any]) -> str:
    """A run in words."""
    if "error" in run:
        return run["error"]
    return f"{run['cpu_s']:.1f} CPU s, {run['peak_rss_mb']:.0f} MB, F2 {run['scores']['f1']:.4f}"


def _medwave() -> list[str]:
    """The command line of the medwave that this Python finds."""
    return [sys.executable, "-c", "from medwave.cli.app import main; main()"]


if __name__ == "__main__":
    main()
