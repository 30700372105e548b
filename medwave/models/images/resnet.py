"""WaveResNet and ResNet with 18 to 152 layers, ResNeXt and wide ones. Names of weights are torchvision's.

He et al., doi:10.1109/CVPR.2016.90; Xie et al. (ResNeXt), doi:10.1109/CVPR.2017.634.

Where the low bands stand
    The first convolution keeps its stride 2 and a low band follows in the place of the max pool (``stem="imagenet"``),
    or it has stride 1 and two low bands follow (``"wavelet"``). For small images it is 3 x 3 at stride 1 and nothing
    follows (``"small"``). In a strided block the 3 x 3 convolution that was strided has stride 1 and the low band
    stands behind its activation (``dwt_position="after_act"``) or right behind it (``"after_conv"``); on the shortcut
    it stands before the 1 x 1 convolution, which is the same as behind it, and cheaper.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from medwave.core.errors import InputError
from medwave.models.images.network import ADAPTIVE_POOL, MAX_POOL, Classifier, Common, check_word, initialise

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Blocks of each stage, by depth; from 50 on blocks have a bottleneck."""

STEMS = ("imagenet", "wavelet", "small")
"""What the network begins with, see the module."""

POSITIONS = ("after_act", "after_conv")
"""Where the low band of a strided block stands."""


class _Block(nn.Module):
    """Convolutions beside a shortcut; the one at index ``strided`` carries the stride."""

    strided: int
    expansion: int

    def __init__(self, common: Common, before: int, inner: int, after: int, plan: _Plan) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self._early = plan.position == "after_conv"
        self.pool = common.after_stride(plan.stride)
        self.downsample = None
        if plan.stride > 1 or before != after:
            layers: OrderedDict[str, nn.Module] = OrderedDict()
            if common.wavelet is not None and plan.stride > 1:
                layers["low_band"] = common.low_band()
            layers["0"] = common.conv(before, after, 1, stride=common.conv_stride(plan.stride), bias=False)
            layers["1"] = common.norm(after)
            self.downsample = nn.Sequential(layers)
        for index, (kernel, channels) in enumerate(self._convs(inner, after), 1):
            more: dict[str, Any] = {}
            if index == self.strided:
                more["stride"] = common.conv_stride(plan.stride)
            if kernel == 3:
                more |= {"dilation": plan.dilation, "groups": plan.groups}
            self.add_module(f"conv{index}", common.conv(before, channels, kernel, bias=False, **more))
            self.add_module(f"bn{index}", common.norm(channels))
            before = channels
        self._count = index

    def _convs(self, inner: int, after: int) -> list[tuple[int, int]]:
        """Kernel and channels of each convolution."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Features of the block."""
        shortcut = x if self.downsample is None else self.downsample(x)
        for index in range(1, self._count + 1):
            x = self.get_submodule(f"conv{index}")(x)
            if index == self.strided and self._early:
                x = self.pool(x)
            x = self.get_submodule(f"bn{index}")(x)
            if index < self._count:
                x = self.relu(x)
            if index == self.strided and not self._early:
                x = self.pool(x)
        return self.relu(x + shortcut)


class _Basic(_Block):
    strided, expansion = 1, 1

    def _convs(self, inner: int, after: int) -> list[tuple[int, int]]:
        return [(3, after), (3, after)]


class _Bottleneck(_Block):
    strided, expansion = 2, 4

    def _convs(self, inner: int, after: int) -> list[tuple[int, int]]:
        return [(1, inner), (3, inner), (1, after)]


class _Plan:
    """What differs between blocks besides channels."""

    def __init__(self, stride: int, dilation: int, groups: int, position: str) -> None:
        self.stride, self.dilation, self.groups, self.position = stride, dilation, groups, position


class WaveResNet(Classifier):
    """ResNet whose pool and strided blocks filter by low bands before they drop samples.

    Args:
        depth: 18, 34, 50, 101 or 152.
        stem: a word of :data:`STEMS`.
        groups, group_width: ResNeXt's cardinality and the channels of a group in the first stage (32 and 4 in
            ResNeXt-50 32x4d); ``1, 128`` is the wide ResNet of twice the inner channels.
        dwt_position: a word of :data:`POSITIONS`.
        zero_last: let each block begin as its shortcut: the last normalisation starts at 0.
        dilations: of the blocks of the last stage, which then keeps the stride 16: for segmentation.
        features_only: return the pyramid (stem and four stages) instead of logits.
        common: options of :class:`~medwave.models.images.network.Common`.

    Raises:
        InputError: for an option that is unknown or out of range.
    """

    def __init__(
        self,
        depth: int = 18,
        *,
        stem: str = "imagenet",
        groups: int = 1,
        group_width: int = 64,
        dwt_position: str = "after_act",
        zero_last: bool = False,
        dilations: Sequence[int] | None = None,
        features_only: bool = False,
        **common: Any,
    ) -> None:
        shared = Common(**common)
        self._check(depth, stem, groups, dwt_position, dilations, shared)
        own = {
            "depth": depth, "stem": stem, "groups": groups, "group_width": group_width, "dwt_position": dwt_position,
            "zero_last": zero_last, "dilations": None if dilations is None else list(dilations),
        }  # fmt: skip
        super().__init__(own, shared, features_only)
        first = shared.channels(64)
        self._make_stem(first, stem)
        block = _Basic if depth < 50 else _Bottleneck
        widths = [first]
        for index, count in enumerate(BLOCKS[depth]):
            planes = shared.channels(64 * 2**index)
            inner = max(1, int(planes * group_width / 64)) * groups
            after = planes * block.expansion
            last = dilations if index == 3 and dilations is not None else None
            blocks = []
            for number in range(count):
                stride = 2 if number == 0 and index > 0 and last is None else 1
                plan = _Plan(stride, last[number] if last else 1, groups, dwt_position)
                blocks.append(block(shared, widths[-1] if number == 0 else after, inner, after, plan))
            self.add_module(f"layer{index + 1}", nn.Sequential(*blocks))
            widths.append(after)
        self.feature_channels = tuple(widths)
        scale = 1 if stem == "small" else 4
        self.feature_strides = (max(1, scale // 2), *(scale * s for s in (1, 2, 4, 4 if dilations else 8)))
        if not features_only:
            self.avgpool = ADAPTIVE_POOL[shared.ndim](1)
            self.fc = nn.Linear(widths[-1], shared.classes)
        initialise(self)
        if zero_last:
            for layer in self.modules():
                if isinstance(layer, _Block):
                    nn.init.zeros_(layer.get_submodule(f"bn{layer._count}").weight)

    @staticmethod
    def _check(
        depth: int, stem: str, groups: int, position: str, dilations: Sequence[int] | None, shared: Common
    ) -> None:
        if depth not in BLOCKS:
            raise InputError(f"depth of a ResNet is one of {', '.join(map(str, BLOCKS))}, got {depth}")
        check_word("stem", stem, STEMS)
        check_word("dwt_position", position, POSITIONS)
        if stem == "wavelet" and shared.wavelet is None:
            raise InputError("stem 'wavelet' needs a wavelet; the vanilla network has stem 'imagenet' or 'small'")
        if groups > 1 and depth < 50:
            raise InputError(f"groups are for networks with bottlenecks (depth 50 and more), not {depth}")
        if dilations is not None and len(dilations) != BLOCKS[depth][3]:
            raise InputError(f"dilations: one for each of the {BLOCKS[depth][3]} blocks of the last stage")

    def _make_stem(self, channels: int, stem: str) -> None:
        common = self.common
        kernel, stride = {"imagenet": (7, 2), "wavelet": (7, 1), "small": (3, 1)}[stem]
        self.conv1 = common.conv(common.in_channels, channels, kernel, stride=stride, bias=False)
        self.bn1, self.relu = common.norm(channels), nn.ReLU(inplace=True)
        if stem == "small":
            self.maxpool: nn.Module = nn.Identity()
        elif stem == "wavelet":
            self.maxpool = nn.Sequential(common.low_band(), common.low_band())
        elif common.wavelet is None:
            self.maxpool = MAX_POOL[common.ndim](3, 2, 1)
        else:
            self.maxpool = common.low_band()

    def pyramid(self, image: Tensor) -> tuple[Tensor, ...]:
        """The stem before its pool, and the four stages; strides are in ``feature_strides``."""
        stem = self.relu(self.bn1(self.conv1(image)))
        if self.options["stem"] == "wavelet":
            stem = self.maxpool[0](stem)
            maps = [stem, self.layer1(self.maxpool[1](stem))]
        else:
            maps = [stem, self.layer1(self.maxpool(stem))]
        for layer in (self.layer2, self.layer3, self.layer4):
            maps.append(layer(maps[-1]))
        return tuple(maps)

    def head(self, top: Tensor) -> Tensor:
        """Logits."""
        return self.fc(self.avgpool(top).flatten(1))
