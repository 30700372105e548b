"""Gather tables for compiled loops: which rows, with which weights, make one output row.

Conventions
    A :class:`RowTable` is a sparse matrix whose rows are outputs. Entries of output ``g`` are ``pointer[g]`` to
    ``pointer[g + 1]``. ``sources`` holds element offsets (already multiplied by the row length), ``weights[s]`` the
    weights of the entries for the ``s``-th simultaneous output: low and high band in analysis, two neighbours that see
    the same coefficients in synthesis. What is made together reads its sources once.
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


def synthesis_rows(
    size: int, taps: Kernels, rule: str, filters: FloatArray, stride: int, band_stride: int
) -> tuple[Int64Array, RowTable]:
    """Pairs of sample rows from coefficient rows: the transpose of :func:`analysis_rows`, bands ``band_stride`` apart.

    Returns:
        The samples of each pair ``(P, 2)``, -1 for none, and the table whose outputs are the pairs.
    """
    sources = extended_sources(size, taps.length, rule)
    count = coefficient_size(size, taps.length, rule)
    rows, columns = np.meshgrid(np.arange(count), np.arange(taps.length), indexing="ij")
    target = sources[2 * rows + columns]
    parts = []
    for s, weights in enumerate(filters):
        keep = (target >= 0) & (weights[columns] != 0)
        parts.append((target[keep], rows[keep] * stride + s * band_stride, weights[columns[keep]]))
    samples, index, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    seen = [frozenset(index[samples == end]) for end in (0, size - 1)]
    members = _pairs(size, offset(taps.length, rule) % 2, seen[0] == seen[1])
    pair, slot = np.zeros(size, np.int64), np.zeros(size, np.int64)
    for s in (0, 1):
        inside = members[:, s] >= 0
        pair[members[inside, s]], slot[members[inside, s]] = np.flatnonzero(inside), s
    entries, entry = np.unique(np.stack([pair[samples], index]), axis=1, return_inverse=True)
    weights = np.zeros((2, entries.shape[1]), filters.dtype)
    np.add.at(weights, (slot[samples], entry.reshape(-1)), values)
    return members, _compress(entries[0], len(members), entries[1], weights)


def _pairs(size: int, lead: int, ends_meet: bool) -> Int64Array:
    """Samples that one step of the filters makes: ``2 q - lead`` and the next; the ends join where they are alike."""
    first = np.arange(-lead, size, 2)
    pairs = np.stack([first, first + 1], axis=1)
    pairs[pairs >= size] = -1
    if ends_meet and len(pairs) > 1 and pairs[0, 0] < 0 and pairs[-1, 1] < 0:
        pairs[0, 0] = pairs[-1, 0]
        pairs = pairs[:-1]
    return np.ascontiguousarray(pairs)


def _compress(groups: Int64Array, count: int, index: Int64Array, weights: FloatArray) -> RowTable:
    """Sort entries by output."""
    order = np.argsort(groups, kind="stable")
    pointer = np.concatenate([[0], np.cumsum(np.bincount(groups, minlength=count))])
    return RowTable(pointer.astype(np.int64), index[order].astype(np.int64), np.ascontiguousarray(weights[:, order]))


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
