"""Known answers and group laws of displacement fields."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from medwave.core.errors import GeometryError, InputError
from medwave.fields import (
    affine_displacement,
    compose,
    integrate,
    invert,
    jacobian_determinant,
    positions,
    resize,
    sample,
    to_mm,
    to_voxels,
    warp,
)

SHAPE = (17, 20, 23)


def smooth_field(seed: int, size_voxels: float, shape: tuple[int, int, int] = (24, 26, 28)) -> Tensor:
    """A random smooth field that fades to zero at the border, float64."""
    generator = torch.Generator().manual_seed(seed)
    field = torch.randn(1, 3, 3, 3, 3, generator=generator, dtype=torch.float64)  # three waves along each axis
    for n in shape:
        line = torch.linspace(0, math.pi, n, dtype=torch.float64)
        waves = torch.stack([torch.cos(k * line) * torch.sin(line) ** 2 for k in range(3)])
        field = torch.tensordot(field, waves, dims=([2], [0]))  # consumes the first wave axis, appends the voxel axis
    return field * (size_voxels / field.abs().max())


def inner(field: Tensor, margin: int = 3) -> Tensor:
    return field[..., margin:-margin, margin:-margin, margin:-margin]


def about_center(linear: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """4x4 voxel matrix that applies a 3x3 one about the middle of the grid."""
    center = (np.array(shape) - 1) / 2
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = center - linear @ center
    return matrix


def rotation(axis: int, degrees: float) -> np.ndarray:
    a, b = [n for n in range(3) if n != axis]
    matrix = np.eye(3)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix[a, a], matrix[a, b], matrix[b, a], matrix[b, b] = cos, -sin, sin, cos
    return matrix


# --- warp: known answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("interpolation", ["linear", "nearest", "label"])
def test_whole_voxel_shift_moves_values_along_its_own_axis(axis: int, interpolation: str) -> None:
    image = torch.randint(0, 9, (2, 2, *SHAPE)).float()
    displacement = torch.zeros(2, 3, *SHAPE)
    displacement[:, axis] = 3
    warped = warp(image, displacement, interpolation=interpolation)
    expected = torch.roll(image, -3, dims=2 + axis)
    last = image.narrow(2 + axis, image.shape[2 + axis] - 1, 1)
    expected.narrow(2 + axis, image.shape[2 + axis] - 3, 3).copy_(last.expand_as(expected.narrow(2 + axis, 0, 3)))
    assert torch.allclose(warped, expected, atol=1e-4)


def test_half_voxel_shift_averages_neighbours_and_zeros_fade() -> None:
    image = torch.rand(1, 1, *SHAPE, dtype=torch.float64)
    displacement = torch.zeros(1, 3, *SHAPE, dtype=torch.float64)
    displacement[:, 2] = 0.5
    middle = (image[..., :-1] + image[..., 1:]) / 2
    warped = warp(image, displacement, padding="zeros")
    assert torch.allclose(warped[..., :-1], middle, atol=1e-12)
    assert torch.allclose(warped[..., -1], image[..., -1] / 2, atol=1e-12)
    assert torch.allclose(warp(image, displacement)[..., -1], image[..., -1], atol=1e-12)


@pytest.mark.parametrize("interpolation", ["linear", "nearest", "label"])
def test_far_outside_is_zero_or_the_border(interpolation: str) -> None:
    image = torch.arange(1, 28).view(1, 1, 3, 3, 3).float()
    displacement = torch.full((1, 3, 3, 3, 3), 50.0)
    assert warp(image, displacement, interpolation=interpolation, padding="zeros").abs().max() == 0
    assert (warp(image, displacement, interpolation=interpolation) - 27).abs().max() < 1e-4


def test_linear_warp_is_exact_on_a_linear_image() -> None:
    p = positions(torch.zeros(1, 3, *SHAPE, dtype=torch.float64))
    image = 2 * p[:, :1] - 3 * p[:, 1:2] + 0.5 * p[:, 2:] + 1
    displacement = smooth_field(0, 2.5, SHAPE)
    q = p + displacement
    expected = 2 * q[:, :1] - 3 * q[:, 1:2] + 0.5 * q[:, 2:] + 1
    assert torch.allclose(warp(image, displacement), expected, atol=1e-10)


@pytest.mark.parametrize("shape", [(1, 8, 9), (8, 1, 9), (8, 9, 1), (1, 1, 1)])
@pytest.mark.parametrize("padding", ["border", "zeros"])
def test_axes_of_one_voxel(shape: tuple[int, int, int], padding: str) -> None:
    image = torch.rand(1, 1, *shape)
    still = torch.zeros(1, 3, *shape)
    assert torch.allclose(warp(image, still, padding=padding), image, atol=1e-5)
    away = torch.full((1, 3, *shape), 20.0)
    if padding == "zeros":
        assert warp(image, away, padding=padding).abs().max() == 0
    assert torch.allclose(jacobian_determinant(still), torch.ones(1, 1, *shape))
    assert integrate(still).abs().max() == 0


def test_the_moving_image_may_have_another_shape() -> None:
    image = torch.rand(1, 1, 9, 11, 13, dtype=torch.float64)
    displacement = torch.zeros(1, 3, 5, 6, 7, dtype=torch.float64)
    displacement += torch.tensor([4.0, 5.0, 6.0], dtype=torch.float64).view(1, 3, 1, 1, 1)
    assert torch.allclose(warp(image, displacement), image[..., 4:9, 5:11, 6:13], atol=1e-12)


def test_points_are_read_like_grids() -> None:
    image = torch.rand(2, 3, *SHAPE, dtype=torch.float64)
    points = torch.rand(2, 3, 40, dtype=torch.float64) * 15
    values = sample(image, points)
    for m in range(40):
        low = points[0, :, m].floor().long()
        part = points[0, :, m] - low
        expected = 0.0
        for corner in np.ndindex(2, 2, 2):
            weight = math.prod(float(part[a] if corner[a] else 1 - part[a]) for a in range(3))
            expected = expected + weight * image[0, :, low[0] + corner[0], low[1] + corner[1], low[2] + corner[2]]
        assert torch.allclose(values[0, :, m], expected, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("interpolation", ["nearest", "label"])
def test_label_maps_keep_dtype_and_values(dtype: torch.dtype, interpolation: str) -> None:
    largest = torch.iinfo(dtype).max  # int32 and int64 maxima do not fit into float32
    image = torch.where(torch.rand(1, 1, *SHAPE) > 0.5, largest, 7).to(dtype)
    warped = warp(image, smooth_field(1, 3.0, SHAPE), interpolation=interpolation)
    assert warped.dtype == dtype
    assert set(warped.unique().tolist()) == {7, largest}


def test_nearest_rounds_halves_up() -> None:
    image = torch.arange(5).view(1, 1, 1, 1, 5)
    displacement = torch.zeros(1, 3, 1, 1, 5)
    displacement[:, 2] = 0.5
    assert warp(image, displacement, interpolation="nearest").flatten().tolist() == [1, 2, 3, 4, 4]


@pytest.mark.parametrize("padding", ["border", "zeros"])
def test_label_interpolation_is_the_argmax_of_warped_indicators(padding: str) -> None:
    labels = torch.randint(0, 6, (2, 2, *SHAPE), dtype=torch.int16)
    displacement = smooth_field(2, 4.0, SHAPE).expand(2, -1, -1, -1, -1)
    indicators = torch.stack([warp((labels == k).double(), displacement, padding=padding) for k in range(6)])
    if padding == "zeros":
        indicators[0] += 1 - indicators.sum(dim=0)  # outside counts as background
    warped = warp(labels, displacement, interpolation="label", padding=padding)
    top = indicators.max(dim=0).values
    chosen = indicators.gather(0, warped[None].long())[0]
    assert torch.allclose(chosen, top, atol=1e-9)
    clear = (top[None] - indicators < 1e-9).sum(dim=0) == 1
    assert torch.equal(warped[clear].long(), indicators.argmax(dim=0)[clear])


def test_linear_on_integers_gives_floating_point_and_half_keeps_its_dtype() -> None:
    displacement = smooth_field(3, 2.0, SHAPE).float()
    image = torch.randint(0, 200, (1, 1, *SHAPE), dtype=torch.uint8)
    reference = warp(image.float(), displacement)
    assert torch.equal(warp(image, displacement), reference)
    half = warp(image.half(), displacement)
    assert half.dtype == torch.float16
    assert torch.equal(half, reference.half())  # interpolated in float32, rounded once


# --- precision under autocast ----------------------------------------------------------------------------------------


def test_autocast_does_not_change_a_digit() -> None:
    field = smooth_field(4, 2.0).float()
    image = torch.rand(1, 1, *field.shape[2:])
    jobs: list[Callable[[], Tensor]] = [
        lambda: warp(image, field),
        lambda: compose(field, field),
        lambda: integrate(field),
        lambda: invert(field)[0],
        lambda: jacobian_determinant(field, affine=np.diag([2.0, 1, 1, 1])),
        lambda: resize(field, (12, 13, 14)),
        lambda: to_mm(field, about_center(rotation(0, 30), SHAPE)),
        lambda: affine_displacement(about_center(rotation(0, 30), SHAPE), SHAPE),
    ]
    for job in jobs:
        reference = job()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(job(), reference)
        assert reference.dtype == torch.float32


def test_half_fields_are_computed_in_float32() -> None:
    field = smooth_field(5, 2.0).to(torch.bfloat16)
    assert integrate(field).dtype == torch.float32
    assert torch.equal(compose(field, field), compose(field.float(), field.float()))


# --- affine maps -----------------------------------------------------------------------------------------------------


def test_rotation_about_the_center_turns_a_quarter_exactly() -> None:
    shape = (5, 8, 8)
    image = torch.rand(1, 1, *shape, dtype=torch.float64)
    displacement = affine_displacement(about_center(rotation(0, 90), shape), shape, dtype=torch.float64)
    assert torch.allclose(warp(image, displacement), torch.rot90(image, -1, (3, 4)), atol=1e-10)


def test_affine_displacements_compose_like_matrices() -> None:
    first = about_center(rotation(1, 10) @ np.diag([1.1, 0.95, 1.0]), SHAPE)
    last = about_center(rotation(2, -7), SHAPE)
    last[:3, 3] += [0.3, -0.4, 0.2]
    together = compose(
        affine_displacement(last, SHAPE, dtype=torch.float64), affine_displacement(first, SHAPE, dtype=torch.float64)
    )
    expected = affine_displacement(last @ first, SHAPE, dtype=torch.float64)
    assert torch.allclose(inner(together, 4), inner(expected, 4), atol=1e-10)


def test_a_batch_of_matrices_and_its_gradient() -> None:
    matrices = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    matrices[1, 0, 3] = 2
    matrices.requires_grad_()
    field = affine_displacement(matrices, (3, 4, 5), dtype=torch.float64)
    assert field.shape == (2, 3, 3, 4, 5)
    assert field[0].abs().max() == 0
    assert torch.equal(field[1, 0], torch.full((3, 4, 5), 2.0, dtype=torch.float64))
    field[1, 0].sum().backward()
    assert matrices.grad is not None
    assert matrices.grad[1, 0, 3] == 60


def test_jacobian_of_affine_maps_is_their_determinant() -> None:
    matrix = about_center(rotation(0, 20) @ np.diag([1.2, 0.7, 1.1]) @ rotation(2, 35), SHAPE)
    field = affine_displacement(matrix, SHAPE, dtype=torch.float64)
    determinant = np.linalg.det(matrix)
    assert torch.allclose(jacobian_determinant(field), torch.full((1, 1, *SHAPE), determinant, dtype=torch.float64))
    both = jacobian_determinant(torch.zeros(1, 3, *SHAPE), affine=matrix)
    assert torch.allclose(both, torch.full((1, 1, *SHAPE), determinant, dtype=torch.float32))


def test_jacobian_of_a_quadratic_map_and_of_a_fold() -> None:
    p = positions(torch.zeros(1, 3, *SHAPE, dtype=torch.float64))
    field = torch.zeros_like(p)
    field[:, 1] = 0.01 * p[:, 1] ** 2 * p[:, 0]  # d/dy = 0.02 y x: central differences are exact on a parabola
    determinant = jacobian_determinant(field)[0, 0]
    expected = 1 + 0.02 * p[0, 1] * p[0, 0]
    assert torch.allclose(determinant[:, 1:-1], expected[:, 1:-1], atol=1e-10)
    assert torch.allclose(jacobian_determinant(-2 * p), -torch.ones(1, 1, *SHAPE, dtype=torch.float64))


def test_volume_change_under_a_small_flow_is_the_divergence() -> None:
    field = smooth_field(6, 1.0)
    divergence = sum(torch.gradient(field[:, a], dim=1 + a)[0] for a in range(3))
    step = 1e-5
    assert torch.allclose((jacobian_determinant(step * field)[:, 0] - 1) / step, divergence, atol=1e-4)


def test_millimetres_and_back() -> None:
    affine = np.eye(4)
    affine[:3, :3] = rotation(0, 25) @ rotation(2, 10) @ np.diag([-1.0, 0.8, 2.5])
    affine[:3, 3] = [10, -20, 30]
    field = smooth_field(7, 3.0)
    vectors = to_mm(field, affine)
    expected = affine[:3, :3] @ field[0, :, 5, 6, 7].numpy()
    np.testing.assert_allclose(vectors[0, :, 5, 6, 7].numpy(), expected, atol=1e-12)
    assert torch.allclose(to_voxels(vectors, affine), field, atol=1e-12)


# --- exponential and inverse -----------------------------------------------------------------------------------------


def test_exponential_of_a_linear_velocity_is_the_matrix_exponential() -> None:
    shape = (33, 33, 33)
    generator = np.zeros((3, 3))
    generator[0, 1], generator[1, 0], generator[2, 2] = -0.3, 0.3, 0.15
    velocity = affine_displacement(about_center(np.eye(3) + generator, shape), shape, dtype=torch.float64)
    exact = torch.linalg.matrix_exp(torch.from_numpy(generator)).numpy()
    expected = affine_displacement(about_center(exact, shape), shape, dtype=torch.float64)
    errors = [float(inner(integrate(velocity, k) - expected, 10).abs().max()) for k in (5, 6, 7, 8)]
    assert errors[2] < 0.01
    for coarse, fine in pairwise(errors):
        assert 1.8 < coarse / fine < 2.2  # first order in 2^-K


def test_a_constant_velocity_is_its_own_displacement() -> None:
    velocity = torch.full((1, 3, *SHAPE), 1.7, dtype=torch.float64)
    assert torch.allclose(integrate(velocity), velocity, atol=1e-12)


@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 10_000), size=st.floats(0.1, 3.0))
def test_group_laws(seed: int, size: float) -> None:
    u, v, w = (smooth_field(seed + k, size) for k in range(3))
    still = torch.zeros_like(u)
    assert torch.equal(compose(still, u), u)
    assert torch.allclose(compose(u, still), u, atol=1e-10)
    inverse, residual = invert(u, tolerance_voxels=1e-6)
    assert residual.max() < 1e-6
    assert compose(u, inverse).abs().max() < 2e-6
    flow, back = integrate(u), integrate(-u)
    assert compose(flow, back).abs().max() < 0.06 * size  # trilinear between voxels: not exact
    assert jacobian_determinant(flow).min() > 0
    half = integrate(u / 2)
    assert (compose(half, half) - flow).abs().max() < 0.004 * size
    left, right = compose(compose(u, v), w), compose(u, compose(v, w))
    assert (left - right).abs().max() < 0.08 * size


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_inverse_of_a_strong_field_where_the_plain_fixed_point_diverges(dtype: torch.dtype) -> None:
    field = integrate(3 * smooth_field(8, 4.0)).to(dtype)
    slope = max(float(torch.gradient(field, dim=2 + a)[0].abs().max()) for a in range(3))
    assert slope > 1.5
    plain = -field
    for _ in range(50):
        plain = -warp(field, plain)
    assert (plain + warp(field, plain)).norm(dim=1).max() > 0.5
    inverse, residual = invert(field)
    assert residual.max() <= 1e-3
    assert torch.allclose((inverse + warp(field, inverse)).norm(dim=1, keepdim=True), residual, atol=1e-5)


def test_the_compiled_inverse_equals_the_one_in_torch() -> None:
    field = torch.cat([integrate(3 * smooth_field(8, 4.0)), smooth_field(12, 1.0)])
    reference, _ = invert(field, tolerance_voxels=1e-8)
    inverse, residual = invert(field.float(), tolerance_voxels=1e-4)
    assert inverse.dtype == torch.float32
    assert residual.max() <= 1e-4
    assert torch.allclose(inverse.double(), reference, atol=2e-3)  # residual over the smallest slope of the map


def test_the_compiled_inverse_does_not_depend_on_threads_or_memory_order() -> None:
    field = smooth_field(12, 2.0).float()
    expected, _ = invert(field)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(invert(field)[0], expected)
    finally:
        torch.set_num_threads(threads)
    turned = field.transpose(2, 4)
    assert torch.equal(invert(turned)[0], invert(turned.contiguous())[0])


def test_a_voxel_without_a_number_spoils_only_its_own_inverse() -> None:
    field = smooth_field(13, 0.5).float()
    expected, _ = invert(field)
    field[0, 1, 12, 13, 14] = torch.nan
    inverse, residual = invert(field)
    spoiled = ~torch.isfinite(residual[0, 0])
    assert 1 <= spoiled.sum() <= 27
    assert torch.allclose(inverse[0][:, ~spoiled], expected[0][:, ~spoiled], atol=5e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_inverse_of_a_flat_grid(dtype: torch.dtype) -> None:
    shift = torch.full((1, 3, 1, 4, 1), 1.5, dtype=dtype)
    inverse, residual = invert(shift)
    assert torch.allclose(inverse, -shift)
    assert residual.max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_residual_of_a_fold_tells(dtype: torch.dtype) -> None:
    p = positions(torch.zeros(1, 3, *SHAPE, dtype=dtype))
    field = torch.zeros_like(p)
    field[:, 0] = 6 * torch.sin(p[:, 0])
    inverse, residual = invert(field)
    assert torch.isfinite(inverse).all()
    assert torch.allclose((inverse + warp(field, inverse)).norm(dim=1, keepdim=True), residual, atol=1e-3)
    start = invert(field, iterations=0)[1]
    assert start.max() > 1
    assert residual.mean() < start.mean()


def test_inverse_works_item_by_item() -> None:
    fields = torch.cat([smooth_field(9, 2.0), smooth_field(10, 0.5)])
    together, _ = invert(fields)
    alone = torch.cat([invert(fields[n : n + 1])[0] for n in range(2)])
    assert torch.equal(together, alone)


# --- resize ----------------------------------------------------------------------------------------------------------


def test_resize_keeps_the_box_and_counts_new_voxels() -> None:
    shift = torch.full((1, 3, 8, 9, 10), 2.0, dtype=torch.float64)
    bigger = resize(shift, (16, 27, 5))
    expected = torch.tensor([4.0, 6.0, 1.0], dtype=torch.float64).view(1, 3, 1, 1, 1).expand_as(bigger)
    assert torch.allclose(bigger, expected)
    p = positions(torch.zeros(1, 3, 8, 8, 8, dtype=torch.float64))
    scaling = 0.1 * (p + 0.5)  # about the outer corner of the box, where both grids agree
    q = positions(torch.zeros(1, 3, 16, 16, 16, dtype=torch.float64))
    assert torch.allclose(inner(resize(scaling, (16, 16, 16)), 2), inner(0.1 * (q + 0.5), 2), atol=1e-12)
    assert torch.equal(resize(scaling, (8, 8, 8)), scaling)


# --- gradients -------------------------------------------------------------------------------------------------------


def test_gradients_against_finite_differences() -> None:
    generator = torch.Generator().manual_seed(3)
    image = torch.rand(1, 2, 4, 3, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    field = torch.rand(1, 3, 4, 3, 5, generator=generator, dtype=torch.float64) * 0.8 - 0.4
    field.requires_grad_()
    for padding in ("border", "zeros"):
        assert torch.autograd.gradcheck(lambda i, f, p=padding: warp(i, f, padding=p), (image, field))
    other = (field.detach() * 0.9).requires_grad_()
    assert torch.autograd.gradcheck(compose, (field, other))
    assert torch.autograd.gradcheck(lambda f: integrate(f, 3), (field,))
    assert torch.autograd.gradcheck(jacobian_determinant, (field,))
    assert torch.autograd.gradcheck(lambda f: resize(f, (5, 6, 4)), (field,))
    assert torch.autograd.gradcheck(lambda f: to_mm(f, np.diag([1.0, 2, 3, 1])), (field,))


def test_the_gradient_of_warp_is_its_adjoint() -> None:
    field = smooth_field(11, 3.0, SHAPE)
    x = torch.rand(1, 1, *SHAPE, dtype=torch.float64, requires_grad=True)
    y = torch.rand(1, 1, *SHAPE, dtype=torch.float64)
    warped = warp(x, field, padding="zeros")
    (transposed,) = torch.autograd.grad(warped, x, y)
    assert torch.allclose((warped * y).sum(), (x * transposed).sum())


# --- errors ----------------------------------------------------------------------------------------------------------


def test_messages_name_the_rule_and_what_came() -> None:
    field = torch.zeros(1, 3, 4, 4, 4)
    image = torch.zeros(1, 1, 4, 4, 4)
    with pytest.raises(GeometryError, match=r"\(N, 3, D, H, W\).*\(1, 2, 4, 4, 4\)"):
        warp(image, field[:, :2])
    with pytest.raises(GeometryError, match="floating-point"):
        integrate(field.long())
    with pytest.raises(GeometryError, match="same N"):
        warp(image, field.expand(2, -1, -1, -1, -1))
    with pytest.raises(GeometryError, match="resize"):
        compose(field, field[..., 1:])
    with pytest.raises(GeometryError, match="4x4"):
        to_mm(field, np.eye(3))
    with pytest.raises(GeometryError, match="three axes"):
        affine_displacement(np.eye(4), (3, 4))
    with pytest.raises(GeometryError, match="new shape"):
        resize(field, (3, 0, 4))
    with pytest.raises(InputError, match="cubic"):
        warp(image, field, interpolation="cubic")
    with pytest.raises(InputError, match="reflect"):
        warp(image, field, padding="reflect")
    with pytest.raises(InputError, match="-1"):
        integrate(field, -1)
    with pytest.raises(InputError, match="tolerance_voxels=0"):
        invert(field, tolerance_voxels=0)
