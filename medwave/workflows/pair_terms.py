"""Further channels and landmarks of a pair: read, brought to the working grid, and the landmarks measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medwave.core.errors import InputError
from medwave.core.files import StrPath
from medwave.core.geometry import Float64Array, Grid, Volume, transform_points
from medwave.engine.refine_terms import Channel, Landmarks
from medwave.volumes import PointTable, SpatialTransform, check_image, read_points, read_volume
from medwave.workflows.options import RegisterOptions
from medwave.workflows.pair import WorkingPair, channel_on_grid

PointSource = PointTable | StrPath


@dataclass(frozen=True)
class Terms:
    """What counts beside the first pair of images.

    Attributes:
        channels: further images: fixed, moving, weight. Each lies on any grid in the world of its subject.
        points: places that belong together, ``(N, 3)`` each, RAS+ mm, in the fixed and in the moving world.
    """

    channels: tuple[tuple[Volume, Volume, float], ...] = ()
    points: tuple[Float64Array, Float64Array] | None = None


@dataclass(frozen=True)
class LandmarkDistances:
    """Distance in mm of each pair of landmarks, ``(N,)``: by the headers, after the affine, at the end."""

    before_mm: Float64Array
    affine_mm: Float64Array
    after_mm: Float64Array


def load_terms(
    fixed_channels: Sequence[Volume | StrPath], moving_channels: Sequence[Volume | StrPath],
    weights: Sequence[float] | None, landmarks_fixed: PointSource | None, landmarks_moving: PointSource | None,
    space: str,
) -> Terms:  # fmt: skip
    """Read channels and landmarks.

    Raises:
        MissingFileError, VolumeFormatError, GeometryError: when an image is unusable.
        InputError: when the two sides, or the weights, do not go in pairs.
    """
    pairs = len(fixed_channels), len(moving_channels)
    if pairs[0] != pairs[1]:
        raise InputError(
            f"channels come in pairs, got {pairs[0]} of the fixed and {pairs[1]} of the moving subject; give "
            "--fixed-channel and --moving-channel equally often, in the same order"
        )
    shares = [1.0] * pairs[0] if not weights else [float(weight) for weight in weights]
    if len(shares) != pairs[0] or not all(0 < weight < np.inf for weight in shares):
        raise InputError(
            f"channel weights: one number above 0 for each of the {pairs[0]} further channels (the first pair has 1), "
            f"got {', '.join(map(str, weights or ()))}"
        )
    images = [[_image(source) for source in side] for side in (fixed_channels, moving_channels)]
    channels = tuple(zip(*images, shares, strict=True))
    return Terms(channels, _points(landmarks_fixed, landmarks_moving, space))


def doubtful_landmarks(terms: Terms, fixed: Grid, moving: Grid, options: RegisterOptions) -> list[str]:
    """A warning for each side that has landmarks outside of its image, as those in other axes often are."""
    if terms.points is None:
        return []
    inside = {"fixed": fixed.holds(terms.points[0]), "moving": moving.holds(terms.points[1])}
    return [
        f"{(~held).sum()} of {len(held)} landmarks lie outside of the {side} image; are x y z in mm along "
        f"{options.space} (--space)?"
        for side, held in inside.items()
        if not held.all()
    ]


def channels_on(pair: WorkingPair, matrix: Float64Array, terms: Terms) -> list[Channel]:
    """The channels on the working grid of a pair, the moving ones through the affine.

    Raises:
        InputError: when a channel shows nothing of the subject.
    """
    channels = []
    for fixed, moving, weight in terms.channels:
        first, second, missing = channel_on_grid(pair, fixed, moving, matrix)
        if missing is not None and missing[pair.subject].all():
            raise InputError(
                f"{fixed.name} and {moving.name}: as channels they show nothing of the subject together; each lies in "
                "the world of the first image of its side, whatever its grid: check their headers"
            )
        channels.append(Channel(first, second, weight, missing))
    return channels


def landmarks_on(pair: WorkingPair, matrix: Float64Array, terms: Terms, options: RegisterOptions) -> Landmarks | None:
    """The landmarks in voxels of the working grid, the moving ones through the inverse of the affine."""
    if terms.points is None or options.landmark_weight == 0:
        return None
    targets = transform_points(np.linalg.inv(matrix), terms.points[1])
    reach = options.landmark_reach / float(pair.grid.spacing_mm.mean())
    return Landmarks(pair.grid.to_voxels(terms.points[0]), pair.grid.to_voxels(targets), reach, options.landmark_weight)


def landmark_distances(terms: Terms, matrix: Float64Array, transform: SpatialTransform) -> LandmarkDistances | None:
    """How far the landmarks of the moving image lie from where the fixed ones are sent."""
    if terms.points is None:
        return None
    fixed, moving = terms.points
    sent = (fixed, transform_points(matrix, fixed), transform.apply_points_mm(fixed))
    return LandmarkDistances(*(np.linalg.norm(points - moving, axis=1) for points in sent))


def _image(source: Volume | StrPath) -> Volume:
    volume = source if isinstance(source, Volume) else read_volume(source)
    check_image(volume)
    return volume


def _points(
    fixed: PointSource | None, moving: PointSource | None, space: str
) -> tuple[Float64Array, Float64Array] | None:
    if fixed is None and moving is None:
        return None
    if fixed is None or moving is None:
        raise InputError("landmarks come in pairs: give both --landmarks-fixed and --landmarks-moving")
    tables = [t if isinstance(t, PointTable) else read_points(t, space=space) for t in (fixed, moving)]  # type: ignore[arg-type]
    counts = [len(table.points_mm) for table in tables]
    if counts[0] != counts[1] or not counts[0]:
        raise InputError(
            f"landmarks come in pairs, row by row: {counts[0]} fixed and {counts[1]} moving ones came; "
            "give files of as many rows, at least one"
        )
    return tables[0].points_mm, tables[1].points_mm
