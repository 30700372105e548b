"""One type for volumes of any size: only the boxes that are asked for are read.

Conventions
    Axes are (z, y, x) whatever the order in the file; sizes, spacings, chunks and boxes are in that order.
    ``spacing_um`` is the voxel size along z, y, x in micrometres, or None when the file does not tell it.
    Micrometres count from the centre of voxel 0 of the finest resolution, voxels from the centre of the first one of
    the resolution that is open: voxel v lies at ``(v + offset_voxels) * spacing_um``.
    A box is three slices of step 1 that lie inside the volume. Values are those of the file, in native byte order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from medwave.core.errors import GeometryError, InputError, MedwaveError, VolumeFormatError
from medwave.core.files import StrPath

Box = tuple[slice, slice, slice]
Shape3 = tuple[int, int, int]
Spacing = tuple[float, float, float]

UM_PER_UNIT = {
    "meter": 1e6, "metre": 1e6, "m": 1e6,
    "centimeter": 1e4, "centimetre": 1e4, "cm": 1e4,
    "millimeter": 1e3, "millimetre": 1e3, "mm": 1e3,
    "micrometer": 1.0, "micrometre": 1.0, "micron": 1.0, "microns": 1.0, "um": 1.0, "µm": 1.0, "μm": 1.0,
    "nanometer": 1e-3, "nanometre": 1e-3, "nm": 1e-3,
    "angstrom": 1e-4, "å": 1e-4,
    "picometer": 1e-6, "pm": 1e-6,
    "inch": 25400.0, "in": 25400.0,
}  # fmt: skip
"""Micrometres in a unit of length; its names are in lower case. Both code points that look like a mu are there."""


class LazyVolume:
    """A scalar volume on disk whose boxes are read when they are asked for.

    Boxes may be read from many threads at once. A volume that crosses to another process is opened again there.

    Attributes:
        path: where it came from, for messages.
        shape: voxels along z, y, x.
        dtype: type of the values, native byte order.
        spacing_um: voxel size along z, y, x in micrometres, or None when unknown.
        offset_voxels: where along z, y, x voxel 0 lies from that of the finest resolution, in voxels of this one.
        chunks: the block that costs least to read at once (a page, a chunk, the whole).
        channels: how many channels the file has; the volume is one of them.
        stored: gives the boxes of what is there, in a fixed order, where a store may lack some; None for other files.
    """

    def __init__(
        self,
        path: StrPath,
        shape: Sequence[int],
        dtype: npt.DTypeLike,
        fetch: Callable[[Box], npt.NDArray[Any]],
        *,
        chunks: Sequence[int] | None = None,
        spacing_um: Sequence[float] | None = None,
        offset_voxels: Spacing = (0.0, 0.0, 0.0),
        channels: int = 1,
        close: Callable[[], None] | None = None,
        stored: Callable[[], list[Box]] | None = None,
    ) -> None:
        self.path = str(path)
        self.shape = check_shape(self.path, shape)
        self.dtype = check_dtype(self.path, dtype)
        self.spacing_um = None if spacing_um is None else check_spacing_um(self.path, spacing_um)
        self.offset_voxels = offset_voxels
        nz, ny, nx = self.shape if chunks is None else chunks
        self.chunks: Shape3 = (int(nz), int(ny), int(nx))
        self.channels, self.stored = channels, stored
        self.reopen: Callable[[], LazyVolume] | None = None
        self._fetch: Callable[[Box], npt.NDArray[Any]] | None = fetch
        self._close = close

    @classmethod
    def from_array(
        cls, array: npt.NDArray[Any], *, name: StrPath = "volume", spacing_um: Sequence[float] | None = None
    ) -> LazyVolume:
        """An array ``(Z, Y, X)`` in memory as a volume; it is not copied."""
        return cls(name, array.shape, array.dtype, array.__getitem__, spacing_um=spacing_um)

    @property
    def nbytes(self) -> int:
        """Size of the whole volume in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self, box: Sequence[slice] | None = None) -> npt.NDArray[Any]:
        """A new, C-contiguous array of the values in a box, or of all of them.

        Args:
            box: three slices along z, y, x, of step 1, inside the volume; None reads everything.

        Raises:
            GeometryError: when the box is empty or reaches beyond the volume.
            VolumeFormatError: when the data of the box are damaged.
            InputError: when the volume is closed.
        """
        if self._fetch is None:
            raise InputError(f"{self.path}: the volume is closed; open it again to read from it")
        inside = check_box(self.path, self.shape, box)
        try:
            return np.array(self._fetch(inside), dtype=self.dtype, order="C")
        except (MedwaveError, MemoryError):
            raise
        except Exception as error:  # each codec fails in its own ways on damaged bytes, some with SystemError
            raise VolumeFormatError(
                f"{self.path}: the data of voxels {describe_box(inside)} cannot be decoded ({one_line(error)}); "
                "copy or download the file again"
            ) from None

    def close(self) -> None:
        """Let go of the file; reading afterwards is an error. Closing twice is not."""
        self._fetch = None
        if self._close is not None:
            self._close()
            self._close = None

    def __enter__(self) -> LazyVolume:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[[], LazyVolume], tuple[()]]:
        if self.reopen is None:
            raise TypeError(f"{self.path}: only a volume that was opened from a file can go to another process")
        return self.reopen, ()

    def __repr__(self) -> str:
        spacing = "unknown" if self.spacing_um is None else "x".join(f"{s:g}" for s in self.spacing_um) + " um"
        sizes = "x".join(map(str, self.shape))
        return f"LazyVolume({self.path!r}, {sizes} (z, y, x), {self.dtype.name}, voxels {spacing})"


def check_box(name: str, shape: Shape3, box: Sequence[slice] | None) -> Box:
    """The box with its bounds filled in; one that is empty or reaches outside is refused.

    Raises:
        GeometryError: when it is not three slices of step 1 with ``0 <= start < stop <= size``.
    """
    slices = (slice(None),) * 3 if box is None else tuple(box)
    if len(slices) != 3:
        raise GeometryError(f"{name}: a box is three slices along z, y and x, got {len(slices)}")
    bounds = []
    for part, size in zip(slices, shape, strict=True):
        start = 0 if part.start is None else int(part.start)
        stop = size if part.stop is None else int(part.stop)
        if part.step not in (None, 1) or not 0 <= start < stop <= size:
            raise GeometryError(
                f"{name}: a box lies inside the volume of {shape} (z, y, x) voxels and holds at least one, "
                f"got {describe_box(slices)}; clip it first"
            )
        bounds.append(slice(start, stop))
    z, y, x = bounds
    return z, y, x


def describe_box(box: Sequence[slice]) -> str:
    """A box as in ``[0:4, 2:6, 0:9]``."""
    return "[" + ", ".join(f"{s.start}:{s.stop}" + (f":{s.step}" if s.step else "") for s in box) + "]"


def check_shape(name: str, shape: Sequence[int]) -> Shape3:
    """Refuse what is not a volume: other than three axes, an empty axis, a single slice."""
    sizes = tuple(int(n) for n in shape)
    if len(sizes) != 3:
        raise GeometryError(
            f"{name}: a 3-D volume (z, y, x) is needed, got shape {sizes}; stack its slices to a volume"
        )
    if min(sizes) < 1:
        raise GeometryError(f"{name}: the volume is empty, its shape is {sizes} (z, y, x); write it again")
    if min(sizes) < 2:
        raise GeometryError(
            f"{name}: a 3-D volume is needed, this is a single slice of {sizes} (z, y, x) voxels; "
            "stack its slices to a volume"
        )
    return sizes[0], sizes[1], sizes[2]


def check_dtype(name: str, dtype: npt.DTypeLike) -> np.dtype[Any]:
    """The type in native byte order; anything but integers and floats is refused."""
    kind = np.dtype(dtype)
    if kind.kind not in "iuf":
        raise VolumeFormatError(
            f"{name}: voxels are integers or floats, these are {kind.name}; convert the file to 8 or 16 bits"
        )
    return kind.newbyteorder("=")


def check_spacing_um(name: str, spacing_um: Sequence[float]) -> Spacing:
    """Three positive finite numbers.

    Raises:
        GeometryError: when they are not.
    """
    sizes = tuple(float(s) for s in spacing_um)
    if len(sizes) != 3 or not all(math.isfinite(s) and s > 0 for s in sizes):
        raise GeometryError(
            f"{name}: voxel sizes along z, y and x are three positive numbers of micrometres, got {sizes}; "
            "give spacing_um yourself"
        )
    return sizes[0], sizes[1], sizes[2]


def check_channel(name: str, channel: int, channels: int) -> int:
    """Refuse a channel that the file does not have."""
    if not 0 <= channel < channels:
        there = "only channel 0" if channels == 1 else f"channels 0 to {channels - 1}"
        raise InputError(f"{name}: channel {channel} is asked for, the file has {there}; choose one of these")
    return channel


def micrometres(unit: str | None) -> float | None:
    """Micrometres in a named unit, or None for pixels and for names that are unknown."""
    return UM_PER_UNIT.get((unit or "").strip().lower())


def one_line(error: BaseException) -> str:
    """The text of a foreign error on one line."""
    return " ".join(str(error).split()) or type(error).__name__
