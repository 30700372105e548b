"""How far channels of a feature map are one compact peak, or silent: templates and the losses made of them.

Conventions
    Maps are ``(B, C, h, w)``, 0 or more (after a ReLU); flat maps are ``(B, C, h * w)``. ``n`` is the side of a square
    of the map's area, ``sqrt(h w)``. Distances on the grid are ``|di| + |dj|``.

Source
    Templates and mutual information: Zhang, Wu, Zhu, CVPR 2018, arXiv 1710.00935. The rest is a design of medwave,
    see :mod:`medwave.losses.recognition.explainable`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from medwave.losses.recognition.scores import unit

TINY = 1e-6


def slopes(height: int, width: int, beta: float, like: Tensor) -> Tensor:
    """``1 - beta * distance / n`` from each position to each other, ``(h * w, h * w)``; row: the peak."""
    rows = torch.arange(height, device=like.device, dtype=like.dtype).repeat_interleave(width)
    columns = torch.arange(width, device=like.device, dtype=like.dtype).repeat(height)
    distance = (rows[:, None] - rows).abs() + (columns[:, None] - columns).abs()
    return 1 - beta * distance / math.sqrt(height * width)


def cone_mismatch(flat: Tensor, peaks: Tensor, slope: Tensor) -> Tensor:
    """One minus the cosine of each map and the cone at its peak, ``(B, C)``, in [0, 1]."""
    cones = unit(slope.clamp_min(0))[peaks]
    shape = flat / (flat.norm(dim=2, keepdim=True) + TINY)
    return 1 - (shape * cones).sum(dim=2)


def group_overlap(flat: Tensor, groups: int) -> Tensor:
    """Overlap in [0, 1] of what different groups of channels look at, mean over the batch and the pairs of groups.

    A group's map is the sum of its channels, divided by its total; two maps share the sum of their minima.
    """
    maps = flat.unflatten(1, (groups, -1)).sum(dim=2)
    maps = maps / (maps.sum(dim=2, keepdim=True) + TINY)
    one, other = torch.triu_indices(groups, groups, offset=1, device=flat.device)
    return torch.minimum(maps[:, one], maps[:, other]).sum(dim=2).mean()


def group_imbalance(flat: Tensor, groups: int) -> Tensor:
    """Kullback-Leibler divergence, in nats, of the groups' shares of the activation from equal shares."""
    energy = flat.unflatten(1, (groups, -1)).sum(dim=(2, 3)).mean(dim=0) + TINY
    shares = energy / energy.sum()
    return (shares * (shares * groups).log()).sum()


def template_information(flat: Tensor, slope: Tensor) -> Tensor:
    """Mutual information, in nats, of the maps of a batch and the templates, ``(C,)``: 0 or more.

    The templates are one falling cone per position, ``tau max(slope, -1)``, and a flat negative one, ``-tau``, with
    ``tau = 0.5 / n^2``; a map is the likelier under a template the larger their inner product among the batch's.
    """
    places = flat.shape[2]
    tau = 0.5 / places
    cones = tau * slope.clamp_min(-1)
    templates = torch.cat([cones, cones.new_full((1, places), -tau)])
    prior = -math.log(places + 1)  # all alike: the positions share the probability n^2 / (1 + n^2)
    given = (flat @ templates.T).log_softmax(dim=0)
    marginal = (prior + given).logsumexp(dim=2, keepdim=True)
    return ((prior + given).exp() * (given - marginal)).sum(dim=(0, 2))
