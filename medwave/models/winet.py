"""WiNet: a wavelet network that predicts a displacement or velocity field from coarse to fine.

Conventions
    Images are ``(N, 1, D, H, W)`` in file axis order, both on the fixed image's grid, intensities of about [0, 1].
    A field is ``(N, 3, D, H, W)``: channel i is the component along array axis i in VOXELS of that grid; pull-back,
    ``warped(p) = moving(p + u(p))``.

Structure (wavelet bands in, wavelet bands out)
    The encoder reads the eight wavelet bands of both images at half resolution and goes down to 1/16. The decoder
    gives, at 1/8, all eight bands of the field and, at 1/4 and 1/2, its seven detail bands. The inverse transform
    joins them: approximation at 1/4, then 1/2, then the field. Each detail band is refined on its own from the
    same band of the coarser level.

Differences from the published network, all outside the layer shapes
    Voxel units instead of [-1, 1]. Any size: inputs are padded at the end of each axis to a multiple of 16 by
    repeating the border, and the field is cropped. Start values: see :meth:`WiNet.reset_parameters`.

Precision
    Under ``torch.autocast`` the convolutions of the U-shape and of the detail refinement run in half precision; the
    wavelet transforms, the head that carries the mean displacement and every operation on the field itself run in
    float32, because bfloat16 would round a displacement of 10 voxels by 0.03 voxels at each step.

Predictions on a CPU
    In inference mode on a CPU the grouped and depth-wise convolutions run as compiled loops in float32
    (:mod:`medwave.models.winet_loops`), and no parts are joined in memory before they are convolved.

Source: WiNet, MICCAI 2024, doi:10.48550/arXiv.2407.13426.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medwave import fields
from medwave.core.errors import GeometryError, InputError
from medwave.models.convolution import Conv3d
from medwave.wavelets import DWT, IDWT
from medwave.wavelets.operator import needs_plain_form

SIZE_MULTIPLE = 16
"""Each axis is padded to a multiple of this: one wavelet level and three strided convolutions."""

SLOPE = 0.01
"""Negative slope of the leaky rectifiers."""

_DETAILS = 7

_HEAD_GAIN = 0.1
"""What the outputs of the heads are multiplied by: steps of an optimiser that moves all weights alike (Adam) then move
the field a tenth as far. At 1 a single step at 1e-3 moves it by over a hundred voxels, and features die out."""

_HEAD_SPREAD = 3e-3


def _conv(inputs: int, outputs: int, *, stride: int = 1, groups: int = 1, bias: bool = True) -> nn.Conv3d:
    return Conv3d(inputs, outputs, 3, stride=stride, padding=1, groups=groups, bias=bias)


def _conv_pair(inputs: int, outputs: int, *, stride: int = 1, norm: bool = False) -> nn.Sequential:
    """Two 3x3x3 convolutions, each with its activation (and instance norm before it).

    Instance norm is written as group norm with one channel per group: the same numbers, but torch's group norm keeps
    channels-last tensors as they are and is several times as fast on CPUs.
    """
    layers: list[nn.Module] = []
    for convolution in (_conv(inputs, outputs, stride=stride), _conv(outputs, outputs)):
        layers += [
            convolution,
            *([nn.GroupNorm(outputs, outputs, affine=False)] if norm else []),
            nn.LeakyReLU(SLOPE, inplace=True),
        ]
    return nn.Sequential(*layers)


class _Up(nn.Module):
    """Double the resolution, join the encoder's features of that level, two convolutions."""

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(inputs, inputs, 2, stride=2)
        self.act = nn.LeakyReLU(SLOPE, inplace=True)
        self.convs = _conv_pair(inputs + skip, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        if _predicting(skip):
            return self._in_parts(self.act(self.up(x)), skip)
        return self.convs(torch.cat([self.act(self.up(x)), skip], dim=1))

    def _in_parts(self, x: Tensor, skip: Tensor) -> Tensor:
        """The same without joining both in memory: the sum of a convolution of either."""
        first, *rest = self.convs
        of_x, of_skip = first.weight.split([x.shape[1], skip.shape[1]], dim=1)
        x = F.conv3d(x, of_x, first.bias, padding=1)
        x += F.conv3d(skip, of_skip, padding=1)
        for layer in rest:
            x = layer(x)
        return x


class _Smooth(nn.Module):
    """Depth-wise 3x3x3 convolution of the three field components, without bias, never below float32.

    When only predicting the field is overwritten.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, 1, 3, 3, 3))

    def forward(self, field: Tensor) -> Tensor:
        if _predicting(field):
            from medwave.models.winet_loops import smoothed_in_place

            return smoothed_in_place(field, self.weight)
        return F.conv3d(field, self.weight.to(field.dtype), padding=1, groups=3)


def _predicting(x: Tensor) -> bool:
    """Whether compiled loops of the CPU may take the place of torch's: no gradient, no transform, no recorded graph."""
    on_cpu = x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16)
    return (
        on_cpu and torch.is_inference_mode_enabled()
        and not torch.compiler.is_compiling() and not needs_plain_form(x, "auto")
    )  # fmt: skip


class _RefineDetails(nn.Module):
    """Seven separate small networks, one per detail band: coarser version and own version in, refined band out."""

    def __init__(self) -> None:
        super().__init__()
        both = 2 * 3 * _DETAILS
        self.net = nn.Sequential(
            _conv(both, both, groups=_DETAILS),
            nn.LeakyReLU(SLOPE, inplace=True),
            _conv(both, 3 * _DETAILS, groups=_DETAILS),
        )

    def forward(self, approximation: Tensor, coarser: Tensor, own: Tensor) -> Tensor:
        """The bands of a level, ``(N, 3, 8, ...)``, never below float32: the approximation and the details, refined
        from those of the next coarser level and from their own, ``(N, 21, ...)``.
        """
        if _predicting(own):
            from medwave.models.winet_loops import refined_bands  # compiled loops take a third of a second to import

            return refined_bands(self.net, approximation, coarser, own)
        exact = torch.promote_types(coarser.dtype, torch.float32)
        up = F.interpolate(coarser.to(exact), scale_factor=2, mode="trilinear", align_corners=True).to(own.dtype)
        bands = torch.stack([_by_band(up), _by_band(own)], dim=2).flatten(1, 3)
        first, act, last = self.net
        return _joined(approximation, _convolve_bands(act(_convolve_bands(bands, first)), last))


def _joined(approximation: Tensor, details: Tensor) -> Tensor:
    """``(N, 3, ...)`` and ``(N, 21, ...)`` -> the bands of each component, ``(N, 3, 8, ...)``."""
    by_component = _by_band(details).transpose(1, 2).to(approximation.dtype)
    return torch.cat([approximation[:, :, None], by_component], dim=2)


def _convolve_bands(x: Tensor, layer: nn.Module) -> Tensor:
    """A convolution of each band for itself; on a GPU one of all bands with zeros between, which has fast kernels."""
    return F.conv3d(x, dense_weight(layer.weight, _DETAILS), layer.bias, padding=1) if x.is_cuda else layer(x)


def dense_weight(weight: Tensor, groups: int) -> Tensor:
    """``(O, I, 3, 3, 3)`` of a convolution that does what one with groups does with ``(O, I / groups, 3, 3, 3)``."""
    blocks = weight.unflatten(0, (groups, -1))[:, :, None]
    own = torch.eye(groups, dtype=weight.dtype, device=weight.device).view(groups, 1, groups, 1, 1, 1, 1)
    return (blocks * own).flatten(2, 3).flatten(0, 1)


def _by_band(details: Tensor) -> Tensor:
    """``(N, 21, ...)`` -> ``(N, 7, 3, ...)``: channel ``3 * band + component``."""
    return details.unflatten(1, (_DETAILS, 3))


class WiNet(nn.Module):
    """Predict the displacement field that brings a moving image onto a fixed one.

    Args:
        width: number of channels the layer widths are multiples of; 8 is the published brain model
            (1,418,573 parameters).
        wavelet: any orthogonal or biorthogonal PyWavelets name; ``"haar"`` for brains, ``"db4"`` for hearts.
        diffeomorphic: read the network's field as a stationary velocity and integrate it (7 squarings), so that
            the displacement is invertible.
        spacing_mm: voxel size of the images it is trained on and to be used on.

    Shape:
        moving, fixed: ``(N, 1, D, H, W)``, any size. Returns ``(N, 3, D, H, W)`` in voxels.
    """

    def __init__(
        self, width: int = 8, wavelet: str = "haar", diffeomorphic: bool = False, spacing_mm: float = 1.0
    ) -> None:
        super().__init__()
        if width < 1:
            raise InputError(f"width is the number of base channels and must be at least 1, got {width}")
        if not spacing_mm > 0:
            raise InputError(f"spacing_mm is the voxel size the network works at and is positive, got {spacing_mm}")
        self.options = {
            "width": int(width), "wavelet": str(wavelet), "diffeomorphic": bool(diffeomorphic),
            "spacing_mm": float(spacing_mm),
        }  # fmt: skip
        self.diffeomorphic = bool(diffeomorphic)
        self.spacing_mm = float(spacing_mm)
        narrow, wide = 4 * width, 8 * width
        self.dwt, self.idwt = DWT(wavelet, 3), IDWT(wavelet, 3)
        self.encoders = nn.ModuleList(
            [
                _conv_pair(16, narrow, norm=True),
                _conv_pair(narrow, narrow, stride=2),
                _conv_pair(narrow, wide, stride=2),
                _conv_pair(wide, wide, stride=2),
            ]
        )
        self.decoders = nn.ModuleList([_Up(wide, wide, wide), _Up(wide, narrow, wide), _Up(wide, narrow, narrow)])
        self.heads = nn.ModuleList(
            [
                _conv(wide, 3 + 3 * _DETAILS, bias=False),
                _conv(wide, 3 * _DETAILS, bias=False),
                _conv(narrow, 3 * _DETAILS, bias=False),
            ]
        )
        self.refine = nn.ModuleList([_RefineDetails(), _RefineDetails()])
        self.smooth = nn.ModuleList([_Smooth(), _Smooth(), _Smooth()])
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start values that make an untrained network predict almost no motion, and gradients flow everywhere.

        Convolutions before a rectifier: He normal, zero bias. Heads: normal with deviation 0.003, so the first
        field is about a tenth of a voxel at most. Smoothing filters: identity times 2**1.5, which undoes the gain of
        the inverse transform: a coarse coefficient then is a displacement in voxels of the full grid.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
                mode = "fan_out" if isinstance(module, nn.ConvTranspose3d) else "fan_in"
                nn.init.kaiming_normal_(module.weight, a=SLOPE, mode=mode)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for head in self.heads:
            nn.init.normal_(head.weight, std=_HEAD_SPREAD)
        with torch.no_grad():
            for filter_ in self.smooth:
                filter_.weight.zero_()
                filter_.weight[:, :, 1, 1, 1] = 2**1.5

    def forward(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """Displacement in voxels of the fixed grid, ``(N, 3, D, H, W)``, float32."""
        field = self._field(moving, fixed)
        return self._integrate(field) if self.diffeomorphic else field

    def velocity(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """Stationary velocity in voxels, ``(N, 3, D, H, W)``: ``integrate(-velocity)`` is the inverse displacement.

        Raises:
            InputError: when the network is not diffeomorphic and has no velocity.
        """
        if not self.diffeomorphic:
            raise InputError("this WiNet predicts a displacement; build it with diffeomorphic=True to get a velocity")
        return self._field(moving, fixed)

    def _integrate(self, velocity: Tensor) -> Tensor:
        with torch.autocast(velocity.device.type, enabled=False):
            return fields.integrate(velocity, squarings=7)

    def _field(self, moving: Tensor, fixed: Tensor) -> Tensor:
        _check_pair(moving, fixed)
        shape = fixed.shape[2:]
        exact = torch.promote_types(next(self.parameters()).dtype, torch.float32)
        features = self._decode(self._image_bands(moving, fixed, exact))
        eighth = self._coarse_head(features.pop(0), exact)
        approximation, details = eighth[:, :3], eighth[:, 3:]
        approximation = self._field_of(_joined(approximation, details), 0)
        for level, (head, refine) in enumerate(zip(self.heads[1:], self.refine, strict=True), start=1):
            own = head(features.pop(0)).mul_(_HEAD_GAIN)
            approximation = self._field_of(refine(approximation, details, own), level)
            details = own
        return approximation[(..., *(slice(n) for n in shape))].contiguous()

    def _field_of(self, bands: Tensor, level: int) -> Tensor:
        """The field of the next finer level, or in the end of the images."""
        with torch.autocast(bands.device.type, enabled=False):
            return self.smooth[level](self.idwt(bands))

    def _image_bands(self, moving: Tensor, fixed: Tensor, exact: torch.dtype) -> Tensor:
        """The 16 bands of both images at 1/2, in the precision of the weights."""
        with torch.autocast(fixed.device.type, enabled=False):
            bands = self.dwt(_pad(torch.cat([moving, fixed], dim=1).to(exact)))
        return bands.flatten(1, 2).to(next(self.parameters()).dtype)

    def _decode(self, x: Tensor) -> list[Tensor]:
        """Features at 1/8, 1/4 and 1/2 from the image bands, whose memory is free once they are read."""
        skips = []
        for encoder in self.encoders:
            x = encoder(x)
            skips.append(x)
        features = []
        for decoder, skip in zip(self.decoders, reversed(skips[:-1]), strict=True):
            x = decoder(x, skip)
            features.append(x)
        return features

    def _coarse_head(self, features: Tensor, exact: torch.dtype) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return F.conv3d(features.to(exact), _HEAD_GAIN * self.heads[0].weight.to(exact), padding=1)


def _check_pair(moving: Tensor, fixed: Tensor) -> None:
    if fixed.ndim != 5 or fixed.shape[1] != 1 or moving.shape != fixed.shape or 0 in fixed.shape:
        raise GeometryError(
            "WiNet takes a moving and a fixed image of the same shape (N, 1, D, H, W), got "
            f"{tuple(moving.shape)} and {tuple(fixed.shape)}; resample the moving image onto the fixed grid first"
        )


def _pad(image: Tensor) -> Tensor:
    missing = [-n % SIZE_MULTIPLE for n in image.shape[2:]]
    if not any(missing):
        return image
    return F.pad(image, [width for n in reversed(missing) for width in (0, n)], mode="replicate")


def winet_diff(width: int = 8, wavelet: str = "haar") -> WiNet:
    """WiNet-diff: the same network whose field is a stationary velocity, integrated to an invertible map."""
    return WiNet(width, wavelet, diffeomorphic=True)
