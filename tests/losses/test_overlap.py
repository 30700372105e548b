"""The overlap loss: Dice as it is defined, at no cost of many structures, with the gradient of its slow definition."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from medwave import fields
from medwave.core.errors import GeometryError, InputError
from medwave.losses import LabelOverlap

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


def share(labels, structure, place):
    """Of the cube of four voxels around the corner of eight voxels, zeros beyond the border."""
    padded = np.pad(labels == structure, 1)
    return padded[tuple(slice(2 * p, 2 * p + 4) for p in place)].mean()


def test_shares_are_means_over_cubes_at_every_second_voxel(maps):
    labels = maps[0].numpy()[0, 0]
    shares = LabelOverlap(STRUCTURES).shares(maps[0], torch.zeros(1, dtype=torch.float64))
    assert shares.shape == (1, STRUCTURES, 6, 7, 6)
    for place in ((0, 0, 0), (3, 2, 1), (5, 6, 5)):
        for structure in (1, 3, 5):
            assert shares[(0, structure - 1, *place)].item() == pytest.approx(
                share(labels, structure, place), abs=1e-12
            )


def test_it_is_the_dice_of_warped_shares(maps, displacement):
    moving, fixed = maps
    loss = LabelOverlap(STRUCTURES)
    half = F.avg_pool3d(displacement, 2) / 2
    scores = []
    for one, other in zip(loss.shares(moving, half)[0], loss.shares(fixed, half)[0], strict=True):
        m = fields.warp(one[None, None], half)[0, 0]
        scores.append(2 * (m * other).sum() / (m * m + other * other).sum())
    expected = 1 - torch.stack(scores).mean()
    assert loss(displacement, moving, fixed).item() == pytest.approx(expected.item(), abs=1e-12)
    near = 0.3 + 0.1 * displacement.detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda d: loss(d, moving, fixed), near, fast_mode=True)  # along random directions


def test_a_map_overlaps_itself_and_nothing_else_as_well(maps):
    moving, fixed = maps
    still = torch.zeros(1, 3, *moving.shape[2:])
    loss = LabelOverlap(STRUCTURES)
    assert loss(still, fixed, fixed).item() == pytest.approx(0, abs=1e-6)
    assert 0.1 < loss(still, moving, fixed).item() < 1


def test_a_small_motion_the_right_way_pays_and_the_wrong_way_costs():
    """Also where most voxels agree already: whole labels would lose by both."""
    generator = torch.Generator().manual_seed(3)
    rough = torch.rand((1, 3, 8, 8, 8), generator=generator)
    fixed = F.interpolate(rough, size=(24, 24, 24), mode="trilinear").argmax(dim=1, keepdim=True)
    moving, loss = fixed.roll(1, dims=2), LabelOverlap(2)
    right, still, wrong = (
        loss(torch.tensor([step, 0.0, 0.0]).view(1, 3, 1, 1, 1).expand(1, 3, 24, 24, 24), moving, fixed).item()
        for step in (0.2, 0.0, -0.2)
    )
    assert right < still < wrong


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


def test_labels_that_are_no_structure_count_as_little_as_background(maps, displacement):
    moving, fixed = (m.long() for m in maps)
    expected = LabelOverlap(2)(displacement, *(m * (m <= 2) for m in (moving, fixed)))
    strange = [torch.where(m > 2, 100 * m, m) for m in (moving, fixed)]
    assert LabelOverlap(2)(displacement, *strange).item() == expected.item()
    assert LabelOverlap(2)(displacement, *(torch.where(m > 2, -m, m) for m in strange)).item() == expected.item()


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
