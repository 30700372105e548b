"""File names and datasets of the Brain Imaging Data Structure (BIDS 1.10): what a cohort needs of it.

A name is entities ``key-value`` joined by ``_``, then a suffix: ``sub-01_ses-2_T1w.nii.gz``. A derivative keeps the
entities of its source and adds ``from``, ``to``, ``mode``, ``space`` and ``desc``; results of ``medwave register`` are
linked under such names (copied where the file system cannot link), each with a JSON sidecar. ``from-A_to-B_mode-image``
is the transform that brings an image of A onto B; ITK reads it as the map of B's points to A's, ``composite.h5``.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medwave import __version__
from medwave.core.errors import InputError
from medwave.core.files import atomic_path, write_json, write_text

DESCRIPTION, IGNORED = "dataset_description.json", ".bidsignore"
OWN_FILES = DESCRIPTION, IGNORED
VERSION = "1.10.0"
_ENTITY = re.compile(r"([a-z]+)-([A-Za-z0-9+]+)")
_LAST = ("space", "from", "to", "mode", "desc")  # entities of derivatives stand after those of the source


@dataclass(frozen=True)
class BidsName:
    """Entities of a file in their order, and its suffix."""

    entities: tuple[tuple[str, str], ...]
    suffix: str

    @property
    def folder(self) -> str:
        """``sub-01[/ses-1]/anat``."""
        known = dict(self.entities)
        session = f"/ses-{known['ses']}" if "ses" in known else ""
        return f"sub-{known['sub']}{session}/anat"

    @property
    def label(self) -> str:
        """A label for ``from-`` and ``to-``: letters and digits of the entities, without ``sub`` alone."""
        return "".join(key + value for key, value in self.entities).replace("+", "")

    def file(self, suffix: str, ending: str, **entities: str) -> str:
        """The name of a derivative of this file."""
        all_of = {**dict(self.entities), **entities}
        ordered = [key for key in all_of if key not in _LAST] + [key for key in _LAST if key in all_of]
        return "_".join([*(f"{key}-{all_of[key]}" for key in ordered), suffix]) + ending


def parse_name(name: str) -> BidsName | None:
    """Entities and suffix of a file name; None when it is not one of BIDS."""
    *parts, suffix = name.split(".", 1)[0].split("_")
    found = [_ENTITY.fullmatch(part) for part in parts]
    if not parts or not suffix.isalnum() or not all(found) or not name.startswith("sub-"):
        return None
    return BidsName(tuple((m[1], m[2]) for m in found if m), suffix)


def is_bids(folder: Path) -> bool:
    """Whether a folder is a BIDS dataset: it describes itself as one."""
    return (folder / DESCRIPTION).is_file()


def bids_images(folder: Path, suffix: str) -> dict[Path, BidsName]:
    """The anatomical images of a suffix, such as ``T1w``, of all subjects and sessions.

    Raises:
        InputError: when there is none.
    """
    files = [path for path in folder.glob("sub-*/**/anat/*.nii*") if path.name.endswith((".nii", ".nii.gz"))]
    named = {path: name for path in sorted(files) if (name := parse_name(path.name)) and name.suffix == suffix}
    if not named:
        raise InputError(f"{folder}: no sub-*/[ses-*/]anat/*_{suffix}.nii.gz in this BIDS dataset; choose --suffix")
    return named


def write_dataset(folder: Path, *, source: Path, command_line: str) -> None:
    """Describe a folder as a derivative; what is not of BIDS in it is named in ``.bidsignore``."""
    raw: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        raw = json.loads((source / DESCRIPTION).read_text(encoding="utf-8"))
    title = raw.get("Name") if isinstance(raw, Mapping) else None
    write_json(folder / DESCRIPTION, {
        "Name": f"Registrations of {title or source.name}",
        "BIDSVersion": VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "medwave", "Version": __version__, "Description": command_line}],
        "SourceDatasets": [{"URL": source.resolve().as_uri()}],
    })  # fmt: skip
    write_text(folder / IGNORED, "runs/\nindex.html\nfailed.csv\nsummary.csv\n")


def check_label(label: str) -> None:
    """Refuse the label of a space that names of BIDS cannot have.

    Raises:
        InputError: naming it.
    """
    if not re.fullmatch("[A-Za-z0-9]+", label):
        raise InputError(f"the label of a space in BIDS has letters and digits only, got {label!r}; give --bids-space")


def result_names(fixed: BidsName | None, moving: BidsName, target: str) -> dict[str, str]:
    """Result of a run -> its path in a derivative dataset; arguments are those of :func:`link_results`."""
    here = moving.suffix if fixed is None else moving.label
    there = {"from": here, "to": target, "mode": "image"}
    back = {"from": target, "to": here, "mode": "image"}
    names = {
        "warped.nii.gz": moving.file(moving.suffix, ".nii.gz", space=target, desc="warped"),
        "warped_labels.nii.gz": moving.file("dseg", ".nii.gz", space=target, desc="warped"),
        "jacobian.nii.gz": moving.file("jacobian", ".nii.gz", space=target),
        "transform/composite.h5": moving.file("xfm", ".h5", **there),
        "transform/inverse_composite.h5": moving.file("xfm", ".h5", **back),
    }
    return {result: f"{moving.folder}/{name}" for result, name in names.items()}


def link_results(
    folder: Path, run: Path | None, fixed: BidsName | None, moving: BidsName, target: str, sources: Mapping[str, str]
) -> list[Path]:
    """Give the results of a run their names in a derivative dataset; names of results that it lacks are removed.

    Args:
        folder: of the dataset.
        run: folder that ``medwave register`` wrote; None when it failed, and has no results.
        fixed: name of the fixed image; None when it is a template.
        moving: name of the moving image.
        target: label of the template, or of the fixed image, that :func:`check_label` takes.
        sources: ``"fixed"`` and ``"moving"`` -> path of the image, for the sidecars.
    """
    made = []
    for name, wanted in result_names(fixed, moving, target).items():
        place = folder / wanted
        side = place.with_name(f"{place.name.split('.')[0]}.json")
        if run is None or not (run / name).is_file():
            for old in (place, side):
                old.unlink(missing_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        _link(run / name, place)
        write_json(side, _sidecar(name, target, sources))
        made += [place, side]
    return made


def _sidecar(name: str, target: str, sources: Mapping[str, str]) -> dict[str, Any]:
    entry: dict[str, Any] = {"Sources": [sources["moving"], sources["fixed"]]}
    if name.endswith(".h5"):
        first, last = ("moving", "fixed") if name == "transform/composite.h5" else ("fixed", "moving")
        said = f"ITK composite: resamples images of {sources[first]} onto {sources[last]}"
        return {**entry, "Description": said, "FromFile": sources[first], "ToFile": sources[last]}
    return {**entry, "SpatialReference": sources["fixed"], "Description": f"on the grid of {target}"}


def _link(source: Path, target: Path) -> None:
    with atomic_path(target) as partial:
        try:
            os.link(source, partial)
        except OSError:
            shutil.copyfile(source, partial)
