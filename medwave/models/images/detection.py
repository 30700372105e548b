"""RetinaNets of MONAI on the pyramids of wavelet backbones, in 2-D and 3-D, and on those of their twins.

Conventions
    The network takes images ``(N, C, ...)`` and gives what MONAI's ``RetinaNet`` gives: maps of class logits and of box
    regressions for each level. :class:`BoxDetector`, MONAI's ``RetinaNetDetector``, makes boxes and losses of them.
    Levels are the maps of a classifier's pyramid from a stride on, joined by a feature pyramid network, and a coarser
    one. Boxes are ``(K, 2 * ndim)``: first corner, then far corner, in samples of the image along its axes, so that a
    box of one sample at the origin is ``0, 0, 1, 1``. Anchors are squares or cubes.

References
    Lin et al., RetinaNet, doi:10.1109/ICCV.2017.324; feature pyramids, doi:10.1109/CVPR.2017.106. WaveCNets as
    backbones of detectors: Li et al., doi:10.1109/TIP.2021.3101395. Matching of anchors: Zhang et al., ATSS,
    doi:10.1109/CVPR42600.2020.00978, which finds one square anchor at each place to be enough.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from monai.apps.detection.networks.retinanet_detector import RetinaNetDetector
from monai.apps.detection.networks.retinanet_network import RetinaNet
from monai.apps.detection.utils.anchor_utils import AnchorGenerator
from monai.networks.blocks.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool
from torch import Tensor, nn

from medwave.core.errors import InputError
from medwave.models.images.network import Classifier
from medwave.models.images.registry import SEGMENTERS, build


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


class WaveRetinaNet(RetinaNet):
    """A RetinaNet on a backbone of medwave.

    Args:
        name: of the backbone, such as ``wave_resnet50`` or its twin ``resnet50``.
        classes: kinds of objects.
        anchors: boxes at each place of a level, of sides within an octave.
        finest, channels: see :class:`PyramidExtractor`.
        anchor_strides: side of the smallest anchor of a level, in strides of the level.
        options: of the backbone, see :func:`medwave.models.build`; ``ndim`` 2 or 3.

    Attributes:
        options: the keyword arguments that build the network again; they are kept in weight files.

    Raises:
        InputError: for an unknown name or option, or a pyramid without that stride.
    """

    options: dict[str, Any]

    def __init__(
        self, name: str, classes: int, anchors: int, *, finest: int = 8, channels: int = 256,
        anchor_strides: float = 4.0, **options: Any,
    ) -> None:  # fmt: skip
        if min(classes, anchors) < 1 or not anchor_strides > 0:
            raise InputError(
                f"classes and anchors are at least 1 and anchor_strides is above 0, got {classes}, {anchors} and "
                f"{anchor_strides}"
            )
        if channels < 16 or channels % 8:  # MONAI's heads normalise eight groups, which need two numbers each
            raise InputError(f"channels: a multiple of 8 from 16 on, got {channels}")
        if name.removeprefix("wave_") in SEGMENTERS or options.get("ndim", 2) not in (2, 3):
            raise InputError(f"{name}: a detector needs a network that classifies, in 2-D or 3-D")
        backbone = build(name, features_only=True, **options)
        assert isinstance(backbone, Classifier)
        extractor = PyramidExtractor(backbone, finest, channels)
        super().__init__(backbone.common.ndim, classes, anchors, extractor, size_divisible=extractor.strides[-2])
        self.in_channels = backbone.common.in_channels
        self.anchor_sides = tuple(
            tuple(anchor_strides * stride * 2 ** (part / anchors) for part in range(anchors))
            for stride in extractor.strides
        )
        self.options = {
            "name": name, "classes": classes, "anchors": anchors, "finest": finest, "channels": channels,
            "anchor_strides": anchor_strides, **options,
        }  # fmt: skip


class BoxDetector(RetinaNetDetector):
    """MONAI's detector for a RetinaNet of medwave, ready to train and to find boxes.

    While it trains it takes images and targets and gives two losses; else images, and it gives boxes, labels and
    ``labels_scores`` for each image. Anchors are matched by ATSS, and of those without a box the ones that score
    highest are trained on. Only the network has weights. torchvision is not needed.

    Args:
        network: the network.
        sampled: anchors of an image that its classes are learned on, a third of them with a box.
        least_score: boxes that score less are left out.
        most_boxes: of an image.
    """

    def __init__(
        self, network: WaveRetinaNet, *, sampled: int = 64, least_score: float = 0.05, most_boxes: int = 100
    ) -> None:
        shapes = (1.0,) if network.spatial_dims == 2 else ((1.0, 1.0),)
        anchors = AnchorGenerator(network.anchor_sides, (shapes,) * len(network.anchor_sides))
        super().__init__(network, anchors)
        self.set_atss_matcher(num_candidates=4)
        self.set_hard_negative_sampler(sampled, positive_fraction=1 / 3, min_neg=sampled // 4, pool_size=20)
        self.set_box_selector_parameters(
            score_thresh=least_score, topk_candidates_per_level=1000, nms_thresh=0.3, detections_per_img=most_boxes
        )

    def compute_anchor_matched_idxs(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]], num_anchor_locs_per_level: Sequence[int]
    ) -> list[Tensor]:
        """Number of the box that each anchor is matched with, -1 for none; MONAI's own asks torchvision for a class."""
        matched = []
        for places, target in zip(anchors, targets, strict=True):
            boxes = target[self.target_box_key].to(places.device)
            if len(boxes):
                matched.append(
                    self.proposal_matcher(boxes, places, num_anchor_locs_per_level, self.num_anchors_per_loc)[1]
                )
            else:
                matched.append(torch.full((len(places),), -1, dtype=torch.int64, device=places.device))
        return matched


def build_retinanet(
    name: str, classes: int, anchors: int, *, finest: int = 8, channels: int = 256, **options: Any
) -> WaveRetinaNet:
    """A RetinaNet on a backbone of medwave, see :class:`WaveRetinaNet`.

    Raises:
        InputError: for an unknown name or option, or a pyramid without that stride.
    """
    return WaveRetinaNet(name, classes, anchors, finest=finest, channels=channels, **options)
