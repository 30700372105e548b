"""Multi-page TIFF, read by the strips and tiles that a box needs; the axes of the file end here.

Conventions
    Values are as stored: no colour map, no inverted display. Contiguous files (most of ImageJ's, also beyond 4 GB) are
    mapped; others are decoded strip by strip. Every reading opens the file for itself, so that threads and forked
    workers never share a position in it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import tifffile

from medwave.core.errors import GeometryError, MedwaveError, VolumeFormatError
from medwave.core.files import StrPath, input_file
from medwave.volumes.lzw import lzw_decode, undo_differences
from medwave.volumes.stack import Box, LazyVolume, check_channel, check_dtype, check_shape, one_line
from medwave.volumes.tiff_meaning import axis_roles, spacing_of

LZW = 5
COLOUR = ("RGB", "PALETTE", "SEPARATED", "YCBCR", "CIELAB")


def open_tiff(path: StrPath, *, channel: int = 0, axes: str | None = None) -> LazyVolume:
    """Open a multi-page TIFF, BigTIFF, ImageJ hyperstack, OME-TIFF or LSM.

    Args:
        path: the file.
        channel: which channel, from 0.
        axes: the meaning of its axes in file order when its labels are wrong, such as ``"ZYX"``.

    Raises:
        MissingFileError: when it does not exist.
        VolumeFormatError: when it is no TIFF, truncated, in colour, or packed in a way that cannot be decoded here.
        GeometryError: when it is not one 3-D volume.
        InputError: when the channel or the axes do not fit.
    """
    file = input_file(path)
    check_chain(file)
    with quiet_tifffile(file), contextlib.ExitStack() as opened:
        tif = opened.enter_context(tifffile.TiffFile(file))
        if _is_pages(tif):
            tif = opened.enter_context(tifffile.TiffFile(file, is_shaped=False))
        series = _one_series(file, tif)
        _check_grey(file, tif, series.keyframe)
        roles = axis_roles(file, series.axes, series.shape, axes)
        sizes = dict(zip(roles, series.shape, strict=True))
        channels = sizes.get("C", 1)
        check_channel(str(file), channel, channels)
        shape = check_shape(str(file), [sizes[a] for a in "ZYX"])
        check_dtype(str(file), series.dtype)
        spacing_um = spacing_of(tif, tif.series.index(series))
        start = series.dataoffset
        if start is not None:
            fetch = _mapped(file, tif.byteorder, series, roles, channel)
            return LazyVolume(
                file, shape, series.dtype, fetch, chunks=(1, *shape[1:]), spacing_um=spacing_um, channels=channels
            )
        pages = TiffPages(file, series, roles, channel)
        return LazyVolume(
            file, shape, series.dtype, pages.fetch, chunks=pages.chunks, spacing_um=spacing_um, channels=channels
        )


def read_slice(path: Path, ys: slice, xs: slice) -> npt.NDArray[Any]:
    """A part of the first page of a grey TIFF, as (y, x).

    Raises:
        VolumeFormatError: when it is damaged or cannot be decoded here.
    """
    with quiet_tifffile(path), tifffile.TiffFile(path) as tif:
        return TiffPages(path, tif.series[0], "YX", 0).fetch((slice(0, 1), ys, xs))[0]


def check_chain(path: Path) -> None:
    """Refuse what is not TIFF, and a file whose chain of pages leads beyond its end: tifffile would just stop there."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        kind = int.from_bytes(head[2:4], "little" if order == "<" else "big")
        if not order or kind not in (42, 43) or len(head) < (8 if kind == 42 else 16):
            raise VolumeFormatError(f"{path}: not a TIFF file, whatever its name says; check where it came from")
        big = kind == 43
        entry, count_format, next_format = (20, "Q", "Q") if big else (12, "H", "I")
        (offset,) = struct.unpack_from(order + next_format, head, 8 if big else 4)
        seen: set[int] = set()
        while offset:
            if offset in seen or offset + struct.calcsize(count_format) > size:
                raise _cut(path, size)
            seen.add(offset)
            file.seek(offset)
            (entries,) = struct.unpack(order + count_format, file.read(struct.calcsize(count_format)))
            place = file.tell() + entry * entries
            if place + struct.calcsize(next_format) > size:
                raise _cut(path, size)
            file.seek(place)
            (offset,) = struct.unpack(order + next_format, file.read(struct.calcsize(next_format)))
    if not seen:
        raise GeometryError(f"{path}: the volume is empty, this TIFF has no page; write it again")


@contextlib.contextmanager
def quiet_tifffile(path: Path) -> Iterator[None]:
    """Turn tifffile's errors into ours and keep its log lines off the terminal."""
    logger = logging.getLogger("tifffile")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    except MedwaveError:
        raise
    except Exception as error:  # tifffile fails in many ways on damaged tags
        raise VolumeFormatError(
            f"{path}: not a readable TIFF, or damaged ({one_line(error)}); copy or download it again"
        ) from None
    finally:
        logger.setLevel(level)


def _cut(path: Path, size: int) -> VolumeFormatError:
    return VolumeFormatError(
        f"{path}: the file is truncated or damaged: its pages lie beyond its {size} bytes; copy or download it again"
    )


def _is_pages(tif: tifffile.TiffFile) -> bool:
    """Whether tifffile wrote the pages one by one, each as an image of its own but all of one shape."""
    alike = len(tif.series) > 1 and len({s.shape for s in tif.series}) == 1
    return alike and all(s.kind == "shaped" and not _is_stack(s) for s in tif.series)


def _is_stack(series: tifffile.TiffPageSeries) -> bool:
    return math.prod(series.shape) > math.prod(series.keyframe.shape)


def _one_series(path: Path, tif: tifffile.TiffFile) -> tifffile.TiffPageSeries:
    """The one image of several pages; previews and labels beside it are single pages, or the thumbnails of an LSM."""
    if tif.is_imagej and tif.series[0].kind in ("generic", "uniform"):  # what ImageJ says of it does not fit
        raise _cut(path, path.stat().st_size)
    stacks = [s for s in tif.series if _is_stack(s) and not (s.kind == "lsm" and s.keyframe.is_reduced)]
    if len(stacks) > 1:
        shapes = ", ".join(str(s.shape) for s in stacks)
        raise GeometryError(f"{path}: one volume is needed, the file has {len(stacks)} ({shapes}); save them apart")
    if not stacks and len(tif.series) > 1:
        shapes = ", ".join(str(s.shape) for s in tif.series[:4])
        raise GeometryError(
            f"{path}: the slices of a volume are equal in shape, these are {shapes}; crop or save apart"
        )
    chosen = stacks[0] if stacks else tif.series[0]
    if chosen.kind == "generic":
        _check_unbroken(path, tif, chosen)
    return chosen


def _check_unbroken(path: Path, tif: tifffile.TiffFile, chosen: tifffile.TiffPageSeries) -> None:
    """Refuse pages of another shape between those of a volume: without them, slices would lie too low."""
    numbers = [page.index for page in chosen.pages]
    for other in tif.series:
        if numbers[0] < other.keyframe.index < numbers[-1] and other is not chosen and not other.keyframe.is_reduced:
            raise GeometryError(
                f"{path}: the slices of a volume are equal in shape, page {other.keyframe.index} (from 0) is "
                f"{other.keyframe.shape}, others are {chosen.keyframe.shape}; crop them alike or remove it"
            )


def _check_grey(path: Path, tif: tifffile.TiffFile, page: tifffile.TiffPage) -> None:
    colour = page.photometric.name if hasattr(page.photometric, "name") else str(page.photometric)
    if (colour == "PALETTE" and tif.is_imagej) or tif.is_lsm:  # for display only; the values are intensities
        return
    if colour in COLOUR:
        raise VolumeFormatError(
            f"{path}: one grey value per voxel is needed, this is a colour image ({colour}); split its channels into a "
            "grey hyperstack and choose one"
        )


def _mapped(path: Path, byte_order: str, series: tifffile.TiffPageSeries, roles: str, channel: int) -> Any:
    """A reader for a file whose values lie in one piece."""
    dtype = series.dtype.newbyteorder(byte_order)
    if series.dataoffset + math.prod(series.shape) * dtype.itemsize > path.stat().st_size:
        raise _cut(path, path.stat().st_size)
    kept = tuple(slice(None) if a in "ZYX" else (channel if a == "C" else 0) for a in roles)
    order = [a for a in roles if a in "ZYX"]
    offset, shape = series.dataoffset, series.shape

    def fetch(box: Box) -> npt.NDArray[Any]:
        stored = np.memmap(path, dtype, "r", offset, shape)  # anew: pages that were read count as memory while mapped
        return stored[kept].transpose([order.index(a) for a in "ZYX"])[box]

    return fetch


class TiffPages:
    """Slices decoded strip by strip or tile by tile."""

    def __init__(self, path: Path, series: tifffile.TiffPageSeries, roles: str, channel: int) -> None:
        page = series.keyframe
        self.path, self.page, self.roles, self.channel = path, page, roles, channel
        self.inner = roles[-len(page.axes) :]
        self.outer_roles, self.outer_shape = roles[: -len(page.axes)], series.shape[: -len(page.axes)]
        self.lzw = (
            page.compression == LZW
            and page.fillorder == 1
            and page.bitspersample in (8, 16, 32, 64)
            and (page.predictor == 1 or (page.predictor == 2 and page.dtype.kind in "iu"))
        )
        self._check(series)
        self.dtype = page.dtype.newbyteorder(page.parent.byteorder)
        self.height, self.width = page.imagelength, page.imagewidth
        self.tile_height = page.tilelength if page.is_tiled else min(page.rowsperstrip, self.height)
        self.tile_width = page.tilewidth if page.is_tiled else self.width
        self.across = math.ceil(self.width / self.tile_width)
        self.down = math.ceil(self.height / self.tile_height)
        self.chunks = (1, min(self.tile_height, self.height), min(self.tile_width, self.width))
        self.segments = [self._segments(frame) for frame in series.pages]
        self.tables = page.jpegtables if hasattr(page, "jpegtables") else None

    def _check(self, series: tifffile.TiffPageSeries) -> None:
        page = self.page
        if page.imagedepth > 1 or (page.is_tiled and page.tiledepth > 1):
            raise VolumeFormatError(f"{self.path}: pages are 2-D, these have a depth; save it as plain slices")
        if len(series.pages) != math.prod(self.outer_shape):
            raise VolumeFormatError(
                f"{self.path}: {math.prod(self.outer_shape)} slices are announced, {len(series.pages)} are there; "
                "copy or download it again"
            )
        if self.lzw:
            return
        try:
            page.decode(None, 0)
        except ValueError as error:
            raise self._packed(error) from None

    def _packed(self, error: Exception) -> VolumeFormatError:
        return VolumeFormatError(
            f"{self.path}: it is packed in a way that cannot be decoded here ({one_line(error)}); save it again "
            "without compression, or with Deflate, or pip install imagecodecs"
        )

    def _segments(self, frame: Any) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        if frame is None:
            raise VolumeFormatError(f"{self.path}: a slice is missing from the series; copy all files of it")
        planes = self.page.samplesperpixel if self.page.planarconfig == 2 else 1
        if min(len(frame.dataoffsets), len(frame.databytecounts)) < planes * self.down * self.across:
            raise VolumeFormatError(f"{self.path}: a slice lacks some of its data; copy or download it again")
        source = frame.parent.filehandle.path
        size = Path(source).stat().st_size
        if any(o + n > size for o, n in zip(frame.dataoffsets, frame.databytecounts, strict=False)):
            raise _cut(Path(source), size)
        return source, frame.dataoffsets, frame.databytecounts

    def fetch(self, box: Box) -> npt.NDArray[Any]:
        """The values of a box."""
        zs, ys, xs = box
        out = np.empty((zs.stop - zs.start, ys.stop - ys.start, xs.stop - xs.start), self.dtype.newbyteorder("="))
        with contextlib.ExitStack() as opened:
            files: dict[str, BinaryIO] = {}
            for z in range(zs.start, zs.stop):
                source, offsets, counts = self.segments[self._page_of(z)]
                if source not in files:
                    files[source] = opened.enter_context(Path(source).open("rb"))
                self._fill(out[z - zs.start], files[source], offsets, counts, self._sample_of(z), ys, xs)
        return out

    def _page_of(self, z: int) -> int:
        at = [{"Z": z, "C": self.channel}.get(a, 0) for a in self.outer_roles]
        return int(np.ravel_multi_index(at, self.outer_shape)) if at else 0

    def _sample_of(self, z: int) -> int:
        return next(({"Z": z, "C": self.channel}.get(a, 0) for a in self.inner if a not in "YX"), 0)

    def _fill(
        self,
        out: npt.NDArray[Any],
        file: BinaryIO,
        offsets: tuple[int, ...],
        counts: tuple[int, ...],
        sample: int,
        ys: slice,
        xs: slice,
    ) -> None:
        """Decode the strips or tiles of a page that meet the box."""
        plane, within = (sample, 0) if self.page.planarconfig == 2 else (0, sample)
        for row in range(ys.start // self.tile_height, math.ceil(ys.stop / self.tile_height)):
            for column in range(xs.start // self.tile_width, math.ceil(xs.stop / self.tile_width)):
                index = (plane * self.down + row) * self.across + column
                file.seek(offsets[index])
                part = self._decode(file.read(counts[index]), index, row)
                top, left = row * self.tile_height, column * self.tile_width
                y0, y1 = max(ys.start, top), min(ys.stop, top + self.tile_height)
                x0, x1 = max(xs.start, left), min(xs.stop, left + self.tile_width)
                target = out[y0 - ys.start : y1 - ys.start, x0 - xs.start : x1 - xs.start]
                target[:] = 0 if part is None else part[y0 - top : y1 - top, x0 - left : x1 - left, within]

    def _decode(self, data: bytes, index: int, row: int) -> npt.NDArray[Any] | None:
        """One strip or tile as (rows, columns, samples); None where the file leaves it out."""
        if not data:
            return None
        if not self.lzw:
            try:
                part, _, _ = self.page.decode(data, index, jpegtables=self.tables)
            except ImportError as error:  # some decoders are looked for when there is something to decode
                raise self._packed(error) from None
            return part[0]
        rows = self.tile_height if self.page.is_tiled else min(self.tile_height, self.height - row * self.tile_height)
        samples = self.page.samplesperpixel if self.page.planarconfig == 1 else 1
        shape = (rows, self.tile_width, samples)
        values = lzw_decode(data, math.prod(shape) * self.dtype.itemsize).view(self.dtype).reshape(shape)
        return undo_differences(values) if self.page.predictor == 2 else values
