"""What the losses promise and the metrics see: a learned threshold that is the best one, embeddings that separate."""

import pytest
import torch
from torch import nn

from medwave.losses import (
    ArcFaceLoss,
    CosFaceLoss,
    EPLLoss,
    S2SBCELoss,
    S2SSoftmaxLoss,
    SoftmaxLoss,
    UCELoss,
    UnifiedBCELoss,
    UniTSFaceLoss,
    USSLoss,
)
from medwave.metrics import ClassificationScores, VerificationScores, equal_error_rate

CLASSES = 10


def clouds(count: int, *, classes: int = CLASSES, seed: int, spread: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Gaussian classes around fixed centres."""
    centres = 2.5 * torch.randn(classes, 8, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=generator)
    return centres[labels] + spread * torch.randn(count, 8, generator=generator), labels


def trained(loss: nn.Module, network: nn.Module, steps: int, rate: float) -> None:
    optimiser = torch.optim.Adam([*network.parameters(), *loss.parameters()], lr=rate)
    for step in range(steps):
        loss.set_progress(5 * step / steps, 5)
        images, labels = clouds(128, seed=step)
        optimiser.zero_grad()
        loss(network(images), labels).total.backward()
        optimiser.step()
    loss.eval()


@pytest.mark.parametrize("normalised", [False, True])
def test_the_bias_that_bce_learns_is_the_threshold_that_is_best(normalised: bool) -> None:
    torch.manual_seed(0)
    network = nn.Linear(8, 8)
    loss = UnifiedBCELoss(CLASSES, 8, normalised=normalised, scale=16)
    trained(loss, network, 250, 0.03)
    features, labels = clouds(4000, seed=10_000)
    scores = loss.class_scores(network(features)).detach()
    store = ClassificationScores()
    store.update(scores, labels)
    found = store.result(float(loss.bias.detach()))
    assert found.distance < 0.05 * float(scores.max() - scores.min())
    assert found.uniform > 0.9
    assert found.at_learned > found.uniform - 0.01
    assert loss.predicted_positives(network(features)) == pytest.approx(1, abs=0.05)


HEADS = {
    "softmax": lambda: SoftmaxLoss(CLASSES, 6),
    "cosface": lambda: CosFaceLoss(CLASSES, 6, scale=16, margin=0.2),
    "arcface": lambda: ArcFaceLoss(CLASSES, 6, scale=16, margin=0.2),
    "bce": lambda: UnifiedBCELoss(CLASSES, 6),
    "bce diverse": lambda: UnifiedBCELoss(CLASSES, 6, bias="diverse"),
    "uce drawn": lambda: UCELoss(CLASSES, 6, scale=16, margin=0.2, sample_rate=0.6),
    "s2s softmax": lambda: S2SSoftmaxLoss(CLASSES, 6, scale=16),
    "s2s bce": lambda: S2SBCELoss(CLASSES, 6, scale=16),
    "uss": lambda: USSLoss(CLASSES, 6, scale=16),
    "unitsface": lambda: UniTSFaceLoss(CLASSES, 6, scale=16),
    "epl": lambda: EPLLoss(CLASSES, 6, scale=16),
}


@pytest.mark.parametrize("build", HEADS.values(), ids=HEADS)
def test_each_loss_brings_same_classes_together_and_parts_others(build) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 16), nn.PReLU(), nn.Linear(16, 6))
    features, labels = clouds(300, seed=10_000, spread=1.5)

    def error() -> float:
        pairs = VerificationScores()
        pairs.update_all_pairs(network(features), labels)
        return equal_error_rate(*pairs.arrays()).rate

    before = error()
    trained(build(), network, 150, 0.01)
    assert error() < min(0.1, 0.5 * before)
