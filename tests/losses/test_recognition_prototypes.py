"""EPL: prototypes that are means of unit length, a margin without gradient, no overflow, rules as they are named."""

import math

import pytest
import torch
import torch.nn.functional as F

from medwave.core.errors import InputError
from medwave.losses.recognition import ArcFaceLoss, CosFaceLoss, EPLLoss, UCELoss
from medwave.losses.recognition.memory import EmpiricalPrototypes
from medwave.losses.recognition.prototypes import KEEP

CLASSES, DIMENSION = 6, 4


def batch(labels: list[int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(labels), DIMENSION, dtype=torch.float64, generator=generator), torch.tensor(labels)


def late(**options) -> EPLLoss:
    loss = EPLLoss(CLASSES, DIMENSION, **options).double()
    loss.set_progress(3, 28)
    return loss


@pytest.mark.parametrize("alpha", [*KEEP, lambda s: 5 * s], ids=[*KEEP, "out of range"])
def test_prototypes_stay_of_unit_length_and_between_the_old_one_and_the_sample(alpha):
    keep = KEEP[alpha] if isinstance(alpha, str) else alpha
    table = EmpiricalPrototypes(CLASSES, DIMENSION).double()
    for seed in range(20):
        features, labels = batch([0, 2, 5], seed)
        old = table.rows[labels].clone()
        table.update(features, labels, keep)
        new, x = table.rows[labels], F.normalize(features)
        torch.testing.assert_close(new.norm(dim=1), torch.ones(3).double())
        if seed:
            both = torch.arccos((old * x).sum(1).clamp(-1, 1))
            parts = [torch.arccos((new * side).sum(1).clamp(-1, 1)) for side in (old, x)]
            torch.testing.assert_close(parts[0] + parts[1], both, atol=1e-6, rtol=1e-6)  # a in [0, 1): no extrapolation
    assert not table.filled[[1, 3, 4]].any()
    assert not table.rows[[1, 3, 4]].any()


@pytest.mark.parametrize(
    ("alpha", "share"),
    [
        ("sigmoid", lambda s: 1 / (1 + math.exp(-s))),
        ("softsign", lambda s: max(0.0, s / (1 + abs(s)))),
        ("sigmoid_shift", lambda s: 1 / (1 + math.exp(1 - s))),
        ("ema", lambda s: 0.9),
        ("direct", lambda s: 0.0),
        ("robust", lambda s: 1 - 0.5 * max(s, 0.0)),
    ],
)
def test_each_rule_keeps_the_share_it_names(alpha: str, share):
    for s in (-0.9, -0.2, 0.0, 0.3, 0.95):
        table = EmpiricalPrototypes(2, 2).double()
        table.update(torch.tensor([[3.0, 0]]).double(), torch.tensor([1]), KEEP[alpha])
        assert torch.equal(table.rows[1], torch.tensor([1.0, 0]).double())  # the first feature is the prototype
        x = torch.tensor([[s, math.sqrt(1 - s * s)]]).double()
        table.update(7 * x, torch.tensor([1]), KEEP[alpha])
        a = min(share(s), 1 - 2**-23)
        expected = F.normalize(a * torch.tensor([1.0, 0]).double() + (1 - a) * x[0], dim=0)
        torch.testing.assert_close(table.rows[1], expected, atol=1e-6, rtol=1e-6)


def test_the_robust_rule_keeps_more_against_a_hard_sample_and_the_published_ones_less():
    s = torch.tensor([0.1, 0.9])
    for name, rule in KEEP.items():
        hard, normal = rule(s).tolist()
        if name == "robust":
            assert hard > normal
        elif name in ("sigmoid", "softsign", "sigmoid_shift"):
            assert hard < normal


def test_repeated_classes_are_averaged_whatever_their_order():
    features, labels = batch([1, 1, 3, 1, 3])
    one, two = (EmpiricalPrototypes(CLASSES, DIMENSION).double() for _ in range(2))
    order = torch.tensor([4, 3, 1, 0, 2])
    for _ in range(2):
        one.update(features, labels, KEEP["sigmoid"])
        two.update(features[order], labels[order], KEEP["sigmoid"])
    torch.testing.assert_close(one.rows, two.rows)
    first = EmpiricalPrototypes(CLASSES, DIMENSION).double()
    first.update(features, labels, KEEP["sigmoid"])
    x = F.normalize(features)
    torch.testing.assert_close(first.rows[1], F.normalize((x[0] + x[1] + x[3]) / 3, dim=0))


def test_features_that_are_no_directions_or_cancel_leave_the_prototype_alone():
    table = EmpiricalPrototypes(3, 2)
    table.update(torch.tensor([[0.0, 1.0]]), torch.tensor([0]), KEEP["direct"])
    bad = torch.tensor([[math.nan, 0], [0, 0], [1.0, 0], [-1.0, 0], [math.inf, 0]])
    table.update(bad, torch.tensor([0, 0, 1, 1, 2]), KEEP["direct"])
    assert table.filled.tolist() == [True, False, False]
    assert torch.equal(table.rows, torch.tensor([[0.0, 1.0], [0, 0], [0, 0]]))


@pytest.mark.parametrize("inner", [CosFaceLoss, ArcFaceLoss, UCELoss])
def test_the_loss_is_the_mean_of_both_terms_and_the_empirical_one_has_the_adaptive_margin_alone(inner):
    loss = late(learned=inner(CLASSES, DIMENSION))
    loss(*batch(list(range(CLASSES)), seed=9))
    features, labels = batch([0, 3, 3, 5])
    result = loss(features, labels)
    cosine = F.normalize(features) @ loss.empirical.rows.T  # rows already hold this batch
    own = F.one_hot(labels, CLASSES).bool()
    expected = F.cross_entropy(64 * torch.where(own, cosine - 0.7 * cosine, cosine), labels)
    torch.testing.assert_close(result.parts["empirical"], 0.5 * expected)
    torch.testing.assert_close(result.total, 0.5 * (expected + loss.learned(features, labels).total))


def test_the_margin_has_no_gradient_and_the_slope_stays_the_scale():
    loss = late(alpha="ema")
    loss(*batch(list(range(CLASSES)), seed=9))
    loss.eval()
    features, labels = batch([0])
    x = F.normalize(features).requires_grad_()
    (slope,) = torch.autograd.grad(loss(x, labels).parts["empirical"], x)
    cosine = (F.normalize(x.detach()) @ loss.empirical.rows.T)[0]
    z = 64 * cosine
    z[0] *= 0.3
    p = z.softmax(0)
    p[0] -= 1
    expected = 0.5 * 64 * (p[:, None] * (loss.empirical.rows - cosine[:, None] * x.detach())).sum(0)
    torch.testing.assert_close(slope[0], expected)


def test_before_its_epoch_the_learned_loss_stands_alone_but_prototypes_move_from_the_first_step():
    loss = EPLLoss(CLASSES, DIMENSION).double()
    features, labels = batch([0, 1, 2])
    for epoch in (0, 2.9):
        loss.set_progress(epoch, 28)
        torch.testing.assert_close(loss(features, labels).total, loss.learned(features, labels).total)
    assert loss.empirical.filled.tolist() == [True] * 3 + [False] * 3
    loss.set_progress(3, 28)
    assert set(loss(features, labels).parts) == {"cosface", "empirical"}


def test_classes_never_seen_count_in_nothing():
    loss = late()
    features, labels = batch([0, 1, 1])
    value = loss(features, labels).parts["empirical"]
    cosine = F.normalize(features) @ loss.empirical.rows[:2].T
    own = F.one_hot(labels, 2).bool()
    torch.testing.assert_close(value, 0.5 * F.cross_entropy(64 * torch.where(own, 0.3 * cosine, cosine), labels))
    lonely = late()
    alone = lonely(*batch([4, 4]))
    assert float(alone.parts["empirical"].detach()) == 0


def test_gradients_are_those_of_the_values():
    loss = late(
        learned=UCELoss(CLASSES, DIMENSION), margin_factor=0.0
    )  # with a margin the value does not tell the slope
    loss(*batch([0, 1, 2, 4], seed=3))
    loss.eval()
    features, labels = batch([0, 2, 2])
    assert torch.autograd.gradcheck(lambda x: loss(x, labels).total, (features.requires_grad_(),))


def test_prototypes_have_no_gradient_and_may_move_before_the_backward_pass():
    loss = late()
    loss(*batch(list(range(CLASSES)), seed=9))
    features, labels = batch([0, 1])
    features.requires_grad_()
    value = loss(features, labels).total
    loss(*batch([0, 1], seed=4))
    (gradient,) = torch.autograd.grad(value, features)
    assert gradient.isfinite().all()
    assert not loss.empirical.rows.requires_grad
    assert [name for name, _ in loss.named_parameters()] == ["learned.prototypes"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_opposite_samples_of_many_classes_do_not_overflow(dtype: torch.dtype):
    classes = 1000
    loss = EPLLoss(classes, DIMENSION, alpha="ema")
    loss.set_progress(3, 28)
    away = torch.zeros(classes, DIMENSION)
    away[:, 0] = 1
    loss(away, torch.arange(classes))
    x = (-100 * away[:2] + torch.tensor([[0.0, 1, 0, 0]])).to(dtype).requires_grad_()
    kind = torch.bfloat16 if dtype == torch.float32 else dtype
    with torch.autocast("cpu", kind):
        value = loss(x, torch.tensor([0, 1])).total
    assert value.dtype == torch.float32
    assert all(torch.isfinite(t).all() for t in (value, *torch.autograd.grad(value, [x, *loss.parameters()])))


def test_state_saves_and_loads_and_evaluation_changes_nothing(tmp_path):
    loss = late(sample_rate=0.5)
    loss(*batch([0, 1, 2, 2]))
    torch.save(loss.state_dict(), tmp_path / "state.pt")
    other = EPLLoss(CLASSES, DIMENSION, sample_rate=0.5).double()
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for _ in range(3):
        torch.testing.assert_close(other(*batch([0, 1, 5])), loss(*batch([0, 1, 5])), rtol=0, atol=0)
    loss.eval()
    before = {k: v.clone() for k, v in loss.state_dict().items()}
    loss(*batch([3, 4]))
    assert all(torch.equal(before[k], v) for k, v in loss.state_dict().items())


@pytest.mark.parametrize(
    "options", [{"alpha": "median"}, {"margin_factor": 1.0}, {"scale": 0}, {"learned": CosFaceLoss(3, DIMENSION)}]
)
def test_wrong_options_are_refused(options):
    with pytest.raises(InputError):
        EPLLoss(CLASSES, DIMENSION, **options)
