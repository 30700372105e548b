"""The transform on CUDA tensors through Triton kernels.

Conventions
    As in :mod:`medwave.wavelets.extension`. Float64 is computed as it comes, everything else in float32; nothing but
    the result is allocated for filters up to :data:`FUSED_TAPS`. Longer ones go axis by axis, since the work of a
    fused pass grows with the square of the filter and soon exceeds what two more passes through memory cost; the
    bands between the passes are kept in the accumulating type.
    Kernels: :mod:`medwave.wavelets.backends.gpu_analysis` and :mod:`medwave.wavelets.backends.gpu_synthesis`.

Why they are made so
    The floor is one read and one write of the data. Lanes of a warp lie along the last axis, so stores are whole
    lines; the overlap of neighbouring windows is read again from the first-level cache, never from memory. Along the
    first axis overlap stays in registers: a program marches, and each plane is filtered once. Along the two others
    windows are filtered one axis after the other within a tile. Boundaries are index arithmetic, done per tile and
    not per load. Taps are compile-time constants: there is no table to upload, zero taps vanish, and a kernel is
    compiled once per filter, rule, type and tile; sizes are not part of it.
    The kernels were checked in Triton's interpreter and compiled for sm_90; they have not run on a GPU yet.
    :data:`TILE`, :data:`PROGRAMS`, :data:`OVERLAPPING_PROGRAMS` and :data:`FUSED_TAPS` are reasoned, not measured.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from medwave.wavelets.backends import gpu_analysis, gpu_synthesis
from medwave.wavelets.extension import RULES, Rule, coefficient_size, offset
from medwave.wavelets.filters import Kernels

FUSED_TAPS = {1: 1024, 2: 16, 3: 8}
"""The longest filter that a fused pass takes, by number of axes."""

TILE = 256
"""Outputs per band and program: one per thread."""

PROGRAMS = 4096
"""Programs wanted before a march along the first axis takes a second step."""

OVERLAPPING_PROGRAMS = 528
"""The same for filters that overlap, whose programs begin with planes that others read too: four per multiprocessor
of an H100, so that all run at once and none waits for a second round."""

WIDE_FROM = 2**31
"""Elements from which offsets need 64 bits."""


class Axes(NamedTuple):
    """One launch: samples are ``(images, pre, depth, height, width)``, height and depth 1 where there is none.

    Attributes:
        images: items with bands of their own.
        pre: rows per image where height is not transformed, else 1.
        size: samples along (depth, height, width).
        along: which of them are transformed.
    """

    images: int
    pre: int
    size: tuple[int, int, int]
    along: tuple[bool, bool, bool]


def analysis(x: torch.Tensor, taps: Kernels, rule: str, ndim: int, low_only: bool) -> torch.Tensor:
    """Bands ``(N, C, 2 ** ndim, ...)`` of ``(N, C, ...)``; one band if ``low_only``."""
    size = tuple(x.shape[2:])
    counts = [coefficient_size(n, taps.length, rule) for n in size]
    out = x.new_empty((*x.shape[:2], 1 if low_only else 2**ndim, *counts))
    if out.numel() == 0:
        return out
    source, images = x.detach().contiguous(), x.shape[0] * x.shape[1]
    if taps.length <= FUSED_TAPS[ndim]:
        _analyse(source, out, taps, rule, _fused(images, size), low_only)
        return out
    groups, shape = images, list(size)
    for axis in range(ndim):
        shape[axis] = counts[axis]
        last = axis == ndim - 1
        groups_out = groups * (1 if low_only else 2)
        target = out if last else out.new_empty((groups_out, *shape), dtype=_accumulator(x.dtype))
        step = _one_axis(groups, [*shape[:axis], size[axis], *shape[axis + 1 :]], axis)
        _analyse(source, target, taps, rule, step, low_only)
        source, groups = target, groups_out
    return out


def synthesis(bands: torch.Tensor, taps: Kernels, rule: str, size: Sequence[int], low_only: bool) -> torch.Tensor:
    """Exact adjoint of :func:`analysis`: ``(N, C, *size)`` from bands."""
    size, ndim = tuple(size), len(size)
    out = bands.new_empty((*bands.shape[:2], *size))
    if out.numel() == 0:
        return out
    source, images = bands.detach().contiguous(), bands.shape[0] * bands.shape[1]
    if taps.length <= FUSED_TAPS[ndim]:
        _synthesise(source, out, taps, rule, _fused(images, size), low_only)
        return out
    groups, shape = images * bands.shape[2], list(bands.shape[3:])
    for axis in reversed(range(ndim)):
        shape[axis] = size[axis]
        groups //= 1 if low_only else 2
        target = out if axis == 0 else out.new_empty((groups, *shape), dtype=_accumulator(bands.dtype))
        _synthesise(source, target, taps, rule, _one_axis(groups, shape, axis), low_only)
        source = target
    return out


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _fused(images: int, size: tuple[int, ...]) -> Axes:
    if len(size) == 3:
        return Axes(images, 1, (size[0], size[1], size[2]), (True, True, True))
    return Axes(images, 1, (size[0] if len(size) == 2 else 1, 1, size[-1]), (len(size) == 2, False, True))


def _one_axis(images: int, shape: Sequence[int], axis: int) -> Axes:
    """A pass along one axis of ``(images, *shape)``: the last is a width, any other a depth with the rest as width."""
    pre, rest = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    if axis == len(shape) - 1:
        return Axes(images, pre, (1, 1, shape[axis]), (False, False, True))
    return Axes(images, pre, (shape[axis], 1, rest), (True, False, False))


def _law(rule: str, axes: Axes, taps: int) -> Rule:
    """The rule as the axes need it: what has no border, or no odd axis, is an even periodic signal."""
    law = RULES[rule]
    odd = any(n % 2 for n, along in zip(axes.size, axes.along, strict=True) if along)
    if law.beyond == "periodic" or taps == 2:
        return Rule(law.expansive, "periodic", True) if not odd else law
    return law


def _analyse(x: torch.Tensor, out: torch.Tensor, taps: Kernels, rule: str, axes: Axes, low_only: bool) -> None:
    law, filters = _law(rule, axes, taps.length), _filters(taps, low_only)
    counts = _counts(axes, taps.length, rule)
    masked = law.beyond == "zero" or (law.beyond == "periodic" and not law.repeat)
    paired = taps.length == 2 and axes.along[2] and axes.size[2] % 2 == 0 and not masked
    vector = _vector(axes.size[2], x) if paired else 1
    rows = counts[1] if axes.along[1] else axes.images * axes.pre
    block_r, block_w = _tile(TILE * max(vector // 2, 1), rows, counts[2], taps.length, axes.along)
    tiles = _ceil(rows, block_r) * _ceil(counts[2], block_w) * (axes.images if axes.along[1] else 1)
    chunk = _march(counts[0], tiles, taps.length)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        gpu_analysis.analysis[(tiles * _ceil(counts[0], chunk),)](
            x, out, rows, axes.pre, axes.size[0], axes.size[1], axes.size[2] // vector, counts[0], counts[2] //
            max(vector // 2, 1), chunk, TAPS=tuple(itertools.chain(*zip(*filters, strict=True))), SIDE=len(filters),
            OFFSET=offset(taps.length, rule), BEYOND=law.beyond, REPEAT=law.repeat, MASKED=masked, FAR=_far(axes,
            taps.length), ALONG_A=axes.along[0], ALONG_R=axes.along[1], ALONG_W=axes.along[2], PAIRED=paired,
            VEC=vector, BR=block_r, BW=block_w, **_types(x, out, block_r * block_w // max(vector // 2, 1)),
        )  # fmt: skip


def _synthesise(bands: torch.Tensor, out: torch.Tensor, taps: Kernels, rule: str, axes: Axes, low_only: bool) -> None:
    law, filters = _law(rule, axes, taps.length), _filters(taps, low_only)
    counts = _counts(axes, taps.length, rule)
    lead = offset(taps.length, rule)
    pairs = [(lead + n - 1) // 2 - lead // 2 + 1 if a else n for n, a in zip(axes.size, axes.along, strict=True)]
    mirrored = law.beyond in ("symmetric", "reflect")
    odd = any(n % 2 for n, along in zip(axes.size, axes.along, strict=True) if along)
    fold = law.beyond if mirrored else ("last" if law.repeat and odd else "")
    views = [_views(n, taps.length, rule, fold) for n in axes.size]
    paired = taps.length == 2 and axes.along[2] and axes.size[2] % 2 == 0 and fold == "" and law.repeat
    vector = _vector(axes.size[2], out) if paired else 1
    rows = pairs[1] if axes.along[1] else axes.images * axes.pre
    block_r, block_w = _tile(TILE * max(vector // 2, 1), rows, pairs[2], taps.length, axes.along)
    tiles = _ceil(rows, block_r) * _ceil(pairs[2], block_w) * (axes.images if axes.along[1] else 1)
    chunk = _march(pairs[0], tiles, taps.length)
    with torch.cuda.device_of(out):  # type: ignore[no-untyped-call]
        gpu_synthesis.synthesis[(tiles * _ceil(pairs[0], chunk),)](
            bands, out, rows, axes.pre, *axes.size[:2], axes.size[2] // vector, *counts[:2], counts[2] // max(vector //
            2, 1), *views, chunk, TAPS=tuple(itertools.chain(*filters)), PAIRS=taps.length // 2, SIDE=len(filters),
            OFFSET=lead, PERIODIC=law.beyond == "periodic", FAR=_far(axes, taps.length), FOLD=fold,
            ALONG_A=axes.along[0], ALONG_R=axes.along[1], ALONG_W=axes.along[2], PAIRED=paired, VEC=vector, BR=block_r,
            BW=block_w, **_types(bands, out, block_r * block_w // max(vector // 2, 1)),
        )  # fmt: skip


def _counts(axes: Axes, taps: int, rule: str) -> list[int]:
    return [coefficient_size(n, taps, rule) if a else n for n, a in zip(axes.size, axes.along, strict=True)]


def _far(axes: Axes, taps: int) -> bool:
    """Whether an axis is shorter than the filter, so that its border may be copied more than once."""
    return any(n < taps for n, along in zip(axes.size, axes.along, strict=True) if along)


def _views(size: int, taps: int, rule: str, fold: str) -> int:
    """Copies of a signal within what the windows see, itself included; two per block where pairs part."""
    if fold == "":
        return 1
    if fold == "last":
        return 1 + size % 2
    left = offset(taps, rule)
    right = 2 * coefficient_size(size, taps, rule) + taps - 2 - left - size
    block = size if fold == "symmetric" else size - 1
    around = 2 * _ceil(max(left, right, 0), max(block, 1)) + 1
    return around if fold == "symmetric" else 2 * around


def _vector(width: int, tensor: torch.Tensor) -> int:
    """Samples of an even row that are aligned as one: up to 16 bytes."""
    return math.gcd(width, 16 // tensor.element_size())


def _tile(tile: int, rows: int, columns: int, taps: int, along: tuple[bool, bool, bool]) -> tuple[int, int]:
    """Rows and columns of a tile: powers of two that waste least on edges and on reading overlap."""
    halo_r, halo_w = ((taps - 2) // 2 if a else 0 for a in along[1:])
    widest = min(tile, triton.next_power_of_2(columns))
    best, least = (1, widest), math.inf
    width = widest
    while width >= min(16, widest):
        height = min(tile // width, triton.next_power_of_2(rows))
        cost = _ceil(rows, height) * _ceil(columns, width) * (height + halo_r) * (width + halo_w)
        if cost < least:
            best, least = (height, width), cost
        width //= 2
    return best


def _march(steps: int, tiles: int, taps: int) -> int:
    """Steps along the first axis per program: as few as keep the programs from being many."""
    return min(steps, _ceil(steps * tiles, PROGRAMS if taps == 2 else OVERLAPPING_PROGRAMS))


def _filters(taps: Kernels, low_only: bool) -> tuple[tuple[float, ...], ...]:
    return (taps.low,) if low_only else (taps.low, taps.high)


def _types(source: torch.Tensor, out: torch.Tensor, threads: int) -> dict[str, Any]:
    return {
        "ACC": tl.float64 if source.dtype == torch.float64 else tl.float32,
        "WIDE": max(source.numel(), out.numel()) >= WIDE_FROM,
        "num_warps": max(1, min(8, threads // 32)),
    }


def _ceil(n: int, d: int) -> int:
    return -(-n // d)
