"""The folder of a run: where its files are, how it is made and taken back, and how it is read again.

``run.json`` is written last and marks a complete run; a folder without it may hold files of two runs.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from medwave.core.errors import GeometryError, InputError, OutputError
from medwave.core.files import StrPath, input_file
from medwave.core.geometry import Float64Array, Grid
from medwave.volumes import FieldStep, LinearStep, SpatialTransform, read_affine, read_field

FILES = {
    "warped": ("warped.nii.gz", "moving image on the fixed grid"),
    "warped labels": ("warped_labels.nii.gz", "moving labels on the fixed grid"),
    "jacobian": ("jacobian.nii.gz", "volume change of the deformable part, per voxel (1 = none)"),
    "affine": ("transform/affine.tfm", "ITK affine, fixed to moving points"),
    "field": ("transform/field.nii.gz", "ITK displacement field on the fixed grid, applied before the affine"),
    "inverse field": ("transform/inverse_field.nii.gz", "its inverse, applied after the inverse affine"),
    "composite": ("transform/composite.h5", "both, fixed to moving points: resamples moving onto fixed"),
    "inverse composite": ("transform/inverse_composite.h5", "moving to fixed points: resamples fixed onto moving"),
}
MARK = "run.json"


def channel_name(number: int | str) -> str:
    """File of a further channel of the moving subject on the fixed grid, counted from 1, or a pattern for numbers."""
    return f"warped_channel_{number}.nii.gz"


def input_paths(**given: Any) -> dict[str, str]:
    """Role -> path of those inputs that are files; those of a sequence are counted from 1 (``fixed_channel_1``)."""
    each: dict[str, Any] = {}
    for role, value in given.items():
        listed = isinstance(value, Sequence) and not isinstance(value, str)
        each |= {f"{role}_{n}": item for n, item in enumerate(value, start=1)} if listed else {role: value}
    return {role: os.fspath(value) for role, value in each.items() if isinstance(value, str | os.PathLike)}


@contextlib.contextmanager
def result_folder(folder: StrPath, *subfolders: str) -> Iterator[Path]:
    """Make a folder for results; folders made here that stay empty because the block fails are taken back.

    Raises:
        OutputError: when it cannot be made or written to.
    """
    path = Path(folder)
    wanted = [path, *(path / name for name in subfolders)]
    missing = {parent for each in wanted for parent in (each, *each.parents) if not os.path.exists(parent)}  # noqa: PTH110
    try:
        try:
            for each in wanted:
                each.mkdir(parents=True, exist_ok=True)
            probe = path / ".medwave-probe"
            probe.touch()
            probe.unlink(missing_ok=True)  # another process may probe too
        except OSError as error:
            raise OutputError(
                f"{path}: cannot be used as an output folder ({error.strerror}); choose another"
            ) from error
        yield path
    except BaseException:
        for made in sorted(missing, key=lambda each: len(each.parts), reverse=True):
            with contextlib.suppress(OSError):
                made.rmdir()
        raise


def spare_inputs(targets: Iterable[Path], inputs: Iterable[StrPath]) -> None:
    """Refuse to write to files of which one is an input.

    Raises:
        OutputError: naming the input.
    """
    given = {identity: path for path in inputs if (identity := _identity(path))}
    for target in targets:
        if (path := given.get(_identity(target))) is not None:
            raise OutputError(f"{path}: a result would replace this input; choose another output folder")


def _identity(path: StrPath) -> tuple[int, int] | None:
    """What tells a file from any other, under whatever name; None when it is not there."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def files_behind(*sources: Any) -> list[Path]:
    """The files that sources stand for: of the folder of a run its results, of what is in memory none."""
    paths = [Path(source) for source in sources if isinstance(source, str | os.PathLike)]
    return [file for path in paths for file in (run_files(path) if path.is_dir() else [path])]


def run_files(folder: Path) -> list[Path]:
    """The files of a run that are there."""
    named = [folder / name for name in (MARK, *(name for name, _ in FILES.values()))]
    return [path for path in (*named, *folder.glob(channel_name("[0-9]*"))) if path.exists()]


@dataclass(frozen=True)
class RunFolder:
    """A folder that ``medwave register`` wrote; each file is read when it is asked for, once.

    Raises:
        InputError: when it holds no complete run.
    """

    path: Path

    def __post_init__(self) -> None:
        if not (self.path / MARK).is_file():
            raise InputError(
                f"{self.path}: the folder of a complete run of medwave register is needed, this one has no {MARK}; "
                "name another folder, or single transform files"
            )

    def file(self, name: str) -> Path:
        """Path of a result by its name in :data:`FILES`.

        Raises:
            MissingFileError: when it is not there.
        """
        return input_file(self.path / FILES[name][0])

    @cached_property
    def matrix(self) -> Float64Array:
        """A, 4x4 RAS+ mm, fixed to moving points."""
        return read_affine(self.file("affine"))

    @cached_property
    def field(self) -> FieldStep:
        """u on the fixed grid."""
        return FieldStep(*read_field(self.file("field")))

    @cached_property
    def inverse_field(self) -> FieldStep:
        """u_inv on the fixed grid."""
        return FieldStep(*read_field(self.file("inverse field")))

    @property
    def fixed_to_moving(self) -> SpatialTransform:
        """``T(x) = A(x + u(x))``, what ``composite.h5`` holds."""
        return SpatialTransform((self.field, LinearStep(self.matrix)))

    @property
    def moving_to_fixed(self) -> SpatialTransform:
        """``T_inv(y) = p + u_inv(p)``, ``p = A^-1(y)``, what ``inverse_composite.h5`` holds."""
        return SpatialTransform((LinearStep(np.linalg.inv(self.matrix)), self.inverse_field))

    @property
    def fixed_grid(self) -> Grid:
        """The grid of the fixed image."""
        return self.field.grid

    @cached_property
    def moving_grid(self) -> Grid:
        """The grid of the moving image, from the record of the run.

        Raises:
            InputError: when the record does not tell it.
        """
        path = self.path / MARK
        try:
            entry: Any = json.loads(path.read_text(encoding="utf-8"))["grids"]["moving"]
            return Grid(tuple(entry["shape"]), np.array(entry["affine"]))
        except (OSError, ValueError, KeyError, TypeError, GeometryError):
            raise InputError(
                f"{path}: does not tell the grid of the moving image; give --reference (an image on that grid)"
            ) from None
