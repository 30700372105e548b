"""Networks that tell fibre from background, voxel by voxel: 3-D WaveUNet, its variants and its baselines.

Conventions
    Images are ``(N, 1, D, H, W)`` in file axis order, normalised to about zero mean and unit deviation; the result
    holds logits ``(N, classes, D, H, W)`` in float32 (softmax is in the loss). Channel 0 is background.
    Any size: inputs are padded at the end of each axis to a multiple of 16 by repeating the border, the logits are
    cropped.

Structure
    Four levels down and up, two convolutions (3x3x3, batch norm, ReLU) per stage, widths w, 2w, 4w, 8w. All networks
    are one skeleton, :class:`FibreNet`, and differ only in how a level changes resolution
    (:mod:`medwave.models.resampling`):

    ========================  ======================================  ===============================
    name                      down                                    up
    ========================  ======================================  ===============================
    ``neuron_wavesnet_v1``    low band of the wavelet transform       trilinear
    ``neuron_wavesnet_v2``    low band                                transposed convolution, kernel 1
    ``neuron_wavesnet_v3``    all bands, details kept                 inverse transform
    ``neuron_wavesnet_v4``    all bands, details kept                 inverse transform, small details set to 0
    ``neuron_segnet``         maximum, positions kept; no skip        values put back at their positions
    ``neuron_unet_v1``        maximum                                 transposed convolution, kernel 1
    ``neuron_unet_v2``        convolution, kernel 1, stride 2         trilinear
    ``neuron_unet_transposed``  maximum                               transposed convolution, kernel 2
    ``neuron_unet_strided``   convolution, kernel 2, stride 2         transposed convolution, kernel 2
    ``neuron_unet_average``   average                                 trilinear
    ``neuron_unet_blur``      binomial blur, then every other sample  trilinear
    ========================  ======================================  ===============================

    The published baselines v1 and v2 are handicapped: a kernel of 1 with stride 2 sees, or writes, one voxel in eight.
    The last four are fair. Trilinear interpolation is the published one (corner samples aligned), so those networks
    shift slightly with the size of the input.

Tiles
    In evaluation mode a voxel depends on nothing farther away than :attr:`FibreNet.halo_voxels`. Tiles with that
    halo, cut at multiples of 16, give what the whole volume gives. Smaller halos are an approximation.

Precision and speed on CPUs
    ``model.to(memory_format=torch.channels_last_3d)`` inside ``torch.autocast("cpu", torch.bfloat16)`` is the fastest
    form where the CPU has bfloat16 instructions. The wavelet transforms and the last convolution stay float32.
    CPU seconds on one thread (AVX512-BF16, no AMX) for one cube of 32x128x128, forward, and forward plus backward:

    ========================  ===========  ===========  ===========
    version 4, haar           width 4      width 8      width 16
    ========================  ===========  ===========  ===========
    float32                   0.78, 2.61   0.71, 2.29   0.99, 3.52
    float32, channels last    0.76, 2.58   0.53, 1.91   1.10, 3.49
    bfloat16                  0.09, 0.54   0.17, 0.72   0.38, 1.36
    bfloat16, channels last   0.09, 0.28   0.16, 0.49   0.49, 1.44
    ========================  ===========  ===========  ===========

    In float32 width 4 costs as much as width 8: torch has no fast convolution from 4 to 4 channels.

Source: Li & Shen, Bioinformatics 38(3):809 (2022), doi:10.1093/bioinformatics/btab716.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medwave.core.errors import GeometryError, InputError
from medwave.models import resampling
from medwave.models.convolution import Conv3d
from medwave.models.resampling import Resampling
from medwave.wavelets import shrinkage

LEVELS = 4
SIZE_MULTIPLE = 2**LEVELS
"""Each axis is padded to a multiple of this."""

BORDERS = ("zeros", "replicate")
"""What a 3x3x3 convolution sees beyond the border: nothing, as published, or the border again.

With zeros every layer makes the border darker than anything inside, and the network learns to look for it, so that a
cut is felt farther away than with replicated borders, and cubes need more overlap.
"""

VARIANTS = ("v1", "v2", "v3", "v4")

BASELINES: dict[str, Callable[[int], Resampling]] = {
    "segnet": resampling.Unpooling,
    "unet_v1": lambda channels: Resampling(resampling.max_pool(), resampling.transposed(channels, 1)),
    "unet_v2": lambda channels: Resampling(resampling.strided(channels, 1), resampling.trilinear()),
    "unet_transposed": lambda channels: Resampling(resampling.max_pool(), resampling.transposed(channels, 2)),
    "unet_strided": lambda channels: Resampling(resampling.strided(channels, 2), resampling.transposed(channels, 2)),
    "unet_average": lambda channels: Resampling(resampling.average_pool(), resampling.trilinear()),
    "unet_blur": lambda channels: Resampling(resampling.BlurPool(), resampling.trilinear()),
}
"""What each baseline does between two resolutions, given the number of channels."""


class _Stage(nn.Sequential):
    """Two convolutions, each with batch norm and ReLU."""

    def __init__(self, inputs: int, middle: int, outputs: int, border: str) -> None:
        layers: list[nn.Module] = []
        for a, b in ((inputs, middle), (middle, outputs)):
            convolution = Conv3d(a, b, 3, padding=1, padding_mode=border)
            layers += [convolution, nn.BatchNorm3d(b), nn.ReLU(inplace=True)]
        super().__init__(*layers)


class FibreNet(nn.Module):
    """The skeleton that all networks share; use :class:`WaveUNet` or :class:`BaselineUNet`.

    Args:
        width: channels of the first stage.
        in_channels: channels of the image.
        classes: number of labels, background included.
        make_resampling: given a number of channels, how a level halves and doubles the resolution.
        border: what the convolutions see beyond the border, a word of :data:`BORDERS`.

    Attributes:
        options: the arguments that build the network again (weight files carry them).

    Raises:
        InputError: when a number of channels or classes is too small, or the border is unknown.
    """

    options: dict[str, Any]

    def __init__(
        self,
        width: int,
        in_channels: int,
        classes: int,
        make_resampling: Callable[[int], Resampling],
        border: str = "zeros",
    ) -> None:
        super().__init__()
        if border not in BORDERS:
            raise InputError(f"border is one of {', '.join(BORDERS)}, got {border!r}")
        if width < 1 or in_channels < 1 or classes < 2:
            raise InputError(
                "a fibre network needs width >= 1, in_channels >= 1 and classes >= 2, "
                f"got {width}, {in_channels} and {classes}"
            )
        self.in_channels = in_channels
        widths = [width * 2**level for level in range(LEVELS)]
        self.encoders = nn.ModuleList(
            _Stage(a, b, b, border) for a, b in zip([in_channels, *widths[:-1]], widths, strict=True)
        )
        self.resamplings = nn.ModuleList(make_resampling(channels) for channels in widths)
        self.bottom = _Stage(widths[-1], widths[-1], widths[-1], border)
        joined = 2 if self._skips() else 1
        self.decoders = nn.ModuleList(
            _Stage(joined * a, a, b, border) for a, b in zip(widths, [widths[0], *widths[:-1]], strict=True)
        )
        self.head = nn.Conv3d(widths[0], classes, 1)

    def _skips(self) -> bool:
        return all(level.skip for level in self.resamplings)

    @property
    def halo_voxels(self) -> int:
        """How far away along an axis an input voxel can be and still reach an output voxel (tiles at multiples of 16).

        94 for haar, more for longer wavelets. Not exact where interpolation aligns corners (see the module).
        """
        first, last = 0, SIZE_MULTIPLE - 1
        for level in self.resamplings:
            first, last = level.seen_by_up(first - 2, last + 2)
        first, last = first - 2, last + 2
        for level in reversed(self.resamplings):
            first, last = level.seen_by_down(first, last)
            first, last = first - 2, last + 2
        return max(-first, last - SIZE_MULTIPLE + 1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits ``(N, classes, D, H, W)``, float32 (float64 for a float64 network).

        Raises:
            GeometryError: when the image is not ``(N, in_channels, D, H, W)`` or is empty.
        """
        if image.dim() != 5 or image.shape[1] != self.in_channels or image.numel() == 0:
            raise GeometryError(
                f"the network takes images (N, {self.in_channels}, D, H, W), got shape {tuple(image.shape)}; "
                "add missing axes with unsqueeze"
            )
        shape = image.shape[2:]
        return self._head(self._features(_pad(image)))[(..., *(slice(n) for n in shape))]

    def _features(self, x: Tensor) -> Tensor:
        """Features ``(N, width, ...)`` of an image whose axes are multiples of 16."""
        encoded, kept = [], []
        for encoder, level in zip(self.encoders, self.resamplings, strict=True):
            feature = encoder(x)
            x, details = level.down(feature)
            encoded.append(feature)
            kept.append(details)
        x = self.bottom(x)
        for decoder, level in reversed(list(zip(self.decoders, self.resamplings, strict=True))):
            skip = encoded.pop()
            x = level.up(x, kept.pop(), skip.shape[2:])
            x = decoder(torch.cat([x, skip], dim=1) if level.skip else x)
        return x

    def _head(self, features: Tensor) -> Tensor:
        """The last convolution, float32 also under autocast: logits rounded to bfloat16 would shift probabilities.

        A kernel of one voxel is a matrix product, which is faster, and gives logits in plain memory order.
        """
        dtype = torch.promote_types(self.head.weight.dtype, torch.float32)
        with torch.autocast(features.device.type, enabled=False):
            weight, bias = self.head.weight.to(dtype).flatten(1), self.head.bias.to(dtype)
            logits = torch.matmul(weight, features.to(dtype).flatten(2)) + bias[:, None]
        return logits.unflatten(2, features.shape[2:])


class WaveUNet(FibreNet):
    """3-D WaveUNet: a U-shape that halves resolution by wavelet transforms and doubles it by their inverse.

    Args:
        width: channels of the first stage; 4 is the published one (203,122 parameters with ``v1``, ``v3``, ``v4``).
        wavelet: any discrete wavelet of PyWavelets.
        in_channels: channels of the image.
        classes: labels, background included.
        variant: ``"v1"`` to ``"v4"``, see the module.
        threshold: what variant 4 does with details: ``"hard"`` (the default: those not above the value become 0),
            ``"soft"`` (all shrink by the value) or ``"learned"`` (soft, one value per channel and band, learned).
        threshold_value: of variant 4 (the start value where it is learned); 0.25 unless told.
        mode: how signals go on at the border (see :mod:`medwave.wavelets`); without effect for haar.
        filter_roles: ``"reference"`` analyses with the filters that PyWavelets synthesises with, as published;
            ``"pywt"`` the other way round. The same for orthogonal wavelets.
        border: of the convolutions, a word of :data:`BORDERS`.

    Raises:
        InputError: for an unknown name, a negative threshold, a threshold for another variant than ``v4``, or a mode
            that makes more coefficients than samples with ``v1`` or ``v2``.

    >>> sum(p.numel() for p in WaveUNet().parameters())
    203122
    """

    def __init__(
        self,
        width: int = 4,
        wavelet: str = "haar",
        in_channels: int = 1,
        classes: int = 2,
        variant: str = "v4",
        *,
        threshold: str | None = None,
        threshold_value: float | None = None,
        mode: str = "periodization",
        filter_roles: str = "reference",
        border: str = "zeros",
    ) -> None:
        if variant not in VARIANTS:
            raise InputError(f"variant is one of {', '.join(VARIANTS)}, got {variant!r}")
        if variant == "v4":
            threshold = "hard" if threshold is None else threshold
            threshold_value = 0.25 if threshold_value is None else float(threshold_value)
        elif threshold is not None or threshold_value is not None:
            raise InputError(f"only variant v4 has a threshold, {variant} has none; leave it out or use v4")
        bank = {"mode": mode, "filter_roles": filter_roles}

        def make(channels: int) -> Resampling:
            if variant in ("v1", "v2"):
                up = resampling.trilinear() if variant == "v1" else resampling.transposed(channels, 1)
                return Resampling(resampling.low_band(wavelet, **bank), up)
            shrink = None if threshold is None else shrinkage(threshold, threshold_value or 0.0, channels)
            return resampling.WaveletResampling(wavelet, shrink, **bank)

        super().__init__(width, in_channels, classes, make, border)
        self.options = {
            "width": int(width),
            "wavelet": str(wavelet),
            "in_channels": int(in_channels),
            "classes": int(classes),
            "variant": variant,
            "threshold": threshold,
            "threshold_value": threshold_value,
            **bank,
            "border": border,
        }


class BaselineUNet(FibreNet):
    """A network of the same shape without wavelets.

    Args:
        width: channels of the first stage.
        design: a key of :data:`BASELINES`.
        in_channels: channels of the image.
        classes: labels, background included.
        border: of the convolutions, a word of :data:`BORDERS`.

    Raises:
        InputError: for an unknown design or border.
    """

    def __init__(
        self,
        width: int = 4,
        design: str = "unet_transposed",
        in_channels: int = 1,
        classes: int = 2,
        *,
        border: str = "zeros",
    ) -> None:
        if design not in BASELINES:
            raise InputError(f"design is one of {', '.join(BASELINES)}, got {design!r}")
        super().__init__(width, in_channels, classes, BASELINES[design], border)
        self.options = {
            "width": int(width),
            "design": design,
            "in_channels": int(in_channels),
            "classes": int(classes),
            "border": border,
        }


def network_names() -> tuple[str, ...]:
    """Names that :func:`fibre_network` knows."""
    return (*(f"neuron_wavesnet_{v}" for v in VARIANTS), *(f"neuron_{b}" for b in BASELINES))


def fibre_network(name: str = "neuron_wavesnet_v4", **options: Any) -> FibreNet:
    """Build a network by the name it has in the table above.

    Args:
        name: one of :func:`network_names`.
        options: arguments of :class:`WaveUNet` or :class:`BaselineUNet`.

    Raises:
        InputError: for an unknown name or an option that the network does not have.
    """
    if name not in network_names():
        raise InputError(f"network is one of {', '.join(network_names())}, got {name!r}")
    kind = name.removeprefix("neuron_")
    try:
        if kind in BASELINES:
            return BaselineUNet(design=kind, **options)
        return WaveUNet(variant=kind.removeprefix("wavesnet_"), **options)
    except TypeError as error:
        raise InputError(f"{name}: {error}") from error


def neuron_segnet(width: int = 4, in_channels: int = 1, classes: int = 2) -> BaselineUNet:
    """The published SegNet: 166,402 parameters at width 4."""
    return BaselineUNet(width, "segnet", in_channels, classes)


def neuron_unet_v1(width: int = 4, in_channels: int = 1, classes: int = 2) -> BaselineUNet:
    """The published U-Net v1: 204,542 parameters at width 4."""
    return BaselineUNet(width, "unet_v1", in_channels, classes)


def neuron_unet_v2(width: int = 4, in_channels: int = 1, classes: int = 2) -> BaselineUNet:
    """The published U-Net v2: 204,542 parameters at width 4."""
    return BaselineUNet(width, "unet_v2", in_channels, classes)


def _pad(image: Tensor) -> Tensor:
    missing: Sequence[int] = [-n % SIZE_MULTIPLE for n in image.shape[2:]]
    if not any(missing):
        return image
    return F.pad(image, [width for n in reversed(missing) for width in (0, n)], mode="replicate")
