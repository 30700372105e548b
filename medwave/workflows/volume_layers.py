"""The volumes of a finished registration, on its fixed grid, for the page they are turned through on.

The warped image, the change of volume and the warped labels are in the run's folder. The fixed and the moving image are
not: they are read where ``run.json`` says they were, when the files are there and still the same. What is not found is
left out, and said.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from medwave.core.errors import InputError, MedwaveError
from medwave.core.geometry import Volume
from medwave.core.provenance import fingerprint
from medwave.reports.volumes import VolumeSet, volume_set
from medwave.volumes import read_labels, read_volume
from medwave.workflows.pair import resample
from medwave.workflows.run_folder import FILES, MARK, RunFolder

_NAMES = {"fixed": "fixed image is", "moving": "moving image is", "fixed_labels": "fixed labels are"}


def is_registration(folder: Path) -> bool:
    """Whether a folder holds a complete registration with its images."""
    return all((folder / name).is_file() for name in (MARK, FILES["warped"][0], FILES["jacobian"][0]))


class RegistrationVolumes:
    """Layers of a run, made when they are first asked for.

    Args:
        folder: of the run.

    Attributes:
        notes: what could not be shown and why; known once ``layers`` was read.
    """

    def __init__(self, folder: Path) -> None:
        self.run = RunFolder(folder)
        self.notes: list[str] = []
        try:
            record = json.loads((folder / MARK).read_text(encoding="utf-8"))
            self.inputs: dict[str, Any] = dict(record["inputs"])
            self.began = Path(record.get("working_folder") or "")  # where relative paths begin
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(f"{folder / MARK}: does not tell the inputs of the run; repeat it") from None

    @property
    def title(self) -> str:
        """Names of both images."""
        fixed, moving = (Path(str(self.inputs.get(role, {}).get("path", role))).name for role in ("fixed", "moving"))
        return f"{moving} on {fixed}"

    @cached_property
    def layers(self) -> VolumeSet:
        """All volumes that are found.

        Raises:
            MedwaveError: when a result of the run cannot be read.
        """
        warped = read_volume(self.run.file("warped"))
        jacobian = read_volume(self.run.file("jacobian")).data
        fixed, moving = self._input("fixed"), self._input("moving")
        labels = []
        if "fixed_labels" in self.inputs and (known := self._input("fixed_labels", labels=True)) is not None:
            labels.append(("fixed-labels", "Fixed labels", known))
        if (self.run.path / FILES["warped labels"][0]).is_file():
            labels.append(("warped-labels", "Warped labels", read_labels(self.run.file("warped labels"))))
        shown = [(name, title, v.data) for name, title, v in labels if v.data.shape == warped.data.shape]
        if fixed is None or fixed.data.shape != warped.data.shape:
            return volume_set(warped, [], jacobian=jacobian, labels=shown, compare=False)
        greys = [("warped", "Warped", warped.data)]
        if moving is not None:
            greys.append(("affine", "Moving, after the affine", resample(moving, self.run.matrix, fixed.grid)))
            greys.append(("moving", "Moving, by header", resample(moving, np.eye(4), fixed.grid)))
        return volume_set(fixed, greys, jacobian=jacobian, labels=shown)

    def _input(self, role: str, *, labels: bool = False) -> Volume | None:
        told = self.inputs.get(role)
        if told is None:
            self.notes.append(f"The {_NAMES[role]} not shown: {MARK} names no file of it.")
            return None
        named = Path(str(told.get("path", "")))
        for path in (self.began / named, named, self.run.path / named, self.run.path.parent / named):
            try:
                known = {name: told[name] for name in ("sha256", "of")}
                if path.is_file() and fingerprint(path) == known:
                    return read_labels(path) if labels else read_volume(path)
            except (OSError, KeyError, MedwaveError):
                continue
        self.notes.append(f"The {_NAMES[role]} not shown: {named} is not there any more, or has changed.")
        return None
