"""Features of pictures from a trained network.

Conventions
    Pictures are ``(c, h, w)`` float32 tensors as the network takes them. With ``flip`` the feature of a picture and
    that of its mirror image are added, as is done for faces; drawings and scans, which a mirror changes, go without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from medwave.core.errors import InputError
from medwave.engine.predict import usable_device


def embed_pictures(
    model: nn.Module,
    pictures: Iterable[torch.Tensor],
    *,
    flip: bool = True,
    batch: int = 64,
    device: str | torch.device = "cpu",
    on_done: Callable[[int], None] = lambda done: None,
) -> npt.NDArray[np.float32]:
    """Features ``(n, dimension)``, one row per picture, in their order.

    Args:
        model: picture batch ``(N, c, h, w)`` -> features ``(N, dimension)``; its training mode comes back as it was.
        pictures: read as they are needed; ``batch`` of them are held.
        flip: add the feature of the mirror image.
        batch: pictures that go through the network at once.
        device: where the network runs; it is moved there.
        on_done: told the number of pictures done.

    Raises:
        DeviceError: when the device is not there.
        InputError: when there is no picture, or a feature is not finite or zero.
    """
    training = model.training
    model.to(usable_device(device)).eval()
    rows: list[npt.NDArray[np.float32]] = []
    done = 0
    try:
        with torch.inference_mode():
            for group in _groups(pictures, batch):
                images = torch.stack(group).to(device)
                features = model(images)
                if flip:
                    features = features + model(images.flip(-1))
                rows.append(features.float().cpu().numpy())
                done += len(group)
                on_done(done)
    finally:
        model.train(training)
    if not rows:
        raise InputError("there is no picture to embed")
    found = np.concatenate(rows)
    if not np.isfinite(found).all() or not found.any(axis=1).all():
        raise InputError("the network gives features that are not finite or zero; its weights are unusable")
    return found


def _groups(pictures: Iterable[torch.Tensor], size: int) -> Iterator[list[torch.Tensor]]:
    group: list[torch.Tensor] = []
    for picture in pictures:
        group.append(picture)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
