"""A folder of results in the browser: the pages that are in it, and what needs a server to work.

A registration, a reconstruction or an evaluation is a folder with ``run.json`` and ``report.html``, a cohort one with
``summary.csv`` and ``index.html``, a template one with ``run.json`` and ``index.html``. Pages open from disk as well;
served, they find in their head an element ``served`` that says what more there is, and the page of a cohort saves
marks to ``qc.csv`` (:mod:`medwave.workflows.quality`).
``viewer.html`` beside the report of a registration is made by the server, as are the volumes that it asks for.
"""

from __future__ import annotations

import csv
import json
import threading
from http import HTTPStatus
from pathlib import Path
from typing import Any

from medwave.core.errors import InputError, MedwaveError, MissingFileError
from medwave.core.files import StrPath
from medwave.reports.page import served_script
from medwave.reports.volumes import volume_page
from medwave.workflows.cohort import INDEX, SUMMARY
from medwave.workflows.loopback import Answer, LoopbackServer, file_answer
from medwave.workflows.options_view import ViewOptions
from medwave.workflows.quality import QUALITY, read_marks, write_mark
from medwave.workflows.run_folder import MARK
from medwave.workflows.volume_layers import RegistrationVolumes, is_registration

REPORT, VIEWER = "report.html", "viewer.html"


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
        self.is_cohort = (path / SUMMARY).is_file()
        self._lock = threading.Lock()
        self._shown: tuple[tuple[Any, ...], RegistrationVolumes] | None = None  # the run that was looked at last
        if self.is_cohort:
            read_marks(self.root)

    def answer(self, path: str) -> Answer | None:
        if path == "/":
            return Answer(go_to=f"/{self.front}")
        if (made := self._made(path)) is not None:
            return made
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

    def _made(self, path: str) -> Answer | None:
        """The page of the volumes of a registration, and the volumes, which are made when they are asked for."""
        folder, _, name = path.rpartition("/")
        is_layer = folder.endswith("/volumes") and name.endswith(".nii")
        if not (is_layer or name == VIEWER):
            return None
        run = self._run(folder.removesuffix("/volumes") if is_layer else folder)
        if run is None:
            return None
        try:
            with self._lock:
                record = (run / MARK).stat()
                which = run, record.st_ino, record.st_mtime_ns  # another when it is made anew
                if self._shown is None or self._shown[0] != which:
                    self._shown = which, RegistrationVolumes(run)
                shown = self._shown[1]
                layers = shown.layers
            if not is_layer:
                page = volume_page(layers, title=shown.title, notes=shown.notes).encode()
                return Answer(_with_head(page, {"up": REPORT}), "text/html; charset=utf-8")
            content = layers.file(name.removesuffix(".nii"))
            return None if content is None else Answer(content, "application/octet-stream")
        except (MedwaveError, FileNotFoundError) as error:  # it may be made anew right now
            return Answer(str(error).encode("utf-8", "replace"), status=HTTPStatus.INTERNAL_SERVER_ERROR)

    def _run(self, path: str) -> Path | None:
        """The folder of a registration at a path below the root."""
        try:
            folder = self.root.joinpath(path.lstrip("/")).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):
            return None
        return folder if folder.is_relative_to(self.root) and is_registration(folder) else None

    def _names(self) -> set[str]:
        with (self.root / SUMMARY).open(encoding="utf-8", newline="") as stream:
            return {row["name"] for row in csv.DictReader(stream)}

    def _told(self, page: Path) -> dict[str, Any]:
        if not (self.is_cohort and page == self.root / INDEX):
            more = {"volumes": VIEWER} if page.name == REPORT and is_registration(page.parent) else {}
            return more | ({"up": f"/{INDEX}"} if self.is_cohort else {})
        try:
            return {"marks": read_marks(self.root)}
        except InputError as error:
            return {"marks": {}, "error": str(error)}


def front_page(folder: Path) -> str:
    """The page that a folder of results opens with.

    Raises:
        MissingFileError: when the folder or the page is missing.
        InputError: when it is no folder of results, or one of several that have no page together.
    """
    if not folder.exists():
        raise MissingFileError(f"{folder}: no such folder; check the name")
    if not folder.is_dir():
        raise InputError(f"{folder}: the folder of a run is needed, this is a file; name the folder it is in")
    for record, pages in ((SUMMARY, (INDEX,)), (MARK, (REPORT, INDEX))):
        if (folder / record).is_file():
            for page in pages:
                if (folder / page).is_file():
                    return page
            raise _without_page(folder, record, pages[0])
    raise InputError(
        f"{folder}: the folder of a run ({MARK}, {REPORT}) or of a cohort ({SUMMARY}, {INDEX}) is needed, this one has "
        "no record of either; name the folder that was given as --output"
    )


def _without_page(folder: Path, record: str, page: str) -> MedwaveError:
    """What to look at in place of a page that is not there."""
    if reports := sorted(folder.glob(f"*/{REPORT}")):
        return InputError(
            f"{folder}: a batch of reconstructions has a page each and none together; name the folder of one, such as "
            f"{reports[0].parent}"
        )
    if stores := sorted(folder.glob("*.ome.zarr")):
        return InputError(f"{folder}: a segmentation has no page; open {stores[0]} in napari (medwave[napari])")
    return MissingFileError(f"{folder / page}: no such file, though {record} is there; repeat the run")


def view(folder: StrPath, options: ViewOptions | None = None) -> LoopbackServer:
    """A server for a folder of results, which listens already; ``serve_forever`` answers until it is interrupted.

    Raises:
        MissingFileError, InputError: as :class:`ResultSite`; also when the port cannot be had.
    """
    return LoopbackServer(ResultSite(folder), (options or ViewOptions()).port)


def write_volume_page(folder: StrPath) -> Path:
    """Write ``viewer.html`` into the folder of a registration: its volumes at half the resolution, in one file.

    Raises:
        InputError: when it is no folder of a registration.
        OutputError: when it cannot be written.
    """
    from medwave.reports.volumes import write_volume_page as write

    path = Path(folder)
    front_page(path)
    if not is_registration(path):
        raise InputError(f"{path}: volumes are shown of a registration; name the folder of one, as in runs/NAME")
    shown = RegistrationVolumes(path)
    layers = shown.layers
    return write(path / VIEWER, layers, title=shown.title, notes=shown.notes)


def _with_head(page: bytes, told: dict[str, Any]) -> bytes:
    """A page whose head says what the server has to tell it, with the script that offers it."""
    text = json.dumps(told).replace("<", "\\u003c")
    head = f'<head><script type="application/json" id="served">{text}</script><script>{served_script()}</script>'
    return page.replace(b"<head>", head.encode(), 1)


def _json(value: Any) -> Answer:
    return Answer(json.dumps(value).encode(), "application/json")
