"""The transform on CPU tensors through compiled loops.

Conventions
    As in :mod:`medwave.wavelets.extension`. Float32 and float64 are computed as they come, half precision in float32.
    Tables are made once per shape and kept. Work is split among torch's threads by output planes (rows in 2-D,
    signals in 1-D); a result does not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from medwave.core.first_calls import compile_in_turn
from medwave.core.threads import run_slabs
from medwave.wavelets.backends import haar, kernels
from medwave.wavelets.backends.plain import HALF_DTYPES
from medwave.wavelets.backends.tables import (
    FloatArray,
    RowTable,
    analysis_rows,
    merge_plan,
    split_plan,
    synthesis_rows,
)
from medwave.wavelets.extension import coefficient_size
from medwave.wavelets.filters import Kernels

BLOCK_BYTES = 16 << 10
"""Half of the first cache of most processors."""

Sizes = tuple[int, int, int]
Plan = tuple[Sizes, Sizes, Sizes, int, Any, Any, Any, Any]


def analysis(x: torch.Tensor, taps: Kernels, rule: str, ndim: int, low_only: bool) -> torch.Tensor:
    """Bands ``(N, C, 2 ** ndim, ...)`` of ``(N, C, ...)``; one band if ``low_only``."""
    size = tuple(x.shape[2:])
    counts = tuple(coefficient_size(n, taps.length, rule) for n in size)
    bands = 1 if low_only else 2**ndim
    dtype = torch.float32 if x.dtype in HALF_DTYPES else x.dtype
    out = torch.empty((*x.shape[:2], bands, *counts), dtype=dtype)
    if out.numel() == 0:
        return out.to(x.dtype)
    source = x.detach().to(dtype).contiguous()
    if not low_only and haar.fits(taps, size):
        haar.analyse(_flat(source), _flat(out), taps, counts)
    else:
        plan = _plan(_analysis_plan, taps, rule, size, low_only, dtype)
        units = x.shape[0] * x.shape[1] * plan[1][0]
        _run(kernels.analysis, units, _flat(source), _flat(out), *plan)
    return out.to(x.dtype)


def synthesis(bands: torch.Tensor, taps: Kernels, rule: str, size: Sequence[int], low_only: bool) -> torch.Tensor:
    """Exact adjoint of :func:`analysis`: ``(N, C, *size)`` from bands."""
    size = tuple(size)
    dtype = torch.float32 if bands.dtype in HALF_DTYPES else bands.dtype
    out = torch.empty((*bands.shape[:2], *size), dtype=dtype)
    if out.numel() == 0:
        return out.to(bands.dtype)
    source = bands.detach().to(dtype).contiguous()
    if not low_only and haar.fits(taps, size):
        haar.synthesise(_flat(source), _flat(out), taps, tuple(bands.shape[3:]))
    else:
        plan = _plan(_synthesis_plan, taps, rule, size, low_only, dtype)
        units = bands.shape[0] * bands.shape[1] * len(plan[4][0])
        _run(kernels.synthesis, units, _flat(source), _flat(out), *plan)
    return out.to(bands.dtype)


def _run(kernel: Callable[..., None], units: int, source: Any, out: Any, *plan: Any) -> None:
    compile_in_turn(kernel, out.dtype, source, out, *plan)
    run_slabs(kernel, units, source, out, *plan)


def _flat(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    return tensor.numpy().reshape(-1)


def _plan(
    make: Callable[..., Plan], taps: Kernels, rule: str, size: tuple[int, ...], low_only: bool, dtype: torch.dtype
) -> Plan:
    return make(taps, rule, size, low_only, "float32" if dtype == torch.float32 else "float64")


def _three(values: Sequence[int], missing: int) -> Sizes:
    """Values of 1, 2 or 3 axes as (D, H, W): a 2-D transform has no H, a 1-D one neither D nor H."""
    if len(values) == 3:
        return values[0], values[1], values[2]
    return (values[0] if len(values) == 2 else missing), missing, values[-1]


def _filters(taps: Kernels, low_only: bool, dtype: str) -> FloatArray:
    return np.array([taps.low] if low_only else [taps.low, taps.high], dtype=dtype)


def _block(rows: int, length: int, filters: FloatArray) -> int:
    """How many times ``rows`` rows lie in the first cache while the last axis is done."""
    return max(1, BLOCK_BYTES // (rows * length * filters.itemsize))


def _no_table(filters: FloatArray) -> RowTable:
    return RowTable(np.zeros(2, np.int64), np.zeros(0, np.int64), np.zeros((1, 0), filters.dtype))


@lru_cache(maxsize=128)
def _analysis_plan(taps: Kernels, rule: str, size: tuple[int, ...], low_only: bool, dtype: str) -> Plan:
    filters = _filters(taps, low_only, dtype)
    sizes = _three(size, 1)
    counts = _three([coefficient_size(n, taps.length, rule) for n in size], 1)
    outputs = _three([len(filters)] * len(size), 0)
    none = _no_table(filters)
    along_d = analysis_rows(sizes[0], taps, rule, filters, sizes[1] * sizes[2]) if outputs[0] else none
    along_h = analysis_rows(sizes[1], taps, rule, filters, sizes[2]) if outputs[1] else none
    split, along_w = split_plan(sizes[2], taps, rule, filters)
    block = _block(4, sizes[2], filters)
    return sizes, counts, outputs, block, tuple(along_d), tuple(along_h), tuple(split), tuple(along_w)


@lru_cache(maxsize=128)
def _synthesis_plan(taps: Kernels, rule: str, size: tuple[int, ...], low_only: bool, dtype: str) -> Plan:
    filters = _filters(taps, low_only, dtype)
    sizes = _three(size, 1)
    counts = _three([coefficient_size(n, taps.length, rule) for n in size], 1)
    inputs = _three([len(filters)] * len(size), 0)
    alone = np.array([[0, -1]]), _no_table(filters)
    plane = counts[1] * counts[2]
    per_d = max(inputs[1], 1) * inputs[2] * counts[0] * plane
    along_d = synthesis_rows(sizes[0], taps, rule, filters, plane, per_d) if inputs[0] else alone
    along_h = synthesis_rows(sizes[1], taps, rule, filters, counts[2], inputs[2] * plane) if inputs[1] else alone
    padded = counts[2] + taps.length - 2
    block = _block(4, padded, filters)
    merge, along_w = merge_plan(sizes[2], taps, rule, filters, block * padded)
    pairs_d, pairs_h = ((members, tuple(table)) for members, table in (along_d, along_h))
    return sizes, counts, inputs, block, pairs_d, pairs_h, tuple(merge), tuple(along_w)
