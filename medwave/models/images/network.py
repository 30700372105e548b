"""What all networks on images share: their common options, how they halve the resolution, and their pyramid.

Conventions
    Images are ``(N, in_channels, ...)`` with ``ndim`` spatial axes, normalised by the caller. Results are logits.
    ``wavelet=None`` builds the vanilla twin: the same names and shapes of weights, max pools and strides in the place
    of low bands. Low bands have no parameters, so both load each other's weights.
    Widths are shares of the published numbers of channels.

What stands in the place of what (Li et al., WaveCNet, doi:10.1109/TIP.2021.3101395)
    max pool, average pool   low band
    strided convolution      the convolution at stride 1, normalisation, activation, low band

    The low band has the published gain (a constant doubles in 2-D at each halving) unless ``ll_gain="unit"``, which is
    what networks without normalisation and weights of the vanilla twin want. ``mode="zero_truncated"`` is the published
    border; ``periodization``, the default, is exactly invertible.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from medwave.core.errors import GeometryError, InputError
from medwave.wavelets import WaveletPool

CONV: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
"""Convolution by the number of spatial axes."""

NORM: dict[int, type[nn.Module]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
"""Batch normalisation by the number of spatial axes."""

MAX_POOL: dict[int, type[nn.Module]] = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
"""Max pool by the number of spatial axes."""

AVERAGE_POOL: dict[int, type[nn.Module]] = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
"""Average pool by the number of spatial axes."""

ADAPTIVE_POOL: dict[int, type[nn.Module]] = {
    1: nn.AdaptiveAvgPool1d,
    2: nn.AdaptiveAvgPool2d,
    3: nn.AdaptiveAvgPool3d,
}
"""Average pool to a given size by the number of spatial axes."""


@dataclass(frozen=True)
class Common:
    """Options that every network has.

    Attributes:
        classes: number of classes.
        in_channels: channels of the image.
        wavelet: a discrete wavelet of PyWavelets, or ``chX.Y`` for ``biorX.Y``; None for the vanilla twin.
        width: share of the published numbers of channels.
        ndim: spatial axes.
        mode, filter_roles, ll_gain: of the low bands, see :class:`medwave.wavelets.WaveletPool`.

    Raises:
        InputError: for a value out of range, or an unknown wavelet.
    """

    classes: int = 1000
    in_channels: int = 3
    wavelet: str | None = None
    width: float = 1.0
    ndim: int = 2
    mode: str = "periodization"
    filter_roles: str = "reference"
    ll_gain: str = "orthonormal"

    def __post_init__(self) -> None:
        if self.ndim not in CONV:
            raise InputError(f"ndim: images have 1, 2 or 3 spatial axes, got {self.ndim}")
        if self.classes < 1 or self.in_channels < 1 or not self.width > 0:
            raise InputError(
                f"classes and in_channels are at least 1 and width is above 0, got {self.classes}, "
                f"{self.in_channels} and {self.width}"
            )
        WaveletPool(self.wavelet or "haar", 1, **self.bank)  # checks the names

    @property
    def bank(self) -> dict[str, Any]:
        """Keyword arguments of the low bands."""
        return {"mode": self.mode, "filter_roles": self.filter_roles, "ll_gain": self.ll_gain}

    def low_band(self) -> nn.Module:
        """A low band, in the place of a pool."""
        return WaveletPool(str(self.wavelet), self.ndim, **self.bank)

    def max_pool(self, kernel: int = 2, padding: int = 0) -> nn.Module:
        """What a max pool of stride 2 is in this network."""
        return MAX_POOL[self.ndim](kernel, 2, padding) if self.wavelet is None else self.low_band()

    def average_pool(self) -> nn.Module:
        """What an average pool of stride 2 is in this network."""
        return AVERAGE_POOL[self.ndim](2) if self.wavelet is None else self.low_band()

    def conv_stride(self, stride: int) -> int:
        """Stride of a convolution that has ``stride`` in the vanilla network."""
        return stride if self.wavelet is None else 1

    def after_stride(self, stride: int) -> nn.Module:
        """What follows a convolution that has ``stride`` in the vanilla network, behind its activation."""
        return nn.Identity() if self.wavelet is None or stride == 1 else self.low_band()

    def conv(self, in_channels: int, out_channels: int, kernel: int, **options: Any) -> nn.Module:
        """A convolution whose result has the size of its input where the stride is 1."""
        options.setdefault("padding", options.get("dilation", 1) * (kernel - 1) // 2)
        return CONV[self.ndim](in_channels, out_channels, kernel, **options)

    def norm(self, channels: int) -> nn.Module:
        """Batch normalisation."""
        return NORM[self.ndim](channels)

    def channels(self, published: float) -> int:
        """Channels of this network where the published one has ``published``."""
        return max(1, round(published * self.width))


class ImageNetwork(nn.Module):
    """Base of all networks on images.

    Attributes:
        options: the keyword arguments that build the network again; they are kept in weight files.
        common: the options that all networks share.
    """

    options: dict[str, Any]
    smallest = 1
    """Fewest samples along an axis that the vanilla network accepts; low bands accept any size."""

    def __init__(self, own: dict[str, Any], common: Common) -> None:
        super().__init__()
        self.common = common
        self.options = {**own, **asdict(common)}

    def check(self, image: Tensor) -> None:
        """Refuse what is no batch of images for this network.

        Raises:
            GeometryError: for another number of axes or channels, or an image that is too small.
        """
        axes, channels = self.common.ndim, self.common.in_channels
        if image.dim() != axes + 2 or image.shape[1] != channels:
            raise GeometryError(
                f"{type(self).__name__} takes images (N, {channels}) and {axes} spatial axes, got "
                f"{tuple(image.shape)}; "
                f"build it with in_channels={image.shape[1] if image.dim() > 1 else '?'} for these"
            )
        least = self.smallest if self.common.wavelet is None else 1
        if min(image.shape[2:]) < least:
            raise GeometryError(
                f"{type(self).__name__} without wavelets takes images of {least} samples or more along each axis, "
                f"got {tuple(image.shape[2:])}; enlarge them"
            )


class Classifier(ImageNetwork):
    """Base of the networks that classify: a trunk that gives a pyramid, and a head on its top.

    ``features_only=True`` leaves the head out: the network then returns the pyramid, for detectors.

    Attributes:
        feature_channels: channels of the maps of the pyramid, finest first.
        feature_strides: how many samples of the image a sample of the map stands for.
        features_only: whether the network returns the pyramid.
    """

    feature_channels: tuple[int, ...]
    feature_strides: tuple[int, ...] = (2, 4, 8, 16, 32)

    def __init__(self, own: dict[str, Any], common: Common, features_only: bool) -> None:
        super().__init__({**own, "features_only": features_only}, common)
        self.features_only = features_only

    def pyramid(self, image: Tensor) -> tuple[Tensor, ...]:
        """Feature maps ``(N, C, ...)``, finest first."""
        raise NotImplementedError

    def head(self, top: Tensor) -> Tensor:
        """Logits ``(N, classes)`` of the last map of the pyramid."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Logits ``(N, classes)``, or the pyramid under ``features_only``.

        Raises:
            GeometryError: for another number of axes or channels, or an image that is too small.
        """
        self.check(image)
        maps = self.pyramid(image)
        return maps if self.features_only else self.head(maps[-1])


class ChainClassifier(Classifier):
    """A classifier whose layers follow one another in ``features``, cut into the stages of the pyramid.

    Attributes:
        features: the layers, ``avgpool`` and ``classifier`` what makes logits of the last map.
    """

    features: nn.Sequential
    avgpool: nn.Module
    classifier: nn.Module
    _ends: list[int]

    def pyramid(self, image: Tensor) -> tuple[Tensor, ...]:
        """What leaves each stage, finest first."""
        maps, start = [image], 0
        for end in self._ends:
            maps.append(self.features[start:end](maps[-1]))
            start = end
        return tuple(maps[1:])

    def head(self, top: Tensor) -> Tensor:
        """Logits."""
        return self.classifier(self.avgpool(top).flatten(1))


def initialise(network: nn.Module, *, linear_deviation: float | None = None) -> None:
    """Weights to start from: He's for convolutions (by their outputs), a small deviation for linear layers if told.

    He et al. 2015, doi:10.1109/ICCV.2015.123. Biases start at 0.
    """
    for layer in network.modules():
        if isinstance(layer, tuple(CONV.values())):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.Linear) and linear_deviation is not None:
            nn.init.normal_(layer.weight, 0, linear_deviation)
        else:
            continue
        if layer.bias is not None and (linear_deviation is not None or not isinstance(layer, nn.Linear)):
            nn.init.zeros_(layer.bias)


def check_word(name: str, word: str, known: tuple[str, ...]) -> None:
    """Refuse a word that is not among the known ones.

    Raises:
        InputError: naming them.
    """
    if word not in known:
        raise InputError(f"{name} is one of {', '.join(known)}, got {word!r}")


def dense_head(features: int, hidden: int, classes: int, *, dropout: float, dropout_first: bool) -> nn.Sequential:
    """The three linear layers of VGG and, with the dropout in front of its linear layer, of AlexNet."""

    def pair(before: int) -> list[nn.Module]:
        layer = [nn.Linear(before, hidden), nn.ReLU(inplace=True)]
        return [nn.Dropout(dropout), *layer] if dropout_first else [*layer, nn.Dropout(dropout)]

    return nn.Sequential(*pair(features), *pair(hidden), nn.Linear(hidden, classes))
