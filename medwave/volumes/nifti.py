"""NIfTI-1 and NIfTI-2 as bytes: headers by nibabel, voxels decoded and encoded here.

Conventions
    A NIfTI file stores the first index fastest, so an array read from one is Fortran ordered; axes keep their order.
    The affine is nibabel's (sform if its code is set, else qform), RAS+ mm. A file without both is placed as ITK
    places it: the voxel sizes along L, P, S and the first voxel at the origin. nibabel would centre it in LAS, but
    transforms on disk are ITK's, and must fit the image as SimpleITK, ANTs and 3D Slicer read it. So do sizes and
    places in metres or micrometres, where the header says so: they are brought to mm, as ITK does and nibabel and FSL
    do not.

Writing streams slabs through :mod:`medwave.core.deflate`.
"""

from __future__ import annotations

import contextlib
import gzip
import logging
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from medwave.core.deflate import NoisePacker, gunzip, gzip_packer
from medwave.core.errors import GeometryError, OutputError, VolumeFormatError
from medwave.core.files import StrPath, atomic_path, input_file
from medwave.core.geometry import RAS_TO_LPS, Float64Array

GZIP_MAGIC = b"\x1f\x8b"
VECTOR_INTENT = 1007
_MM = {1: 1e3, 3: 1e-3}  # of metres and micrometres, by their code in the header; others are taken for mm
_HEADER_BYTES = 540  # of NIfTI-2, the longer one
DATA_OFFSET = 352  # 348 bytes of header and four that say "no extensions"


@dataclass(frozen=True)
class Decoded:
    """Voxels as stored (file axis order, scaling applied, native byte order), their affine and the NIfTI intent.

    ``time`` is the step of a fourth axis, and the code of its unit.
    """

    values: npt.NDArray[Any]
    affine: Float64Array
    intent: int = 0
    time: tuple[float, int] = (1.0, 0)


def is_nifti(path: StrPath) -> bool:
    """Whether the name ends as a NIfTI file."""
    return str(path).lower().endswith((".nii", ".nii.gz"))


def read_bytes(path: Path) -> bytes:
    """The content of a file, gunzipped if it is gzipped, whatever its name.

    Raises:
        MissingFileError: when it does not exist.
        VolumeFormatError: when it is damaged.
    """
    try:
        content = input_file(path).read_bytes()
        return gunzip(content) if content[:2] == GZIP_MAGIC else content
    except (EOFError, zlib.error) as error:
        raise VolumeFormatError(
            f"{path}: the compressed data is truncated or damaged ({error}); copy or download the file again"
        ) from None


def decode_nifti(path: Path) -> Decoded:
    """Read a NIfTI file.

    Raises:
        MissingFileError: when it does not exist.
        VolumeFormatError: when it is not NIfTI, or is damaged.
        GeometryError: when a voxel size is not positive.
    """
    content = read_bytes(path)
    header = _parse_header(path, content)
    with _nibabel_errors(path):
        dtype, shape, offset = header.get_data_dtype(), header.get_data_shape(), header.get_data_offset()
        slope, intercept = header.get_slope_inter()
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
        if not (header["sform_code"] or header["qform_code"]):
            sizes = header["pixdim"][1:4].astype(np.float64)
            affine = RAS_TO_LPS @ np.diag([*sizes, 1.0])
        units = int(header["xyzt_units"])
        affine[:3] *= _MM.get(units & 7, 1.0)
    stored = array_from(path, content, dtype, shape, offset)
    if slope is not None and (slope, intercept) != (1.0, 0.0) and stored.dtype.kind in "iuf":
        stored = np.multiply(stored, slope, dtype=np.float64) + (intercept or 0.0)
    return Decoded(stored, affine, int(header["intent_code"]), (float(header["pixdim"][4]), units & 56))


def nifti_shape(path: Path) -> tuple[int, ...]:
    """Axis lengths, from the header alone.

    Raises:
        MissingFileError: when it does not exist.
        VolumeFormatError: when it is not NIfTI, or the header is damaged.
    """
    header = _read_header(path)
    with _nibabel_errors(path):
        return tuple(int(n) for n in header.get_data_shape())


def frames_apart_mm(path: Path) -> float:
    """How far ITK places a voxel from where medwave does, at the corner where it is most.

    Where a header has two frames that count, medwave takes the sform, as nibabel, FSL and FreeSurfer do. ITK takes it
    only if it is of the scanner (code 1), and the qform otherwise.

    Raises:
        MissingFileError: when it does not exist.
        VolumeFormatError: when it is not NIfTI, or the header is damaged.
    """
    header = _read_header(path)
    with _nibabel_errors(path):
        if not header["qform_code"] or header["sform_code"] < 2:
            return 0.0
        between = np.asarray(header.get_sform(), dtype=np.float64) - header.get_qform()
        corners = np.array(np.meshgrid(*([0, n - 1] for n in header.get_data_shape()[:3]))).reshape(3, -1)
    apart = between[:3, :3] @ corners + between[:3, 3:]
    return float(np.linalg.norm(apart, axis=0).max()) * _MM.get(int(header["xyzt_units"]) & 7, 1.0)


def _read_header(path: Path) -> Any:
    with input_file(path).open("rb") as file:
        packed = file.read(2) == GZIP_MAGIC
        file.seek(0)
        try:
            content = (gzip.GzipFile(fileobj=file) if packed else file).read(_HEADER_BYTES)
        except (OSError, EOFError, zlib.error) as error:
            raise VolumeFormatError(f"{path}: the compressed data is damaged ({error})") from None
    return _parse_header(path, content)


def array_from(path: Path, content: bytes, dtype: Any, shape: Iterable[int], offset: int) -> npt.NDArray[Any]:
    """View bytes as a Fortran-ordered array; copied only when its byte order is foreign."""
    shape = tuple(int(n) for n in shape)
    if not shape or min(shape) < 1:
        raise GeometryError(f"{path}: an image has axes of at least one voxel, the header says {shape}")
    count = int(np.prod(shape, dtype=object))
    needed = offset + count * dtype.itemsize
    if len(content) < needed:
        raise VolumeFormatError(
            f"{path}: the data is truncated: {needed} bytes needed, {len(content)} there; copy or download it again"
        )
    values = np.frombuffer(content, dtype, count, offset).reshape(shape, order="F")
    return values.astype(dtype.newbyteorder("="), copy=False)


@contextlib.contextmanager
def _nibabel_errors(path: Path) -> Iterator[None]:
    """Turn nibabel's errors into ours and keep its log lines, which name no file, off the terminal."""
    logger = logging.getLogger("nibabel.global")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    except (
        nib.spatialimages.HeaderDataError,
        nib.wrapstruct.WrapStructError,
        ValueError,
        TypeError,
        KeyError,
    ) as error:
        reason = " ".join(str(error).split())
        raise VolumeFormatError(f"{path}: not a usable NIfTI header ({reason})") from None
    finally:
        logger.setLevel(level)


def _parse_header(path: Path, content: bytes) -> Any:
    kinds = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
    for order in ("little", "big"):
        kind = kinds.get(int.from_bytes(content[:4], order))
        if kind is None or len(content) < kind.sizeof_hdr:
            continue
        block = content[: kind.sizeof_hdr]
        with _nibabel_errors(path):
            raw = kind(block, check=False)
        if not bytes(raw["magic"]).startswith((b"n+1", b"n+2")):
            break
        check_spacing(path, raw["pixdim"][1:4])  # before nibabel repairs it silently
        with _nibabel_errors(path):
            return kind(block, check=True)
    raise VolumeFormatError(f"{path}: not a NIfTI file (single file, version 1 or 2), whatever its name says")


def check_spacing(path: Path, sizes: npt.NDArray[Any]) -> None:
    """Refuse voxel sizes that are not positive finite numbers."""
    if not (np.isfinite(sizes).all() and (sizes > 0).all()):
        raise GeometryError(
            f"{path}: voxel sizes are positive numbers of mm, the header says {sizes.tolist()}; correct the header"
        )


def is_orthogonal(affine: Float64Array) -> bool:
    """Whether the axes are at right angles to 1e-4, the tolerance of ITK's NIfTI reader."""
    direction = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(direction.T @ direction - np.eye(3)).max() <= 1e-4)


def stream_nifti(
    path: StrPath,
    slabs: Iterable[npt.NDArray[Any]],
    *,
    shape: tuple[int, ...],
    dtype: npt.DTypeLike,
    affine: Float64Array,
    intent: int = 0,
    time: tuple[float, int] | None = None,
    sample: npt.NDArray[np.float32] | None = None,
) -> None:
    """Write a NIfTI-1 file from slabs of voxels, atomically.

    Args:
        path: name ending in ``.nii`` or ``.nii.gz`` (compressed).
        slabs: arrays whose C-ordered bytes, put together, are the file's voxels (first index of ``shape`` fastest).
        shape: axis lengths of the stored array.
        dtype: type of a stored voxel.
        affine: 4x4 voxel-to-world matrix (RAS+ mm) for sform and qform. A sheared grid gets no qform, which cannot
            express it.
        intent: NIfTI intent code.
        time: step of a fourth axis and the code of its unit.
        sample: some of the values where they are float32 and hardly repeat: they are then packed by what they are
            like, in a third of the time.

    Raises:
        OutputError: when it cannot be written.
        GeometryError: when an axis is too long for NIfTI-1.
    """
    if not is_nifti(path):
        raise OutputError(f"{path}: volumes and fields are written as NIfTI; end the name in .nii.gz or .nii")
    if max(shape) > 32767:
        raise GeometryError(f"{path}: a NIfTI-1 axis has at most 32767 voxels, this shape is {shape}")
    header = _header(shape, dtype, affine)
    header["intent_code"] = intent
    if time is not None:
        header["pixdim"][4], header["xyzt_units"] = time[0], int(header["xyzt_units"]) | time[1]
    with atomic_path(path) as partial, partial.open("wb") as file:
        packer = gzip_packer() if sample is None else NoisePacker(sample)
        packed = partial.suffix.lower() == ".gz"
        pack = packer.compress if packed else bytes
        file.write(pack(header.binaryblock + bytes(DATA_OFFSET - len(header.binaryblock))))
        for slab in slabs:
            file.write(pack(np.ascontiguousarray(slab, dtype=header.get_data_dtype()).data))
        if packed:
            file.write(packer.flush())


def nifti_bytes(
    data: npt.NDArray[Any], affine: Float64Array, *, slope: float = 1.0, intercept: float = 0.0, packed: bool = False
) -> bytes:
    """A NIfTI-1 file in memory, for what reads volumes without files.

    Args:
        data: stored voxels ``(D, H, W)``, of their dtype; a reader gives ``slope * voxel + intercept``.
        affine: 4x4 voxel-to-world matrix (RAS+ mm).
        slope, intercept: kept in the header.
        packed: compressed, as ``.nii.gz``.
    """
    header = _header(data.shape, data.dtype, affine)
    header["scl_slope"], header["scl_inter"] = slope, intercept
    content = header.binaryblock + bytes(DATA_OFFSET - len(header.binaryblock)) + data.tobytes(order="F")
    if not packed:
        return content
    packer = gzip_packer()
    return bytes(packer.compress(content) + packer.flush())


def _header(shape: tuple[int, ...], dtype: npt.DTypeLike, affine: Float64Array) -> Any:
    header = nib.Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    header.set_sform(affine, code="scanner")
    header.set_qform(affine, code="scanner" if is_orthogonal(affine) else "unknown", strip_shears=True)
    header.set_xyzt_units("mm")
    header["vox_offset"] = DATA_OFFSET
    return header
