"""Sample-to-sample losses: sums over pairs by hand, a memory without garbage or gradient, one start of the bias."""

import math

import pytest
import torch
import torch.nn.functional as F

from medwave.core.errors import InputError
from medwave.losses.recognition import (
    ArcFaceLoss,
    CosFaceLoss,
    FeatureMemory,
    S2SBCELoss,
    S2SSoftmaxLoss,
    UCELoss,
    UniTSFaceLoss,
    USSLoss,
    scores,
)

CLASSES, DIMENSION = 6, 4
SAMPLE_LOSSES = {"uss": USSLoss, "s2s softmax": S2SSoftmaxLoss, "s2s bce": S2SBCELoss, "unitsface": UniTSFaceLoss}
every_loss = pytest.mark.parametrize("build", SAMPLE_LOSSES.values(), ids=SAMPLE_LOSSES)


def batch(labels: list[int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(labels), DIMENSION, dtype=torch.float64, generator=generator), torch.tensor(labels)


def fed(build, labels: list[int], seed: int = 7, **options):
    """A loss whose memory holds one batch, in the phase in which all its terms count."""
    loss = build(CLASSES, DIMENSION, **options).double()
    loss.set_progress(5, 10)
    features, labels = batch(labels, seed)
    loss(features, labels)
    return loss, features


def memory_of(loss) -> FeatureMemory:
    return loss.uss.memory if isinstance(loss, UniTSFaceLoss) else loss.memory


def test_the_losses_are_the_sums_over_pairs_of_the_formulas():
    features, labels = batch([0, 2, 2, 5])
    for margin in (0.0, 0.2):
        loss, stored = fed(USSLoss, list(range(CLASSES)), margin=margin, initial_bias=3.0)
        g = 64 * F.normalize(features) @ F.normalize(stored).T
        own = F.one_hot(labels, CLASSES).double()
        expected = F.binary_cross_entropy_with_logits(g - 64 * margin * own - 3, own, reduction="sum") / 4
        torch.testing.assert_close(loss(features, labels).total, expected)

        loss, stored = fed(S2SSoftmaxLoss, list(range(CLASSES)), margin=margin)
        expected = F.cross_entropy(g - 64 * margin * own, labels)
        torch.testing.assert_close(loss(features, labels).total, expected)

        loss, stored = fed(S2SBCELoss, list(range(CLASSES)), margin=margin, initial_bias=0.0)
        with torch.no_grad():
            loss.bias.copy_(torch.arange(CLASSES))
        expected = F.binary_cross_entropy_with_logits(g - 64 * margin * own - loss.bias.detach(), own, reduction="sum")
        torch.testing.assert_close(loss(features, labels).total, expected / 4)


def test_only_visited_rows_change_and_the_last_of_a_class_stays():
    memory = FeatureMemory(CLASSES, DIMENSION).double()
    assert not memory.rows.any()
    assert not memory.filled.any()
    features, labels = batch([4, 1, 4, 1, 4])
    memory.update(features, labels, None)
    expected = torch.zeros(CLASSES, DIMENSION, dtype=torch.float64)
    expected[4], expected[1] = F.normalize(features[4], dim=0), F.normalize(features[3], dim=0)
    torch.testing.assert_close(memory.rows, expected)
    assert memory.filled.tolist() == [False, True, False, False, True, False]
    before = memory.rows.clone()
    memory.update(features[:1], torch.tensor([0]), torch.tensor([9]))
    assert torch.equal(memory.rows[1:], before[1:])
    assert memory.sources.tolist() == [9, -1, -1, -1, -1, -1]


def test_a_step_that_overflowed_leaves_no_trace_in_the_memory():
    memory = FeatureMemory(CLASSES, DIMENSION)
    features = torch.tensor([[1.0, 0, 0, 0], [math.nan, 0, 0, 0], [math.inf, 1, 0, 0], [0, 0, 0, 0]])
    memory.update(features, torch.tensor([0, 1, 2, 3]), None)
    assert memory.filled.tolist() == [True, False, False, False, False, False]
    assert memory.rows.isfinite().all()
    memory.update(features[1:2], torch.tensor([0]), None)
    assert torch.equal(memory.rows[0], features[0])


@every_loss
def test_the_memory_takes_a_batch_in_after_its_loss_and_has_no_gradient(build):
    loss, stored = fed(build, list(range(CLASSES)))
    features, labels = batch([0, 2, 2])
    features.requires_grad_()
    value = loss(features, labels).total  # the memory moves here, before the backward pass
    (gradient,) = torch.autograd.grad(value, features)
    memory = memory_of(loss)
    assert not memory.rows.requires_grad
    assert not list(memory.parameters())
    torch.testing.assert_close(memory.rows[2], F.normalize(features[2].detach(), dim=0))
    torch.testing.assert_close(memory.rows[1], F.normalize(stored[1], dim=0))

    fresh, _ = fed(build, list(range(CLASSES)))  # the same state as before the update
    fresh.load_state_dict({k: v for k, v in loss.state_dict().items() if "memory" not in k}, strict=False)
    fresh.eval()
    again = fresh(features, labels).total
    torch.testing.assert_close(again, value)
    torch.testing.assert_close(torch.autograd.grad(again, features)[0], gradient)


@every_loss
def test_two_losses_before_one_backward_keep_their_own_gradients(build):
    features, labels = batch([0, 2, 2])
    alone = []
    for n in range(2):
        loss, _ = fed(build, list(range(CLASSES)), **({} if build is S2SSoftmaxLoss else {"initial_bias": 2.0}))
        torch.manual_seed(1)
        if build is UniTSFaceLoss:
            torch.nn.init.normal_(loss.sample_to_class.prototypes)
        x = (features + n).requires_grad_()
        if n:
            loss(features, labels)
        alone.append(torch.autograd.grad(loss(x, labels).total, x)[0])
    loss, _ = fed(build, list(range(CLASSES)), **({} if build is S2SSoftmaxLoss else {"initial_bias": 2.0}))
    torch.manual_seed(1)
    if build is UniTSFaceLoss:
        torch.nn.init.normal_(loss.sample_to_class.prototypes)
    x, y = features.clone().requires_grad_(), (features + 1).requires_grad_()
    total = loss(x, labels).total + loss(y, labels).total
    for found, expected in zip(torch.autograd.grad(total, [x, y]), alone, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("at_once", [1 << 24, 6])
def test_classes_never_seen_count_in_nothing(monkeypatch, at_once: int):
    monkeypatch.setattr(scores, "LOGITS_AT_ONCE", at_once)
    features, labels = batch([0, 3])
    loss, stored = fed(USSLoss, [0, 1, 2], initial_bias=3.0, margin=0.0)
    g = 64 * F.normalize(features) @ F.normalize(stored).T
    parts = loss(features, labels).parts
    torch.testing.assert_close(parts["uss_positive"], F.softplus(3 - g[0, 0]) / 2)  # class 3 has no partner yet
    negatives = F.softplus(g[0, 1:] - 3).sum() + F.softplus(g[1] - 3).sum()
    torch.testing.assert_close(parts["uss_negative"], negatives / 2)
    loss, stored = fed(S2SSoftmaxLoss, [0, 1, 2])
    torch.testing.assert_close(loss(features, labels).total, F.cross_entropy(g[:1], labels[:1]))


@every_loss
def test_with_an_empty_or_lonely_memory_everything_is_finite_and_all_parameters_take_part(build):
    loss = build(CLASSES, DIMENSION).double()
    loss.set_progress(5, 10)
    features, labels = batch([2, 2])
    features.requires_grad_()
    for _ in range(2):  # first nothing is stored, then the own class alone
        loss.zero_grad()
        value = loss(features, labels).total
        gradients = torch.autograd.grad(value, [features, *loss.parameters()], allow_unused=False)
        assert torch.isfinite(value)
        assert all(torch.isfinite(g).all() for g in gradients)
    if build is S2SSoftmaxLoss:
        assert float(value.detach()) == 0


@every_loss
@pytest.mark.parametrize("at_once", [1 << 24, 7])
def test_gradients_are_those_of_the_values(monkeypatch, build, at_once: int):
    monkeypatch.setattr(scores, "LOGITS_AT_ONCE", at_once)
    loss, _ = fed(build, [0, 1, 2, 4, 5])
    features, labels = batch([0, 2, 2, 4])
    loss(features, labels)
    loss.eval()
    names = [name for name, _ in loss.named_parameters()]
    inputs = (features.requires_grad_(), *(p.detach().clone().requires_grad_() for p in loss.parameters()))

    def value(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(loss, dict(zip(names, parameters, strict=True)), (x, labels)).total

    assert torch.autograd.gradcheck(value, inputs)


def test_the_hardest_positive_keeps_its_full_slope():
    loss, stored = fed(USSLoss, list(range(CLASSES)), initial_bias=31.3344, margin=0.1)
    opposite = -F.normalize(stored[:1])
    side = F.normalize(torch.randn(1, DIMENSION).double() - opposite * 0.1)
    x = F.normalize(opposite + 0.3 * side).requires_grad_()
    cosine = float((x.detach() * F.normalize(stored[:1])).sum())
    assert cosine < -0.41  # where a clamp of the exponent at 64 would kill the gradient
    positive = loss(x, torch.tensor([0])).parts["uss_positive"]
    (slope,) = torch.autograd.grad(positive, x)
    tangent = math.sqrt(1 - cosine**2)
    assert float(slope.norm()) == pytest.approx(64 * tangent, rel=1e-6)


def test_an_easy_positive_and_an_easy_negative_keep_their_small_slopes():
    loss, stored = fed(USSLoss, [0, 1], initial_bias=0.0, margin=0.0)
    with torch.no_grad():
        loss.bias.fill_(-5.0)
    x = (stored[:1] + 0.1 * stored[1:]).requires_grad_()
    (slope,) = torch.autograd.grad(loss(x, torch.tensor([0])).parts["uss_positive"], x)
    assert float(slope.norm()) > 0  # sigma(-5 - 64) is 1e-30: small, not nothing


def test_the_bias_starts_once_from_the_first_negatives_and_never_again():
    loss = USSLoss(CLASSES, DIMENSION).double()
    features, labels = batch([0, 1, 2])
    loss(features, labels)
    assert not loss.bias_set
    expected = 64 * F.normalize(features) @ F.normalize(features).T
    expected = expected.masked_fill(torch.eye(3).bool(), -math.inf).logsumexp(dim=1).mean()
    loss(features, labels)
    torch.testing.assert_close(loss.bias.detach(), expected)
    with torch.no_grad():
        loss.bias.fill_(-1.0)  # training may take it below 0: that is its business
    loss(features, labels)
    assert float(loss.bias.detach()) == -1
    other = USSLoss(CLASSES, DIMENSION).double()
    other.load_state_dict(loss.state_dict())
    other(features, labels)
    assert float(other.bias.detach()) == -1
    given = USSLoss(CLASSES, DIMENSION, initial_bias=2.5)
    given(features, labels)
    given(features, labels)
    assert float(given.bias.detach()) == 2.5


def test_a_sample_is_not_its_own_partner_when_samples_are_told_apart():
    features, labels = batch([0, 1, 2])
    names = torch.tensor([10, 11, 12])
    loss = USSLoss(CLASSES, DIMENSION, initial_bias=3.0).double()
    loss(features, labels, samples=names)
    again = loss(features, labels, samples=torch.tensor([10, 21, 12])).parts["uss_positive"]
    own = F.softplus(torch.tensor(3.0 - 64 * (1 - 0.1)).double()) / 3  # the middle one alone has another partner
    torch.testing.assert_close(again, own)
    soft = S2SSoftmaxLoss(CLASSES, DIMENSION).double()
    soft(features, labels, samples=names)
    assert float(soft(features, labels, samples=names).total.detach()) == 0
    assert float(soft(features, labels).total.detach()) > 0


@every_loss
def test_evaluation_changes_nothing(build):
    loss, _ = fed(build, [0, 1, 2])
    loss.eval()
    before = {k: v.clone() for k, v in loss.state_dict().items()}
    loss(*batch([3, 4, 5]))
    assert all(torch.equal(before[k], v) for k, v in loss.state_dict().items())


@every_loss
def test_memory_bias_and_schedule_save_and_load(build, tmp_path):
    loss, _ = fed(build, [0, 1, 2, 2])
    torch.save(loss.state_dict(), tmp_path / "state.pt")
    other = build(CLASSES, DIMENSION).double()
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    features, labels = batch([0, 1, 5])
    for _ in range(2):
        torch.testing.assert_close(other(features, labels), loss(features, labels), rtol=0, atol=0)


def test_unitsface_fills_its_memory_first_and_then_adds_both_losses():
    features, labels = batch([0, 1, 2, 3])
    loss = UniTSFaceLoss(CLASSES, DIMENSION).double()
    first = loss(features, labels)
    torch.testing.assert_close(first.total, loss.sample_to_class(features, labels).total)
    assert loss.uss.memory.filled[:4].all()
    assert loss.uss.bias.grad is None
    first.total.backward()
    assert loss.uss.bias.grad is not None  # nothing for DistributedDataParallel to wait for
    assert float(loss.uss.bias.grad) == 0
    loss.set_progress(1, 28)
    both = loss(features, labels)
    uss = loss.uss.eval()(features, labels)
    torch.testing.assert_close(both.total, loss.sample_to_class(features, labels).total + uss.total)
    assert set(both.parts) == {"cosface", "uss_positive", "uss_negative"}


@pytest.mark.parametrize("inner", [CosFaceLoss, ArcFaceLoss, UCELoss])
def test_the_mean_is_half_the_sum_over_any_loss_on_prototypes(inner):
    features, labels = batch([0, 1, 2, 3])
    totals = []
    for weights in ((1, 1), (0.5, 0.5)):
        torch.manual_seed(5)
        loss = UniTSFaceLoss(CLASSES, DIMENSION, sample_to_class=inner(CLASSES, DIMENSION), weights=weights).double()
        loss.set_progress(1, 2)
        loss(features, labels)
        totals.append(loss(features.flip(0), labels.flip(0)).total)
    torch.testing.assert_close(totals[1], 0.5 * totals[0])


def test_drawn_negatives_are_stored_samples_of_drawn_classes():
    loss, stored = fed(USSLoss, [0, 1, 2, 3], initial_bias=3.0, sample_rate=0.5)
    features, labels = batch([0, 3])
    twin = USSLoss(CLASSES, DIMENSION, sample_rate=0.5)
    twin.draw()
    drawn = [c for c in twin.draw().tolist() if c < 4]
    g = 64 * F.normalize(features) @ F.normalize(stored).T
    expected = sum(F.softplus(g[n, c] - 3) for n in range(2) for c in drawn if c != labels[n])
    torch.testing.assert_close(loss(features, labels).parts["uss_negative"], torch.as_tensor(expected / 2))


def test_a_softmax_averages_over_samples_that_met_a_negative_only(monkeypatch):
    loss, stored = fed(S2SSoftmaxLoss, [0, 1, 2])
    features, labels = stored[[0, 0]] + 0.1, torch.tensor([0, 1])  # the second one looks like the other class
    monkeypatch.setattr(loss.draw, "forward", lambda: torch.tensor([0, 5]))  # the one stored class: no negative of 0
    g = 64 * F.normalize(features) @ F.normalize(stored).T
    assert g[1, 0] > g[1, 1] + 1
    torch.testing.assert_close(loss(features, labels).total, F.softplus(g[1, 0] - g[1, 1]))


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_stable_in_autocast(build, dtype: torch.dtype):
    loss = build(CLASSES, DIMENSION)
    loss.set_progress(5, 10)
    features = torch.eye(DIMENSION).repeat(2, 1)[:CLASSES] * 6e4
    labels = torch.arange(CLASSES)
    with torch.autocast("cpu", dtype):
        loss(features.to(dtype), labels)
        x = (-features).to(dtype).requires_grad_()
        value = loss(x, labels).total
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    assert float(value.detach()) > 60
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(value, [x, *loss.parameters()]))


@pytest.mark.parametrize(
    "build",
    [
        lambda: USSLoss(3, 4, margin=-0.1),
        lambda: USSLoss(3, 4, scale=0),
        lambda: S2SSoftmaxLoss(3, 4, sample_rate=0),
        lambda: UniTSFaceLoss(3, 4, weights=(1, 0)),
        lambda: UniTSFaceLoss(3, 4, weights=(1, 1, 1)),
        lambda: UniTSFaceLoss(3, 4, sample_to_class=CosFaceLoss(4, 4)),
    ],
)
def test_wrong_options_are_refused(build):
    with pytest.raises(InputError):
        build()
