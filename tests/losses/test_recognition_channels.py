"""The ECLoss-style loss: known values for known maps, invariances, gradients, means that an overflow leaves alone."""

import math

import pytest
import torch
import torch.nn.functional as F

from medwave.core.errors import GeometryError, InputError
from medwave.losses.recognition import CosFaceLoss, ECLoss, UniTSFaceLoss
from medwave.losses.recognition.channel_templates import (
    cone_mismatch,
    group_imbalance,
    group_overlap,
    slopes,
    template_information,
)
from medwave.losses.recognition.explainable import WEIGHTS

N = 14
SLOPE = slopes(N, N, 4.0, torch.zeros((), dtype=torch.float64))


def delta(*peaks: tuple[int, int], size: int = N) -> torch.Tensor:
    """One map per peak, ``(1, C, size, size)``."""
    maps = torch.zeros(1, len(peaks), size, size, dtype=torch.float64)
    for channel, (i, j) in enumerate(peaks):
        maps[0, channel, i, j] = 3.0
    return maps


def cone(i: int, j: int) -> torch.Tensor:
    return SLOPE[i * N + j].clamp_min(0).view(1, 1, N, N)


def build(channels: int = 4, **options) -> ECLoss:
    loss = ECLoss(CosFaceLoss(3, 5), channels, groups=2, **options).double()
    loss.set_progress(1, 1)
    return loss


def face(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(size, 5, dtype=torch.float64), torch.arange(size) % 3


def test_slopes_fall_from_one_at_the_peak_by_beta_over_n_per_step():
    here = SLOPE.view(N, N, N, N)[6, 3]
    assert float(here[6, 3]) == 1
    assert float(here[6, 4]) == float(here[5, 3]) == pytest.approx(1 - 4 / N)
    assert float(here[8, 0]) == pytest.approx(1 - 4 * 5 / N)


def test_a_delta_costs_what_the_unit_cone_leaves_and_a_cone_nothing():
    peak = torch.tensor([[6 * N + 7]])
    expected = 1 - 1 / cone(6, 7).norm()
    found = cone_mismatch(delta((6, 7)).flatten(2), peak, SLOPE)
    torch.testing.assert_close(found, expected.view(1, 1), atol=1e-6, rtol=0)
    for i, j in ((6, 7), (0, 0), (13, 5)):
        assert float(cone_mismatch(5 * cone(i, j).flatten(2), torch.tensor([[i * N + j]]), SLOPE)) < 1e-6


def test_the_gradient_of_the_template_pushes_towards_its_cone():
    x = torch.rand(1, 1, N * N, dtype=torch.float64).requires_grad_()
    peak = torch.tensor([[50]])
    (gradient,) = torch.autograd.grad(cone_mismatch(x, peak, SLOPE).sum(), x)
    a = x.detach() / x.detach().norm()
    template = F.normalize(SLOPE[50].clamp_min(0), dim=0)
    expected = -(template - (a * template).sum() * a) / x.detach().norm()
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-5)


def test_groups_on_one_blob_overlap_fully_and_apart_not_at_all():
    together = delta((3, 3), (3, 3), (3, 3), (3, 3)).flatten(2)
    apart = delta((3, 3), (3, 3), (9, 9), (9, 9)).flatten(2)
    assert float(group_overlap(together, 2)) == pytest.approx(1, abs=1e-6)
    assert float(group_overlap(together, 4)) == pytest.approx(1, abs=1e-6)
    assert float(group_overlap(apart, 2)) == 0
    assert float(group_overlap(apart, 4)) == pytest.approx(2 / 6, abs=1e-6)
    assert float(group_imbalance(apart, 2)) == pytest.approx(0, abs=1e-12)
    silent = apart * torch.tensor([1.0, 1, 0, 0]).double()[:, None]
    assert float(group_imbalance(silent, 2)) == pytest.approx(math.log(2), abs=1e-4)


def test_a_face_that_moves_costs_the_same():
    maps = torch.zeros(2, 4, N, N, dtype=torch.float64)
    blob = torch.tensor([[0.2, 0.5, 0.2], [0.5, 1.0, 0.6], [0.1, 0.5, 0.2]]).double()
    for channel, (i, j) in enumerate(((5, 5), (5, 8), (8, 6), (6, 6))):
        maps[:, channel, i - 1 : i + 2, j - 1 : j + 2] = blob * (1 + 0.1 * channel)
    features, labels = face(2)
    still, moved = build().eval(), build()
    moved.load_state_dict(still.state_dict())
    for loss in (still, moved):
        loss.train()(features, labels, maps)
        loss.eval()
    a, b = still(features, labels, maps).parts, moved(features, labels, maps.roll((2, -1), (2, 3))).parts
    for name in ("match", "silence", "consistency", "division", "balance"):
        torch.testing.assert_close(a[name], b[name])


def test_the_same_surroundings_are_the_same_part_wherever_they_lie_and_others_are_not():
    loss = build()
    features, labels = face(2)
    maps = torch.zeros(2, 4, N, N, dtype=torch.float64)
    maps[0, 0, 4, 4] = maps[1, 0, 9, 2] = 2.0
    maps[0, 1, 4, 4] = maps[1, 1, 9, 2] = 0.5  # what surrounds the peak of channel 0, at two places
    value = loss(features, labels, maps).parts["consistency"]
    assert float(value.detach()) == pytest.approx(0, abs=1e-12)
    maps[1, 1, 9, 2], maps[1, 2, 9, 2] = 0.0, 0.5  # on the second face something else is there
    other = build()(features, labels, maps).parts["consistency"]
    mean_cosine = 1 / math.sqrt(2)
    # channel 0 twice with this cosine; channels 1 and 2 once each, where channel 0 surrounds them
    assert float(other.detach()) == pytest.approx(0.1 * 0.5 * (2 * (1 - mean_cosine)) / 4)


def test_gates_split_active_from_silent_maps_and_levels_follow_their_mean():
    loss = build()
    features, labels = face(2)
    maps = torch.zeros(2, 4, N, N, dtype=torch.float64)
    maps[0, :, 6, 6], maps[1, :, 6, 6] = 4.0, 1.0  # level 2.5, gate 1.25
    parts = loss(features, labels, maps).parts
    torch.testing.assert_close(loss.levels, torch.full((4,), 2.5, dtype=torch.float64))
    expected = 1 - 1 / float(cone(6, 6).norm())
    assert float(parts["match"].detach()) == pytest.approx(0.1 * expected, abs=1e-6)
    assert float(parts["silence"].detach()) == pytest.approx(0.1 * 0.1 * 1.0 / (N * N * 2.5), rel=1e-5)
    loss(features, labels, 2 * maps)
    torch.testing.assert_close(loss.levels, torch.full((4,), 0.9 * 2.5 + 0.1 * 5.0, dtype=torch.float64))


def test_gradients_are_those_of_the_values_with_gates_and_means_held():
    for options in ({}, {"variant": "mi"}):
        loss = build(weight=1.0, **options)
        features, labels = face(3)
        maps = torch.rand(3, 4, 4, 5, dtype=torch.float64) + 0.1
        loss(features, labels, maps)
        loss.eval()
        assert torch.autograd.gradcheck(lambda x, f: loss(f, labels, x).total, (maps.requires_grad_(), features))  # noqa: B023


def test_mutual_information_is_that_of_the_joint_table():
    flat = 20 * torch.rand(5, 2, N * N, dtype=torch.float64)
    tau = 0.5 / N**2
    templates = torch.cat([tau * SLOPE.clamp_min(-1), torch.full((1, N * N), -tau).double()])
    prior = torch.full((N * N + 1,), 1 / (1 + N**2), dtype=torch.float64)
    torch.testing.assert_close(prior.sum(), torch.ones(()).double())  # alpha / n^2 with alpha = n^2 / (1 + n^2)
    for channel in range(2):
        given = torch.exp(flat[:, channel] @ templates.T)
        joint = prior * given / given.sum(dim=0)
        marginal = joint.sum(dim=1, keepdim=True)
        expected = (joint * (joint / (marginal * prior)).log()).sum()
        torch.testing.assert_close(template_information(flat, SLOPE)[channel], expected)


def test_equal_maps_tell_nothing_and_two_sharp_ones_a_bit_per_template_that_parts_them():
    same = torch.rand(1, 3, N * N, dtype=torch.float64).expand(6, -1, -1)
    torch.testing.assert_close(template_information(same, SLOPE), torch.zeros(3).double(), atol=1e-12, rtol=0)
    left, right = (6, 0), (6, N - 1)  # mirror images, so that each is as likely as the other
    sharp = torch.cat([delta(left), delta(right)]) * 1e6
    parted = 0
    for i in range(N):
        for j in range(N):
            near, far = (abs(i - 6) + abs(j - column) for column in (0, N - 1))
            parted += max(1 - 4 * near / N, -1) != max(1 - 4 * far / N, -1)
    expected = parted / (N * N + 1) * math.log(2)
    told = template_information(sharp.flatten(2), SLOPE)
    assert float(told) == pytest.approx(expected)
    value = build(variant="mi", weight=1.0)(*face(2), sharp.expand(-1, 4, -1, -1))
    assert set(value.parts) == {"cosface", "information"}
    assert float(value.parts["information"].detach()) == pytest.approx(-expected)


def test_the_weight_grows_over_the_first_fifth_of_training():
    features, labels = face(3)
    maps = torch.rand(3, 4, N, N, dtype=torch.float64)
    loss = build()
    loss(features, labels, maps)
    loss.eval()
    found = []
    for epoch in (0, 1, 2, 10):
        loss.set_progress(epoch, 10)
        parts = loss(features, labels, maps).parts
        found.append(float(sum(v for k, v in parts.items() if k != "cosface").detach()))
    assert found[0] == 0
    assert found[1] == pytest.approx(0.5 * found[2])
    assert found[3] == pytest.approx(found[2])
    assert found[2] > 0


def test_parts_add_up_and_the_inner_loss_hears_of_progress_and_samples():
    loss = ECLoss(UniTSFaceLoss(3, 5, initial_bias=1.0), 4, groups=2).double()
    loss.set_progress(1, 2)
    features, labels = face(3)
    maps = torch.rand(3, 4, N, N, dtype=torch.float64)
    names = torch.arange(3)
    loss(features, labels, maps, samples=names)
    result = loss(features, labels, maps, samples=names)
    assert set(result.parts) == {"cosface", "uss_positive", "uss_negative", *WEIGHTS}
    assert float(result.parts["uss_positive"].detach()) == 0  # nobody is their own partner
    torch.testing.assert_close(sum(result.parts.values()), result.total)


@pytest.mark.parametrize("variant", ["template", "mi"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_dead_channels_and_loud_ones_are_finite(variant, dtype):
    loss = ECLoss(CosFaceLoss(3, 5), 4, groups=2, variant=variant)
    loss.set_progress(1, 1)
    maps = torch.zeros(3, 4, 7, 6)
    maps[:, 1], maps[0, 2, 3, 3] = -5, 6e4
    maps = maps.to(dtype).requires_grad_()
    features = torch.randn(3, 5).to(dtype)
    with torch.autocast("cpu", dtype):
        value = loss(features, torch.arange(3), maps).total
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    assert torch.isfinite(torch.autograd.grad(value, maps)[0]).all()


def test_a_step_that_overflowed_leaves_no_trace():
    loss = build()
    features, labels = face(2)
    maps = torch.rand(2, 4, N, N, dtype=torch.float64)
    loss(features, labels, maps)
    before = {k: v.clone() for k, v in loss.state_dict().items()}
    loss(features, labels, torch.full_like(maps, math.nan))
    assert all(torch.equal(before[k], v) for k, v in loss.state_dict().items())


def test_state_saves_and_loads_and_evaluation_changes_nothing(tmp_path):
    loss = build()
    features, labels = face(3)
    maps = torch.rand(3, 4, N, N, dtype=torch.float64)
    loss(features, labels, maps)
    torch.save(loss.state_dict(), tmp_path / "state.pt")
    other = ECLoss(CosFaceLoss(3, 5), 4, groups=2).double()
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    torch.testing.assert_close(other(features, labels, maps), loss(features, labels, maps), rtol=0, atol=0)
    loss.eval()
    before = {k: v.clone() for k, v in loss.state_dict().items()}
    loss(features, labels, 2 * maps)
    assert all(torch.equal(before[k], v) for k, v in loss.state_dict().items())


def test_an_earlier_map_may_describe_the_places():
    loss = build(descriptor_channels=3)
    features, labels = face(2)
    maps, earlier = torch.rand(2, 4, N, N, dtype=torch.float64), torch.randn(2, 3, N, N, dtype=torch.float64)
    earlier.requires_grad_()
    value = loss(features, labels, maps, descriptors=earlier).parts["consistency"]
    (gradient,) = torch.autograd.grad(value, earlier)
    assert (gradient != 0).any()
    with pytest.raises(GeometryError, match="descriptors"):
        loss(features, labels, maps)
    with pytest.raises(GeometryError, match="descriptors"):
        build()(features, labels, maps, descriptors=earlier)


@pytest.mark.parametrize(
    ("channels", "options"),
    [
        (4, {"groups": 3}),
        (4, {"groups": 1}),
        (4, {"groups": 2, "variant": "other"}),
        (4, {"groups": 2, "gate": 1.0}),
        (4, {"groups": 2, "ramp": 0.0}),
        (4, {"groups": 2, "momentum": 1.0}),
        (4, {"groups": 2, "weight": -1.0}),
    ],
)
def test_wrong_options_are_refused(channels, options):
    with pytest.raises(InputError):
        ECLoss(CosFaceLoss(3, 5), channels, **options)
    with pytest.raises(GeometryError, match="the maps are"):
        build()(*face(2), torch.zeros(2, 5, N, N))


@pytest.mark.parametrize("variant", ["template", "mi"])
def test_an_empty_batch_costs_nothing(variant):
    loss = ECLoss(CosFaceLoss(3, 5), 4, groups=2, variant=variant, weight=1.0)
    loss.set_progress(1.0)
    maps = torch.zeros(0, 4, 6, 6, requires_grad=True)
    empty = loss(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64), maps)
    empty.total.backward()
    assert float(empty.total.detach()) == 0
    full = loss(torch.randn(2, 5), torch.tensor([0, 1]), torch.rand(2, 4, 6, 6))
    assert empty.parts.keys() == full.parts.keys()
    assert torch.isfinite(full.total)
