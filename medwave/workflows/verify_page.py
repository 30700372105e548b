"""A verification that leaves a folder: ``scores.csv``, ``report.html``, and ``run.json``, which comes last."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from medwave import __version__
from medwave.core.files import StrPath, write_json
from medwave.core.provenance import StageClock, fingerprint, versions
from medwave.reports import OutputFile, Stage, VerificationReport, write_verification_report
from medwave.workflows.recognise import Verification, verify, write_scores
from medwave.workflows.recognition_options import VerifyOptions
from medwave.workflows.run_folder import MARK, result_folder

SCORES, REPORT = "scores.csv", "report.html"


def verify_with_page(
    pairs: StrPath, folder: StrPath, *, options: VerifyOptions | None = None, command_line: str = "", **told: Any
) -> Verification:
    """Verify pairs and write the folder.

    Args:
        pairs: as for :func:`medwave.workflows.recognise.verify`.
        folder: made when absent; an earlier result in it is replaced.
        options: all options.
        command_line: shown on the page.
        told: ``images``, ``weights``, ``embeddings`` and ``on_done`` of ``verify``.

    Raises:
        MedwaveError: one of its leaves, for files that are missing, damaged or cannot be written.
    """
    options = options or VerifyOptions()
    clock = StageClock()
    with result_folder(folder) as target:
        (target / MARK).unlink(missing_ok=True)
        with clock.stage("verify"):
            result = verify(pairs, options=options, **told)
        write_scores(target / SCORES, result)
        files = {"scores": OutputFile(SCORES, "each pair with its score"), "run": OutputFile(MARK, "all about the run")}
        write_verification_report(
            target / REPORT,
            VerificationReport(
                Path(pairs).name, result.first, result.second, result.same, result.scores, result.accuracy,
                result.auroc, result.accepted, stages=[Stage(**asdict(s)) for s in clock.stages], files=files,
                options=asdict(options), versions=versions(), command_line=command_line,
            ),
        )  # fmt: skip
        sources = {"pairs": pairs} | {name: told.get(name) for name in ("images", "weights", "embeddings")}
        write_json(target / MARK, {
            "medwave": __version__, "command": command_line, "options": asdict(options),
            "inputs": {n: {"path": str(p), **fingerprint(p)} for n, p in sources.items() if p is not None},
            "result": result.as_dict(),
            "stages": [asdict(stage) for stage in clock.stages], "files": {"scores": SCORES, "report": REPORT},
            "versions": versions(),
        })  # fmt: skip
    return result
