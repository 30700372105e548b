"""Convert, compose and invert transforms, and map how they change volume.

Everything that :func:`medwave.workflows.chains.load_chain` takes can be converted to the forms of ITK (ANTs, 3D
Slicer), FSL and FreeSurfer. Maps of points run from fixed to moving, as everywhere; FSL and FreeSurfer write linear
ones the other way round, which is seen to here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medwave.core.errors import InputError, OutputError
from medwave.core.files import StrPath, check_output
from medwave.core.geometry import Grid, Volume
from medwave.fields.kernels import determinants
from medwave.volumes import (
    SpatialTransform,
    m3z_command,
    write_field,
    write_flirt,
    write_fsl_field,
    write_lta,
    write_transform,
    write_volume,
)
from medwave.volumes.nifti import is_nifti
from medwave.workflows.chains import Chain, GridSource, joined, load_chain, whole_displacement
from medwave.workflows.options import TRANSFORM_FORMS
from medwave.workflows.pullback import Pullback
from medwave.workflows.run_folder import files_behind

if TYPE_CHECKING:
    from medwave.workflows.register import Registration

LEAST_DETERMINANT = 1e-9
"""What the logarithm of a Jacobian determinant takes for zero and less."""


@dataclass(frozen=True)
class Written:
    """A transform that was written.

    Attributes:
        path: the file.
        transform: what it holds, from fixed to moving points.
        hint: the command with which the program it is for uses it; empty when none is needed.
        residual_voxels: largest error left where a field had to be inverted.
    """

    path: Path
    transform: SpatialTransform
    hint: str = ""
    residual_voxels: float = 0.0


def convert_transform(
    sources: Registration | SpatialTransform | StrPath | Sequence[StrPath],
    output: StrPath,
    *,
    to: str = "itk",
    fixed: GridSource | None = None,
    moving: GridSource | None = None,
    inverse: bool = False,
) -> Written:
    """Write a transform in the form of another program.

    Args:
        sources: a result, a transform, the folder of a run, a file of ITK, FSL or FreeSurfer, or several of these,
            through which points pass in order.
        output: the file. Linear transforms: ``.tfm``, ``.txt``, ``.mat`` (ITK), any name but NIfTI (FSL), ``.lta``
            (FreeSurfer). Those that bend space: ``.h5``, nothing resampled, or one field ``.nii.gz`` on the grid of
            ``fixed`` (ITK); ``.nii.gz`` (FSL: relative; FreeSurfer: ITK's field, with the command that makes an m3z
            of it).
        to: ``"itk"``, ``"fsl"`` or ``"freesurfer"``.
        fixed, moving: images or grids at the two ends: FSL and FreeSurfer need both, a field needs ``fixed``. The
            folder of a run knows them.
        inverse: write the map from moving to fixed points; ``fixed`` and ``moving`` then change places.

    Raises:
        MissingFileError, VolumeFormatError, GeometryError, InputError: for unusable inputs.
        OutputError: when the name does not fit the form, or the file cannot be written or is an input.
    """
    if to not in TRANSFORM_FORMS:
        raise InputError(f"to: one of {', '.join(TRANSFORM_FORMS)}, got {to!r}")
    many = [sources] if isinstance(sources, str | Path | SpatialTransform) or hasattr(sources, "transform") else sources
    check_result(output, *many, fixed, moving)
    if len(many) == 1:
        chain = load_chain(many[0], fixed=fixed, moving=moving)
    else:
        parts = joined([load_chain(source) for source in many])
        chain = load_chain(parts.transform, fixed=fixed or parts.fixed, moving=moving or parts.moving)
    residual = 0.0
    if inverse:
        chain, residual = chain.turned_round()
    names = [str(each) if isinstance(each, str | Path) else "" for each in (fixed, moving)]
    hint = _write(chain, Path(output), to, *(names[::-1] if inverse else names))
    return Written(Path(output), chain.transform, hint, residual)


def compose_transforms(
    sources: Sequence[Registration | SpatialTransform | StrPath], output: StrPath, *,
    reference: GridSource | None = None,
) -> Written:  # fmt: skip
    """Write "first the first, then the next" as one transform.

    Args:
        sources: results, transforms, folders of runs (fixed to moving points) or files; points pass through them in
            order, so that the space in which one ends is that in which the next begins. Images are pulled back
            through the same chain, from the first fixed grid to the last moving image.
        output: ``.h5``: nothing is resampled; ``.tfm``, ``.txt``, ``.mat``: linear ones; ``.nii.gz``: one field.
        reference: grid of the field; by itself the fixed one of the first part, where that is a run.

    Raises:
        MissingFileError, VolumeFormatError, GeometryError, InputError, OutputError: as for :func:`convert_transform`.
    """
    check_result(output, *sources, reference)
    chain = joined([load_chain(source) for source in sources])
    if is_nifti(output):
        _write_field(output, chain.transform, chain.whole(reference))
    else:
        write_transform(output, chain.transform)
    return Written(Path(output), chain.transform)


def invert_transform(
    source: Registration | SpatialTransform | StrPath, output: StrPath, *, reference: GridSource | None = None
) -> Written:
    """Write the map from moving to fixed points.

    Args:
        source: a result or the folder of a run, whose stored inverse is taken; a transform or a file, whose fields
            are inverted by Newton steps on their own grids.
        output: as for :func:`compose_transforms`.
        reference: grid of a field ``.nii.gz``; by itself the moving one of a run, or that of a file that holds a field
            alone, if it is 0 at the border.

    Raises:
        MissingFileError, VolumeFormatError, GeometryError, InputError, OutputError: as for :func:`convert_transform`.
    """
    check_result(output, source, reference)
    back, residual = load_chain(source).turned_round()
    if is_nifti(output):
        _write_field(output, back.transform, back.whole(reference))
    else:
        write_transform(output, back.transform)
    return Written(Path(output), back.transform, residual_voxels=residual)


def jacobian_map(
    sources: Registration | SpatialTransform | StrPath | Sequence[StrPath], *, reference: GridSource | None = None,
    log: bool = False, linear: bool = True,
) -> Volume:  # fmt: skip
    """How a transform changes volume, per voxel: the determinant of dT/dx, whatever the axes of the grid.

    Above 1 the fixed grid expands into the moving image, at 0 and below it folds. Derivatives are central
    differences between the voxels of the grid.

    Args:
        sources: as for :func:`convert_transform`; for several, of the whole chain.
        reference: grid of the map; by itself the fixed one of the run, or that of the first field.
        log: natural logarithm; zero and less count as 1e-9.
        linear: whether linear steps count; without them what is left is the deformation.

    Raises:
        MissingFileError, VolumeFormatError, GeometryError, InputError: for unusable inputs.
    """
    many = sources if isinstance(sources, list | tuple) else [sources]
    chain = joined([load_chain(source) for source in many])
    grid = chain.start(reference)
    pullback = Pullback.through(chain.transform, grid)
    field = pullback.shift_voxels if pullback.shift_voxels is not None else np.zeros((3, *grid.shape), np.float32)
    volume = determinants(np.ascontiguousarray(field, dtype=np.float32))
    if linear:
        volume = volume * np.float32(np.linalg.det(pullback.matrix[:3, :3]))
    return Volume(np.log(np.maximum(volume, LEAST_DETERMINANT)) if log else volume, grid, "jacobian")


def folded_voxels(volume: Volume, *, log: bool = False) -> int:
    """How many voxels of a Jacobian map fold."""
    return int(np.count_nonzero(volume.data <= (np.float32(np.log(LEAST_DETERMINANT)) if log else 0)))


def write_jacobian(output: StrPath, volume: Volume) -> None:
    """Write what :func:`jacobian_map` returned, float32."""
    write_volume(output, volume, dtype=np.float32)


def check_result(output: StrPath, *inputs: Any) -> None:
    """Refuse at once a file that cannot be written, or that is an input or a result of a run that is one.

    Raises:
        OutputError: naming the file.
    """
    check_output(output, *files_behind(*inputs))


def _write(chain: Chain, path: Path, to: str, fixed_name: str, moving_name: str) -> str:
    """Write a chain; returns the command that uses the file."""
    matrix = chain.transform.linear
    if to == "itk":
        if is_nifti(path):
            _write_field(path, chain.transform, chain.whole())
        else:
            write_transform(path, chain.transform)
        return ""
    if chain.fixed is None or chain.moving is None:
        raise InputError(f"{path}: for {to} the grids of both images are needed; give --fixed and --moving")
    fixed, moving = fixed_name or "FIXED", moving_name or "MOVING"
    if to == "fsl":
        if is_nifti(path):
            pullback = Pullback.through(chain.transform, chain.fixed)
            write_fsl_field(path, pullback.matrix, pullback.shift_voxels, chain.fixed, chain.moving)
            return f"applywarp --rel -i {moving} -r {fixed} -w {path} -o warped"
        if matrix is None:
            raise OutputError(f"{path}: this transform bends space; for FSL end the name in .nii.gz")
        write_flirt(path, matrix, chain.fixed, chain.moving)
        return f"flirt -in {moving} -ref {fixed} -applyxfm -init {path} -out warped"
    if is_nifti(path):
        _write_field(path, chain.transform, chain.fixed)
        return m3z_command(path, moving)
    if matrix is None:
        raise OutputError(
            f"{path}: this transform bends space; for FreeSurfer end the name in .nii.gz: mri_warp_convert then makes "
            "an m3z file of it"
        )
    write_lta(path, matrix, chain.fixed, chain.moving, fixed_name=fixed_name, moving_name=moving_name)
    return f"mri_vol2vol --mov {moving} --targ {fixed} --lta {path} --o warped.mgz"


def _write_field(path: StrPath, transform: SpatialTransform, grid: Grid) -> None:
    field = whole_displacement(transform, grid)
    write_field(path, field.displacement_voxels, field.grid)
