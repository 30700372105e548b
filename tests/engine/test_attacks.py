"""Attacks: within their box, best against a linear network, stronger with more steps."""

import pytest
import torch
from torch import nn

from medwave.core.errors import InputError
from medwave.engine.attacks import ATTACKS, attack


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
