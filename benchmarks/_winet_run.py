"""One prediction of WiNet in a process of its own, by one method; see ``winet_forward.py``.

``python _winet_run.py REQUEST`` reads ``method``, ``shape``, ``width``, ``threads``, and writes the field to ``field``
(npy) and CPU seconds to ``answer`` (JSON; null where this processor is not made for the method).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medwave.engine.predict import native_bfloat16, predict_displacement
from medwave.models import WiNet
from medwave.wavelets import IDWT

Image = npt.NDArray[np.float32]
Predict = Callable[[Image, Image], npt.NDArray[np.float32]]


class StridedDWT(nn.Module):
    """Haar bands by a strided convolution, or the way back by its transpose."""

    def __init__(self, *, inverse: bool) -> None:
        super().__init__()
        self.inverse = inverse
        self.register_buffer("kernels", IDWT("haar", 3)(torch.eye(8).view(8, 1, 8, 1, 1, 1)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        n, c = x.shape[:2]
        if self.inverse:
            return F.conv_transpose3d(x.flatten(0, 1), self.kernels, stride=2).unflatten(0, (n, c))[:, :, 0]
        return F.conv3d(x.flatten(0, 1)[:, None], self.kernels, stride=2).unflatten(0, (n, c))


def plain(network: WiNet) -> WiNet:
    """The same network and weights, built the first way one thinks of."""
    network.dwt, network.idwt = StridedDWT(inverse=False), StridedDWT(inverse=True)
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(module, name, nn.InstanceNorm3d(child.num_channels))
    return network


def make(method: str, width: int) -> Predict:
    """The prediction of two images ``(D, H, W)`` as a displacement ``(3, D, H, W)``."""
    torch.manual_seed(0)
    network = WiNet(width).eval()
    with torch.no_grad():
        for head in network.heads:
            head.weight.mul_(30)  # displacements of some voxels, as a trained network gives
    if method != "plain":
        return lambda moving, fixed: predict_displacement(network, moving, fixed, precision=method)
    simple = plain(network)

    def predict(moving: Image, fixed: Image) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            return simple(*(torch.from_numpy(image)[None, None] for image in (moving, fixed)))[0].numpy()

    return predict


def images(shape: tuple[int, int, int]) -> list[Image]:
    generator = torch.Generator().manual_seed(1)
    rough = torch.rand((2, 1, *(n // 8 for n in shape)), generator=generator)
    return list(F.interpolate(rough, size=shape, mode="trilinear")[:, 0].numpy())


def main() -> None:
    request: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(request["threads"])
    answer = None
    if request["method"] != "bfloat16" or native_bfloat16(torch.device("cpu")):
        predict = make(request["method"], request["width"])
        predict(*images((32, 32, 32)))
        pair = images(tuple(request["shape"]))
        began = time.process_time()
        field = predict(*pair)
        answer = time.process_time() - began
        np.save(request["field"], field)
    Path(request["answer"]).write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main()
