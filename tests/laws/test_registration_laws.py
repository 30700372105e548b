"""Laws that fields, losses and measures share: nothing depends on how axes are named, and the rooms fit together."""

from collections.abc import Callable
from itertools import permutations, product

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from medwave.fields import compose, integrate, invert, jacobian_determinant, resize, warp
from medwave.losses import MINDSSC, GlobalMI, LocalNCC, Smoothness
from medwave.metrics import dice, folding, inverse_consistency_mm, log_jacobian_sd, surface_distances

SHAPE = (12, 14, 17)
SPACING = (0.8, 1.0, 1.7)
TURNS = [
    (order, flips) for order, flips in product(permutations(range(3)), ((False, False, False), (True, False, True)))
]

Turn = tuple[tuple[int, int, int], tuple[bool, bool, bool]]


def noise(seed: int, channels: int = 1, size: float = 1.0) -> Tensor:
    """Smooth noise (1, channels, D, H, W), float64."""
    values = np.random.default_rng(seed).normal(size=(channels, *SHAPE))
    smooth = np.stack([ndimage.gaussian_filter(v, 2.5) for v in values])
    return torch.from_numpy(size * smooth / np.abs(smooth).max())[None]


def turn_image(image: Tensor, turn: Turn) -> Tensor:
    order, flips = turn
    flipped = image.flip([2 + a for a in range(3) if flips[a]])
    return flipped.permute(0, 1, *[2 + a for a in order])


def turn_field(field: Tensor, turn: Turn) -> Tensor:
    """As an image, and its components with it: renamed, and negated where the axis now runs backwards."""
    order, flips = turn
    signs = field.new_tensor([-1.0 if flips[a] else 1.0 for a in order]).view(1, 3, 1, 1, 1)
    return turn_image(field, turn)[:, list(order)] * signs


IMAGE, LABELS, FIELD, OTHER = noise(0), (noise(1) * 4).round(), noise(2, 3, 2.3), noise(3, 3, 1.9)

FIELD_JOBS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "compose": compose,
    "integrate": lambda u, v: integrate(u),
    # a third: without folds, since a fold has several inverses
    "invert": lambda u, v: invert(u / 3, tolerance_voxels=1e-9)[0],
}
IMAGE_JOBS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "warp": lambda i, u: warp(i, u),
    "warp zeros": lambda i, u: warp(i, u, padding="zeros"),
    "warp nearest": lambda i, u: warp(i, u, interpolation="nearest"),
    "warp label": lambda i, u: warp((4 * i).round(), u, interpolation="label"),
    "jacobian": lambda i, u: jacobian_determinant(u),
}


@pytest.mark.parametrize("name", FIELD_JOBS)
def test_fields_do_not_depend_on_the_names_of_axes(name: str) -> None:
    job = FIELD_JOBS[name]
    expected = job(FIELD, OTHER)
    for turn in TURNS:
        turned = job(turn_field(FIELD, turn), turn_field(OTHER, turn))
        assert torch.allclose(turned, turn_field(expected, turn), atol=1e-8)


@pytest.mark.parametrize("name", IMAGE_JOBS)
def test_images_do_not_depend_on_the_names_of_axes(name: str) -> None:
    job = IMAGE_JOBS[name]
    expected = job(IMAGE, FIELD)
    for turn in TURNS:
        turned = job(turn_image(IMAGE, turn), turn_field(FIELD, turn))
        assert torch.allclose(turned, turn_image(expected, turn), atol=1e-9)


def test_resizing_commutes_with_turning() -> None:
    shape = (9, 16, 20)
    for turn in TURNS:
        turned = resize(turn_field(FIELD, turn), [shape[a] for a in turn[0]])
        assert torch.allclose(turned, turn_field(resize(FIELD, shape), turn), atol=1e-12)


@pytest.mark.parametrize("loss", [LocalNCC(2), GlobalMI(16), MINDSSC(1)], ids=["lncc", "mi", "mind"])
def test_similarities_do_not_depend_on_the_names_of_axes(loss: torch.nn.Module) -> None:
    other = noise(4)
    expected = loss(IMAGE, other)
    for turn in TURNS:
        assert torch.allclose(loss(turn_image(IMAGE, turn), turn_image(other, turn)), expected)


@pytest.mark.parametrize("order", [1, 2])
def test_smoothness_does_not_depend_on_the_names_of_axes(order: int) -> None:
    expected = Smoothness(SPACING, order=order)(FIELD)
    for turn in TURNS:
        spacing = [SPACING[a] for a in turn[0]]
        assert torch.allclose(Smoothness(spacing, order=order)(turn_field(FIELD, turn)), expected)


def test_measures_do_not_depend_on_the_names_of_axes() -> None:
    labels = LABELS[0, 0].numpy()
    warped = warp(LABELS, FIELD, interpolation="nearest")
    strong = 4 * FIELD

    def measure(a: Tensor, b: Tensor, u: Tensor, v: Tensor, spacing: list[float]) -> list[float]:
        maps = a[0, 0].numpy(), b[0, 0].numpy()
        distances = surface_distances(*maps, spacing)
        return [
            *dice(*maps).values(),
            *(value for found in distances.values() for value in found.values()),
            *folding(u[0].numpy()),
            log_jacobian_sd(v[0].numpy()),
            inverse_consistency_mm(u[0].numpy(), v[0].numpy(), np.diag([*spacing, 1.0])),
        ]

    assert len(np.unique(labels)) > 3
    assert folding(strong[0].numpy()).count > 0
    expected = measure(LABELS, warped, strong, FIELD, list(SPACING))
    for turn in TURNS:
        turned = measure(
            turn_image(LABELS, turn),
            turn_image(warped, turn),
            turn_field(strong, turn),
            turn_field(FIELD, turn),
            [SPACING[a] for a in turn[0]],
        )
        np.testing.assert_allclose(turned, expected, rtol=1e-9)


def test_there_and_back_restores_image_labels_and_measures() -> None:
    velocity = torch.zeros(1, 3, 32, 36, 40, dtype=torch.float64)
    window = torch.ones(1, 1, 32, 36, 40, dtype=torch.float64)
    for axis, n in enumerate(velocity.shape[2:]):
        line = torch.sin(torch.linspace(0, torch.pi, n, dtype=torch.float64)).square()
        window = window * line.view([-1 if a == axis else 1 for a in range(-2, 3)])
    velocity[:, 0], velocity[:, 1], velocity[:, 2] = 3 * window[:, 0], -2 * window[:, 0], window[:, 0]
    forward, backward = integrate(velocity), integrate(-velocity)
    inverse, residual = invert(forward)
    assert residual.max() <= 1e-3
    assert (inverse - backward).norm(dim=1).max() < 0.1
    assert folding(forward[0].numpy()).count == 0
    assert inverse_consistency_mm(forward[0].numpy(), inverse[0].numpy(), np.eye(4)) < 1e-3

    p = torch.stack(torch.meshgrid(*[torch.arange(n) for n in velocity.shape[2:]], indexing="ij"))
    labels = (p // 8).sum(dim=0)[None, None]  # blocks of 8 voxels
    there = warp(labels, forward, interpolation="label")
    restored = warp(there, inverse, interpolation="label")
    before, after = (dice(labels[0, 0].numpy(), m[0, 0].numpy()) for m in (there, restored))
    assert np.mean(list(after.values())) > 0.97
    assert np.mean(list(after.values())) > np.mean(list(before.values())) + 0.02
