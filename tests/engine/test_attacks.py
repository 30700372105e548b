"""Attacks: within their box, best against a linear network, stronger with more steps."""

import pytest
import torch
from torch import nn

from medwave.core.errors import InputError
from medwave.engine.attacks import ATTACKS, attack, carlini_wagner, least_change


def case():
    torch.manual_seed(3)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8 * 36, 4)).eval()
    images = torch.rand(16, 3, 8, 8)
    return network, images, network(images).argmax(1)


def loss(network, images, labels):
    return nn.functional.cross_entropy(network(images), labels).item()


@pytest.mark.parametrize("kind", ATTACKS)
def test_an_attack_stays_in_its_box_and_raises_the_loss(kind):
    network, images, labels = case()
    made = attack(network, images, labels, kind, 0.03)
    assert (made - images).abs().max() <= 0.03 + 1e-6
    assert made.min() >= 0
    assert made.max() <= 1
    assert not made.requires_grad
    assert loss(network, made, labels) > loss(network, images, labels)
    assert torch.equal(made, attack(network, images, labels, kind, 0.03))
    assert torch.equal(attack(network, images, labels, kind, 0.0), images)


def test_fgsm_is_the_worst_case_of_a_linear_network_of_two_classes():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    images = 0.5 + torch.zeros(1, 3, 2, 2)
    label = torch.tensor([0])
    towards = network[1].weight[1] - network[1].weight[0]
    worst = images + 0.1 * towards.sign().reshape(images.shape)
    for kind in ATTACKS:
        torch.testing.assert_close(attack(network, images, label, kind, 0.1, steps=20), worst)


def test_more_steps_are_at_least_as_strong():
    network, images, labels = case()
    one, many = (attack(network, images, labels, kind, 0.1, steps=20) for kind in ("fgsm", "bim"))
    assert loss(network, many, labels) >= loss(network, one, labels)


def test_it_works_where_gradients_are_off():
    network, images, labels = case()
    with torch.no_grad():
        assert not torch.equal(attack(network, images, labels, "pgd", 0.05), images)


@pytest.mark.parametrize("change", [{"kind": "magic"}, {"steps": 0}, {"epsilon": -1.0}])
def test_a_bad_request_is_refused(change):
    network, images, labels = case()
    with pytest.raises(InputError):
        attack(network, images, labels, **{"kind": "pgd", "epsilon": 0.1} | change)


def test_the_least_change_of_a_linear_network_is_the_distance_to_the_nearest_border():
    torch.manual_seed(5)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 5)).double()
    images = 0.5 + 0.05 * torch.randn(20, 3, 2, 2, dtype=torch.float64)
    logits = network(images)
    labels = logits.argmax(1)
    made = least_change(network, images, labels, overshoot=0.02)
    assert (network(made).argmax(1) != labels).all()
    weight, logits = network[1].weight.detach(), logits.detach()
    for image, after, z, label in zip(images, made, logits, labels, strict=True):
        gaps, slopes = z[label] - z, (weight - weight[label]).norm(dim=1)
        distance = min(float(gaps[k] / slopes[k]) for k in range(5) if k != label)
        if after.min() > 0 and after.max() < 1:
            assert float((after - image).norm()) == pytest.approx(1.02 * distance, rel=1e-3, abs=1e-4)


def test_the_least_change_fools_and_is_shorter_than_a_step_along_all_signs():
    network, images, labels = case()
    made = least_change(network, images, labels)
    assert made.min() >= 0
    assert made.max() <= 1
    fooled = network(made).argmax(1) != labels
    assert fooled.float().mean() > 0.9
    signs = attack(network, images, labels, "fgsm", 0.1)
    both = fooled & (network(signs).argmax(1) != labels)
    assert both.any()
    assert ((made - images).flatten(1).norm(dim=1) < (signs - images).flatten(1).norm(dim=1))[both].all()


def test_an_image_that_is_wrong_already_is_left_alone():
    network, images, labels = case()
    wrong = (labels + 1) % 4
    assert torch.equal(least_change(network, images, wrong), images)


def linear_case(classes):
    """A linear network, images inside the range of values, and how far each lies from the border to each class."""
    torch.manual_seed(5)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, classes)).double()
    images = 0.5 + 0.05 * torch.randn(20, 3, 2, 2, dtype=torch.float64)
    with torch.no_grad():
        weight = network[1].weight
        network[1].bias.copy_(0.1 * torch.randn(classes, dtype=torch.float64) - 0.5 * weight.sum(1))  # borders near 0.5
        logits = network(images)
        labels = logits.argmax(1)
        gaps = logits.gather(1, labels[:, None]) - logits
        slopes = (weight[labels][:, None] - weight).norm(dim=2)
        own = nn.functional.one_hot(labels, classes).bool()
    return network, images, labels, (gaps / slopes).masked_fill(own, torch.inf)


def test_carlini_wagner_finds_the_distance_to_the_border_of_a_linear_network_of_two_classes():
    network, images, labels, distances = linear_case(2)
    nearest = distances.amin(1)
    assert nearest.max() < 0.5  # no image needs a change that leaves the range of values
    made = carlini_wagner(network, images, labels)
    assert (network(made).argmax(1) != labels).all()
    length = (made - images).flatten(1).norm(dim=1)
    assert (length >= nearest).all()  # nothing is shorter than the way to the border
    torch.testing.assert_close(length, nearest, rtol=0.02, atol=0.003)


def test_carlini_wagner_stops_at_a_border_between_several_classes_not_much_farther_than_the_nearest():
    network, images, labels, distances = linear_case(5)
    made = carlini_wagner(network, images, labels)
    assert (network(made).argmax(1) != labels).all()
    length = (made - images).flatten(1).norm(dim=1)
    assert (length >= distances.amin(1)).all()
    assert (length / distances.amin(1)).mean() < 1.1
    assert ((length[:, None] / distances - 1).abs().amin(1) < 0.03).all()


def test_carlini_wagner_is_no_longer_than_deepfool_on_a_bent_network():
    network, images, labels = case()
    made, other = carlini_wagner(network, images, labels), least_change(network, images, labels)
    assert made.min() >= 0
    assert made.max() <= 1
    assert not made.requires_grad
    fooled = [network(x).argmax(1) != labels for x in (made, other)]
    assert fooled[0].all()
    mine, theirs = ((x - images).flatten(1).norm(dim=1)[fooled[1]] for x in (made, other))
    assert mine.mean() < 1.02 * theirs.mean()


def test_carlini_wagner_leaves_alone_what_is_wrong_or_cannot_be_fooled():
    network, images, labels = case()
    assert torch.equal(carlini_wagner(network, images, (labels + 1) % 4, steps=2), images)
    deaf = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    nn.init.zeros_(deaf[1].weight)
    with torch.no_grad():
        deaf[1].bias[:] = torch.tensor([1.0, 0.0])
    zeros = torch.zeros(len(images), dtype=torch.int64)
    assert torch.equal(carlini_wagner(deaf, images, zeros, steps=3), images)


@pytest.mark.parametrize("change", [{"steps": 0}, {"searches": 0}, {"weight": 0.0}, {"rate": -1.0}])
def test_a_bad_request_of_carlini_wagner_is_refused(change):
    network, images, labels = case()
    with pytest.raises(InputError, match="Carlini"):
        carlini_wagner(network, images, labels, **change)
