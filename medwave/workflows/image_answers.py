"""What networks on images answer: classes of images, classes of pixels, in batches, without gradients.

Images are uint8 ``(H, W, C)``; networks get them in [0, 1] and normalised as in :mod:`medwave.transforms.images`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from medwave.core.errors import InputError
from medwave.data.images import ClassifiedImages
from medwave.models import ImageNetwork, open_network
from medwave.models.images.registry import image_network_classes
from medwave.transforms.images import centre_resized, normaliser, unit_tensor

Bytes = np.ndarray


class OfUnit(nn.Module):
    """A network that takes images in [0, 1]."""

    def __init__(self, network: ImageNetwork) -> None:
        super().__init__()
        self.network = network
        mean, deviation = normaliser(network.common.in_channels)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("deviation", deviation, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits; grey images are taken for colours that are alike.

        Raises:
            GeometryError: for another number of axes or channels, or an image that is too small.
        """
        if images.shape[1] not in (1, len(self.mean)):
            self.network.check(images)
        return self.network((images - self.mean) / self.deviation)


def open_image_network(path: object, classes: Sequence[str], *, segments: bool) -> ImageNetwork:
    """The network of a weight file, which must know the classes of the data.

    Raises:
        InputError: when it is of another kind of network, or of another number of classes.
        MissingFileError: when there is no such file.
    """
    image_network_classes()  # a weight file finds its class among those that are imported
    network = open_network(path, ImageNetwork)  # type: ignore[arg-type]
    does = not hasattr(network, "features_only")
    if does != segments or getattr(network, "features_only", False):
        wanted = "segments" if segments else "classifies"
        raise InputError(f"{path}: a network that {wanted} is needed, this is a {type(network).__name__}")
    if network.common.classes != len(classes):
        raise InputError(
            f"{path}: its network knows {network.common.classes} classes, the data have {len(classes)}; "
            "evaluate it on data of its classes"
        )
    return network


def prepared(images: Iterable[Bytes], size: int) -> Iterator[Bytes]:
    """Images as a classifier sees them: the centre after resizing, or as they are where ``size`` is 0."""
    for image in images:
        yield centre_resized(image, size) if size else image


def pictures(source: ClassifiedImages, size: int) -> tuple[list[Bytes], np.ndarray]:
    """All images of a source as a classifier sees them, and their classes.

    Raises:
        InputError: when one cannot be read, or they have several sizes and ``size`` is 0.
    """
    items = [source.item(i) for i in range(len(source))]
    images = list(prepared((image for image, _ in items), size))
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise InputError(f"images have several sizes, such as {sorted(shapes)[:2]}; say what they become with --size")
    return images, np.array([label for _, label in items])


@torch.inference_mode()
def answers(network: nn.Module, images: Sequence[Bytes], *, batch: int, device: str) -> np.ndarray:
    """Class of each image ``(N,)``; the network takes images in [0, 1]."""
    found = []
    for start in range(0, len(images), batch):
        part = torch.stack([unit_tensor(image) for image in images[start : start + batch]])
        found.append(network(part.to(device)).argmax(1).cpu().numpy())
    return np.concatenate(found)


@torch.inference_mode()
def pixel_answers(network: nn.Module, image: Bytes, *, device: str) -> np.ndarray:
    """Class of each pixel ``(H, W)``; the network takes images in [0, 1]."""
    return network(unit_tensor(image)[None].to(device)).argmax(1)[0].cpu().numpy()
