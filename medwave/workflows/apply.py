"""Move images, label maps and points with a transform that was found before.

Directions are named in words, by where the data goes: ``"moving-to-fixed"`` or ``"fixed-to-moving"``. Both apply to
everything alike, although images and points need opposite maps. An image is pulled back: each voxel of the new grid
looks up its place in the image, so moving an image from moving to fixed takes the map of points from fixed to moving
(``composite.h5``). A point is pushed: from moving to fixed it takes the map from moving to fixed
(``inverse_composite.h5``). The run folder of ``medwave register`` holds both; the right one is chosen here.

Single transform files have no direction to choose: as everywhere in ITK they are maps of points. Points pass through
the files in the order given; images are pulled back through the same chain, from the reference grid to the image.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from medwave.core.errors import InputError, OutputError
from medwave.core.files import StrPath, atomic_path, input_file
from medwave.core.geometry import Grid, Volume
from medwave.volumes import (
    PointTable,
    Series,
    SpatialTransform,
    read_labels,
    read_points,
    read_series,
    read_transform,
    read_volume,
    write_points,
    write_series,
    write_volume,
)
from medwave.volumes.series import is_series
from medwave.workflows.options import DIRECTIONS, ApplyOptions
from medwave.workflows.pullback import Pullback
from medwave.workflows.run_folder import RunFolder, files_behind, result_folder

if TYPE_CHECKING:
    from medwave.workflows.register import Registration

Source = Volume | StrPath
PointSource = PointTable | StrPath
_T = TypeVar("_T")

_SUFFIXES = {"moving-to-fixed": "_to-fixed", "fixed-to-moving": "_to-moving", None: "_moved"}


@dataclass(frozen=True)
class Moved:
    """What :func:`apply_transform` returns, each in the order it was given.

    Attributes:
        images: on the new grid.
        labels: on the new grid, each of the dtype it had.
        points: tables with the points at their new places, RAS+ mm.
    """

    images: tuple[Volume, ...] = ()
    labels: tuple[Volume, ...] = ()
    points: tuple[PointTable, ...] = ()


def apply_transform(
    transform: Registration | StrPath | Sequence[StrPath],
    images: Source | Iterable[Source] = (),
    *,
    labels: Source | Iterable[Source] = (),
    points: PointSource | Iterable[PointSource] = (),
    direction: str | None = None,
    reference: Grid | Source | None = None,
    options: ApplyOptions | None = None,
    **changes: Any,
) -> Moved:
    """Move images, label maps and points, any number of each.

    Args:
        transform: what :func:`medwave.register` returned, a folder that ``medwave register`` wrote, or one or several
            files that :func:`medwave.volumes.read_transform` reads, in the order in which points pass through them.
        images: volumes or paths; interpolated linearly unless the options say otherwise.
        labels: label maps, volumes or paths; each keeps its dtype.
        points: tables in RAS+ mm, or CSV files with columns x, y, z in mm in the axes that ``space`` names.
        direction: ``"moving-to-fixed"`` (when left out) or ``"fixed-to-moving"``: where the data goes. From moving to
            fixed, images of the moving space land on the fixed grid, and points of the moving space move to the
            fixed space. Not for transform files.
        reference: grid on which images and labels land, or an image that lies on it; when left out, the fixed or
            the moving image's own. Needed with transform files.
        options: interpolation and axes of point files; single ones can be given by name: ``interpolation="cubic"``.

    Raises:
        MissingFileError, VolumeFormatError, GeometryError, InputError: for unusable inputs.
    """
    images, labels, points = _many(images), _many(labels), _many(points)
    mover = _Mover(transform, direction, reference, replace(options or ApplyOptions(), **changes))
    mover.check(images, labels, points)
    return Moved(
        tuple(mover.image(image) for image in images),
        tuple(mover.labels(volume) for volume in labels),
        tuple(mover.points(table) for table in points),
    )


def apply_to_files(
    transform: StrPath | Sequence[StrPath],
    output: StrPath,
    *,
    images: Sequence[StrPath] = (),
    labels: Sequence[StrPath] = (),
    points: Sequence[StrPath] = (),
    direction: str | None = None,
    reference: StrPath | None = None,
    suffix: str | None = None,
    options: ApplyOptions | None = None,
    on_file: Callable[[Path], None] | None = None,
    on_warning: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Move files into a folder: all of them, or none if anything goes wrong.

    An image may be a series: a 4-D NIfTI file, of which each volume is moved, one at a time.

    Args:
        output: folder for the results, made when absent. An older result of the same name is replaced, an input or a
            file of the run never.
        suffix: put after the name of each input; ``_to-fixed``, ``_to-moving`` or ``_moved`` when left out. Volumes
            become ``.nii.gz``, points ``.csv``.
        on_file: told each input when its turn comes.
        on_warning: told of images of which nothing arrives, and of points that arrive outside of the image.
        transform, images, labels, points, direction, reference, options: as for :func:`apply_transform`.

    Returns:
        The files written, in the order images, labels, points.

    Raises:
        MissingFileError, VolumeFormatError, GeometryError, InputError: for unusable inputs.
        OutputError: when a result would replace an input or another result, or cannot be written.
    """
    options = options or ApplyOptions()
    mover = _Mover(transform, direction, reference, options)
    mover.check(images, labels, points)
    inputs = [input_file(path) for path in (*images, *labels, *points)]
    if reference is not None:
        input_file(reference)
    ending = _SUFFIXES[mover.direction] if suffix is None else suffix
    folder = Path(output)
    targets = [folder / _result_name(path, ending, ".nii.gz") for path in (*images, *labels)]
    targets += [folder / _result_name(path, ending, ".csv") for path in points]
    _refuse_collisions(inputs, targets, files_behind(reference, *_many(transform)))
    kinds = ["image"] * len(images) + ["labels"] * len(labels) + ["points"] * len(points)
    with result_folder(folder), contextlib.ExitStack() as all_or_none:
        for kind, source, target in zip(kinds, inputs, targets, strict=True):
            if on_file:
                on_file(source)
            moved = getattr(mover, "series" if kind == "image" and is_series(source) else kind)(source)
            if doubt := mover.doubt(source, moved):
                on_warning(doubt)
            partial = all_or_none.enter_context(atomic_path(target))
            if isinstance(moved, PointTable):
                write_points(partial, moved, space=options.space)  # type: ignore[arg-type]
            elif isinstance(moved, Series):
                write_series(partial, moved)
            else:
                write_volume(partial, moved)
    return targets


class _Maps(Protocol):
    """Where a transform comes from: its maps of points, and the grid that belongs to each end."""

    def push(self, direction: str | None) -> SpatialTransform:
        """The map for points that move in a direction."""

    def pull(self, direction: str | None) -> SpatialTransform:
        """The map from the new grid to an image that moves in a direction."""

    def grid(self, direction: str | None) -> Grid:
        """The grid on which images land that move in a direction."""


def _opposite(direction: str | None) -> str:
    return DIRECTIONS[1 - DIRECTIONS.index(direction or DIRECTIONS[0])]


class _Result:
    """A registration in memory."""

    def __init__(self, result: Registration) -> None:
        self.result = result

    def push(self, direction: str | None) -> SpatialTransform:
        return self.result.transform if direction == "fixed-to-moving" else self.result.inverse_transform

    def pull(self, direction: str | None) -> SpatialTransform:
        return self.push(_opposite(direction))

    def grid(self, direction: str | None) -> Grid:
        return self.result.moving.grid if direction == "fixed-to-moving" else self.result.fixed.grid


class _Folder:
    """A folder that ``medwave register`` wrote."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run

    def push(self, direction: str | None) -> SpatialTransform:
        return self.run.fixed_to_moving if direction == "fixed-to-moving" else self.run.moving_to_fixed

    def pull(self, direction: str | None) -> SpatialTransform:
        return self.push(_opposite(direction))

    def grid(self, direction: str | None) -> Grid:
        return self.run.moving_grid if direction == "fixed-to-moving" else self.run.fixed_grid


class _Files:
    """Transform files, in the order in which points pass through them."""

    def __init__(self, paths: Sequence[StrPath]) -> None:
        self.paths = paths

    def push(self, direction: str | None) -> SpatialTransform:
        return SpatialTransform(tuple(step for path in self.paths for step in read_transform(path).steps))

    pull = push

    def grid(self, direction: str | None) -> Grid:
        raise InputError(
            f"{self.paths[0]}: images need a grid to land on, which transform files do not tell; "
            "give --reference (an image on that grid)"
        )


class _Mover:
    """Moves one thing after another; each transform is read once, and only if something needs it."""

    def __init__(
        self, transform: Registration | StrPath | Sequence[StrPath], direction: str | None,
        reference: Grid | Source | None, options: ApplyOptions,
    ) -> None:  # fmt: skip
        if direction not in (None, *DIRECTIONS):
            raise InputError(f"direction: one of {', '.join(DIRECTIONS)}, got {direction!r}")
        self.maps, self.reference, self.options = _maps(transform), reference, options
        if isinstance(self.maps, _Files) and direction is not None:
            raise InputError(
                f"{self.maps.paths[0]}: a direction is chosen for the folder of a run only; a transform file has its "
                "own (points pass through it, images are pulled back through it): leave --direction out"
            )
        self.direction = None if isinstance(self.maps, _Files) else direction or DIRECTIONS[0]

    def check(self, images: Sequence[Any], labels: Sequence[Any], points: Sequence[Any]) -> None:
        """Refuse a call that moves nothing, or that would move images and points to opposite sides."""
        if not (images or labels or points):
            raise InputError("there is nothing to move: name images, label maps (--labels) or points (--points)")
        if isinstance(self.maps, _Files) and points and (images or labels):
            raise InputError(
                f"{self.maps.paths[0]}: images and points need opposite maps, so with transform files they are moved "
                "in separate calls (the folder of a run holds both maps)"
            )

    @cached_property
    def pullback(self) -> Pullback:
        return Pullback.through(self.maps.pull(self.direction), self._grid())

    @cached_property
    def point_map(self) -> SpatialTransform:
        return self.maps.push(self.direction)

    def image(self, source: Source) -> Volume:
        kept = None if self.options.interpolation == "nearest" else np.float32
        volume = source if isinstance(source, Volume) else read_volume(source, dtype=kept)
        return self.pullback.image(volume, self.options.interpolation)

    def series(self, path: Path) -> Series:
        """All volumes of a 4-D file, each moved when it is asked for."""
        kept = None if self.options.interpolation == "nearest" else np.float32
        move = partial(self.pullback.image, interpolation=self.options.interpolation)
        return read_series(path, dtype=kept).each(self._grid(), move)

    def labels(self, source: Source) -> Volume:
        return self.pullback.labels(_labels(source), self.options.label_interpolation)

    def points(self, source: PointSource) -> PointTable:
        table = source if isinstance(source, PointTable) else read_points(source, space=self.options.space)  # type: ignore[arg-type]
        return table.moved(self.point_map.apply_points_mm(table.points_mm))

    def doubt(self, source: Path, moved: Volume | Series | PointTable) -> str | None:
        """What says that a file was not of the space that it is moved from; of a series the first volume tells."""
        if isinstance(moved, Series):
            moved = moved.volume(0)
        if isinstance(moved, Volume):
            if moved.data.any():
                return None
            return f"{source}: all of the result is 0; is the file empty, or not in the space that is moved from?"
        if self.direction is None or (inside := self._grid().holds(moved.points_mm)).all():
            return None
        return (
            f"{source}: {(~inside).sum()} of {len(inside)} points arrive outside of the image; are they in the space "
            f"that is moved from, x y z in mm along {self.options.space} (--space)?"
        )

    def _grid(self) -> Grid:
        if self.reference is None:
            return self.maps.grid(self.direction)
        if isinstance(self.reference, Grid):
            return self.reference
        return (self.reference if isinstance(self.reference, Volume) else read_volume(self.reference, dtype=None)).grid


def _maps(transform: Registration | StrPath | Sequence[StrPath]) -> _Maps:
    if isinstance(transform, str | os.PathLike):
        path = Path(transform)
        return _Folder(RunFolder(path)) if path.is_dir() else _Files([input_file(path)])
    if isinstance(transform, Sequence):
        if not transform:
            raise InputError("no transform is given; name the folder of a run, or transform files")
        return _Files([input_file(path) for path in transform])
    return _Result(transform)


def _labels(source: Source) -> Volume:
    """A label map in the type it is stored in; floating point that holds whole numbers becomes an integer type."""
    volume = source if isinstance(source, Volume) else read_volume(source, dtype=None)
    if volume.data.dtype.kind in "iub" or isinstance(source, Volume):
        return volume
    return read_labels(source)


def _many(items: Any) -> Sequence[Any]:
    one = isinstance(items, str | os.PathLike | Volume | PointTable)
    return (items,) if one else tuple(items)


def _result_name(path: StrPath, suffix: str, ending: str) -> str:
    name = Path(path).name
    stem = name.removesuffix(".gz").removesuffix(".GZ")
    return f"{Path(stem).stem}{suffix}{ending}"


def _refuse_collisions(inputs: Sequence[Path], targets: Sequence[Path], others: Sequence[Path]) -> None:
    for number, target in enumerate(targets):
        if target in targets[:number]:
            first = inputs[targets.index(target)]
            raise OutputError(
                f"{inputs[number]}: its result would have the same name as that of {first} ({target.name}); "
                "move them in separate calls, into separate folders"
            )
        for path in (*inputs, *others):
            if target.exists() and target.samefile(path):
                raise OutputError(f"{target}: this result would replace an input; choose another folder or suffix")
