"""Gather tables for compiled loops: which rows, with which weights, make one output row.

Conventions
    A :class:`RowTable` is a sparse matrix whose rows are outputs. Entries of output ``g`` are ``pointer[g]`` to
    ``pointer[g + 1]``; their number is even (a zero weight fills up), since the loops take two or four at a time.
    ``sources`` holds element offsets (already multiplied by the row length), ``weights[s]`` the weights of the entries
    for the ``s``-th simultaneous output (low and high band in analysis).
    The boundary rule and its adjoint are in the tables, so the loops know no modes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from medwave.wavelets.extension import coefficient_size, offset, source_index
from medwave.wavelets.filters import Kernels

Int64Array = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.floating[Any]]


class RowTable(NamedTuple):
    """Sparse rows: ``pointer (G + 1,)``, ``sources (T,)``, ``weights (S, T)``."""

    pointer: Int64Array
    sources: Int64Array
    weights: FloatArray


class RowSplit(NamedTuple):
    """How a row becomes its extended even and odd samples, each ``phase`` long.

    Attributes:
        phase: length of one phase; the odd one follows the even one.
        first: even and odd sample ``q`` with ``first <= q < stop`` are samples ``2 q - offset`` and the next one.
        stop: see ``first``.
        offset: see ``first``.
        source: sample at each extended position ``(2 * phase,)``, -1 for a zero.
    """

    phase: int
    first: int
    stop: int
    offset: int
    source: Int64Array


class RowMerge(NamedTuple):
    """How even and odd phases become a row: the inner part by stride, the border by a list.

    Attributes:
        phase: length of one phase.
        offset: position of the first sample.
        targets: samples that receive border positions, ``(B,)``.
        positions: the extended positions they receive, ``(B,)``.
    """

    phase: int
    offset: int
    targets: Int64Array
    positions: Int64Array


def extended_sources(size: int, taps: int, rule: str) -> Int64Array:
    """Sample at each position that the windows of an axis see, -1 for a zero; position 0 is ``-offset``."""
    count = coefficient_size(size, taps, rule)
    positions = torch.arange(2 * count + taps - 2) - offset(taps, rule)
    return np.ascontiguousarray(source_index(positions, size, rule).numpy())


def analysis_rows(size: int, taps: Kernels, rule: str, filters: FloatArray, stride: int) -> RowTable:
    """Coefficient rows from sample rows; ``filters (S, taps)`` are the bands wanted."""
    sources = extended_sources(size, taps.length, rule)
    count = coefficient_size(size, taps.length, rule)
    used = np.flatnonzero(filters.any(axis=0))
    groups, columns = np.meshgrid(np.arange(count), used, indexing="ij")
    source = sources[2 * groups + columns]
    keep = source >= 0
    return _compress(groups[keep], count, source[keep] * stride, filters[:, columns[keep]])


def synthesis_rows(size: int, taps: Kernels, rule: str, filters: FloatArray, stride: int, band_stride: int) -> RowTable:
    """Sample rows from coefficient rows: the transpose of :func:`analysis_rows`, bands ``band_stride`` apart."""
    sources = extended_sources(size, taps.length, rule)
    count = coefficient_size(size, taps.length, rule)
    rows, columns = np.meshgrid(np.arange(count), np.arange(taps.length), indexing="ij")
    target = sources[2 * rows + columns]
    parts = []
    for s, weights in enumerate(filters):
        keep = (target >= 0) & (weights[columns] != 0)
        parts.append((target[keep], rows[keep] * stride + s * band_stride, weights[columns[keep]]))
    groups, index, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    return _compress(groups, size, index, values[None])


def _compress(groups: Int64Array, count: int, index: Int64Array, weights: FloatArray) -> RowTable:
    """Sort entries by output and fill every output up to an even number of entries."""
    order = np.argsort(groups, kind="stable")
    groups, index, weights = groups[order], index[order], weights[:, order]
    entries = np.bincount(groups, minlength=count)
    start = np.concatenate([[0], np.cumsum(entries)])
    padded = entries + entries % 2
    pointer = np.concatenate([[0], np.cumsum(padded)])
    filler = np.zeros(count, dtype=np.int64)
    filler[groups[::-1]] = index[::-1]  # the first entry of each output: the filler reads no other row than they do
    full_index = np.repeat(filler, padded)
    full_weights = np.zeros((len(weights), pointer[-1]), dtype=weights.dtype)
    place = pointer[groups] + np.arange(len(groups)) - start[groups]
    full_index[place] = index
    full_weights[:, place] = weights
    return RowTable(pointer.astype(np.int64), full_index.astype(np.int64), full_weights)


def split_plan(size: int, taps: Kernels, rule: str, filters: FloatArray) -> tuple[RowSplit, RowTable]:
    """Last axis of analysis: the extended phases, and the taps as windows into them."""
    phase = coefficient_size(size, taps.length, rule) + taps.length // 2 - 1
    lead = offset(taps.length, rule)
    first = (lead + 1) // 2
    stop = max(first, (size + lead) // 2)
    split = RowSplit(phase, first, min(stop, phase), lead, extended_sources(size, taps.length, rule))
    used = np.flatnonzero(filters.any(axis=0))
    return split, _compress(np.zeros_like(used), 1, (used % 2) * phase + used // 2, filters[:, used])


def merge_plan(size: int, taps: Kernels, rule: str, filters: FloatArray, row_length: int) -> tuple[RowMerge, RowTable]:
    """Last axis of synthesis: taps as windows into zero-padded coefficient rows, and where the phases go."""
    overlap = taps.length // 2 - 1
    sources = extended_sources(size, taps.length, rule)
    lead = offset(taps.length, rule)
    positions = np.concatenate([np.arange(lead), np.arange(lead + size, len(sources))])
    positions = positions[sources[positions] >= 0]
    j = np.tile(np.arange(overlap + 1), len(filters))
    s = np.repeat(np.arange(len(filters)), overlap + 1)
    weights = np.stack([filters[s, 2 * j], filters[s, 2 * j + 1]])
    used = weights.any(axis=0)
    table = _compress(np.zeros(used.sum(), np.int64), 1, (s * row_length + overlap - j)[used], weights[:, used])
    return RowMerge(len(sources) // 2, lead, sources[positions], positions), table
