"""Which torch layers drop samples, what they make of a size, and whether a low band can stand in their place.

Conventions
    A low band makes half of each axis, rounded up (an odd signal gets its last sample once more) or down (it loses it).
    A pool can be exchanged when its own result is one of the two, for every size; a convolution always: at stride 1
    and then halved, its result has the length that the stride gave it.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules import conv as convolutions
from torch.nn.modules import pooling as pools

KINDS = ("max_pool", "average_pool", "conv")
"""Kinds of layers that a rule can name all at once."""

LARGEST_CONV_STRIDE = 4
"""Convolutions with a larger one are patch embeddings: at stride 1 they would cost hundreds of times as much."""

POOLS: dict[type[nn.Module], int] = {
    nn.MaxPool1d: 1,
    nn.MaxPool2d: 2,
    nn.MaxPool3d: 3,
    nn.AvgPool1d: 1,
    nn.AvgPool2d: 2,
    nn.AvgPool3d: 3,
}
"""Pools that a low band can stand for, and their number of axes."""

CONVS: dict[type[nn.Module], int] = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
"""Convolutions that a low band can go with, and their number of axes."""

_FREE = (pools._AdaptiveAvgPoolNd, pools._AdaptiveMaxPoolNd, pools.FractionalMaxPool2d, pools.FractionalMaxPool3d)
_FIXED = (pools._MaxPoolNd, pools._AvgPoolNd, pools._LPPoolNd)


def kind(layer: nn.Module) -> str:
    """The member of :data:`KINDS` that a layer is."""
    if isinstance(layer, convolutions._ConvNd):
        return "conv"
    return "max_pool" if isinstance(layer, pools._MaxPoolNd | pools._AdaptiveMaxPoolNd) else "average_pool"


def halves(layer: nn.Module) -> bool:
    """Whether a layer makes features smaller by dropping samples."""
    if isinstance(layer, convolutions._ConvNd):
        return not isinstance(layer, convolutions._ConvTransposeNd) and max(layer.stride) > 1
    return isinstance(layer, _FREE) or (isinstance(layer, _FIXED) and max(strides(layer)) > 1)


def obstacle(layer: nn.Module, action: str) -> str:
    """Why an action of a rule cannot be done with a layer, or nothing."""
    if isinstance(layer, _FREE):
        return "its stride is known at run time only"
    if type(layer) in POOLS:
        return _pool_obstacle(layer) if action == "low" else "only a convolution can have this rule"
    if type(layer) not in CONVS:
        return f"it is no plain torch pool or convolution but {type(layer).__name__}, whose forward is unknown"
    if action == "low_before":
        return ""
    if any(s & (s - 1) for s in strides(layer)):
        return "its stride is no power of two"
    if max(strides(layer)) > LARGEST_CONV_STRIDE:
        return f"at stride 1 instead of {max(strides(layer))} it would cost far too much"
    return ""


def _pool_obstacle(layer: Any) -> str:
    if getattr(layer, "return_indices", False):
        return "it hands out positions for unpooling"
    if getattr(layer, "divisor_override", None) is not None:
        return "it divides by a number of its own"
    if max(_numbers(getattr(layer, "dilation", 1), 1)) > 1:
        return "it is dilated"
    if any(s & (s - 1) for s in strides(layer)):
        return "its stride is no power of two"
    kernel = _numbers(layer.kernel_size, POOLS[type(layer)])
    if any(s == 1 and k > 1 for s, k in zip(strides(layer), kernel, strict=True)):
        return "its kernel spans an axis that it does not halve"
    return "" if rounding(layer) else "its result is not half the size, rounded up or down"


def rounding(layer: Any) -> str:
    """How a pool rounds half of an odd size, ``up`` or ``down``; nothing when its result is another size."""
    ndim = POOLS[type(layer)]
    kernel, padding = _numbers(layer.kernel_size, ndim), _numbers(layer.padding, ndim)
    axes = [axis for axis in zip(kernel, strides(layer), padding, strict=True) if axis[1] > 1]
    lengths = [(n, *axis) for axis in axes for n in range(4 * axis[1], 8 * axis[1])]
    results = [(_pooled(n, k, s, p, layer.ceil_mode), n, s) for n, k, s, p in lengths]
    if all(result == -(-n // s) for result, n, s in results):
        return "up"
    return "down" if all(result == n // s for result, n, s in results) else ""


def _pooled(size: int, kernel: int, stride: int, padding: int, ceil_mode: bool) -> int:
    """Length of the result of a pool along an axis: torch's formula."""
    room = size + 2 * padding - kernel
    count = (-(-room // stride) if ceil_mode else room // stride) + 1
    return count - 1 if ceil_mode and (count - 1) * stride >= size + padding else count


def strides(layer: Any) -> tuple[int, ...]:
    """One stride per axis; a pool without one steps by its kernel."""
    stride = layer.stride if layer.stride is not None else layer.kernel_size
    return _numbers(stride, POOLS.get(type(layer), 1))


def describe(layer: Any) -> str:
    """Class and stride of a layer, for reports."""
    if getattr(layer, "stride", None) is None:
        return type(layer).__name__
    steps = strides(layer)
    return f"{type(layer).__name__} stride {steps[0] if len(set(steps)) == 1 else steps}"


def _numbers(value: int | tuple[int, ...], ndim: int) -> tuple[int, ...]:
    return (value,) * ndim if isinstance(value, int) else tuple(value)
