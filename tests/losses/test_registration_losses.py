"""Known answers, invariances and gradients of the registration losses."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from medwave.core.errors import GeometryError, InputError
from medwave.fields import affine_displacement, positions, warp
from medwave.losses import MINDSSC, GlobalMI, LocalNCC, Smoothness
from medwave.losses.windows import window_count, window_sum

SHAPE = (18, 20, 22)
SIMILARITIES: dict[str, Callable[[], nn.Module]] = {
    "lncc": lambda: LocalNCC(2),
    "mi": lambda: GlobalMI(16),
    "nmi": lambda: GlobalMI(16, normalized=True),
    "mind": lambda: MINDSSC(1, dilation=1),
}


def texture(
    seed: int, shape: tuple[int, ...] = SHAPE, sigma: float = 1.5, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Smooth noise between 0 and 1, (1, 1, D, H, W)."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    noise = (noise - noise.min()) / (noise.max() - noise.min())
    return torch.from_numpy(noise)[None, None].to(dtype)


# --- windows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [0, 1, 2, 3, 4, 6])
def test_window_sums_equal_a_dense_convolution(radius: int) -> None:
    values = torch.rand(2, 2, 9, 5, 11, dtype=torch.float64)
    size = 2 * radius + 1
    kernel = torch.ones(1, 1, size, size, size, dtype=torch.float64)
    dense = nn.functional.conv3d(values.view(4, 1, 9, 5, 11), kernel, padding=radius).view_as(values)
    assert torch.allclose(window_sum(values, radius), dense)
    assert torch.equal(window_count(values, radius)[0, 0], window_sum(torch.ones_like(values), radius)[0, 0])


def test_window_sum_is_its_own_transpose() -> None:
    x, y = torch.rand(2, 1, 1, 6, 7, 8, dtype=torch.float64).unbind(0)
    assert torch.allclose((window_sum(x, 2) * y).sum(), (x * window_sum(y, 2)).sum())
    small = torch.rand(1, 1, 3, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: window_sum(v, 1), (small,))
    assert torch.autograd.gradgradcheck(lambda v: window_sum(v, 1).square(), (small,))


# --- laws of every similarity ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIMILARITIES)
def test_an_image_is_most_similar_to_itself_and_less_so_the_further_it_moves(name: str) -> None:
    loss, image = SIMILARITIES[name](), texture(0)
    values = []
    for shift in (0.0, 0.5, 1.0, 2.0):
        matrix = np.eye(4)
        matrix[1, 3] = shift
        values.append(float(loss(warp(image, affine_displacement(matrix, SHAPE)), image)))
    assert values == sorted(values)
    assert values[0] < values[1] - 1e-3


@pytest.mark.parametrize("name", SIMILARITIES)
def test_few_steps_recover_a_shift(name: str) -> None:
    loss, moving = SIMILARITIES[name](), texture(1, sigma=2.0)
    truth = torch.tensor([0.8, -0.6, 0.5], dtype=torch.float64)
    still = torch.zeros(1, 3, *SHAPE, dtype=torch.float64)
    fixed = warp(moving, still + truth.view(1, 3, 1, 1, 1))
    shift = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([shift], lr=0.1)
    for _ in range(25):
        optimiser.zero_grad()
        loss(warp(moving, still + shift.view(1, 3, 1, 1, 1)), fixed).backward()
        optimiser.step()
    assert (shift - truth).norm() < 0.25 * truth.norm()


@pytest.mark.parametrize("name", SIMILARITIES)
def test_a_batch_costs_the_mean_of_its_items(name: str) -> None:
    loss = SIMILARITIES[name]()
    a, b, w = (
        torch.cat([texture(k, sigma=s) for k in seeds]) for seeds, s in (((2, 3), 1.5), ((4, 5), 1), ((6, 7), 3))
    )
    for weights in (None, w):
        items = [loss(a[n : n + 1], b[n : n + 1], None if weights is None else weights[n : n + 1]) for n in range(2)]
        assert torch.allclose(loss(a, b, weights), torch.stack(items).mean())


@pytest.mark.parametrize("name", SIMILARITIES)
def test_similarities_are_symmetric_and_weights_of_one_change_nothing(name: str) -> None:
    loss, a, b = SIMILARITIES[name](), texture(8), texture(9)
    assert torch.allclose(loss(a, b), loss(b, a))
    ones = torch.ones_like(a)
    assert torch.allclose(loss(a, b, ones), loss(a, b))
    assert torch.allclose(loss(a, b, 3 * ones), loss(a, b))
    assert loss(a, b, 0 * ones) == 0


@pytest.mark.parametrize("name", ["lncc", "mi", "nmi"])
def test_voxels_of_weight_zero_do_not_count(name: str) -> None:
    loss, a, b = SIMILARITIES[name](), texture(10), texture(11)
    mask = torch.zeros_like(a)
    mask[..., 4:-4, 4:-4, 4:-4] = 1
    spoiled = torch.where(mask == 1, a, a.flip(2))  # same range, other content
    assert torch.allclose(loss(spoiled, b, mask), loss(a, b, mask), atol=1e-12)
    assert not torch.allclose(loss(spoiled, b), loss(a, b), atol=1e-6)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_gradients_against_finite_differences(name: str) -> None:
    small = {"lncc": LocalNCC(1), "mi": GlobalMI(6), "nmi": GlobalMI(6, normalized=True)}.get(name) or SIMILARITIES[
        name
    ]()
    a, b, w = (texture(k, (4, 5, 6), 0.7) for k in (12, 13, 14))
    # the extremes define the bins of the histogram and are held still by it: hold them in the test, too
    free = (a > a.min()) & (a < a.max())
    inner = a[free].clone().requires_grad_()
    for weights in (None, w):
        assert torch.autograd.gradcheck(
            lambda v, k=weights: small(a.masked_scatter(free, v), b, k), (inner,), atol=1e-5
        )


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_cost_nothing(name: str, dtype: torch.dtype) -> None:
    loss = SIMILARITIES[name]()
    a, b = texture(15).to(dtype).requires_grad_(), texture(16).to(dtype)
    exact = loss(a.float(), b.float())
    assert loss(a, b).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(a, b)
    assert torch.equal(value, exact)
    value.backward()
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()
    assert a.grad.abs().max() > 0


@pytest.mark.parametrize("name", SIMILARITIES)
def test_constant_images_give_finite_values_and_gradients(name: str) -> None:
    loss = SIMILARITIES[name]()
    flat = torch.full((1, 1, *SHAPE), 0.3, requires_grad=True)
    for other in (torch.full((1, 1, *SHAPE), 0.7), texture(17, dtype=torch.float32)):
        (gradient,) = torch.autograd.grad(loss(flat, other), flat)
        assert torch.isfinite(gradient).all()


# --- local correlation -----------------------------------------------------------------------------------------------


def test_lncc_by_hand_cut_windows() -> None:
    a, b = texture(18, (6, 7, 5), 0.5), texture(19, (6, 7, 5), 0.5)
    x, y = ((i - i.mean()) / i.std(correction=0) for i in (a[0, 0], b[0, 0]))
    values = []
    for i, j, k in np.ndindex(6, 7, 5):
        window = tuple(slice(max(c - 2, 0), c + 3) for c in (i, j, k))
        p, q = x[window] - x[window].mean(), y[window] - y[window].mean()
        values.append((p * q).mean() ** 2 / (p.square().mean() * q.square().mean() + 1e-5))
    assert LocalNCC(2)(a, b).item() == pytest.approx(-float(torch.stack(values).mean()), rel=1e-9)


def test_lncc_does_not_see_slow_affine_changes_of_intensity() -> None:
    image, other = texture(20), texture(21)
    loss = LocalNCC(3, epsilon=1e-9)
    assert loss(image, -3 * image + 40).item() == pytest.approx(-1, abs=1e-4)
    assert loss(5 - 7 * image, other).item() == pytest.approx(loss(image, other).item(), abs=1e-9)
    assert loss(1000 * image.float() + 5e4, other.float()).item() == pytest.approx(loss(image, other).item(), abs=1e-3)
    ramp = positions(torch.zeros(1, 3, *SHAPE, dtype=torch.float64))[:, :1] / SHAPE[0]
    assert loss(image * (1 + 0.3 * ramp), image).item() < -0.98


def test_lncc_agrees_with_monai_away_from_the_border() -> None:
    from monai.losses import LocalNormalizedCrossCorrelationLoss

    a, b = texture(22, (14, 14, 14)), texture(23, (14, 14, 14))
    theirs = LocalNormalizedCrossCorrelationLoss(kernel_size=5, reduction="none", smooth_dr=1e-12)(a, b)
    middle = torch.zeros_like(a)
    middle[..., 2:-2, 2:-2, 2:-2] = 1
    ours = LocalNCC(2, epsilon=1e-12)._squared_correlation(a, b, None)
    assert torch.allclose(ours[middle == 1], -theirs[middle == 1], atol=1e-6)


# --- mutual information ----------------------------------------------------------------------------------------------


def test_mutual_information_of_known_images() -> None:
    halves = torch.zeros(1, 1, 4, 4, 8, dtype=torch.float64)
    halves[..., 4:] = 1
    across = torch.zeros_like(halves)
    across[:, :, 2:] = 1
    loss = GlobalMI(8, sigma_bins=0.1)
    assert loss(halves, halves).item() == pytest.approx(-math.log(2), abs=1e-6)
    assert loss(halves, across).item() == pytest.approx(0, abs=1e-6)
    assert GlobalMI(8, sigma_bins=0.1, normalized=True)(halves, halves).item() == pytest.approx(-2, abs=1e-6)
    assert GlobalMI(8, sigma_bins=0.1, normalized=True)(halves, across).item() == pytest.approx(-1, abs=1e-6)


def test_mutual_information_does_not_see_inversion_and_hardly_a_monotone_map() -> None:
    image, other = texture(24), texture(25)
    loss = GlobalMI(32)
    assert loss(1 - image, other).item() == pytest.approx(loss(image, other).item(), abs=1e-9)
    assert loss(20 * image - 3, other).item() == pytest.approx(loss(image, other).item(), abs=1e-9)
    self_information = loss(image, image).item()
    assert loss(image**1.5, image).item() == pytest.approx(self_information, rel=0.15)
    assert loss(other, image).item() > 0.5 * self_information


def test_the_histogram_does_not_depend_on_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = texture(26).requires_grad_(), texture(27)
    loss = GlobalMI(16)
    value = loss(a, b)
    (gradient,) = torch.autograd.grad(value, a)
    monkeypatch.setattr("medwave.losses.registration._MI_BLOCK", 1000)
    in_blocks = loss(a, b)
    (gradient_in_blocks,) = torch.autograd.grad(in_blocks, a)
    assert torch.allclose(in_blocks, value)
    assert torch.allclose(gradient_in_blocks, gradient)


# --- MIND-SSC --------------------------------------------------------------------------------------------------------


def test_descriptors_do_not_see_contrast() -> None:
    loss, image, other = MINDSSC(), texture(28), texture(29)
    descriptors = loss.descriptors(image)
    assert descriptors.shape == (1, 12, *SHAPE)
    assert descriptors.min() > 0
    assert torch.allclose(descriptors.amax(dim=1), torch.ones(1, *SHAPE, dtype=torch.float64))
    assert torch.allclose(loss.descriptors(7 - 3 * image), descriptors)
    assert loss(1 - image, image).item() == pytest.approx(0, abs=1e-12)
    assert loss(other, image) > 0.01


def test_descriptors_of_an_edge_by_hand() -> None:
    image = torch.zeros(1, 1, 9, 9, 9, dtype=torch.float64)
    image[:, :, 5:] = 1  # at voxel 4 only the neighbour at 5 along axis 0 lies behind the edge
    descriptors = MINDSSC(0, dilation=1).descriptors(image)[0, :, 4, 4, 4]
    # 4 of 12 pairs hold that neighbour and one of the other two axes: distance 1, mean 1/3
    expected = torch.tensor([1.0] * 8 + [math.exp(-3.0)] * 4, dtype=torch.float64)
    assert torch.allclose(descriptors.sort(descending=True).values, expected)


# --- smoothness ------------------------------------------------------------------------------------------------------


def test_smoothness_of_known_fields() -> None:
    p = positions(torch.zeros(1, 3, *SHAPE, dtype=torch.float64))
    spacing = (2.0, 1.0, 0.5)
    field = torch.zeros_like(p)
    field[:, 0] = 0.3 * p[:, 2]  # 0.3 voxels of 2 mm per voxel of 0.5 mm: slope 1.2
    assert Smoothness(spacing)(field).item() == pytest.approx(1.2**2 / 9)
    assert Smoothness(spacing, power=1)(field).item() == pytest.approx(1.2 / 9)
    assert Smoothness()(field).item() == pytest.approx(0.3**2 / 9)
    assert Smoothness(spacing, order=2)(field).item() == pytest.approx(0, abs=1e-20)
    bent = torch.zeros_like(p)
    bent[:, 1] = 0.5 * 0.2 * p[:, 0] ** 2  # 0.2 voxels of 1 mm per square of 2 mm: curvature 0.05
    assert Smoothness(spacing, order=2)(bent).item() == pytest.approx(0.05**2 / 27)
    twisted = torch.zeros_like(p)
    twisted[:, 2] = 0.1 * p[:, 0] * p[:, 1]  # the mixed derivative counts twice
    assert Smoothness(order=2)(twisted).item() == pytest.approx(2 * 0.1**2 / 27)
    assert Smoothness(spacing)(torch.ones_like(p)).item() == 0


def test_smoothness_of_flat_grids_and_half_precision() -> None:
    assert Smoothness(order=2)(torch.rand(1, 3, 1, 1, 1)).item() == 0
    assert torch.isfinite(Smoothness(order=2)(torch.rand(1, 3, 1, 2, 5)))
    field = torch.rand(1, 3, *SHAPE)
    exact = Smoothness()(field)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(Smoothness()(field), exact)
        assert Smoothness()(field.half()).dtype == torch.float32
    small = torch.rand(2, 3, 3, 4, 3, dtype=torch.float64, requires_grad=True)
    for order in (1, 2):
        for power in (2, 3):
            assert torch.autograd.gradcheck(Smoothness((1.0, 2.0, 0.5), power=power, order=order), (small,))


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIMILARITIES)
def test_shapes_that_do_not_fit_are_named(name: str) -> None:
    loss, image = SIMILARITIES[name](), torch.rand(1, 1, 8, 8, 8)
    with pytest.raises(GeometryError, match=r"\(1, 1, 8, 8, 7\)"):
        loss(image, image[..., 1:])
    with pytest.raises(GeometryError, match=r"\(N, 1, D, H, W\)"):
        loss(image.expand(-1, 2, -1, -1, -1), image.expand(-1, 2, -1, -1, -1))
    with pytest.raises(GeometryError, match="weights"):
        loss(image, image, image[..., 1:])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LocalNCC(0), "radius >= 1"),
        (lambda: LocalNCC(epsilon=0.0), "epsilon > 0"),
        (lambda: GlobalMI(1), "two bins"),
        (lambda: GlobalMI(sigma_bins=0), "sigma_bins > 0"),
        (lambda: MINDSSC(-1), "radius >= 0"),
        (lambda: MINDSSC(dilation=0), "dilation >= 1"),
        (lambda: Smoothness((1, 0, 1)), "spacing_mm"),
        (lambda: Smoothness(order=3), "order 1 or 2"),
        (lambda: Smoothness(power=0.5), "power >= 1"),
        (lambda: Smoothness()(torch.rand(1, 2, 4, 4, 4)), r"\(N, 3, D, H, W\)"),
    ],
)
def test_options_that_make_no_sense_are_named(build: Callable[[], object], message: str) -> None:
    with pytest.raises((InputError, GeometryError), match=message):
        build()
