"""A folder of results in the browser: the pages that are in it, and what needs a server to work.

A registration, a reconstruction or an evaluation is a folder with ``run.json`` and ``report.html``, a cohort one with
``summary.csv`` and ``index.html``. Pages open from disk as well; served, they find in their head an element ``served``
that says what more there is, and the page of a cohort saves marks to ``qc.csv`` (:mod:`medwave.workflows.quality`).
"""

from __future__ import annotations

import csv
import json
from http import HTTPStatus
from pathlib import Path
from typing import Any

from medwave.core.errors import InputError, MedwaveError, MissingFileError
from medwave.core.files import StrPath
from medwave.workflows.cohort import INDEX, SUMMARY
from medwave.workflows.loopback import Answer, LoopbackServer, file_answer
from medwave.workflows.options_view import ViewOptions
from medwave.workflows.quality import QUALITY, read_marks, write_mark
from medwave.workflows.run_folder import MARK

REPORT = "report.html"


class ResultSite:
    """What is served of a folder: its files, and its pages with what the server adds.

    Args:
        folder: of a run or a cohort.

    Raises:
        MissingFileError: when it does not exist, or its page is missing.
        InputError: when it is no folder of results, or ``qc.csv`` is damaged.
    """

    def __init__(self, folder: StrPath) -> None:
        path = Path(folder)
        self.front = front_page(path)
        self.root = path.resolve()
        self.is_cohort = self.front == INDEX
        if self.is_cohort:
            read_marks(self.root)

    def answer(self, path: str) -> Answer | None:
        if path == "/":
            return Answer(go_to=f"/{self.front}")
        found = file_answer(self.root, path)
        if found is None or not isinstance(found.body, Path) or found.body.suffix != ".html":
            return found
        return Answer(_with_head(found.body.read_bytes(), self._told(found.body)), found.kind)

    def receive(self, path: str, message: bytes) -> Answer | None:
        if not (self.is_cohort and path == f"/{QUALITY}"):
            return None
        try:
            told = json.loads(message)
            write_mark(self.root, str(told["name"]), str(told["mark"]), self._names())
            return _json({"marks": read_marks(self.root)})
        except (ValueError, KeyError, TypeError, MedwaveError) as error:
            said = str(error) if isinstance(error, MedwaveError) else "a name and a mark are needed"
            return Answer(said.encode("utf-8", "replace"), status=HTTPStatus.BAD_REQUEST)

    def _names(self) -> set[str]:
        with (self.root / SUMMARY).open(encoding="utf-8", newline="") as stream:
            return {row["name"] for row in csv.DictReader(stream)}

    def _told(self, page: Path) -> dict[str, Any]:
        if not (self.is_cohort and page == self.root / INDEX):
            return {}
        try:
            return {"marks": read_marks(self.root)}
        except InputError as error:
            return {"marks": {}, "error": str(error)}


def front_page(folder: Path) -> str:
    """The page that a folder of results opens with.

    Raises:
        MissingFileError: when the folder or the page is missing.
        InputError: when it is no folder of results.
    """
    if not folder.exists():
        raise MissingFileError(f"{folder}: no such folder; check the name")
    if not folder.is_dir():
        raise InputError(f"{folder}: the folder of a run is needed, this is a file; name the folder it is in")
    for record, page in ((SUMMARY, INDEX), (MARK, REPORT)):
        if (folder / record).is_file():
            if not (folder / page).is_file():
                raise MissingFileError(f"{folder / page}: no such file, though {record} is there; repeat the run")
            return page
    raise InputError(
        f"{folder}: the folder of a run ({MARK}, {REPORT}) or of a cohort ({SUMMARY}, {INDEX}) is needed, this one has "
        "no record of either; name the folder that was given as --output"
    )


def view(folder: StrPath, options: ViewOptions | None = None) -> LoopbackServer:
    """A server for a folder of results, which listens already; ``serve_forever`` answers until it is interrupted.

    Raises:
        MissingFileError, InputError: as :class:`ResultSite`; also when the port cannot be had.
    """
    return LoopbackServer(ResultSite(folder), (options or ViewOptions()).port)


def _with_head(page: bytes, told: dict[str, Any]) -> bytes:
    """A page whose head says what the server has to tell it."""
    text = json.dumps(told).replace("<", "\\u003c")
    return page.replace(b"<head>", f'<head><script type="application/json" id="served">{text}</script>'.encode(), 1)


def _json(value: Any) -> Answer:
    return Answer(json.dumps(value).encode(), "application/json")
