"""The whole batch on every process, with gradient, so that a loss on many processes is the loss on one.

Without ``torch.distributed``, or with one process, everything here hands its input back. Batches of different length
are allowed. Backward is the adjoint of the gathering: the gradients of all processes are summed and each takes its
part. Where all processes compute the same loss, as the losses of this room do, that is the number of processes times
the gradient, and the averaging of ``DistributedDataParallel`` brings it back to the gradient of the whole batch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def gather_batch(values: Tensor) -> Tensor:
    """The rows of all processes, in the order of their ranks, ``(sum of B, ...)``; called on all processes alike."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return values
    return _Gather.apply(values.contiguous())


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        world = dist.get_world_size()
        length = torch.tensor([len(values)], device=values.device)
        lengths = [torch.empty_like(length) for _ in range(world)]
        dist.all_gather(lengths, length)
        ctx.lengths = [int(n) for n in lengths]
        longest = values.new_zeros((max(ctx.lengths), *values.shape[1:]))
        longest[: len(values)] = values
        parts = [torch.empty_like(longest) for _ in range(world)]
        dist.all_gather(parts, longest)
        return torch.cat([part[:n] for part, n in zip(parts, ctx.lengths, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        start = sum(ctx.lengths[: dist.get_rank()])
        return gradient[start : start + ctx.lengths[dist.get_rank()]]
