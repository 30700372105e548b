"""3-D convolutions whose gradients can be relied on."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Conv3d(nn.Conv3d):
    """``nn.Conv3d``, in float32 where autocast to bfloat16 on a CPU gives wrong gradients of the weights.

    oneDNN, by which torch convolves there, takes them from memory that nobody has written where a volume is two voxels
    deep (seen with torch 2.13 on a processor with AVX-512 bfloat16, for 3x3x3 taps with padding): often NaN, else a
    number from before.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, D, H, W)`` convolved."""
        if x.shape[2] == 2 and x.device.type == "cpu" and torch.is_grad_enabled() and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.to(self.weight.dtype))
        return super().forward(x)
