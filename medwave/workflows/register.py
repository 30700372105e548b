"""Register a pair of images: affine start, deformable refinement, and everything one wants to know about the result.

The transform maps fixed points to moving points, ``T(x) = A(x + u(x))``: the displacement u acts first, on the fixed
grid, then the affine A. Moving points go back by ``p + u_inv(p)``, ``p = A^-1(y)``. Files follow ITK
(:mod:`medwave.volumes`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medwave.core.errors import GeometryError, InputError
from medwave.core.files import StrPath
from medwave.core.geometry import Float64Array, Volume
from medwave.core.memory import freed_memory_kept
from medwave.core.provenance import Stage, StageClock, seen
from medwave.core.threads import limited_threads
from medwave.engine.affine import AffineResult, align
from medwave.engine.loops import Loops, loops_for
from medwave.engine.refine import Progress, Refinement, refine
from medwave.fields.inversion_kernel import invert_array
from medwave.fields.kernels import determinants
from medwave.volumes import (
    FieldStep,
    LinearStep,
    SpatialTransform,
    check_image,
    doubtful_frame,
    read_labels,
    read_volume,
)
from medwave.workflows.initial import initial_transform, linear_part
from medwave.workflows.metric_choice import chosen_metric
from medwave.workflows.options import RegisterOptions
from medwave.workflows.pair import WorkingPair, prepare_pair, resample, resample_labels
from medwave.workflows.pair_terms import (
    LandmarkDistances,
    PointSource,
    Terms,
    channels_on,
    doubtful_landmarks,
    landmark_distances,
    landmarks_on,
    load_terms,
)
from medwave.workflows.presets import levels_for
from medwave.workflows.pullback import Pullback
from medwave.workflows.run_folder import input_paths

FloatVolume = npt.NDArray[np.float32]
Source = Volume | StrPath

_MOST_VOXELS = 12_000_000
_MOST_TIMES_WIDER = 100  # a block of tissue in a whole brain is less


@dataclass(frozen=True)
class Registration:
    """The result of :func:`register`; arrays lie on the grid of the fixed file, in its axis order.

    Attributes:
        fixed, moving: the images.
        matrix: A, 4x4 RAS+ mm, fixed to moving points.
        affine: how the linear start went.
        displacement_voxels: u, ``(3, D, H, W)`` float32 in voxels of the fixed grid.
        inverse_voxels: u_inv, likewise on the fixed grid.
        inverse_residual_voxels: largest error that the inversion left.
        warped: the moving image on the fixed grid through the whole transform.
        jacobian: determinant of ``p + u(p)``, ``(D, H, W)``.
        subject: foreground of the fixed image, ``(D, H, W)`` bool.
        fixed_labels, moving_labels, warped_labels: label maps, when given.
        options: the options used, with ``auto`` resolved.
        stages: cost of each step.
        warnings: what a person should know.
        similarity: per level of the refinement, the similarity at each iteration.
        landmarks: distances of the landmarks, when given.
        warped_channels: the further channels of the moving subject on the fixed grid, in the order they were given.
        inputs: role -> what was known of a file that was given before it was read
            (:func:`medwave.core.provenance.seen`).
    """

    fixed: Volume
    moving: Volume
    matrix: Float64Array
    affine: AffineResult | None
    displacement_voxels: FloatVolume
    inverse_voxels: FloatVolume
    inverse_residual_voxels: float
    warped: Volume
    jacobian: FloatVolume
    subject: npt.NDArray[np.bool_]
    fixed_labels: Volume | None
    moving_labels: Volume | None
    warped_labels: Volume | None
    options: RegisterOptions
    stages: tuple[Stage, ...]
    warnings: tuple[str, ...]
    similarity: list[list[float]] = field(default_factory=list)
    landmarks: LandmarkDistances | None = None
    warped_channels: tuple[Volume, ...] = ()
    inputs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def transform(self) -> SpatialTransform:
        """T, from fixed to moving points: ``result.transform.apply_points_mm(points)``, RAS+ mm."""
        return SpatialTransform((FieldStep(self.displacement_voxels, self.fixed.grid), LinearStep(self.matrix)))

    @property
    def inverse_transform(self) -> SpatialTransform:
        """From moving to fixed points."""
        back = LinearStep(np.linalg.inv(self.matrix))
        return SpatialTransform((back, FieldStep(self.inverse_voxels, self.fixed.grid)))

    def save(self, folder: StrPath, **more: Any) -> Path:
        """Write images, transforms, measures and the report into a folder; returns the path of the report.

        See :func:`medwave.workflows.save.save_registration` for the files and the further arguments.
        """
        from medwave.workflows.save import save_registration

        return save_registration(self, folder, **more)


@dataclass(frozen=True)
class _Inputs:
    fixed: Volume
    moving: Volume
    fixed_labels: Volume | None
    moving_labels: Volume | None
    use_fixed: npt.NDArray[np.bool_] | None
    use_moving: npt.NDArray[np.bool_] | None
    start: Float64Array | None
    bend: SpatialTransform | None


def register(
    fixed: Source,
    moving: Source,
    *,
    fixed_labels: Source | None = None,
    moving_labels: Source | None = None,
    mask_fixed: Source | None = None,
    mask_moving: Source | None = None,
    lesion_fixed: Source | None = None,
    lesion_moving: Source | None = None,
    init: StrPath | SpatialTransform | Float64Array | None = None,
    weights: StrPath | None = None,
    fixed_channels: Sequence[Source] = (),
    moving_channels: Sequence[Source] = (),
    channel_weights: Sequence[float] | None = None,
    landmarks_fixed: PointSource | None = None,
    landmarks_moving: PointSource | None = None,
    options: RegisterOptions | None = None,
    on_stage: Callable[[str], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    **changes: Any,
) -> Registration:
    """Register ``moving`` to ``fixed``.

    Args:
        fixed, moving: volumes, or paths of NIfTI, MGZ, NRRD or MHA files; any orientation, spacing and contrast.
        fixed_labels, moving_labels: label maps on the grids of their images; moving labels are carried over.
        mask_fixed, mask_moving: non-zero where the images may be compared.
        lesion_fixed, lesion_moving: non-zero where they may not.
        init: what to start from: a 4x4 RAS+ mm matrix from fixed to moving points, a transform, a file of ITK, FSL
            or FreeSurfer (:func:`medwave.volumes.read_transform`), or the folder of another run. A linear one is
            refined by the affine stage; with one that bends space the deformable part goes on, its affine stays (of
            a field that holds the affine too, that part is taken out).
        weights: of a WiNet, from whose prediction the refinement then starts: a file (safetensors), or ``"brain"``,
            which comes with medwave (a file of that name comes first).
        fixed_channels, moving_channels: further images of the two subjects, such as T2 beside T1, in pairs, on any
            grids in the worlds of ``fixed`` and ``moving``. The similarity, of the affine as of the deformable part,
            is the mean over all pairs; a pair says nothing where one of its images has no voxel.
        channel_weights: how much each further pair counts beside the 1 of the first; 1 when left out.
        landmarks_fixed, landmarks_moving: points that belong together, row by row: tables in RAS+ mm, or CSV files in
            the axes that ``space`` names. They pull the deformable part by ``landmark_weight``.
        options: all other options; single ones can be given by name: ``register(f, m, preset="fast")``.
        on_stage: told the name of each step when it begins.
        on_progress: told about each iteration of the refinement.

    Raises:
        MedwaveError: one of its leaves, for any unusable input; see :mod:`medwave.core.errors`.
    """
    options = replace(options or RegisterOptions(), **changes)
    clock, warnings = StageClock(on_stage), []
    loops = loops_for(options.device)
    if weights is not None:
        from medwave.models.weights import weight_file  # torch takes a second to import

        weights = weight_file(weights)
    known = seen(input_paths(
        fixed=fixed, moving=moving, fixed_labels=fixed_labels, moving_labels=moving_labels, mask_fixed=mask_fixed,
        mask_moving=mask_moving, lesion_fixed=lesion_fixed, lesion_moving=lesion_moving, init=init, weights=weights,
        landmarks_fixed=landmarks_fixed, landmarks_moving=landmarks_moving, fixed_channel=fixed_channels,
        moving_channel=moving_channels,
    ))  # fmt: skip
    start = None if weights is None else _learned_start(weights, options)
    if options.formulation == "wavelet":
        import torch  # noqa: F401  before threads are limited

    with limited_threads(options.threads), freed_memory_kept():
        with clock.stage("read"):
            inputs = _load(
                fixed, moving, fixed_labels, moving_labels, mask_fixed, mask_moving, lesion_fixed, lesion_moving, init
            )
            terms = load_terms(
                fixed_channels, moving_channels, channel_weights, landmarks_fixed, landmarks_moving, options.space
            )
            warnings += _doubtful_frames((fixed, inputs.fixed), (moving, inputs.moving))
            warnings += doubtful_landmarks(terms, inputs.fixed.grid, inputs.moving.grid, options)
            pulled = options.landmark_weight > 0 and terms.points is not None
            if options.formulation == "wavelet" and options.deformable and (terms.channels or pulled):
                raise InputError("several channels and landmarks need the compositive formulation, not 'wavelet'")
            if inputs.bend is not None and (start is not None or options.formulation == "wavelet"):
                raise InputError(
                    "an initial transform that bends space takes the place of --weights, and of the compositive "
                    "formulation only; leave --weights and --formulation wavelet out, or give a linear one"
                )
        with clock.stage("affine"):
            linear = _linear_start(inputs, terms, options)
            if linear is not None and linear.failed:
                warnings.append(f"the linear start may have failed: {linear.reason}")
            matrix = linear.matrix if linear else (np.eye(4) if inputs.start is None else inputs.start)
            if inputs.bend is not None:
                matrix = linear_part(inputs.bend, inputs.fixed)
        with clock.stage("prepare"):
            moving_image = _in_rows(inputs.moving)
            pair = prepare_pair(
                inputs.fixed, moving_image, matrix, use_fixed=inputs.use_fixed, use_moving=inputs.use_moving,
                most_voxels=_MOST_VOXELS,
            )  # fmt: skip
            channels = channels_on(pair, matrix, terms)
            initial = None
            if inputs.bend is not None:
                initial = Pullback.through(inputs.bend, pair.grid).with_matrix(matrix).shift_voxels
            options = replace(options, metric=chosen_metric(pair, options, channels, initial, loops))
        if start is not None:
            with clock.stage("predict"):
                initial = start(inputs.fixed, inputs.moving, matrix, pair.grid)
        with clock.stage("refine"):
            landmarks = landmarks_on(pair, matrix, terms, options)
            refinement = _refine(pair, options, loops, initial, on_progress, channels=channels, landmarks=landmarks)
        with clock.stage("invert"):
            history, pair = refinement.similarity, pair.without_images()
            inverse, residual = invert_array(refinement.displacement_voxels, tolerance_voxels=1e-2)
            left, displacement = float(residual.max()), pair.to_native(refinement.displacement_voxels)
            del refinement, residual  # the most memory is in use about here
            inverse = pair.to_native(inverse)
        with clock.stage("warp"):
            warped = resample(moving_image, matrix, inputs.fixed.grid, displacement)
            further = [
                resample(_in_rows(channel), matrix, inputs.fixed.grid, displacement) for _, channel, _ in terms.channels
            ]
            jacobian = determinants(displacement)
            labels = _carry_labels(inputs, matrix, displacement)
            found = SpatialTransform((FieldStep(displacement, inputs.fixed.grid), LinearStep(matrix)))
    return Registration(
        fixed=inputs.fixed, moving=inputs.moving, matrix=matrix, affine=linear,
        displacement_voxels=displacement, inverse_voxels=inverse, inverse_residual_voxels=left,
        warped=Volume(warped, inputs.fixed.grid, "warped"), jacobian=jacobian,
        subject=pair.subject_on_native(),
        fixed_labels=inputs.fixed_labels, moving_labels=inputs.moving_labels, warped_labels=labels,
        options=options, stages=tuple(clock.stages), warnings=tuple(warnings), similarity=history,
        landmarks=landmark_distances(terms, matrix, found),
        warped_channels=tuple(
            Volume(data, inputs.fixed.grid, f"warped channel {n}") for n, data in enumerate(further, start=1)
        ),
        inputs=known,
    )  # fmt: skip


def _learned_start(weights: StrPath, options: RegisterOptions) -> Callable[..., FloatVolume]:
    """Reads the network now; the function returned predicts on a working grid."""
    from medwave.models import WiNet, open_network
    from medwave.workflows.learned_start import predicted_start

    return partial(predicted_start, open_network(weights, WiNet), device=options.device)


def _load(
    fixed: Source, moving: Source, fixed_labels: Source | None, moving_labels: Source | None,
    mask_fixed: Source | None, mask_moving: Source | None, lesion_fixed: Source | None, lesion_moving: Source | None,
    init: StrPath | SpatialTransform | Float64Array | None,
) -> _Inputs:  # fmt: skip
    images = [_volume(source) for source in (fixed, moving)]
    for image in images:
        check_image(image)
    return _Inputs(
        *images,
        _on_same_grid(fixed_labels, images[0], "label map"),
        _on_same_grid(moving_labels, images[1], "label map"),
        _allowed(mask_fixed, lesion_fixed, images[0]),
        _allowed(mask_moving, lesion_moving, images[1]),
        *initial_transform(init, images[0], images[1]),
    )


def _volume(source: Source) -> Volume:
    if isinstance(source, Volume):
        return source
    if not isinstance(source, str | PathLike):
        raise InputError(
            f"an image is a file or a medwave.core.geometry.Volume, got {type(source).__name__}; "
            "Volume(array, Grid(array.shape, affine)) makes one of an array and its 4x4 RAS+ mm affine"
        )
    return read_volume(source)


def _doubtful_frames(*read: tuple[Source, Volume]) -> list[str]:
    said = (doubtful_frame(source, volume.grid) for source, volume in read if not isinstance(source, Volume))
    return [each for each in said if each]


def _in_rows(volume: Volume) -> Volume:
    """The same as float32 with the last axis side by side in memory, as loops read it; files have the first one so."""
    return Volume(np.ascontiguousarray(volume.data, dtype=np.float32), volume.grid, volume.name)


def _on_same_grid(source: Source | None, image: Volume, role: str) -> Volume | None:
    """A label map or mask, which must lie on the grid of its image."""
    if source is None:
        return None
    volume = source if isinstance(source, Volume) else read_labels(source)
    if not volume.grid.matches(image.grid):
        raise GeometryError(
            f"{volume.name}: the {role} of {image.name} must lie on its grid ({image.grid.describe()}), "
            f"this one has {volume.grid.describe()}; resample it first"
        )
    return volume


def _allowed(mask: Source | None, lesion: Source | None, image: Volume) -> npt.NDArray[np.bool_] | None:
    """Where an image may be compared: inside its mask and outside its lesion."""
    inside, outside = _on_same_grid(mask, image, "mask"), _on_same_grid(lesion, image, "lesion mask")
    for volume in (inside, outside):
        if volume is not None and not np.any(volume.data):
            raise InputError(f"{volume.name}: the mask is empty (all zero); give one with voxels, or none")
    allowed = None if inside is None else np.asarray(inside.data != 0)
    if outside is not None:
        clear = np.asarray(outside.data == 0)
        allowed = clear if allowed is None else allowed & clear
    if allowed is not None and not allowed.any():
        raise InputError(f"{image.name}: mask and lesion mask together leave no voxel to compare")
    return allowed


def _linear_start(inputs: _Inputs, terms: Terms, options: RegisterOptions) -> AffineResult | None:
    if options.affine == "none" or inputs.bend is not None:
        return None
    if inputs.start is None:
        _check_sizes(inputs.fixed, inputs.moving)
    excluded = [None if use is None else ~use for use in (inputs.use_fixed, inputs.use_moving)]
    return align(
        inputs.fixed, inputs.moving, kind=options.affine, start=inputs.start,
        exclude_fixed=excluded[0], exclude_moving=excluded[1], channels=terms.channels,
    )  # fmt: skip


def _check_sizes(fixed: Volume, moving: Volume) -> None:
    """Refuse images of which one is far larger: no search finds the scale of a header in another unit."""
    widths = [float((np.array(image.grid.shape) * image.grid.spacing_mm).max()) for image in (fixed, moving)]
    if max(widths) > _MOST_TIMES_WIDER * min(widths):
        raise GeometryError(
            f"{fixed.name} is {widths[0]:.6g} mm wide, {moving.name} {widths[1]:.6g} mm: the header of one gives its "
            "voxel size in another unit; correct it, or give --init a transform that holds the scale"
        )


def _refine(
    pair: WorkingPair, options: RegisterOptions, loops: Loops, initial: FloatVolume | None,
    report: Callable[[Progress], None] | None, **terms: Any,
) -> Refinement:  # fmt: skip
    if not options.deformable:
        return Refinement(np.zeros((3, *pair.grid.shape), dtype=np.float32) if initial is None else initial, [])
    return refine(
        pair.fixed, pair.moving,
        levels_for(options.preset, options.metric, pair.grid.shape, masked=pair.excluded is not None),
        formulation=options.formulation, metric=options.metric,
        radius_voxels=options.radius, weight=pair.weight, excluded=pair.excluded, initial_voxels=initial,
        loops=loops, report=report, **terms,
    )  # fmt: skip


def _carry_labels(inputs: _Inputs, matrix: Float64Array, displacement: FloatVolume) -> Volume | None:
    if inputs.moving_labels is None:
        return None
    data = resample_labels(inputs.moving_labels, matrix, inputs.fixed.grid, displacement)
    return Volume(data, inputs.fixed.grid, "warped labels")
