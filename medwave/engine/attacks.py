"""Adversarial images: the smallest steps that confuse a classifier most, within a box around each image.

Conventions
    Images are ``(N, C, ...)`` in [0, 1]; the network takes them as they are (wrap one that wants normalised images).
    Every result lies within ``epsilon`` of its image in each sample, and in [0, 1].

    ========  =============================================================================================
    kind      steps
    ========  =============================================================================================
    fgsm      one along the sign of the gradient (Goodfellow et al., arXiv:1412.6572)
    bim       several small ones (Kurakin et al., arXiv:1607.02533)
    pgd       as bim, from a random start in the box (Madry et al., arXiv:1706.06083)
    mifgsm    as bim, along gradients that gather momentum (Dong et al., arXiv:1710.06081)
    ========  =============================================================================================

    :func:`least_change` and :func:`carlini_wagner` know no box: they look for the shortest way to any other answer, the
    first by going from border to border, the second by an optimiser, which is slower and finds shorter ways.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from medwave.core.errors import InputError

ATTACKS = ("fgsm", "bim", "pgd", "mifgsm")
"""Kinds of attack."""


def attack(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    kind: str,
    epsilon: float,
    *,
    steps: int = 10,
    step: float | None = None,
    seed: int = 0,
) -> Tensor:
    """Images that the network is likelier to get wrong.

    Args:
        network: images -> logits ``(N, classes)``, in evaluation mode.
        images: ``(N, C, ...)`` in [0, 1].
        labels: ``(N,)`` true classes.
        kind: one of :data:`ATTACKS`.
        epsilon: half the width of the box, such as ``4 / 255``.
        steps: of all kinds but fgsm, which has one.
        step: length of a step; ``epsilon / 4`` unless told, for mifgsm ``epsilon / steps``.
        seed: of the random start.

    Raises:
        InputError: for an unknown kind, no step, or a negative epsilon.
    """
    if kind not in ATTACKS or steps < 1 or epsilon < 0:
        raise InputError(
            f"an attack is one of {', '.join(ATTACKS)} with a step at least and epsilon from 0 on, got {kind!r}, "
            f"{steps} and {epsilon}"
        )
    steps = 1 if kind == "fgsm" else steps
    if step is None:
        step = {"fgsm": epsilon, "mifgsm": epsilon / steps}.get(kind, epsilon / 4)
    low, high = (images - epsilon).clamp(min=0), (images + epsilon).clamp(max=1)
    made = images.detach()
    if kind == "pgd":
        noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(seed)).to(images)
        made = (images + epsilon * (2 * noise - 1)).clamp(low, high)
    momentum = torch.zeros_like(images)
    for _ in range(steps):
        gradient = _gradient(network, made, labels)
        if kind == "mifgsm":
            size = gradient.abs().flatten(1).mean(1).clamp(min=1e-12)
            momentum = momentum + gradient / size.reshape(-1, *(1,) * (images.dim() - 1))
            gradient = momentum
        made = (made + step * gradient.sign()).clamp(low, high)
    return made


def least_change(
    network: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, *, steps: int = 50, overshoot: float = 0.02
) -> Tensor:
    """Images that have just lost the true answer, by a change as short as can be found (DeepFool, arXiv:1511.04599).

    Borders between answers are taken as planes, and each step goes to the nearest. ``(made - images)`` has the length
    sought; an image that is wrong already, or still right after the last step, says so by its answer.

    Args:
        network: images -> logits ``(N, classes)``, in evaluation mode.
        images: ``(N, C, ...)`` in [0, 1].
        labels: ``(N,)`` true classes.
        steps: at most.
        overshoot: how much further than the border an image is taken, as a share of the change.
    """
    change, made = torch.zeros_like(images), images.detach()
    for _ in range(steps):
        with torch.no_grad():
            left = torch.nonzero(network(made).argmax(1) == labels).flatten()
        if not len(left):
            break
        change[left] += _to_nearest_border(network, made[left], labels[left])
        made = (images + (1 + overshoot) * change).clamp(0, 1)
    return made


def carlini_wagner(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    steps: int = 100,
    searches: int = 6,
    weight: float = 1.0,
    rate: float = 0.02,
) -> Tensor:
    """Images that have lost the true answer by the shortest change that an optimiser finds (Carlini & Wagner, L2).

    Minimised is ``|made - image|^2 + c max(z_label - z_best_other, 0)`` over ``w`` with ``made = (tanh w + 1) / 2``, by
    Adam; ``c`` is sought for each image, smaller where it fools and larger where it does not. It makes for the
    likeliest other answer, whose border need not be the nearest of several. Source: doi:10.1109/SP.2017.49.
    An image that was wrong already is given back unchanged; so is one that no step fooled, which its answer shows.

    Args:
        network: images -> logits ``(N, classes)``, in evaluation mode.
        images: ``(N, C, ...)`` in [0, 1].
        labels: ``(N,)`` true classes.
        steps: of the optimiser in each search.
        searches: values of ``c`` that are tried for each image.
        weight: the first ``c``.
        rate: of the optimiser, in the space of ``w``.

    Raises:
        InputError: for no step or search, or a weight or rate that is not above 0.
    """
    if steps < 1 or searches < 1 or not (weight > 0 and rate > 0):
        raise InputError(
            "the attack of Carlini and Wagner needs a step and a search at least, weight and rate above 0, got "
            f"{steps}, {searches}, {weight} and {rate}"
        )
    best, length = images.detach().clone(), images.new_full((len(images),), torch.inf)
    with torch.no_grad():
        length[network(images).argmax(1) != labels] = 0
    low, high, c = torch.zeros_like(length), torch.full_like(length, torch.inf), torch.full_like(length, weight)
    for _ in range(searches):
        found, distance = _optimised(network, images, labels, c, steps, rate)
        nearer, fooled = distance < length, distance.isfinite()
        best[nearer], length[nearer] = found[nearer], distance[nearer]
        high, low = torch.where(fooled, torch.minimum(high, c), high), torch.where(fooled, low, torch.maximum(low, c))
        c = torch.where(high.isfinite(), (low + high) / 2, 10 * c)
    return best


def _optimised(
    network: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, c: Tensor, steps: int, rate: float
) -> tuple[Tensor, Tensor]:
    """For one ``c`` of each image the nearest result that fooled, and its distance; infinite where none did."""
    with torch.enable_grad():
        start = torch.atanh((2 * images.detach() - 1).clamp(-1 + 1e-6, 1 - 1e-6))
        w = start.clone().requires_grad_()
        optimiser = torch.optim.Adam([w], lr=rate)
        best, length = images.detach().clone(), images.new_full((len(images),), torch.inf)
        for _ in range(steps):
            made = (w.tanh() + 1) / 2
            logits = network(made)
            own = F.one_hot(labels, logits.shape[1]).bool()
            lead = logits[own] - logits.masked_fill(own, -torch.inf).amax(1)
            distance = (made - images).flatten(1).square().sum(1)
            nearer = (lead < 0) & (distance < length)
            best[nearer], length[nearer] = made.detach()[nearer], distance.detach()[nearer]
            optimiser.zero_grad()
            w.grad = torch.autograd.grad((distance + c * lead.clamp(min=0)).sum(), w)[0]
            optimiser.step()
    return best, length


def _to_nearest_border(network: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, rivals: int = 9) -> Tensor:
    """The shortest change that makes one of the ``rivals`` as likely as the label, were the network linear."""
    with torch.enable_grad():
        variable = images.detach().requires_grad_()
        logits = network(variable)
        gaps = logits - logits.gather(1, labels[:, None])
        own = F.one_hot(labels, logits.shape[1]).bool()
        others = gaps.masked_fill(own, -torch.inf).topk(min(rivals, logits.shape[1] - 1)).indices
        best = images.new_full((len(images),), torch.inf)
        change = torch.zeros_like(images)
        for rival in others.unbind(1):
            gap = gaps.gather(1, rival[:, None])[:, 0]
            slope = torch.autograd.grad(gap.sum(), variable, retain_graph=True)[0].flatten(1)
            size = slope.norm(dim=1).clamp(min=1e-12)
            length = gap.detach().abs() / size
            way = ((length + 1e-6) / size)[:, None] * slope
            nearer = length < best
            change[nearer], best[nearer] = way.view_as(images)[nearer], length[nearer]
    return change


def _gradient(network: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
    with torch.enable_grad():
        variable = images.detach().requires_grad_()
        loss = F.cross_entropy(network(variable), labels, reduction="sum")
        return torch.autograd.grad(loss, variable)[0]
