"""Losses on prototypes: equal to the textbook sums, stable at the extremes, exact gradients, draws that are fair."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from medwave.core.errors import GeometryError, InputError
from medwave.losses.recognition import (
    ArcFaceLoss,
    CosFaceLoss,
    SoftmaxLoss,
    UCELoss,
    UnifiedBCELoss,
    ideal_bias,
    scores,
)

CLASSES, DIMENSION = 7, 5
HEADS = {
    "softmax": lambda **o: SoftmaxLoss(CLASSES, DIMENSION, **o),
    "softmax normalised": lambda **o: SoftmaxLoss(CLASSES, DIMENSION, normalised=True, **o),
    "cosface": lambda **o: CosFaceLoss(CLASSES, DIMENSION, **o),
    "arcface": lambda **o: ArcFaceLoss(CLASSES, DIMENSION, **o),
    "bce unified": lambda **o: UnifiedBCELoss(CLASSES, DIMENSION, **o),
    "bce diverse": lambda **o: UnifiedBCELoss(CLASSES, DIMENSION, bias="diverse", **o),
    "bce normalised": lambda **o: UnifiedBCELoss(CLASSES, DIMENSION, normalised=True, **o),
    "uce": lambda **o: UCELoss(CLASSES, DIMENSION, **o),
}
every_head = pytest.mark.parametrize("build", HEADS.values(), ids=HEADS)


def batch(size: int = 6, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(size, DIMENSION, dtype=dtype, generator=generator)
    return features, torch.randint(CLASSES, (size,), generator=generator)


def cosines(features: torch.Tensor, head: torch.nn.Module) -> torch.Tensor:
    return F.normalize(features) @ F.normalize(head.prototypes.detach().to(features.dtype)).T


def spread_biases(head: torch.nn.Module) -> None:
    with torch.no_grad():
        head.bias += torch.randn(head.bias.shape)


def test_without_margin_the_loss_is_cross_entropy():
    features, labels = batch()
    plain = SoftmaxLoss(CLASSES, DIMENSION)
    spread_biases(plain)
    expected = F.cross_entropy(features @ plain.prototypes.double().T - plain.bias.double(), labels)
    torch.testing.assert_close(plain(features, labels).total, expected)
    for head in (
        SoftmaxLoss(CLASSES, DIMENSION, normalised=True, scale=16),
        CosFaceLoss(CLASSES, DIMENSION, margin=0, scale=16),
        ArcFaceLoss(CLASSES, DIMENSION, margin=0, scale=16),
    ):
        expected = F.cross_entropy(16 * cosines(features, head), labels)
        torch.testing.assert_close(head(features, labels).total, expected)


def test_margins_lower_the_positive_alone():
    features, labels = batch()
    own = F.one_hot(labels, CLASSES).bool()
    cosface, arcface = CosFaceLoss(CLASSES, DIMENSION, margin=0.4), ArcFaceLoss(CLASSES, DIMENSION, margin=0.5)
    cosine = cosines(features, cosface)
    expected = F.cross_entropy(64 * torch.where(own, cosine - 0.4, cosine), labels)
    torch.testing.assert_close(cosface(features, labels).total, expected)
    cosine = cosines(features, arcface)
    turned = torch.cos(torch.arccos(cosine) + 0.5)
    beyond = cosine - 0.5 * math.sin(0.5)
    assert (cosine[own] < math.cos(math.pi - 0.5)).sum() == 0  # such a case has its own test
    expected = F.cross_entropy(
        64 * torch.where(own, torch.where(cosine > -math.cos(0.5), turned, beyond), cosine), labels
    )
    torch.testing.assert_close(arcface(features, labels).total, expected)


def test_the_arcface_target_falls_all_the_way_to_the_opposite_direction():
    angle = torch.linspace(0.01, math.pi - 0.01, 2000, dtype=torch.float64)
    lowered = ArcFaceLoss(CLASSES, DIMENSION, margin=0.5)._lowered(angle.cos())
    assert (lowered.diff() < 0).all()
    assert float(lowered[-1]) == pytest.approx(math.cos(math.pi - 0.01) - 0.5 * math.sin(0.5))


def test_a_unified_bias_is_bce_with_logits_summed_over_classes():
    features, labels = batch()
    own = F.one_hot(labels, CLASSES).double()
    for bias in ("unified", "diverse"):
        head = UnifiedBCELoss(CLASSES, DIMENSION, bias=bias)
        spread_biases(head)
        logits = features @ head.prototypes.double().T - head.bias.double()
        expected = F.binary_cross_entropy_with_logits(logits, own, reduction="sum") / len(features)
        torch.testing.assert_close(head(features, labels).total, expected)
        torch.testing.assert_close(
            head.class_scores(features), logits + (head.bias.double() if bias == "unified" else 0)
        )
    uce = UCELoss(CLASSES, DIMENSION, margin=0.3, balance=0.5, scale=8)
    logits = 8 * (cosines(features, uce) - 0.3 * own) - uce.bias.double()
    weights = torch.where(own.bool(), 1.0, 0.5)
    expected = F.binary_cross_entropy_with_logits(logits, own, weights, reduction="sum") / len(features)
    torch.testing.assert_close(uce(features, labels).total, expected)


def test_gradients_in_scores_and_bias_are_those_of_the_formulas():
    head = UnifiedBCELoss(CLASSES, CLASSES).double()
    with torch.no_grad():
        head.prototypes.copy_(torch.eye(CLASSES))  # features are then the scores themselves
    z, labels = torch.randn(4, CLASSES, dtype=torch.float64, requires_grad=True), torch.tensor([0, 3, 3, 6])
    head(z, labels).total.backward()
    own = F.one_hot(labels, CLASSES).double()
    expected = (torch.sigmoid(z.detach() - head.bias.detach()) - own) / 4
    torch.testing.assert_close(z.grad, expected)
    torch.testing.assert_close(head.bias.grad, -expected.sum())


def test_at_its_optimum_the_bias_counts_one_positive_per_sample():
    features, labels = batch(50)
    head = UnifiedBCELoss(CLASSES, DIMENSION).double()
    optimiser = torch.optim.LBFGS([head.bias], max_iter=100, tolerance_grad=1e-12)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = head(features, labels).total
        loss.backward()
        return loss

    optimiser.step(closure)
    assert head.predicted_positives(features) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("classes", "scale"), [(2, 1.0), (10, 0.5), (10, 4.0), (1000, 8.0), (10_572, 64.0)])
def test_the_ideal_bias_zeroes_the_gradient_of_ideal_scores(classes: int, scale: float):
    b = torch.tensor(ideal_bias(classes, scale), dtype=torch.float64, requires_grad=True)
    loss = F.softplus(b - scale, threshold=700) + (classes - 1) * F.softplus(-scale - b, threshold=700)
    (gradient,) = torch.autograd.grad(loss, b)
    assert abs(float(gradient)) < 1e-9 * float(torch.sigmoid(b - scale).detach()) + 1e-30
    if classes == 10_572:
        assert float(b.detach()) == pytest.approx(4.633, abs=5e-4)
        assert float(b.detach()) / scale == pytest.approx(0.0724, abs=5e-5)
        assert float(b.detach()) == pytest.approx(0.5 * math.log(classes - 1))


@every_head
def test_gradients_are_those_of_the_values(build):
    head = build().double()
    features, labels = batch(3)
    names = [name for name, _ in head.named_parameters()]
    inputs = (features.requires_grad_(), *(p.detach().clone().requires_grad_() for p in head.parameters()))

    def loss(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(head, dict(zip(names, parameters, strict=True)), (x, labels)).total

    assert torch.autograd.gradcheck(loss, inputs)


@every_head
def test_the_total_is_the_sum_of_its_parts_and_a_mean_over_samples(build):
    head = build()
    features, labels = batch()
    whole = head(features, labels)
    torch.testing.assert_close(sum(whole.parts.values()), whole.total)
    one_by_one = torch.stack([head(features[n : n + 1], labels[n : n + 1]).total for n in range(len(labels))])
    torch.testing.assert_close(one_by_one.mean(), whole.total)
    order = torch.randperm(len(labels))
    torch.testing.assert_close(head(features[order], labels[order]).total, whole.total)


@pytest.mark.parametrize("name", ["softmax normalised", "cosface", "arcface", "bce normalised", "uce"])
def test_lengths_do_not_matter_to_normalised_losses(name: str):
    head = HEADS[name]()
    features, labels = batch()
    before = head(features, labels).total
    with torch.no_grad():
        head.prototypes *= torch.rand(CLASSES, 1) + 0.5
    after = head(features * (torch.rand(len(labels), 1) + 0.5), labels).total
    torch.testing.assert_close(after, before, rtol=1e-6, atol=1e-6)


@every_head
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_hardest_samples_are_finite_and_keep_their_gradient(build, dtype: torch.dtype):
    head = build()
    with torch.no_grad():  # the own prototype points away, all others towards the sample
        head.prototypes[:] = torch.eye(DIMENSION)[0]
        head.prototypes[0] *= -1
    features = (400 * torch.eye(DIMENSION)[:1]).to(dtype).requires_grad_()
    kind = torch.bfloat16 if dtype == torch.float32 else dtype
    with torch.autocast("cpu", kind):
        loss = head(features + 0, torch.tensor([0])).total
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert float(loss.detach()) > 100
    gradients = torch.autograd.grad(loss, [features, *head.parameters()])
    assert all(torch.isfinite(g).all() for g in gradients)
    if head.normalised:  # directions are stationary here; a small turn has the full slope of the scale
        turned = (features.detach().float() + 10 * torch.eye(DIMENSION)[1]).requires_grad_()
        (slope,) = torch.autograd.grad(head(turned, torch.tensor([0])).total, turned)
        assert float(slope.norm()) * float(turned.detach().norm()) > 1


@every_head
def test_autocast_changes_nothing_beyond_the_rounding_of_the_features(build):
    head = build()
    features, labels = batch(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = head(features, labels).total
        half = head(features.half(), labels).total
    torch.testing.assert_close(inside, head(features, labels).total, rtol=0, atol=0)
    torch.testing.assert_close(half, head(features.half().float(), labels).total, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["softmax", "arcface", "bce unified", "bce diverse", "uce"])
@pytest.mark.parametrize("at_once", [1, 6 * 3, 6 * 5])
def test_chunks_of_classes_give_the_loss_and_gradients_of_the_whole(monkeypatch, name: str, at_once: int):
    head = HEADS[name]().double()
    features, labels = batch()
    features.requires_grad_()
    whole = head(features, labels).total
    expected = torch.autograd.grad(whole, [features, *head.parameters()])
    monkeypatch.setattr(scores, "LOGITS_AT_ONCE", at_once)
    chunked = head(features, labels).total
    torch.testing.assert_close(chunked, whole)
    torch.testing.assert_close(torch.autograd.grad(chunked, [features, *head.parameters()]), expected)


@every_head
@pytest.mark.parametrize("sparse", [False, True])
def test_draws_use_the_drawn_classes_as_negatives_and_the_own_class_as_the_positive(build, sparse: bool):
    head = build(sample_rate=0.5, sparse_gradients=sparse, seed=3).double()
    features, labels = batch()
    twin = build(sample_rate=0.5, seed=3).double()
    drawn = twin.draw()
    assert len(drawn) == 4
    result = head(features, labels)
    result.total.backward()
    gradient = head.prototypes.grad.to_dense()
    assert head.prototypes.grad.is_sparse == sparse
    took_part = torch.zeros(CLASSES, dtype=torch.bool)
    took_part[drawn] = took_part[labels] = True
    assert (gradient[~took_part] == 0).all()

    everything = build().double()
    everything.load_state_dict(head.state_dict())
    z = everything.class_scores(features)
    if "negative" in result.parts:
        z = z if head.bias.ndim else z - head.bias
        mask = F.one_hot(labels, CLASSES).bool()
        mask[:, [c for c in range(CLASSES) if c not in drawn.tolist()]] = True
        expected = F.softplus(z).masked_fill(mask, 0).sum() / len(labels)
        torch.testing.assert_close(result.parts["negative"], expected)
        torch.testing.assert_close(result.parts["positive"], everything(features, labels).parts["positive"])


def test_each_class_is_drawn_as_a_negative_equally_often():
    head = UnifiedBCELoss(CLASSES, DIMENSION, sample_rate=0.4, initial_bias=0.0)
    features, labels = batch()
    drawn = torch.stack([head(features, labels).parts["negative"].detach() for _ in range(1000)])
    head.eval()
    everything = float(head(features, labels).parts["negative"].detach())
    share = 3 / 7
    assert float(drawn.mean()) == pytest.approx(share * everything, abs=5 * float(drawn.std()) / math.sqrt(1000))


def test_draws_go_on_where_they_stopped():
    features, labels = batch()
    one, two = (CosFaceLoss(CLASSES, DIMENSION, sample_rate=0.3) for _ in range(2))
    values = []
    for _ in range(6):
        two.load_state_dict(one.state_dict())
        values.append(one(features, labels).total)
        torch.testing.assert_close(two(features, labels).total, values[-1], rtol=0, atol=0)
    assert len({round(float(v.detach()), 6) for v in values}) > 1


def test_negatives_weigh_little_at_the_start_and_the_bias_is_the_rule():
    classes = 10_000
    head = UCELoss(classes, 128)
    features = torch.randn(64, 128)
    assert float(head.bias.detach()) == pytest.approx(math.log(10 * classes))
    orthogonal = classes * math.log1p(math.exp(-float(head.bias.detach())))
    assert orthogonal == pytest.approx(0.1, rel=1e-3)
    sampled = UCELoss(classes, 128, sample_rate=0.1)
    assert float(sampled.bias.detach()) == pytest.approx(math.log(classes))
    assert float(UnifiedBCELoss(11, 4).bias.detach()) == pytest.approx(math.log(10))
    flat = UnifiedBCELoss(classes, 128)
    with torch.no_grad():
        flat.prototypes.zero_()
    assert float(flat(features, torch.zeros(64).long()).parts["negative"].detach()) == pytest.approx(1, rel=1e-3)


def test_weight_decay_leaves_the_bias_alone():
    head = UCELoss(CLASSES, DIMENSION)
    before = float(head.bias.detach())
    optimiser = torch.optim.SGD(head.parameter_groups(5e-4), lr=0.1)
    for p in head.parameters():
        p.grad = torch.zeros_like(p)
    prototypes = head.prototypes.detach().clone()
    optimiser.step()
    assert float(head.bias.detach()) == before
    torch.testing.assert_close(head.prototypes.detach(), prototypes * (1 - 0.1 * 5e-4))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.floats(-50, 50))
def test_softmax_ignores_what_is_added_to_all_scores_and_bce_does_not(seed: int, offset: float):
    z, labels = batch(4, seed=seed)
    plain, unified = SoftmaxLoss(CLASSES, CLASSES).double(), UnifiedBCELoss(CLASSES, CLASSES).double()
    for head in (plain, unified):
        with torch.no_grad():
            head.prototypes.copy_(torch.eye(CLASSES))
    z = F.pad(z, (0, CLASSES - DIMENSION))
    torch.testing.assert_close(plain(z + offset, labels).total, plain(z, labels).total)
    if abs(offset) > 20:
        assert float(unified(z + offset, labels).total.detach()) > float(unified(z, labels).total.detach())


def test_softplus_is_exact_in_float64():
    u = torch.tensor([-1e30, -50.0, 0.0, 19.9, 20.1, 35.0, 500.0], dtype=torch.float64)
    expected = [0.0, *(max(v, 0) + math.log1p(math.exp(-abs(v))) for v in u[1:].tolist())]
    torch.testing.assert_close(scores.softplus(u), torch.tensor(expected, dtype=torch.float64), rtol=1e-15, atol=0)


@every_head
def test_state_saves_and_loads(build, tmp_path):
    one, two = build(), build()
    one.set_progress(3.5, 20)
    features, labels = batch()
    one(features, labels)
    torch.save(one.state_dict(), tmp_path / "state.pt")
    two.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    torch.testing.assert_close(two(features, labels).total, one(features, labels).total, rtol=0, atol=0)


def test_what_does_not_fit_is_refused():
    head = CosFaceLoss(CLASSES, DIMENSION)
    features, labels = batch()
    with pytest.raises(GeometryError, match=r"features \(B, 5\)"):
        head(features[:, :4], labels)
    with pytest.raises(GeometryError, match=r"labels \(B,\)"):
        head(features, labels[:3])
    with pytest.raises(InputError, match="whole numbers"):
        head(features, labels.float())
    with pytest.raises(InputError, match="0 to 6"):
        head(features, labels + CLASSES)
    with pytest.raises(InputError, match="samples"):
        head(features, labels, samples=labels[:2])
    with pytest.raises(InputError, match="progress"):
        head.set_progress(-1)


@pytest.mark.parametrize(
    "build",
    [
        lambda: CosFaceLoss(1, 4),
        lambda: CosFaceLoss(3, 0),
        lambda: CosFaceLoss(3, 4, margin=-0.1),
        lambda: ArcFaceLoss(3, 4, margin=2),
        lambda: CosFaceLoss(3, 4, scale=0),
        lambda: CosFaceLoss(3, 4, sample_rate=0),
        lambda: CosFaceLoss(3, 4, sample_rate=1.5),
        lambda: CosFaceLoss(3, 4, sparse_gradients=True),
        lambda: UnifiedBCELoss(3, 4, bias="both"),
        lambda: UCELoss(3, 4, balance=0),
        lambda: UCELoss(3, 4, margin=-1),
    ],
)
def test_wrong_options_are_refused(build):
    with pytest.raises(InputError):
        build()


def test_an_empty_batch_costs_nothing():
    head = UCELoss(CLASSES, DIMENSION)
    loss = head(torch.zeros(0, DIMENSION, requires_grad=True), torch.zeros(0, dtype=torch.int64)).total
    loss.backward()
    assert float(loss.detach()) == 0
