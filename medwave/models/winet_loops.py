"""Parts of WiNet by compiled loops, for predictions on a CPU: they work in float32 and need no copies.

Conventions as in :mod:`medwave.models.winet`; tensors are without gradients, in float32 or bfloat16.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from medwave.fields.stencil import convolve, enlarge_ends, filter_each, framed


def smoothed_in_place(field: Tensor, weight: Tensor) -> Tensor:
    """Fields ``(N, 3, D, H, W)`` filtered by ``(3, 1, 3, 3, 3)``, in their own memory."""
    field = field.contiguous()
    filter_each(field.flatten(0, 1).numpy(), weight[:, 0].float().repeat(len(field), 1, 1, 1).numpy())
    return field


def refined_bands(net: nn.Sequential, approximation: Tensor, coarser: Tensor, own: Tensor) -> Tensor:
    """What the refinement of details gives, written into the bands of the level, band by band.

    Args:
        net: a grouped convolution, a leaky rectifier, a grouped convolution; a group for each detail band.
        approximation: ``(N, 3, D, H, W)``.
        coarser: details of the next coarser level, ``(N, 21, D / 2, H / 2, W / 2)``.
        own: of this level, ``(N, 21, D, H, W)``.

    Returns:
        ``(N, 3, 8, D, H, W)`` float32: of each component the approximation and its seven details.
    """
    first, act, last = net
    count = first.groups
    small = coarser.float().contiguous().numpy()
    size = tuple(own.shape[2:])
    (inputs, both), (hidden, between) = framed(6, size), framed(6, size)
    bands = torch.empty(len(own), 3, 1 + count, *size)
    bands[:, :, 0] = approximation
    (weights, bias), (last_weights, last_bias) = (
        [values.float().unflatten(0, (count, -1)).numpy() for values in (layer.weight, layer.bias)]
        for layer in (first, last)
    )
    for item, band in itertools.product(range(len(own)), range(count)):
        channels = slice(3 * band, 3 * band + 3)
        enlarge_ends(small[item, channels], both[:3])
        torch.from_numpy(both[3:]).copy_(own[item, channels])
        convolve(inputs, weights[band], bias[band], act.negative_slope, between)
        convolve(hidden, last_weights[band], last_bias[band], 1.0, bands[item, :, 1 + band].numpy())
    return bands
