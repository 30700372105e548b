"""The same fields in SimpleITK: identity direction, spacing 1, LPS = voxels with the axes reversed."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from test_fields import smooth_field
from torch import Tensor

from medwave.fields import compose, integrate, invert, jacobian_determinant, warp

SHAPE = (30, 34, 38)


@pytest.fixture(scope="module")
def field() -> Tensor:
    return integrate(smooth_field(20, 5.0, SHAPE))


def to_itk(displacement: Tensor) -> sitk.Image:
    """Vector image; ITK counts x first, which is the last array axis."""
    vectors = displacement[0].flip(0).permute(1, 2, 3, 0).contiguous().numpy().astype(np.float64)
    return sitk.GetImageFromArray(vectors, isVector=True)


def from_itk(image: sitk.Image) -> Tensor:
    return torch.from_numpy(sitk.GetArrayFromImage(image)).permute(3, 0, 1, 2).flip(0)[None]


def inside(displacement: Tensor) -> Tensor:
    """Voxels that look at a place inside the grid: beyond it the two libraries pad differently."""
    ok = torch.ones(displacement.shape[2:], dtype=torch.bool)
    for axis, n in enumerate(displacement.shape[2:]):
        line = torch.arange(n).view([-1 if a == axis else 1 for a in range(3)]) + displacement[0, axis]
        ok &= (line >= 0) & (line <= n - 1)
    return ok


@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
def test_warp(field: Tensor, interpolation: str) -> None:
    generator = torch.Generator().manual_seed(0)
    array = torch.rand(SHAPE, generator=generator, dtype=torch.float64)
    image = sitk.GetImageFromArray(array.numpy())
    transform = sitk.DisplacementFieldTransform(to_itk(field))
    kind = sitk.sitkLinear if interpolation == "linear" else sitk.sitkNearestNeighbor
    expected = torch.from_numpy(sitk.GetArrayFromImage(sitk.Resample(image, transform, kind)))
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
        warped = warp(array[None, None].to(dtype), field.to(dtype), interpolation=interpolation)[0, 0]
        same = (warped - expected).abs()[inside(field)] < tolerance
        # a coordinate that ITK rounds to the other side of one half makes single voxels differ
        assert same.all() if interpolation == "linear" else same.double().mean() > 0.9999


def test_compose(field: Tensor) -> None:
    other = integrate(smooth_field(21, 4.0, SHAPE))
    both = sitk.CompositeTransform(3)  # the transform added last is applied first
    both.AddTransform(sitk.DisplacementFieldTransform(to_itk(field)))
    both.AddTransform(sitk.DisplacementFieldTransform(to_itk(other)))
    reference = sitk.GetImageFromArray(np.zeros(SHAPE))
    expected = from_itk(sitk.TransformToDisplacementField(both, sitk.sitkVectorFloat64, reference.GetSize()))
    together = compose(field, other)
    ok = inside(other)
    assert (together - expected)[0][:, ok].abs().max() < 1e-12


def test_jacobian_determinant(field: Tensor) -> None:
    expected = torch.from_numpy(sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(to_itk(field))))
    ours = jacobian_determinant(field)[0, 0]
    assert (ours - expected)[1:-1, 1:-1, 1:-1].abs().max() < 1e-12


def test_inverse(field: Tensor) -> None:
    theirs = from_itk(
        sitk.InvertDisplacementField(
            to_itk(field),
            maximumNumberOfIterations=200,
            maxErrorToleranceThreshold=1e-4,
            meanErrorToleranceThreshold=1e-5,
            enforceBoundaryCondition=False,
        )
    )
    ours, residual = invert(field, tolerance_voxels=1e-5)
    assert residual.max() < 1e-5
    left_over = (theirs + warp(field, theirs)).norm(dim=1)[..., 4:-4, 4:-4, 4:-4]  # ITK stops earlier than medwave
    difference = (ours - theirs).norm(dim=1)[..., 4:-4, 4:-4, 4:-4]
    assert difference.mean() < 1e-3
    assert (difference <= 5 * left_over + 1e-4).all()
