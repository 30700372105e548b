"""RetinaNets of MONAI on the pyramids of wavelet backbones, in 2-D and 3-D, and on those of their twins.

Conventions
    The network takes images ``(N, C, ...)`` and gives what MONAI's ``RetinaNet`` gives: maps of class logits and of box
    regressions for each level. MONAI's ``RetinaNetDetector`` makes boxes and losses of them; it needs torchvision, the
    network does not. Levels are the maps of a classifier's pyramid from a stride on, joined by a feature pyramid
    network, and a coarser one.

References
    Lin et al., RetinaNet, doi:10.1109/ICCV.2017.324; feature pyramids, doi:10.1109/CVPR.2017.106. WaveCNets as
    backbones of detectors: Li et al., doi:10.1109/TIP.2021.3101395.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from monai.apps.detection.networks.retinanet_network import RetinaNet
from monai.networks.blocks.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool
from torch import Tensor, nn

from medwave.core.errors import InputError
from medwave.models.images.network import Classifier
from medwave.models.images.registry import build


class PyramidExtractor(nn.Module):
    """The levels of a backbone that detectors see.

    Args:
        backbone: a classifier of medwave with ``features_only=True``.
        finest: stride of the finest level; finer maps of the pyramid are not used.
        channels: of each level.

    Attributes:
        out_channels: channels of each level, as MONAI asks for it.
        strides: samples of the image that a sample of each level stands for.

    Raises:
        InputError: when the backbone has a head, or no map of that stride.
    """

    def __init__(self, backbone: Classifier, finest: int = 8, channels: int = 256) -> None:
        super().__init__()
        if not backbone.features_only:
            raise InputError("a detector needs the pyramid: build its backbone with features_only=True")
        if finest not in backbone.feature_strides:
            strides = ", ".join(map(str, backbone.feature_strides))
            raise InputError(f"the pyramid of this backbone has the strides {strides}, not {finest}")
        self.backbone = backbone
        self._first = len(backbone.feature_strides) - 1 - backbone.feature_strides[::-1].index(finest)
        kept = list(backbone.feature_channels[self._first :])
        ndim = backbone.common.ndim
        self.fpn = FeaturePyramidNetwork(ndim, kept, channels, extra_blocks=LastLevelMaxPool(ndim))
        self.out_channels = channels
        self.strides = (*backbone.feature_strides[self._first :], 2 * backbone.feature_strides[-1])

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Level by name, finest first."""
        maps = self.backbone(image)[self._first :]
        return self.fpn(OrderedDict((str(number), level) for number, level in enumerate(maps)))


def build_retinanet(
    name: str, classes: int, anchors: int, *, finest: int = 8, channels: int = 256, **options: Any
) -> RetinaNet:
    """A RetinaNet on a backbone of medwave.

    Args:
        name: of the backbone, such as ``wave_resnet50`` or its twin ``resnet50``.
        classes: kinds of objects.
        anchors: boxes at each place of a level.
        finest, channels: see :class:`PyramidExtractor`.
        options: of the backbone, see :func:`medwave.models.build`; ``ndim`` 2 or 3.

    Raises:
        InputError: for an unknown name or option, or a pyramid without that stride.
    """
    backbone = build(name, features_only=True, **options)
    if not isinstance(backbone, Classifier) or backbone.common.ndim == 1:
        raise InputError(f"{name}: a detector needs a network that classifies, in 2-D or 3-D")
    extractor = PyramidExtractor(backbone, finest, channels)
    return RetinaNet(backbone.common.ndim, classes, anchors, extractor, size_divisible=extractor.strides[-2])
