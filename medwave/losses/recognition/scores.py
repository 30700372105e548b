"""The arithmetic that all recognition losses share, in forms that neither overflow nor lose a gradient.

Conventions
    ``x`` is ``(B, d)``, rows to compare with are ``(K, d)``; a decision score is ``z_ij = <x_i, row_j> - offset_j``
    (the scale is part of ``x``). ``own`` ``(B,)`` is the column of each sample's own class, -1 where it is not among
    the rows: that column never counts as a negative. Nothing is clamped: the hardest pair keeps its gradient.

Memory
    No more than ``LOGITS_AT_ONCE`` scores are held. With more, the rows are taken in chunks, and the backward pass
    computes each chunk again.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

LOGITS_AT_ONCE = 1 << 24

Reduction = Literal["logsumexp", "softplus"]

_NEVER = -1e30  # score of a pair that does not count; finite, so that no difference of two of them is NaN
_SHORTEST = 1e-5


def unit(values: Tensor) -> Tensor:
    """Rows of length one; rows shorter than 1e-5 are divided by that."""
    return F.normalize(values, dim=-1, eps=_SHORTEST)


def softplus(values: Tensor) -> Tensor:
    """``log(1 + e^u)``, exact to the last digit of float64 also where the library turns linear."""
    return F.softplus(values, threshold=40)


def margin_softmax(negatives: Tensor, positive: Tensor) -> Tensor:
    """Cross-entropy of each sample, from the log-sum-exp of its negatives and its positive score: ``(B,)``."""
    return softplus(negatives - positive)


def has_negatives(log_sum_exp: Tensor) -> Tensor:
    """Which samples met any negative at all."""
    return log_sum_exp > 0.1 * _NEVER


def over_negatives(
    x: Tensor, rows: Tensor, own: Tensor, offsets: Tensor | None, reduction: Reduction, *, normalised: bool
) -> Tensor:
    """One number per sample from its scores against all rows but its own.

    Args:
        x: samples ``(B, d)``, scale included.
        rows: ``(K, d)``.
        own: column of each sample's class, -1 for none.
        offsets: subtracted from the scores: None, one number, or one per row ``(K,)``.
        reduction: ``"logsumexp"``: ``log sum exp z``; ``"softplus"``: ``sum log(1 + e^z)``.
        normalised: bring the rows to unit length first.

    Returns:
        ``(B,)``. Without any negative the sum is 0 and the log-sum-exp is a number that no score comes near.
    """
    chunk = max(1, LOGITS_AT_ONCE // max(1, len(x)))
    if chunk >= len(rows):
        return _reduce(x, rows, own, offsets, reduction, normalised)
    return _InChunks.apply(x, rows, own, offsets, reduction, normalised, chunk)


def _reduce(
    x: Tensor, rows: Tensor, own: Tensor, offsets: Tensor | None, reduction: Reduction, normalised: bool
) -> Tensor:
    scores = x @ (unit(rows) if normalised else rows).T
    if offsets is not None:
        scores = scores - offsets
    inside = ((own >= 0) & (own < len(rows))).nonzero().squeeze(1)
    scores[inside, own[inside]] = _NEVER
    return scores.logsumexp(dim=1) if reduction == "logsumexp" else softplus(scores).sum(dim=1)


class _InChunks(torch.autograd.Function):
    """:func:`_reduce`, a chunk of rows at a time."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, rows: Tensor, own: Tensor, offsets: Tensor | None,
        reduction: Reduction, normalised: bool, chunk: int,
    ) -> Tensor:  # fmt: skip
        starts = range(0, len(rows), chunk)
        parts = x.new_empty(len(starts), len(x))
        for part, start in zip(parts, starts, strict=True):
            inside = rows[start : start + chunk]
            part.copy_(_reduce(x, inside, own - start, _cut(offsets, start, chunk), reduction, normalised))
        total = parts.logsumexp(dim=0) if reduction == "logsumexp" else parts.sum(dim=0)
        ctx.save_for_backward(x, rows, own, offsets, parts, total)
        ctx.options = reduction, normalised, chunk
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, rows, own, offsets, parts, total = ctx.saved_tensors
        reduction, normalised, chunk = ctx.options
        shares = torch.exp(parts - total) if reduction == "logsumexp" else torch.ones_like(parts)
        wanted = [n for n in (0, 1, 3) if ctx.needs_input_grad[n]]
        found = {n: torch.zeros_like((x, rows, own, offsets)[n]) for n in wanted}
        for share, start in zip(shares, range(0, len(rows), chunk), strict=True):
            inputs = {0: x, 1: rows[start : start + chunk], 3: _cut(offsets, start, chunk)}
            leaves = {n: t if t is None else t.detach().requires_grad_(n in found) for n, t in inputs.items()}
            with torch.enable_grad():
                part = _reduce(leaves[0], leaves[1], own - start, leaves[3], reduction, normalised)
            pieces = torch.autograd.grad(part, [leaves[n] for n in wanted], gradient * share)
            for n, piece in zip(wanted, pieces, strict=True):
                target = found[n] if n == 0 or found[n].dim() == 0 else found[n][start : start + chunk]
                target += piece
        return tuple(found.get(n) for n in range(7))


def _cut(offsets: Tensor | None, start: int, length: int) -> Tensor | None:
    return offsets if offsets is None or offsets.dim() == 0 else offsets[start : start + length]
