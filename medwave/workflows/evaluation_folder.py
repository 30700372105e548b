"""What the folder of an evaluation holds besides its page: the record of the run, on the page and in ``run.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medwave import __version__
from medwave.core.files import StrPath, write_json
from medwave.core.provenance import StageClock, fingerprint, versions
from medwave.reports import OutputFile, Run, Stage
from medwave.workflows.run_folder import MARK

REPORT = "report.html"


def run_record(
    clock: StageClock, options: Any, command_line: str, files: Mapping[str, OutputFile] | None = None
) -> Run:
    """What the page says about the run, with the files that the folder holds besides ``run.json``."""
    stages = [Stage(**asdict(stage)) for stage in clock.stages]
    record = {"run": OutputFile(MARK, "all about the run, with every figure of this page")}
    return Run(stages, {**(files or {}), **record}, asdict(options), versions(), command_line)


def write_run(
    target: Path, result: dict[str, Any], inputs: dict[str, StrPath | None], options: Any, clock: StageClock,
    command_line: str, files: Mapping[str, OutputFile] | None = None,
) -> None:  # fmt: skip
    """Write ``run.json``, which comes last."""
    write_json(target / MARK, {
        "medwave": __version__, "command": command_line, "options": asdict(options),
        "inputs": {n: {"path": str(p), **fingerprint(p)} for n, p in inputs.items() if p is not None},
        "result": result, "stages": [asdict(stage) for stage in clock.stages],
        "files": {"report": REPORT} | {name: file.path for name, file in (files or {}).items()},
        "versions": versions(),
    })  # fmt: skip
