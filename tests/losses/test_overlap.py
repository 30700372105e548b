"""The overlap loss: Dice as it is defined, at no cost of many structures, with the gradient of its slow definition."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from medwave import fields
from medwave.core.errors import GeometryError, InputError
from medwave.losses import LabelOverlap
from medwave.metrics import dice

STRUCTURES = 5


@pytest.fixture
def maps():
    generator = torch.Generator().manual_seed(0)
    rough = torch.rand((2, STRUCTURES + 1, 4, 5, 4), generator=generator)
    smooth = F.interpolate(rough, size=(12, 14, 13), mode="trilinear")
    return smooth.argmax(dim=1, keepdim=True).to(torch.uint8).split(1)


@pytest.fixture
def displacement():
    generator = torch.Generator().manual_seed(1)
    return (1.7 * torch.randn((1, 3, 12, 14, 13), generator=generator, dtype=torch.float64)).requires_grad_()


def slow(displacement, moving, fixed):
    """Warp the indicator image of every structure, then Dice."""
    scores = []
    for label in range(1, STRUCTURES + 1):
        m = fields.warp((moving == label).to(displacement), displacement)
        f = (fixed == label).to(displacement)
        scores.append(2 * (m * f).sum() / (m.sum() + f.sum()))
    return 1 - torch.stack(scores).mean()


def test_it_is_the_dice_of_warped_indicators_and_so_is_its_gradient(maps, displacement):
    moving, fixed = maps
    fast, expected = LabelOverlap(STRUCTURES)(displacement, moving, fixed), slow(displacement, moving, fixed)
    assert fast.item() == pytest.approx(expected.item(), abs=1e-12)
    gradients = [torch.autograd.grad(value, displacement)[0] for value in (fast, expected)]
    assert gradients[1].abs().max() > 1e-4
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-10)


def test_without_motion_it_is_the_measured_dice(maps):
    moving, fixed = maps
    measured = np.mean(list(dice(moving.numpy()[0, 0], fixed.numpy()[0, 0]).values()))
    still = torch.zeros(1, 3, *moving.shape[2:])
    assert LabelOverlap(STRUCTURES)(still, moving, fixed).item() == pytest.approx(1 - measured, abs=1e-5)
    assert LabelOverlap(STRUCTURES)(still, fixed, fixed).item() == pytest.approx(0, abs=1e-6)


def test_structures_that_neither_map_holds_do_not_count(maps):
    moving, fixed = maps
    still = torch.zeros(1, 3, *moving.shape[2:])
    few, many = (LabelOverlap(n)(still, moving, fixed).item() for n in (STRUCTURES, 40))
    assert many == pytest.approx(few, abs=1e-6)


def test_a_batch_is_the_mean_of_its_items(maps, displacement):
    moving, fixed = maps
    loss = LabelOverlap(STRUCTURES)
    both = loss(torch.cat([displacement, -displacement]), torch.cat([moving, fixed]), torch.cat([fixed, moving]))
    apart = (loss(displacement, moving, fixed) + loss(-displacement, fixed, moving)) / 2
    assert both.item() == pytest.approx(apart.item(), abs=1e-12)


def test_following_the_gradient_brings_a_shifted_box_home():
    fixed = torch.zeros(1, 1, 16, 16, 16, dtype=torch.uint8)
    fixed[..., 5:11, 5:11, 5:11] = 1
    moving = fixed.roll(2, dims=2)
    shift = torch.zeros(1, 3, 1, 1, 1, requires_grad=True)
    optimiser, loss = torch.optim.Adam([shift], lr=0.1), LabelOverlap(1)
    for _ in range(60):
        optimiser.zero_grad()
        value = loss(shift.expand(1, 3, 16, 16, 16) + 0.01, moving, fixed)
        value.backward()
        optimiser.step()
    assert shift.detach().flatten().numpy() == pytest.approx([2, 0, 0], abs=0.2)


def test_shapes_that_do_not_fit_are_refused(maps):
    moving, fixed = maps
    with pytest.raises(GeometryError, match="on the grid of the displacement"):
        LabelOverlap(STRUCTURES)(torch.zeros(1, 3, 12, 14, 12), moving, fixed)
    with pytest.raises(InputError, match="at least one structure"):
        LabelOverlap(0)
