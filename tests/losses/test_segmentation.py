"""Losses of voxel labels: known answers, voxels without truth, precision, gradients."""

import math

import pytest
import torch
import torch.nn.functional as F

from medwave.core.errors import GeometryError, InputError
from medwave.losses import (
    IGNORE_LABEL,
    FibreLoss,
    SkeletonRecall,
    SoftClDice,
    SoftDice,
    VoxelCrossEntropy,
    soft_skeleton,
)


class Recall(SkeletonRecall):
    """Skeleton recall with the labels themselves as the line, to stand beside the others."""

    def forward(self, logits, labels):
        return super().forward(logits, labels, labels)


ALL = {
    "cross_entropy": VoxelCrossEntropy,
    "dice": SoftDice,
    "cldice": SoftClDice,
    "skeleton_recall": Recall,
    "all": lambda: lambda z, y: FibreLoss(cldice=0.5, skeleton_recall=0.5)(z, y, y),
}
every_loss = pytest.mark.parametrize("build", ALL.values(), ids=ALL.keys())


def tube(shape=(9, 9, 24), radius=2.0):
    z, y = torch.meshgrid(torch.arange(shape[0]), torch.arange(shape[1]), indexing="ij")
    disc = (z - shape[0] // 2) ** 2 + (y - shape[1] // 2) ** 2 <= radius**2
    return disc[..., None].expand(shape).long()[None, None].clone()


def logits_of(labels, strength=40.0):
    fibre = labels.float() * 2 - 1
    return torch.cat([-fibre, fibre], dim=1) * strength / 2


def random_case(n=2, shape=(6, 7, 8), seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand((n, 1, *shape), generator=generator) < 0.4).long()
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = IGNORE_LABEL
    return torch.randn((n, 2, *shape), generator=generator, dtype=dtype), labels


def test_cross_entropy_is_the_weighted_mean_of_the_specification():
    logits, labels = random_case()
    p = logits.softmax(1)
    above = below = 0.0
    for index in (labels != IGNORE_LABEL).nonzero():
        n, _, z, y, x = index.tolist()
        label = int(labels[n, 0, z, y, x])
        weight = (1, 5)[label]
        above -= weight * math.log(p[n, label, z, y, x])
        below += weight
    assert float(VoxelCrossEntropy()(logits, labels)) == pytest.approx(above / below, rel=1e-10)
    reference = F.cross_entropy(logits, labels[:, 0], torch.tensor([1.0, 5.0]).double(), ignore_index=IGNORE_LABEL)
    torch.testing.assert_close(VoxelCrossEntropy()(logits, labels), reference)


def test_cross_entropy_of_no_knowledge_is_the_logarithm_of_the_classes():
    labels = torch.tensor([0, 1, 2, IGNORE_LABEL]).view(1, 1, 1, 1, 4)
    loss = VoxelCrossEntropy((1, 7, 2))(torch.zeros(1, 3, 1, 1, 4), labels)
    assert float(loss) == pytest.approx(math.log(3))


def test_dice_of_half_covered_fibre():
    """Half of 8 fibre voxels found, and 4 false ones: 2 * 4 / (8 + 8)."""
    labels = torch.zeros(1, 1, 1, 4, 4, dtype=torch.uint8)
    labels[..., :2, :] = 1
    found = torch.zeros_like(labels)
    found[..., 1:3, :] = 1
    assert float(SoftDice(smooth=1e-6)(logits_of(found), labels)) == pytest.approx(0.5, abs=1e-5)
    assert float(SoftDice()(logits_of(found), labels)) == pytest.approx(1 - 9 / 17, abs=1e-5)


def test_dice_is_the_mean_over_fibre_classes():
    labels = torch.tensor([0, 1, 2, 2]).view(1, 1, 1, 1, 4)
    logits = F.one_hot(torch.tensor([0, 1, 0, 0]), 3).float().T.view(1, 3, 1, 1, 4) * 50
    assert float(SoftDice(smooth=1e-6)(logits, labels)) == pytest.approx(0.5, abs=1e-5)


def test_the_soft_skeleton_of_a_tube_is_its_axis():
    mask = tube().float()
    skeleton = soft_skeleton(mask, 3)
    interior = skeleton[0, 0, :, :, 3:-3]
    assert (interior[4, 4] == 1).all()
    assert 1 <= interior.sum() / interior.shape[2] <= 2
    assert (skeleton[mask == 0] == 0).all()


def test_the_soft_skeleton_equals_that_of_monai():
    soft_skel = pytest.importorskip("monai.losses.cldice").soft_skel
    mask = torch.rand(2, 1, 7, 8, 9, dtype=torch.float64)
    torch.testing.assert_close(soft_skeleton(mask, 2), soft_skel(mask, 2))


def test_cldice_sees_a_gap_in_the_line_and_not_the_width_of_the_tube():
    truth = tube(radius=2)
    loss = SoftClDice(3, smooth=1e-3)
    thin, cut = tube(radius=1), tube(radius=2)
    cut[..., 6:18] = 0
    assert float(loss(logits_of(truth), truth)) == pytest.approx(0, abs=1e-3)
    assert float(loss(logits_of(thin), truth)) < 0.02
    assert float(SoftDice()(logits_of(thin), truth)) > 0.3
    assert float(loss(logits_of(cut), truth)) == pytest.approx(1 / 3, abs=0.02)  # recall 1/2, precision 1


def test_skeleton_recall_is_the_share_of_the_line_that_is_found():
    truth, line = tube(), torch.zeros(1, 1, 9, 9, 24, dtype=torch.uint8)
    line[0, 0, 4, 4] = 1
    found = truth.clone()
    found[..., :6] = 0
    loss = SkeletonRecall(smooth=1e-6)
    assert float(loss(logits_of(found), truth, line)) == pytest.approx(0.25, abs=1e-5)
    assert float(loss(logits_of(torch.ones_like(truth)), truth, line)) == pytest.approx(0, abs=1e-5)
    truth[..., :12] = IGNORE_LABEL
    assert float(loss(logits_of(found), truth, line)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("build", [VoxelCrossEntropy, SoftDice, Recall])
def test_voxels_without_truth_neither_count_nor_get_a_gradient(build):
    logits, labels = random_case()
    ignored = (labels == IGNORE_LABEL).expand_as(logits)
    other = torch.where(ignored, 7 * torch.randn_like(logits), logits)
    logits.requires_grad_()
    torch.testing.assert_close(build()(other, labels), build()(logits, labels))
    (gradient,) = torch.autograd.grad(build()(logits, labels), logits)
    assert (gradient[ignored] == 0).all()
    assert (gradient[~ignored] != 0).any()


@every_loss
def test_regions_without_truth_do_not_count(build):
    """A soft skeleton looks at neighbours: with 3 erosions, at most 5 voxels into the region."""
    labels = tube((7, 7, 30)).expand(2, -1, -1, -1, -1).clone()
    labels[..., 10:] = IGNORE_LABEL
    logits = torch.randn((2, 2, 7, 7, 30), dtype=torch.float64)
    other = logits.clone()
    other[..., 15:] = torch.randn(2, 2, 7, 7, 15, dtype=torch.float64)
    logits.requires_grad_()
    torch.testing.assert_close(build()(other, labels), build()(logits, labels))
    (gradient,) = torch.autograd.grad(build()(logits, labels), logits)
    assert (gradient[..., 15:] == 0).all()
    assert (gradient[..., :10] != 0).any()


@every_loss
def test_a_batch_without_truth_gives_zero_and_one_without_fibre_is_finite(build):
    logits = torch.randn(1, 2, 6, 6, 6, requires_grad=True)
    nothing = torch.full((1, 1, 6, 6, 6), IGNORE_LABEL, dtype=torch.uint8)
    loss = build()(logits, nothing)
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    background = torch.zeros_like(nothing)
    loss = build()(logits, background)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()


@every_loss
def test_a_certain_and_right_answer_costs_nothing_and_a_wrong_one_does(build):
    labels = tube()
    assert float(build()(logits_of(labels), labels)) < 1e-3
    assert float(build()(logits_of(1 - labels), labels)) > 0.5


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_give_float32_losses_that_are_finite(build, dtype):
    labels = tube().to(torch.uint8)
    extreme = (logits_of(1 - labels.long()) / 20 * 6e4).to(dtype)
    extreme.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = build()(extreme, labels)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    (gradient,) = torch.autograd.grad(loss, extreme)
    assert torch.isfinite(gradient).all()
    mild, rounded = torch.randn(1, 2, 9, 9, 24), {torch.float16: 1e-3, torch.bfloat16: 1e-2}[dtype]
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(build()(mild.to(dtype), labels), build()(mild, labels), rtol=rounded, atol=rounded)


@every_loss
def test_gradients_are_those_of_the_values(build):
    logits, labels = random_case(1, (3, 4, 4), seed=4)
    assert torch.autograd.gradcheck(lambda z: build()(z, labels), (logits.requires_grad_(),))


def test_the_sum_is_the_weighted_sum_of_its_parts():
    logits, labels = random_case()
    loss = FibreLoss(cross_entropy=2, dice=0.5, cldice=0.25, skeleton_recall=3, cldice_iterations=2)
    parts = loss.parts(logits, labels, labels)
    alone = {
        "cross_entropy": VoxelCrossEntropy()(logits, labels),
        "dice": SoftDice()(logits, labels),
        "cldice": SoftClDice(2)(logits, labels),
        "skeleton_recall": SkeletonRecall()(logits, labels, labels),
    }
    torch.testing.assert_close(parts, alone)
    total = 2 * parts["cross_entropy"] + 0.5 * parts["dice"] + 0.25 * parts["cldice"] + 3 * parts["skeleton_recall"]
    torch.testing.assert_close(loss(logits, labels, labels), total)
    assert set(FibreLoss().parts(logits, labels)) == {"cross_entropy", "dice"}
    assert not FibreLoss().state_dict()


@pytest.mark.parametrize(
    "build",
    [
        lambda: VoxelCrossEntropy((0, 0)),
        lambda: VoxelCrossEntropy((1, -1)),
        lambda: SoftDice(smooth=0),
        lambda: SoftClDice(-1),
        lambda: FibreLoss(cross_entropy=0, dice=0),
        lambda: FibreLoss(dice=-1),
    ],
)
def test_wrong_options_are_refused(build):
    with pytest.raises(InputError):
        build()


def test_what_does_not_fit_is_refused():
    logits, labels = random_case()
    with pytest.raises(GeometryError, match="losses take logits"):
        SoftDice()(logits, labels[:, 0])
    with pytest.raises(InputError, match="whole numbers"):
        SoftDice()(logits, labels.float())
    with pytest.raises(InputError, match="weights for 2 classes"):
        VoxelCrossEntropy((1, 2, 3))(logits, labels)
    with pytest.raises(InputError, match="needs the skeleton"):
        FibreLoss(skeleton_recall=1)(logits, labels)
    with pytest.raises(GeometryError, match="the skeleton"):
        SkeletonRecall()(logits, labels, labels[:1])


@pytest.mark.parametrize("build", [VoxelCrossEntropy, SoftDice, SoftClDice, FibreLoss])
@pytest.mark.parametrize("strange", [2, -1])
def test_labels_that_are_no_classes_are_refused(build, strange):
    """They counted in no sum of the truth: fibre that is 2 in a mask was not learned."""
    logits, labels = random_case()
    labels[0, 0, 1, 2, 3] = strange
    with pytest.raises(InputError, match=f"labels of 2 classes lie in 0 to 1, or are 255.*got {strange}"):
        build()(logits, labels)
